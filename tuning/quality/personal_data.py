"""Personal data found by rules and masked: what has a form or a checksum, not names or addresses.

Names, street addresses and birth dates need a model; the rules say nothing about them, and
`docs/training-data.md` gives precision and recall on labelled sentences.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

PersonalKind = Literal["email", "card", "iban", "ip", "ssn", "phone"]
KINDS: tuple[PersonalKind, ...] = ("email", "card", "iban", "ip", "ssn", "phone")

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.)+[A-Za-z]{2,24}(?![\w-])")
_CARD = re.compile(r"(?<![\w+-])(?:\d[ -]?){11,18}\d(?![\w-])")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b", re.IGNORECASE)
_IP = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4})(?![\w.:]\w)"
)
_SSN = re.compile(r"(?<![\w-])(?!000|666|9\d\d)\d{3}([- ])(?!00)\d{2}\1(?!0000)\d{4}(?![\w-])")
_PHONE = re.compile(
    r"(?<![\w.,/:#$€£-])(?:\+|00)?(?:\(\+?\d{1,4}\)|\d{1,5})(?:[ ./()-]{0,2}\d{2,5}){1,5}"
    r"(?:\s?(?:x|ext\.?)\s?\d{1,6})?(?![\w%€$£]|-\d)"
)
_DATE_LIKE = re.compile(
    r"\b(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/. ]\d{1,2}[-/. ](?:19|20)\d{2})\b"
    r"|^(?:19|20)\d{2}[-/](?:19|20)?\d{2}$"
)
_PHONE_WORD = re.compile(
    r"\b(?:phone|tel|telephone|mobile|cell|call|fax|dial|whatsapp|office|hotline|sms"
    r"|messages?|answering)\b",
    re.IGNORECASE,
)
_IBAN_COUNTRIES = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 "
    "ES24 FI18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IS26 IT27 JO30 KW30 "
    "KZ20 LB28 LI21 LT20 LU20 LV21 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 "
    "PT25 QA29 RO24 RS22 SA24 SE24 SI19 SK24 SM27 TN24 TR26 UA29 VG24 XK20"
)
_IBAN_LENGTH = {entry[:2]: int(entry[2:]) for entry in _IBAN_COUNTRIES.split()}


@dataclass(frozen=True, slots=True)
class PersonalSpan:
    """Personal data as it stands in a text."""

    kind: PersonalKind
    text: str
    start: int

    @property
    def end(self) -> int:
        """One past its last character."""
        return self.start + len(self.text)


def find_personal_data(text: str) -> tuple[PersonalSpan, ...]:
    """Find e-mail addresses, cards, IBANs, IP addresses, US social security and phone numbers.

    Cards need the Luhn checksum and a known first digit, IBANs their checksum and their country's
    length. Left to right, never overlapping; the surer rule wins.
    """
    found: list[PersonalSpan] = []
    for kind, pattern, holds in _RULES:
        for match in pattern.finditer(text):
            start, value = match.start(), match.group()
            trimmed = value.rstrip(" -./(")
            span = PersonalSpan(kind, trimmed, start)
            if any(span.start < other.end and other.start < span.end for other in found):
                continue
            around = f"{text[max(0, start - 40) : start]} {text[span.end : span.end + 10]}"
            if holds(trimmed, around):
                found.append(span)
    return tuple(sorted(found, key=lambda span: span.start))


def mask_personal_data(
    text: str, *, keep: Iterable[str] = ()
) -> tuple[str, tuple[PersonalSpan, ...]]:
    """Replace personal data by its kind in brackets, such as `<EMAIL>`.

    Args:
        text: The text.
        keep: Values that stay, such as the house's own phone number from the knowledge base.

    Returns:
        The masked text and what was masked.
    """
    kept = {_bare(value) for value in keep}
    spans = [span for span in find_personal_data(text) if _bare(span.text) not in kept]
    parts, end = [], 0
    for span in spans:
        parts += [text[end : span.start], f"<{span.kind.upper()}>"]
        end = span.end
    return "".join([*parts, text[end:]]), tuple(spans)


def luhn(digits: str) -> bool:
    """Whether figures end with their Luhn check digit (ISO/IEC 7812-1)."""
    total = 0
    for position, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if position % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def iban_holds(text: str) -> bool:
    """Whether an IBAN has its country's length and its checksum (ISO 13616, modulo 97)."""
    plain = text.replace(" ", "").upper()
    if _IBAN_LENGTH.get(plain[:2]) != len(plain):
        return False
    moved = plain[4:] + plain[:4]
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def _bare(text: str) -> str:
    return re.sub(r"[\s().-]", "", text).lower()


def _is_card(text: str, _: str) -> bool:
    digits = re.sub(r"\D", "", text)
    known = digits[0] in "234568" or digits.startswith("1800")
    return 12 <= len(digits) <= 19 and known and luhn(digits)


def _is_ip(text: str, _: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "." in text or text.count(":") >= 3


def _is_phone(text: str, around: str) -> bool:
    number = re.split(r"x|ext", text)[0]
    digits = re.sub(r"\D", "", number)
    if not 7 <= len(digits) <= 15 or _DATE_LIKE.search(text):
        return False
    if text.startswith(("+", "00", "(")):
        return True
    # Two groups of figures are as often a house number and a postcode.
    if len(digits) >= 9 and len(re.findall(r"\d+", number)) >= 3:
        return True
    return _PHONE_WORD.search(around) is not None


_RULES: tuple[tuple[PersonalKind, re.Pattern[str], Callable[[str, str], bool]], ...] = (
    ("email", _EMAIL, lambda text, before: True),
    ("iban", _IBAN, lambda text, before: iban_holds(text)),
    ("card", _CARD, _is_card),
    ("ip", _IP, _is_ip),
    ("ssn", _SSN, lambda text, before: True),
    ("phone", _PHONE, _is_phone),
)
