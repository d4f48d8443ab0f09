"""Values in a text: numbers, dates, codes, names and negations, found where they stand.

What tells two nearly equal texts apart, and what may change from one day to the next.
"""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal

ValueKind = Literal["date", "number", "name"]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


MONTHS = _words(
    "January February March April May June July August September October November December"
)
_MONTH = "|".join([*MONTHS, *(month[:3] for month in MONTHS)])
_DATE = re.compile(
    rf"\b(?:\d{{4}}-\d{{2}}-\d{{2}}|\d{{1,2}}(?:st|nd|rd|th)? (?:{_MONTH})(?: \d{{4}})?"
    rf"|(?:{_MONTH}) \d{{1,2}}(?:st|nd|rd|th)?(?:,? \d{{4}})?)\b"
)
_NUMBER = re.compile(r"(?<![\w.,:/-])\d+(?:[.,:]\d+)*(?![\w/-]|[.,:]\d)")
_ANY_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NAME = re.compile(r"\b[A-Z][a-z]{2,}(?: [A-Z][a-z]{2,})*\b")
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_SENTENCE_START = re.compile(r"(?:(?:^|\n)\s*(?:[-*•]\s+|\d+[.)]\s+)?|[.!?:]\s+)$")
_UNDER_21 = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen twenty"
)
_ROUND = {"thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80}
_ROUND |= {"ninety": 90, "hundred": 100, "thousand": 1000}
_NUMBER_WORDS = {word: str(n) for n, word in enumerate(_UNDER_21)}
_NUMBER_WORDS |= {word: str(n) for word, n in _ROUND.items()}
_NEGATIONS = frozenset(_words("no not never none cannot without neither nor nothing nobody"))
_CALENDAR = frozenset(
    [month.lower() for month in MONTHS]
    + list(
        _words("monday tuesday wednesday thursday friday saturday sunday weekday weekdays am pm")
    )
)


@dataclass(frozen=True, slots=True)
class FoundValue:
    """A value as it stands in a text."""

    kind: ValueKind
    text: str
    start: int

    @property
    def end(self) -> int:
        """One past its last character."""
        return self.start + len(self.text)


def find_values(text: str) -> tuple[FoundValue, ...]:
    """Dates, numbers and names (capitalised words inside a sentence), left to right."""
    found: list[FoundValue] = []
    taken = [False] * len(text)
    kinds: tuple[tuple[ValueKind, re.Pattern[str]], ...] = (
        ("date", _DATE),
        ("number", _NUMBER),
        ("name", _NAME),
    )
    for kind, pattern in kinds:
        for match in pattern.finditer(text):
            if any(taken[match.start() : match.end()]):
                continue
            value = _name(match, text) if kind == "name" else match.group()
            if value:
                start = match.end() - len(value)
                taken[start : match.end()] = [True] * len(value)
                found.append(FoundValue(kind, value, start))
    return tuple(sorted(found, key=lambda value: value.start))


def fingerprint(text: str, *, names: bool = True) -> Counter[str]:
    """What must be equal for two alike texts to say the same thing.

    Numbers (in figures or words), months and weekdays, negations, words with digits and, with
    `names`, names. "14 days" and "fourteen days" have equal fingerprints, "14" and "30" have not.
    """
    marks: Counter[str] = Counter()
    for number in _ANY_NUMBER.findall(text):
        marks[_plain_number(number)] += 1
    for word in _WORD.findall(text):
        lower = word.lower()
        if lower in _NUMBER_WORDS:
            marks[_NUMBER_WORDS[lower]] += 1
        elif lower in _NEGATIONS or lower.endswith("n't"):
            marks["not"] += 1
        elif lower in _CALENDAR or _is_code(word):
            marks[lower] += 1
    if names:
        marks.update(v.text.lower() for v in find_values(text) if v.kind == "name")
    return marks


def masked(text: str) -> str:
    """The text with its values blanked: texts from one template become equal."""
    parts, end = [], 0
    for value in find_values(text):
        parts += [text[end : value.start], f"<{value.kind}>"]
        end = value.end
    return " ".join("".join([*parts, text[end:]]).lower().split())


def _name(match: re.Match[str], text: str) -> str:
    """The match without a first word that is only capitalised because a sentence begins."""
    words = match.group().split()
    if _SENTENCE_START.search(text[: match.start()]):
        words = words[1:]
    return "" if any(word.lower() in _CALENDAR for word in words) else " ".join(words)


def _is_code(word: str) -> bool:
    return any(letter.isdigit() for letter in word) and not word.isdigit()


def _plain_number(text: str) -> str:
    plain = re.sub(r"[,.](?=\d{3}(?!\d))", "", text).replace(",", ".")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain
