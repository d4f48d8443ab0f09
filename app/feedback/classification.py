"""What a correction changed: a value, a citation, the style, the format, or whether to answer.

The class decides what is learned. A changed value is looked up in the knowledge base first; the
other classes say nothing about facts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from app.answers.grounding import is_abstention, without_markers
from evals.metrics.values import extract_values
from tuning.snapshot import CITE
from tuning.values import find_values

CorrectionClass = Literal["value", "citation", "style", "format", "refusal", "cosmetic"]
COSMETIC_RATIO, MAX_PAIR_RATIO = 0.02, 0.5

_MARKER = re.compile(r"\[[0-9]{1,3}\]|\{cite\}")
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class Correction:
    """How an answer was corrected.

    Attributes:
        kind: What changed.
        edit_ratio: Share of the words that changed, in [0, 1].
        pairs: Whether answer and correction make a preference pair: enough changed to matter,
            not so much that it is another answer altogether.
    """

    kind: CorrectionClass
    edit_ratio: float

    @property
    def pairs(self) -> bool:
        """Whether chosen and rejected differ in one respect that can be learned."""
        return self.kind != "cosmetic" and (
            self.kind in ("refusal", "citation") or self.edit_ratio <= MAX_PAIR_RATIO
        )


def classify_correction(answer: str, corrected: str, abstain_sentence: str) -> Correction:
    """Tell by the difference what a correction changed.

    Args:
        answer: What the model said.
        corrected: What a person says instead.
        abstain_sentence: The use case's abstention.
    """
    said, wanted = _plain(answer), _plain(corrected)
    ratio = edit_ratio(said, wanted)
    if is_abstention(answer, abstain_sentence) != is_abstention(corrected, abstain_sentence):
        return Correction("refusal", ratio)
    if _values(said) != _values(wanted):
        return Correction("value", ratio)
    if _words(said) == _words(wanted):
        if " ".join(said.split()) != " ".join(wanted.split()) or _layout(said) != _layout(wanted):
            small = ratio < COSMETIC_RATIO and _layout(said) == _layout(wanted)
            return Correction("cosmetic" if small else "format", ratio)
        moved = _MARKER.findall(answer) != _MARKER.findall(corrected)
        return Correction("citation" if moved else "cosmetic", ratio)
    return Correction("cosmetic" if ratio < COSMETIC_RATIO else "style", ratio)


def edit_ratio(one: str, two: str) -> float:
    """Share of words (and marks between them) that differ, in [0, 1]; 0 for equal texts."""
    first, second = (re.findall(r"\w+|[^\w\s]", text) for text in (one, two))
    if not first and not second:
        return 0.0
    return 1.0 - SequenceMatcher(None, first, second, autojunk=False).ratio()


def _plain(text: str) -> str:
    return without_markers(text.replace(f" {CITE}", "").replace(CITE, ""))


def _values(text: str) -> tuple[frozenset[str], frozenset[str]]:
    names = {value.text.lower() for value in find_values(text) if value.kind == "name"}
    return frozenset(f"{v.kind}:{v.key}" for v in extract_values(text)), frozenset(names)


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def _layout(text: str) -> list[str]:
    """The marks that make a layout: line breaks, list marks, headings, braces."""
    return re.findall(r"\n+|^\s*[-*#]|[{}\[\]|`]", _MARKER.sub("", text), re.MULTILINE)
