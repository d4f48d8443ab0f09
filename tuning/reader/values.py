"""Slot values other than names: numbers, dates, money, codes, each in several written forms."""

import random
from collections.abc import Callable, Mapping
from typing import Any

from tuning.reader.names import coined, person


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


MONTHS = _words("""January February March April May June July August September October November
December""")
WEEKDAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
NUMBER_WORDS = _words("two three four five six seven eight nine ten eleven twelve")
_ORDINAL_WORDS = _words("zeroth first second third fourth fifth sixth seventh eighth ninth tenth")

Slot = Mapping[str, Any]


def _integer(rng: random.Random, slot: Slot) -> int:
    low, high = int(slot.get("min", 1)), int(slot.get("max", 100))
    step = max(1, int(slot.get("step", 1)))
    return low + step * rng.randint(0, max(0, (high - low) // step))


def _grouped(rng: random.Random, number: int) -> str:
    if number < 1000:
        return str(number)
    if number < 10_000:
        return f"{number:,}" if rng.random() < 0.75 else str(number)
    return f"{number:,}" if rng.random() < 0.95 else f"{number:,}".replace(",", " ")


def year(rng: random.Random, slot: Slot) -> str:
    """A year."""
    return str(rng.randint(int(slot.get("min", 1600)), int(slot.get("max", 2020))))


def decade(rng: random.Random, slot: Slot) -> str:
    """A decade, as in 1870s."""
    return f"{int(year(rng, slot)) // 10 * 10}s"


def century(rng: random.Random, slot: Slot) -> str:
    """A century, as in 14th century."""
    low, high = int(slot.get("min", 12)), int(slot.get("max", 20))
    # Some templates bound the century by years.
    low, high = (x // 100 + 1 if x > 30 else x for x in (low, high))
    return f"{ordinal_digits(rng.randint(low, high))} century"


def date(rng: random.Random, slot: Slot) -> str:
    """A full date in one of several orders."""
    day, month = rng.randint(1, 28), rng.choice(MONTHS)
    number = rng.randint(int(slot.get("min", 1850)), int(slot.get("max", 2023)))
    style = rng.random()
    if style < 0.6:
        return f"{day} {month} {number}"
    if style < 0.9:
        return f"{month} {day}, {number}"
    return f"{ordinal_digits(day)} of {month} {number}"


def month(rng: random.Random, slot: Slot) -> str:
    """A month."""
    return rng.choice(MONTHS)


def weekday(rng: random.Random, slot: Slot) -> str:
    """A day of the week."""
    return rng.choice(WEEKDAYS)


def clock(rng: random.Random, slot: Slot) -> str:
    """A time of day."""
    hour, minute = rng.randint(6, 22), rng.choice((0, 0, 15, 30, 45, 10, 50))
    style = rng.random()
    if style < 0.5:
        return f"{hour:02d}:{minute:02d}"
    half = "am" if hour < 12 else "pm"
    shown = hour if hour <= 12 else hour - 12
    if minute == 0 and style < 0.8:
        return f"{shown} {half}"
    return f"{shown}:{minute:02d} {half}" if style < 0.9 else f"{shown}.{minute:02d} {half}"


def integer(rng: random.Random, slot: Slot) -> str:
    """A whole number, large ones mostly with separators."""
    return _grouped(rng, _integer(rng, slot))


def decimal(rng: random.Random, slot: Slot) -> str:
    """A decimal number with the slot's digits."""
    low, high = float(slot.get("min", 0)), float(slot.get("max", 10))
    return f"{rng.uniform(low, high):,.{int(slot.get('digits', 1))}f}"


def percent(rng: random.Random, slot: Slot) -> str:
    """A share, as 12%, 12.5% or 12 percent."""
    low, high = float(slot.get("min", 1)), float(slot.get("max", 99))
    whole = float(low).is_integer() and float(high).is_integer()
    digits = 0 if whole and (high - low > 6 or rng.random() < 0.5) and rng.random() < 0.75 else 1
    digits = int(slot.get("digits", digits))
    number = f"{rng.uniform(low, high):.{digits}f}"
    return number + rng.choice(("%", "%", "%", " %", " percent", " per cent"))


def money(rng: random.Random, slot: Slot) -> str:
    """An amount in the slot's currency or any."""
    amount = _integer(rng, slot)
    symbol = slot.get("currency") or rng.choice(("$", "€", "£"))
    if amount >= 1_000_000 and amount % 100_000 == 0 and rng.random() < 0.6:
        return f"{symbol}{amount / 1_000_000:g} million"
    words = {"$": "dollars", "€": "euros", "£": "pounds"}
    style = rng.random()
    if style < 0.85 or symbol not in words:
        cents = ".00" if amount < 1000 and rng.random() < 0.1 else ""
        return f"{symbol}{amount:,}{cents}"
    return f"{amount:,} {words[symbol]}"


def duration(rng: random.Random, slot: Slot) -> str:
    """A number and a unit of time; small numbers sometimes as words."""
    number = _integer(rng, slot)
    unit = rng.choice(list(slot.get("units") or ("days", "weeks", "months")))
    if number == 1:
        unit = unit.removesuffix("s")
        return f"one {unit}"
    if 2 <= number <= 12 and rng.random() < 0.3:
        return f"{NUMBER_WORDS[number - 2]} {unit}"
    return f"{number} {unit}"


def ordinal(rng: random.Random, slot: Slot) -> str:
    """An ordinal; small ones sometimes as words."""
    number = _integer(rng, {"min": 1, "max": 10, **slot})
    if number < len(_ORDINAL_WORDS) and rng.random() < 0.6:
        return _ORDINAL_WORDS[number]
    return ordinal_digits(number)


def small_number(rng: random.Random, slot: Slot) -> str:
    """A number from two to twelve, in letters."""
    low, high = int(slot.get("min", 2)), int(slot.get("max", 12))
    return NUMBER_WORDS[rng.randint(max(2, low), min(12, high)) - 2]


def choice(rng: random.Random, slot: Slot) -> str:
    """One of the slot's options."""
    return str(rng.choice(slot["options"]))


def email(rng: random.Random, slot: Slot) -> str:
    """An address in a reserved example domain."""
    box = rng.choice(
        ("help", "support", "returns", "billing", "privacy", "info", "claims", "service", "desk")
    )
    return f"{box}@{coined(rng, 2).lower()}.example"


def url(rng: random.Random, slot: Slot) -> str:
    """An address in a reserved example domain."""
    page = rng.choice(("help", "status", "returns", "account", "forms", "docs", "contact"))
    return f"{coined(rng, 2).lower()}.example/{page}"


def phone(rng: random.Random, slot: Slot) -> str:
    """A telephone number in a fictional range."""
    tail = f"{rng.randint(100, 199)}"
    forms = (
        f"555-0{tail}",
        f"0800 555 0{tail}",
        f"+1 555 01{rng.randint(10, 99)}",
        f"020 7946 0{tail}",
    )
    return rng.choice(forms)


def code(rng: random.Random, slot: Slot) -> str:
    """A reference such as AB-1234."""
    letters = "".join(
        rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(rng.choice((1, 2, 2, 3)))
    )
    return f"{letters}{rng.choice(('-', '-', '', '/'))}{rng.randint(100, 9999)}"


def ordinal_digits(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th and so on."""
    if 10 <= number % 100 <= 20:
        return f"{number}th"
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th') }".replace(" ", "")


def full_name(rng: random.Random) -> tuple[str, str, str]:
    """Full name, given name, surname."""
    given, last = person(rng)
    return f"{given} {last}", given, last


VALUES: dict[str, Callable[[random.Random, Slot], str]] = {
    "year": year,
    "decade": decade,
    "century": century,
    "date": date,
    "month": month,
    "weekday": weekday,
    "time": clock,
    "int": integer,
    "decimal": decimal,
    "percent": percent,
    "money": money,
    "duration": duration,
    "ordinal": ordinal,
    "smallnum": small_number,
    "choice": choice,
    "email": email,
    "url": url,
    "phone": phone,
    "code": code,
}
