"""Everything that is wrong with a set of rows: findings per row, a score per row, a summary.

A score starts at 1 and loses the weight of each kind of finding once. The weights are judgement,
not measurement: a finding that makes a row harmful takes it below any threshold, a blemish does
not.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuning.quality.contradictions import find_contradictions
from tuning.quality.coverage import Coverage
from tuning.quality.credentials import find_credentials
from tuning.quality.duplicates import find_duplicates
from tuning.quality.formats import leftovers, odd_formats
from tuning.quality.label_noise import NoiseEstimate, estimate_label_noise
from tuning.quality.language import is_foreign
from tuning.quality.personal_data import find_personal_data, mask_personal_data
from tuning.quality.toxicity import abusive_words
from tuning.snapshot_rows import CITE, Row

WEIGHTS = {
    "secret": 1.0,
    "too_long": 1.0,
    "exact_duplicate": 1.0,
    "near_duplicate": 0.6,
    "contradiction": 0.6,
    "personal_data": 0.6,
    "toxicity": 0.6,
    "format": 0.4,
    "language": 0.4,
    "label_noise": 0.4,
    "unusual_length": 0.1,
    "masked_personal_data": 0.1,
}
DEFAULT_MIN_SCORE = 0.5
_MAX_AUTHOR_SHARE = 0.5
_MIN_AUTHOR_ROWS = 50
_OUTLIER_SIGMAS = 4.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a row; `kind` is a key of `WEIGHTS`."""

    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class RowQuality:
    """The score of a row in [0, 1], higher is better, and why it is not 1."""

    id: str
    score: float
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class QualityInputs:
    """What is known about the rows besides their text.

    Attributes:
        tokens: Tokens of each row's prompt and answer at the least (with gold, without any
            distractor), by the real tokenizer.
        max_tokens: A row above it would have to be cut, so it is refused.
        vectors: Embeddings of the questions, shape (n, d), of length 1.
        labels: Class of each row where the task has classes; None finds them by itself.
        masked: Kinds of personal data that were masked, by row id.
        coverage: How the rows compare with real traffic.
        language: The language the rows should have.
        ignore: Kinds of findings that are accepted.
    """

    tokens: Sequence[int] | None = None
    max_tokens: int = 1024
    vectors: NDArray[np.float32] | None = None
    labels: Sequence[str] | None = None
    masked: Mapping[str, Sequence[str]] = field(default_factory=dict)
    coverage: Coverage | None = None
    language: str = "en"
    ignore: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class QualityReport:
    """Scores in the order of the rows, counts of findings by kind, and set-wide measures."""

    rows: tuple[RowQuality, ...]
    counts: dict[str, int]
    noise: NoiseEstimate | None
    coverage: Coverage | None
    warnings: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """The record that a manifest carries."""
        scores = [row.score for row in self.rows]
        noise = None
        if self.noise is not None:
            noise = asdict(self.noise) | {
                "suspects": len(self.noise.suspects),
                "alarming": self.noise.alarming,
            }
        return {
            "rows": len(scores),
            "mean_score": round(float(np.mean(scores)), 4) if scores else None,
            "findings": dict(sorted(self.counts.items())),
            "label_noise": noise,
            "coverage": None if self.coverage is None else asdict(self.coverage),
            "warnings": list(self.warnings),
        }


def assess(rows: Sequence[Row], inputs: QualityInputs | None = None) -> QualityReport:
    """Find what is wrong with rows."""
    inputs = inputs or QualityInputs()
    found: dict[int, list[Finding]] = defaultdict(list)
    for position, row in enumerate(rows):
        found[position] += _of_text(row, inputs)
    _add_duplicates(rows, found)
    for contradiction in find_contradictions(rows):
        others = " / ".join(_shown(answer) for answer in contradiction.answers[:3])
        for position in contradiction.positions:
            reason = f"{contradiction.reason} to one question: {others}"
            found[position].append(Finding("contradiction", reason))
    for position, reason in odd_formats([_answer(row) for row in rows]).items():
        found[position].append(Finding("format", reason))
    _add_lengths(rows, inputs, found)
    noise = _add_label_noise(rows, inputs, found)
    scored = tuple(
        _scored(row["id"], [f for f in found[position] if f.kind not in inputs.ignore])
        for position, row in enumerate(rows)
    )
    counts = Counter(kind for row in scored for kind in {f.kind for f in row.findings})
    return QualityReport(scored, dict(counts), noise, inputs.coverage, _warnings(rows, noise))


def _of_text(row: Row, inputs: QualityInputs) -> list[Finding]:
    answer = _answer(row)
    turns = [turn["content"] for turn in row.get("history") or []]
    text = "\n".join([row["question"], answer, *turns])
    found = [Finding("secret", f"it holds a {c.kind}") for c in find_credentials(text)[:1]]
    gold = " ".join(passage["text"] for passage in row["gold"])
    # What a passage of the knowledge base says is the house's own, and public to its readers.
    personal = [span for span in find_personal_data(text) if span.text not in gold]
    if personal:
        kinds = ", ".join(sorted({span.kind for span in personal}))
        found.append(Finding("personal_data", f"it holds {kinds}"))
    masked = inputs.masked.get(row["id"])
    if masked:
        found.append(Finding("masked_personal_data", f"{', '.join(sorted(set(masked)))} masked"))
    if words := abusive_words(answer):
        found.append(Finding("toxicity", f"the answer says {', '.join(words[:3])}"))
    if left := leftovers(answer):
        found.append(Finding("format", f"the answer holds {', '.join(left)}"))
    if is_foreign(answer, inputs.language):
        found.append(Finding("language", f"the answer is not in {inputs.language!r}"))
    return found


def _add_duplicates(rows: Sequence[Row], found: dict[int, list[Finding]]) -> None:
    duplicates = find_duplicates([_asked(row) for row in rows], [_answer(row) for row in rows])
    for kind, repeated in (("exact", duplicates.exact), ("near", duplicates.near)):
        for position, first in repeated.items():
            reason = f"it repeats row {rows[first]['id']!r}"
            found[position].append(Finding(f"{kind}_duplicate", reason))


def _add_lengths(
    rows: Sequence[Row], inputs: QualityInputs, found: dict[int, list[Finding]]
) -> None:
    for position, tokens in enumerate(inputs.tokens or ()):
        if tokens > inputs.max_tokens:
            reason = f"{tokens} tokens, the limit is {inputs.max_tokens}"
            found[position].append(Finding("too_long", reason))
    lengths = np.log1p([len(_answer(row)) for row in rows])
    if len(rows) < _MIN_AUTHOR_ROWS:
        return
    middle = np.median(lengths)
    # The median absolute deviation times 1.4826 estimates a normal's standard deviation.
    spread = max(1.4826 * float(np.median(np.abs(lengths - middle))), 0.25)
    for far in np.flatnonzero(np.abs(lengths - middle) > _OUTLIER_SIGMAS * spread).tolist():
        size = len(_answer(rows[far]))
        reason = f"its answer has {size} characters, half of them have {np.expm1(middle):.0f}"
        found[far].append(Finding("unusual_length", reason))


def _add_label_noise(
    rows: Sequence[Row], inputs: QualityInputs, found: dict[int, list[Finding]]
) -> NoiseEstimate | None:
    labels = inputs.labels if inputs.labels is not None else answer_labels(rows)
    if inputs.vectors is None or labels is None:
        return None
    noise = estimate_label_noise(inputs.vectors, labels)
    for suspect in noise.suspects if noise else ():
        reason = f"like questions are labelled {_shown(suspect.suggested)!r}"
        found[suspect.position].append(Finding("label_noise", reason))
    return noise


def answer_labels(rows: Sequence[Row]) -> list[str] | None:
    """The answers as labels where the task has classes: few distinct ones, each often; or None."""
    answers = [_answer(row) for row in rows]
    counts = Counter(answers)
    often = sum(n for n in counts.values() if n >= 3)
    few = len(counts) <= max(2, len(rows) // 4)
    return answers if rows and few and often >= 0.8 * len(rows) else None


def _warnings(rows: Sequence[Row], noise: NoiseEstimate | None) -> tuple[str, ...]:
    found = []
    authors = Counter(str((row.get("provenance") or {}).get("author", "")) for row in rows)
    authors.pop("", None)
    if len(rows) >= _MIN_AUTHOR_ROWS and len(authors) > 1:
        author, count = authors.most_common(1)[0]
        if count > _MAX_AUTHOR_SHARE * len(rows):
            found.append(f"{author!r} wrote {count / len(rows):.0%} of the rows")
    if noise is not None and noise.alarming:
        found.append(
            f"about {noise.rate:.1%} of the labels look wrong "
            f"({noise.low:.1%} to {noise.high:.1%}): review the suspects"
        )
    return tuple(found)


def _scored(row_id: str, findings: list[Finding]) -> RowQuality:
    kinds = {finding.kind for finding in findings}
    score = max(0.0, 1.0 - sum(WEIGHTS[kind] for kind in kinds))
    return RowQuality(row_id, round(score, 4), tuple(findings))


def _shown(answer: str) -> str:
    """An answer as a reason may quote it: reasons are sealed with the snapshot."""
    return "(a secret)" if find_credentials(answer) else mask_personal_data(answer)[0][:60]


def _answer(row: Row) -> str:
    return " ".join(row["answer"].replace(CITE, "").split())


def _asked(row: Row) -> str:
    return "\n".join([*(turn["content"] for turn in row.get("history") or []), row["question"]])
