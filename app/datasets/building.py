"""Check rows, place them in splits, and measure what the splits leak: all that precedes sealing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.datasets.rows import MadeRows, Search
from app.errors import BadInput
from tuning.builder import DrawConfig, least_tokens
from tuning.examples import load_examples
from tuning.leakage import drop_held_out_distractors, leak_premium, nearness
from tuning.quality.assessment import (
    DEFAULT_MIN_SCORE,
    QualityInputs,
    QualityReport,
    assess,
)
from tuning.quality.coverage import Coverage, measure_coverage
from tuning.quality.duplicates import near_pairs
from tuning.quality.personal_data import find_personal_data, mask_personal_data
from tuning.snapshot import Row
from tuning.splits import Split, SplitItem, SplitResult, assign_splits
from tuning.values import fingerprint

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
PersonalData = Literal["mask", "refuse", "keep"]
HeldOutDistractors = Literal["drop", "keep"]

_PARAPHRASE = 0.9
_CONFIRM_FROM, _CONFIRM_SHARE = 200, 0.1


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How a snapshot is built.

    Attributes:
        dev: Share of the components to choose checkpoints with.
        test: Share to judge with.
        confirm: Share to estimate a chosen effect with again; None is a tenth from 200 rows up.
        seed: Another seed gives another split of what was not held out before.
        min_score: Rows with a lower quality score are left out, in [0, 1].
        personal_data: "mask" it, "refuse" the row, or "keep" it (then it costs no score).
        max_tokens: A row that does not fit, even without distractors, is left out.
        language: The language the answers should have.
        ratings: Also write thumbs as `ratings.jsonl`.
        replay: File of general examples that keep the model from forgetting.
        replay_share: Their share of the training rows, in [0, 0.5].
        held_out_distractors: Passages that held-out rows are answered from are "drop"ped from the
            distractors of training rows, or "keep" their place (then the card flags them).
    """

    dev: float = 0.1
    test: float = 0.1
    confirm: float | None = None
    seed: int = 0
    min_score: float = DEFAULT_MIN_SCORE
    personal_data: PersonalData = "mask"
    max_tokens: int = 1024
    language: str = "en"
    ratings: bool = False
    replay: Path | None = None
    replay_share: float = 0.05
    held_out_distractors: HeldOutDistractors = "drop"

    def __post_init__(self) -> None:
        if not 0 <= self.min_score <= 1:
            raise BadInput(f"min_score={self.min_score} must lie in [0, 1]")
        if not 0 <= self.replay_share <= 0.5:
            raise BadInput(f"replay_share={self.replay_share} must lie in [0, 0.5]")
        if self.personal_data not in ("mask", "refuse", "keep"):
            raise BadInput(f"personal_data={self.personal_data!r}: choose mask, refuse, keep")
        if self.held_out_distractors not in ("drop", "keep"):
            raise BadInput(f"held_out_distractors={self.held_out_distractors!r}: choose drop, keep")


@dataclass(frozen=True, slots=True)
class Tools:
    """What building uses besides the database.

    `embed` gives vectors of length 1, shape (n, d); without it paraphrases, coverage, label noise
    and the leak premium are not measured. `tokenizer` is the base model's; without it lengths
    are not checked before tuning.
    """

    search: Search
    embed: Embed | None = None
    tokenizer: Any = None


@dataclass(slots=True)
class Draft:
    """Rows on their way into a snapshot."""

    made: MadeRows
    vectors: NDArray[np.float32] | None = None
    masked: dict[str, list[str]] = field(default_factory=dict)
    report: QualityReport | None = None
    audit: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> list[Row]:
        """The rows that are left."""
        return self.made.rows


def check(made: MadeRows, options: BuildOptions, tools: Tools, traffic: Sequence[str]) -> Draft:
    """Mask, assess, and leave out the rows that fall below the score, each with its reasons."""
    draft = Draft(made)
    if options.personal_data == "mask":
        for row in made.rows:
            _mask(row, draft.masked)
    if tools.embed is not None and made.rows:
        draft.vectors = tools.embed([row["question"] for row in made.rows])
    config = DrawConfig(max_length=options.max_tokens)
    tokens = None
    if tools.tokenizer is not None:
        tokens = [least_tokens(row, tools.tokenizer, config) for row in made.rows]
    inputs = QualityInputs(
        tokens=tokens,
        max_tokens=options.max_tokens,
        vectors=draft.vectors,
        masked=draft.masked,
        coverage=_coverage(draft, tools, traffic),
        language=options.language,
        ignore=frozenset(["personal_data"] if options.personal_data == "keep" else []),
    )
    draft.report = assess(made.rows, inputs)
    _leave_out(draft, draft.report, options)
    return draft


def place(
    draft: Draft,
    options: BuildOptions,
    pinned: Mapping[str, Split],
    others: Sequence[SplitItem] = (),
) -> SplitResult:
    """Give every row its component and split; `others` are placed with them, such as pairs."""
    confirm = options.confirm
    if confirm is None:
        confirm = _CONFIRM_SHARE if len(draft.rows) >= _CONFIRM_FROM else 0.0
    items = _split_items(draft)
    result = assign_splits(
        [*items, *others],
        seed=options.seed,
        dev=options.dev,
        test=options.test,
        confirm=confirm,
        pinned=pinned,
        cut_giant=True,
    )
    for row in draft.rows:
        row["component"] = result.component[row["id"]]
        row["split"] = result.split[row["id"]]
    draft.audit = asdict(result.audit)
    dropping = options.held_out_distractors == "drop"
    if draft.vectors is not None and draft.rows:
        premium = leak_premium(draft.rows, draft.vectors, distractors_dropped=dropping)
        near = nearness(draft.rows, draft.vectors)
        draft.audit["leak_premium"] = asdict(premium) if premium else None
        draft.audit["nearness"] = asdict(near) if near else None
    if dropping:
        draft.audit["held_out_distractors_dropped"] = drop_held_out_distractors(draft.rows)
    return result


def replay_rows(options: BuildOptions, training_rows: int) -> list[Row]:
    """General rows for the train split, so many that they are the share asked for."""
    if options.replay is None:
        return []
    examples = load_examples(options.replay).examples
    wanted = round(training_rows * options.replay_share / (1 - options.replay_share))
    if len(examples) < wanted:
        raise BadInput(
            f"{options.replay} holds {len(examples)} examples, a share of "
            f"{options.replay_share:g} takes {wanted}: give more or lower the share"
        )
    chosen = sorted(examples, key=lambda example: example.id)[:wanted]
    return [
        {
            "id": f"replay-{example.id}",
            "question": example.question,
            "answer": example.answer,
            "kind": "replay",
            "gold": [],
            "distractors": [],
            "component": f"replay-{example.id}",
            "split": "train",
            "system": example.system,
            "history": list(example.history),
            "provenance": {"origin": options.replay.name, "source_type": "replay"},
        }
        for example in chosen
    ]


def _mask(row: Row, masked: dict[str, list[str]]) -> None:
    public = " ".join(passage["text"] for passage in row["gold"])
    keep = [span.text for span in find_personal_data(public)]
    kinds: list[str] = []

    def mask(text: str) -> str:
        said, spans = mask_personal_data(text, keep=keep)
        kinds.extend(span.kind for span in spans)
        return said

    row["question"], row["answer"] = mask(row["question"]), mask(row["answer"])
    turns = row.get("history") or []
    row["history"] = [{"role": turn["role"], "content": mask(turn["content"])} for turn in turns]
    if kinds:
        masked[row["id"]] = kinds


def _leave_out(draft: Draft, report: QualityReport, options: BuildOptions) -> None:
    """Drop rows below the score, each with its reasons."""
    kept: list[int] = []
    for position, (row, quality) in enumerate(zip(draft.rows, report.rows, strict=True)):
        kinds = {finding.kind for finding in quality.findings}
        forbidden = options.personal_data == "refuse" and "personal_data" in kinds
        if quality.score >= options.min_score and not forbidden:
            kept.append(position)
            continue
        said = "; ".join(finding.reason for finding in quality.findings)
        draft.made.refuse(row["id"], f"quality {quality.score:.2f}: {said}")
    draft.made.rows = [draft.rows[position] for position in kept]
    if draft.vectors is not None:
        draft.vectors = draft.vectors[kept]


def _coverage(draft: Draft, tools: Tools, traffic: Sequence[str]) -> Coverage | None:
    if tools.embed is None or draft.vectors is None or not traffic:
        return None
    # Examples of them go into the manifest.
    shown = [mask_personal_data(question)[0] for question in traffic]
    return measure_coverage(tools.embed(traffic), draft.vectors, shown)


def _split_items(draft: Draft) -> list[SplitItem]:
    """Rows as items; paraphrases are connected, which leaves wording out of the held-out score."""
    rows = draft.rows
    alike: dict[int, set[str]] = {position: set() for position in range(len(rows))}
    questions = [row["question"] for row in rows]
    for pair in near_pairs(questions, names=False):
        alike[pair.first].add(rows[pair.second]["id"])
    if draft.vectors is not None:
        marks = [fingerprint(question) for question in questions]
        for one, vector in enumerate(draft.vectors):
            close = np.flatnonzero(draft.vectors[one + 1 :] @ vector >= _PARAPHRASE) + one + 1
            alike[one] |= {rows[two]["id"] for two in close if marks[one] == marks[two]}
    items = []
    for position, row in enumerate(rows):
        sources = list((row.get("provenance") or {}).get("sources", []))
        sources += [f"passage:{passage['id']}" for passage in row["gold"]]
        conversation = draft.made.conversation.get(row["id"])
        if conversation:
            sources.append(f"conversation:{conversation}")
        items.append(
            SplitItem(
                row["id"],
                # As preferences are placed, so that both find each other by their question.
                mask_personal_data(row["question"])[0],
                tuple(sources),
                draft.made.when.get(row["id"], ""),
                tuple(sorted(alike[position])),
            )
        )
    return items
