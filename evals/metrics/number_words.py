"""English number words as digits, so that "twenty-five days" reads like "25 days"."""

import re
from decimal import Decimal

from evals.metrics.units import CURRENCIES, UNITS

MULTIPLIERS: dict[str, Decimal] = {
    "k": Decimal(1_000),
    "thousand": Decimal(1_000),
    "m": Decimal(1_000_000),
    "million": Decimal(1_000_000),
    "bn": Decimal(1_000_000_000),
    "billion": Decimal(1_000_000_000),
}
_UNITS_TO_NINETEEN = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
)
_FROM_TWENTY = "twenty thirty forty fifty sixty seventy eighty ninety"
_SMALL = {word: value for value, word in enumerate(_UNITS_TO_NINETEEN.split())}
_TENS = {word: 10 * value for value, word in enumerate(_FROM_TWENTY.split(), start=2)}
_LARGE = {"thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}
_STEP = "|".join([*_SMALL, *_TENS, *_LARGE, "hundred", "dozen"])
_FIRST = "|".join([*_SMALL, *_TENS])
_WORDS = re.compile(
    rf"\b(?:an?\s+(?=hundred|thousand|million|billion|dozen))?"
    rf"(?:{_FIRST}|hundred|thousand|million|billion|dozen)\b(?:(?:[\s-]+|\s+and\s+)(?:{_STEP})\b)*",
    re.IGNORECASE,
)
_DIGIT_SCALE = re.compile(
    r"(?<![\w.,])(\d+(?:\.\d+)?)\s(thousand|million|billion)\b", re.IGNORECASE
)
_UNIT_WORD = "|".join(re.escape(word) for word in (*UNITS, *CURRENCIES) if len(word) > 1)
_AFTER = re.compile(
    rf"[\s-]?(?:(?:business|working|calendar)[\s-])?(?:%|per\s?cent|{_UNIT_WORD})(?!\w)",
    re.IGNORECASE,
)


def words_to_digits(text: str) -> str:
    """Replace number words by digits.

    "one" alone stays a word unless a unit follows: "one of them" names no value.
    """
    text = _DIGIT_SCALE.sub(lambda m: _whole(Decimal(m[1]) * MULTIPLIERS[m[2].lower()]), text)

    def replace(match: re.Match[str]) -> str:
        words = re.findall(r"[a-z]+", match.group().lower())
        if words == ["one"] and not _AFTER.match(text, match.end()):
            return match.group()
        return str(_value(words))

    return _WORDS.sub(replace, text)


def _value(words: list[str]) -> int:
    total = current = 0
    for word in words:
        if word in _SMALL:
            current += _SMALL[word]
        elif word in _TENS:
            current += _TENS[word]
        elif word in ("hundred", "dozen"):
            current = max(1, current) * (100 if word == "hundred" else 12)
        elif word in _LARGE:
            total += max(1, current) * _LARGE[word]
            current = 0
    return total + current


def _whole(amount: Decimal) -> str:
    return str(int(amount)) if amount == int(amount) else format(amount, "f")
