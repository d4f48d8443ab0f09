"""Numbers, amounts, percentages, quantities, dates and codes in text, brought to one form.

"14 days" equals "fourteen days" and "two weeks"; "$1,200" equals "1200 dollars". English only;
"1.200,50" and dates like 03/04/2024 that two continents read differently are not resolved.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

from evals.metrics.answers import strip_citations
from evals.metrics.number_words import MULTIPLIERS, words_to_digits
from evals.metrics.score import Score
from evals.metrics.units import CURRENCIES, SYMBOLS, UNITS

_MONTH_NAMES = (
    "january february march april may june july august september october november december"
)
_MONTHS = _MONTH_NAMES.split()
_MONTH = "|".join([*_MONTHS, *(m[:3] for m in _MONTHS), "sept"])
_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_SCALE = r"(?:\s?(?P<scale>k|m|bn|thousand|million|billion)(?![\w]))?"
_CURRENCY_WORD = "|".join(sorted(map(re.escape, CURRENCIES), key=len, reverse=True))
_UNIT_WORD = "|".join(sorted(map(re.escape, UNITS), key=len, reverse=True))
_FLAGS = re.IGNORECASE

_DATES = (
    re.compile(r"\b(?P<y>\d{4})-(?P<m>\d{1,2})-(?P<d>\d{1,2})\b"),
    re.compile(r"\b(?P<a>\d{1,2})[/.](?P<b>\d{1,2})[/.](?P<y>\d{4})\b"),
    re.compile(
        rf"\b(?P<d>\d{{1,2}})(?:st|nd|rd|th)?(?:\s+of)?\s+(?P<mon>{_MONTH})\b\.?,?"
        r"(?:\s+(?P<y>\d{4})\b)?",
        _FLAGS,
    ),
    re.compile(
        rf"\b(?P<mon>{_MONTH})\b\.?\s+(?P<d>\d{{1,2}})(?:st|nd|rd|th)?\b(?!:)(?:,?\s+(?P<y>\d{{4}})\b)?",
        _FLAGS,
    ),
    re.compile(rf"\b(?P<mon>{_MONTH})\b\.?,?\s+(?P<y>\d{{4}})\b", _FLAGS),
)
_TIMES = (
    re.compile(r"\b(?P<h>\d{1,2}):(?P<min>\d{2})(?::\d{2})?\s?(?P<half>[ap]\.?m\b\.?)?", _FLAGS),
    re.compile(r"\b(?P<h>\d{1,2})\s?(?P<half>[ap]\.?m\b\.?)", _FLAGS),
)
_MONEY = (
    re.compile(rf"(?P<symbol>US\$|[{re.escape(SYMBOLS)}])\s?(?P<n>{_NUMBER}){_SCALE}", _FLAGS),
    re.compile(rf"\b(?P<word>usd|eur|gbp|jpy|chf)\s?(?P<n>{_NUMBER}){_SCALE}", _FLAGS),
    re.compile(
        rf"(?<![\w.])(?P<n>{_NUMBER}){_SCALE}[\s-]?(?P<word>{_CURRENCY_WORD}|[{re.escape(SYMBOLS)}])"
        r"(?!\w)",
        _FLAGS,
    ),
)
_PERCENT = re.compile(
    rf"(?<![\w.])(?P<n>{_NUMBER})\s?(?:%|per\s?cent\b|percentage points?\b)", _FLAGS
)
_QUANTITY = re.compile(
    rf"(?<![\w.])(?P<n>{_NUMBER})[\s-]?(?:(?:business|working|calendar)[\s-])?"
    rf"(?P<unit>{_UNIT_WORD})(?!\w)",
    _FLAGS,
)
_CODE = re.compile(r"\b(?=[\w./-]*\d)(?=[\w./-]*[A-Za-z])[A-Za-z0-9]+(?:[-_/.][A-Za-z0-9]+)*\b")
_ORDINAL = re.compile(r"\b\d+(?:st|nd|rd|th)\b", _FLAGS)
_THOUSANDS = re.compile(rf"(?<![\w.])(?P<n>{_NUMBER})(?P<k>k)\b", _FLAGS)
_PLAIN = re.compile(rf"(?<![\w.])(?P<n>{_NUMBER})(?!\w)")
_LIST_MARK = re.compile(r"^\s*\d{1,2}[.)]\s+", re.MULTILINE)
_WORKDAY = re.compile(r"business|working", _FLAGS)


@dataclass(frozen=True, slots=True)
class Value:
    """A value in one form; two values are the same if kind and key are.

    Attributes:
        kind: number, percent, money, quantity, date, time or code.
        key: the normalised value, with its unit.
        amount: the number as written, None for dates, times and codes.
        surface: the text it was read from.
    """

    kind: str
    key: str
    amount: Decimal | None
    surface: str


@lru_cache(maxsize=8192)  # every arm reads the same passages
def extract_values(text: str) -> tuple[Value, ...]:
    """Find the values of a text, grouped by kind; citation and list markers do not count."""
    rest = _LIST_MARK.sub("", words_to_digits(strip_citations(text)))
    found: list[Value] = []
    for patterns, read in (
        (_DATES, _date),
        (_TIMES, _time),
        (_MONEY, _money),
        ((_PERCENT,), _percent),
        ((_QUANTITY,), _quantity),
        ((_ORDINAL,), _ignored),
        ((_THOUSANDS,), _number),
        ((_CODE,), _code),
        ((_PLAIN,), _number),
    ):
        for pattern in patterns:
            rest = _take(pattern, rest, read, found)
    return tuple(found)


def is_supported(value: Value, evidence: Iterable[Value] | Mapping[tuple[str, str], Value]) -> bool:
    """Whether a value occurs in the evidence.

    A number without a unit is supported by the same number with any unit, and a number with a
    unit by the same number without one (tables name the unit in the header). A date is supported
    by a fuller date that agrees with it.
    """
    if isinstance(evidence, Mapping):
        # Codes and times agree only with their equal.
        if (value.kind, value.key) in evidence or value.kind in ("code", "time"):
            return (value.kind, value.key) in evidence
        evidence = evidence.values()
    return any(_agree(value, other) for other in evidence)


def unsupported_values(answer: str, evidence_texts: Sequence[str]) -> tuple[Value, ...]:
    """Give the values of the answer that occur in none of the texts."""
    evidence = values_of(tuple(evidence_texts))
    return tuple(v for v in extract_values(answer) if not is_supported(v, evidence))


@lru_cache(maxsize=2048)
def values_of(texts: tuple[str, ...]) -> dict[tuple[str, str], Value]:
    """Give the distinct values of several texts by kind and key, so that look-ups are quick."""
    return {(value.kind, value.key): value for text in texts for value in extract_values(text)}


def value_faithfulness(answer: str, evidence_texts: Sequence[str]) -> Score:
    """Give the share of the answer's values that occur in the texts; unscored without values."""
    values = extract_values(answer)
    if not values:
        return Score.unscored("no values in the answer")
    return Score(1 - len(unsupported_values(answer, evidence_texts)) / len(values))


def value_recall(text: str, answers: Sequence[str]) -> Score:
    """Give the share of expected values that the text holds, the best over accepted answers.

    Unscored when no accepted answer holds a value.
    """
    said = extract_values(text)
    shares = []
    for answer in answers:
        wanted = extract_values(answer)
        if wanted:
            shares.append(sum(is_supported(value, said) for value in wanted) / len(wanted))
    return Score(max(shares)) if shares else Score.unscored("no values expected")


def _take(
    pattern: re.Pattern[str],
    text: str,
    read: Callable[[re.Match[str]], Value | None],
    found: list[Value],
) -> str:
    def replace(match: re.Match[str]) -> str:
        value = read(match)
        if value is None:
            return match.group()
        if value.kind != "ignored":
            found.append(value)
        return " \x00 "  # keeps neighbours apart, matches nothing

    return pattern.sub(replace, text)


def _agree(value: Value, other: Value) -> bool:
    if (value.kind, value.key) == (other.kind, other.key):
        return True
    if value.kind == "date" and other.kind == "date":
        pairs = zip(value.key.split("-"), other.key.split("-"), strict=False)
        return all(a in ("?", b) for a, b in pairs) and value.key.count("-") == other.key.count("-")
    if value.kind == "number" and other.kind == "date":
        return value.key == other.key.split("-")[0]
    bare = "number" in (value.kind, other.kind)
    return bare and value.amount is not None and value.amount == other.amount


def _decimal(text: str, scale: str | None = None) -> Decimal:
    return Decimal(text.replace(",", "")) * MULTIPLIERS.get((scale or "").lower(), 1)


def _plain(amount: Decimal) -> str:
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _date(match: re.Match[str]) -> Value | None:
    parts = match.groupdict()
    year, month, day = parts.get("y") or "?", parts.get("m"), parts.get("d")
    if parts.get("mon"):
        month = str([m[:3] for m in _MONTHS].index(parts["mon"][:3].lower()) + 1)
        if parts["mon"].lower() == "may" and not parts["mon"][0].isupper():
            return None  # "you may 3 times" is not a date
    elif "a" in parts:
        first, second = int(parts["a"]), int(parts["b"])
        if first > 12 or first == second:
            day, month = parts["a"], parts["b"]
        elif second > 12:
            month, day = parts["a"], parts["b"]
        else:
            return Value("date", f"ambiguous:{match.group()}", None, match.group())
    if not 1 <= int(month or 1) <= 12 or not 1 <= int(day or 1) <= 31:
        return None
    key = f"{year}-{int(month or 0):02d}-{f'{int(day):02d}' if day else '?'}"
    return Value("date", key, None, match.group().strip())


def _time(match: re.Match[str]) -> Value | None:
    parts = match.groupdict()
    hour, minute, half = int(parts["h"]), int(parts.get("min") or 0), (parts.get("half") or "")
    if hour > 24 or minute > 59 or (half and not 1 <= hour <= 12):
        return None
    if half:
        hour = hour % 12 + (12 if half[0].lower() == "p" else 0)
    return Value("time", f"{hour:02d}:{minute:02d}", None, match.group().strip())


def _money(match: re.Match[str]) -> Value:
    parts = match.groupdict()
    amount = _decimal(parts["n"], parts.get("scale"))
    name = (parts.get("symbol") or parts.get("word") or "").lower()
    code, factor = CURRENCIES[name]
    return Value("money", f"{code} {_plain(amount * factor)}", amount, match.group().strip())


def _percent(match: re.Match[str]) -> Value:
    amount = _decimal(match["n"])
    return Value("percent", _plain(amount), amount, match.group())


def _quantity(match: re.Match[str]) -> Value:
    amount = _decimal(match["n"])
    unit, factor = UNITS[match["unit"].lower()]
    if _WORKDAY.search(match.group()):
        unit, factor = f"working {match['unit'].lower().rstrip('s')}", Decimal(1)
    return Value("quantity", f"{_plain(amount * factor)} {unit}", amount, match.group())


def _number(match: re.Match[str]) -> Value:
    amount = _decimal(match["n"], match.groupdict().get("k"))
    return Value("number", _plain(amount), amount, match.group())


def _code(match: re.Match[str]) -> Value:
    return Value("code", match.group().upper(), None, match.group())


def _ignored(match: re.Match[str]) -> Value:
    return Value("ignored", "", None, match.group())
