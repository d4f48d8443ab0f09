"""The rows of a snapshot: their format, their checks, and what they leak between the splits."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NotRequired, TypedDict, cast

from tuning.errors import SnapshotError
from tuning.prompt import DEFAULT_ABSTAIN, Message
from tuning.splits import ngram_overlap, normalise_question
from tuning.values import masked

KINDS = ("grounded", "style", "abstain", "replay")
SPLITS = ("train", "dev", "confirm", "test")
HELD_OUT = ("dev", "confirm", "test")
CITE = "{cite}"

Kind = Literal["grounded", "style", "abstain", "replay"]


class RowPassage(TypedDict):
    """A passage of a row; `title` is already "Title > Heading", `valid_from` an ISO date."""

    id: str
    title: str
    text: str
    valid_from: NotRequired[str]


class Row(TypedDict):
    """One row of a snapshot.

    `distractors` are near misses, hardest first. `answer` may hold `{cite}` where the citation
    goes; a grounded answer without it gets the citation at its end. `outdated` are former
    versions of gold that say something else, newest first. A replay row is a general one, shown
    without passages, that keeps the model from forgetting.
    """

    id: str
    question: str
    answer: str
    kind: Kind
    gold: list[RowPassage]
    distractors: list[RowPassage]
    component: str
    split: Literal["train", "dev", "confirm", "test"]
    outdated: NotRequired[list[RowPassage]]
    system: NotRequired[str | None]
    history: NotRequired[list[Message]]
    provenance: NotRequired[dict[str, Any]]


def validate_row(row: Any) -> Row:
    """Check one row against the format and return it.

    Raises:
        SnapshotError: Naming the row and what is wrong with it.
    """
    if not isinstance(row, Mapping):
        raise SnapshotError(f"a row must be an object, not {type(row).__name__}")
    name = row.get("id")
    _require(isinstance(name, str) and bool(name), "a row needs a text 'id'")
    for key in ("question", "answer", "component"):
        value = row.get(key)
        _require(isinstance(value, str) and bool(value.strip()), f"row {name!r}: no text {key!r}")
    _require(row.get("kind") in KINDS, f"row {name!r}: kind must be one of {', '.join(KINDS)}")
    _require(row.get("split") in SPLITS, f"row {name!r}: split must be one of {', '.join(SPLITS)}")
    for key in ("gold", "distractors"):
        _require(isinstance(row.get(key), list), f"row {name!r}: {key!r} must be a list")
    _require_passages(row)
    _require_kind(row)
    for turn in row.get("history") or []:
        good = isinstance(turn, Mapping) and turn.get("role") in ("user", "assistant")
        _require(good, f"row {name!r}: history turns have the role user or assistant")
    return cast(Row, row)


def check_across_rows(rows: list[Row]) -> None:
    """Refuse ids that occur twice and components that lie on two sides of a split.

    Raises:
        SnapshotError: Naming the id or the component.
    """
    ids = Counter(row["id"] for row in rows)
    repeated = [name for name, count in ids.items() if count > 1]
    _require(not repeated, f"row id {repeated[0] if repeated else ''!r} occurs more than once")
    side: dict[str, str] = {}
    for row in rows:
        first = side.setdefault(row["component"], row["split"])
        _require(
            first == row["split"],
            f"component {row['component']!r} is in both {first} and {row['split']}",
        )


def count_rows(rows: list[Row]) -> dict[str, dict[str, int]]:
    """Rows by split and kind, without zeros."""
    counts: Counter[tuple[str, str]] = Counter((row["split"], row["kind"]) for row in rows)
    return {
        split: {kind: counts[split, kind] for kind in KINDS if counts[split, kind]}
        for split in SPLITS
        if any(counts[split, kind] for kind in KINDS)
    }


def held_out_gold(rows: Iterable[Row]) -> frozenset[str]:
    """Marks of the passages that held-out rows are answered from; see `passage_marks`."""
    return frozenset(
        mark
        for row in rows
        if row["split"] in HELD_OUT
        for passage in row["gold"]
        for mark in passage_marks(passage)
    )


def passage_marks(passage: RowPassage) -> tuple[str, str]:
    """What tells that two passages are one: the id, or the same text under another id."""
    return f"id:{passage['id']}", f"text:{' '.join(passage['text'].split())}"


def shows_any(passages: Iterable[RowPassage], marks: frozenset[str]) -> bool:
    """Whether one of the passages has one of the marks."""
    return any(mark in marks for passage in passages for mark in passage_marks(passage))


def leak_audit(rows: list[Row]) -> dict[str, Any]:
    """Count what train and the held-out splits have in common; all zero is a clean split.

    A question "from a train template" equals a training question once values are blanked; that
    is no leak of facts, but scores on such questions say little about other wording. A whole
    answer that train has too, such as a canned reply, is counted apart from shared words. A
    training row also leaks a held-out passage that it shows beside its own.
    """
    golds = {split: set[str]() for split in SPLITS}
    for row in rows:
        golds[row["split"]].update(passage["id"] for passage in row["gold"])
    held = golds["dev"] | golds["confirm"] | golds["test"]
    held_gold = held_out_gold(rows)
    trained = [row for row in rows if row["split"] == "train"]
    answers = {normalise_question(row["answer"]) for row in trained}
    canned = [
        r for r in rows if r["split"] in HELD_OUT and normalise_question(r["answer"]) in answers
    ]
    train = [row["question"] for row in trained]
    held_out = [row["question"] for row in rows if row["split"] in HELD_OUT]
    questions = {normalise_question(question) for question in train}
    templates = {masked(question) for question in train}
    return {
        "components": len({row["component"] for row in rows}),
        "held_out_rows": len(held_out),
        "held_out_rows_sharing_13_words_with_train": ngram_overlap(
            (f"{r['question']} {r['answer']}" for r in trained),
            (
                r["question"]
                if normalise_question(r["answer"]) in answers
                else f"{r['question']} {r['answer']}"
                for r in rows
                if r["split"] in HELD_OUT
            ),
        ),
        "held_out_rows_with_a_train_answer": len(canned),
        "held_out_questions_equal_to_train": sum(
            normalise_question(question) in questions for question in held_out
        ),
        "held_out_questions_from_a_train_template": sum(
            masked(question) in templates for question in held_out
        ),
        "gold_passages_in_train_and_held_out": len(golds["train"] & held),
        "train_rows_showing_held_out_gold": sum(
            shows_any([*row["distractors"], *(row.get("outdated") or [])], held_gold)
            for row in trained
        ),
    }


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise SnapshotError(message)


def _require_passages(row: Mapping[str, Any]) -> None:
    name = row["id"]
    for key in ("gold", "distractors", "outdated"):
        for passage in cast(list[Any], row.get(key) or []):
            good = isinstance(passage, Mapping) and all(
                isinstance(passage.get(part), str) for part in ("id", "title", "text")
            )
            _require(good, f"row {name!r}: a passage in {key!r} needs texts id, title, text")
            day = passage.get("valid_from", "")
            _require(isinstance(day, str), f"row {name!r}: 'valid_from' must be an ISO date")
            dated = bool(day) or key != "outdated"
            _require(dated, f"row {name!r}: an outdated passage needs 'valid_from'")


def _require_kind(row: Mapping[str, Any]) -> None:
    name, kind = row["id"], row["kind"]
    if kind == "grounded":
        _require(bool(row["gold"]), f"row {name!r}: a grounded row needs a gold passage")
    else:
        _require(not row["gold"], f"row {name!r}: a row of kind {kind} has no gold passage")
        outdated = row.get("outdated") or []
        _require(not outdated, f"row {name!r}: only a grounded row has outdated passages")
    if kind == "abstain":
        starts = row["answer"].startswith(DEFAULT_ABSTAIN.rstrip("."))
        _require(starts, f"row {name!r}: an abstain answer must start with {DEFAULT_ABSTAIN!r}")
    _require(row["answer"].count(CITE) <= 1, f"row {name!r}: {CITE} occurs more than once")
