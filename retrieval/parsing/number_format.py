"""Spreadsheet numbers as people see them: ISO dates, percent, currency, decimals, leading zeros.

The format codes are those of ECMA-376 part 1, 18.8.30 and 18.8.31. Fractions, scientific notation
and conditions are shown as plain numbers.
"""

import datetime
import re
from dataclasses import dataclass, replace
from functools import lru_cache

# fmt: off
BUILTIN_FORMATS = {
    0: "General", 1: "0", 2: "0.00", 3: "#,##0", 4: "#,##0.00", 9: "0%", 10: "0.00%",
    14: "yyyy-mm-dd", 15: "d-mmm-yy", 16: "d-mmm", 17: "mmm-yy", 18: "h:mm", 19: "h:mm:ss",
    20: "h:mm", 21: "h:mm:ss", 22: "yyyy-mm-dd h:mm", 37: "#,##0", 38: "#,##0", 39: "#,##0.00",
    40: "#,##0.00", 45: "mm:ss", 46: "[h]:mm:ss", 47: "mm:ss.0", 49: "@",
}
# fmt: on
_QUOTED = re.compile(r'"([^"]*)"|\\(.)|_.|\*.')
_CURRENCY = re.compile(r"\[\$([^\]-]*)(?:-[^\]]*)?\]")
_BRACKETS = re.compile(r"\[(?!h+\]|m+\]|s+\])[^\]]*\]", re.IGNORECASE)
_DIGITS = re.compile(r"[0#?][0#?,.]*")
_DATE_LETTERS = re.compile(r"[ymdhs]|\[[hms]+\]", re.IGNORECASE)
_ELAPSED = re.compile(r"\[[hms]+\]", re.IGNORECASE)
_UNSUPPORTED = re.compile(r"[0#?]\s*/|[eE][+-]|[0#?][^0#?.,]+[0#?]")
_MAX_CODE = 255
_MAX_DECIMALS = 15
_EPOCHS = {False: datetime.datetime(1899, 12, 30), True: datetime.datetime(1904, 1, 1)}
_MAX_SERIAL = 2_958_465  # 9999-12-31


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """One section of a format code.

    `kind` is general, number, date, time, datetime or elapsed.
    """

    kind: str
    decimals: int = 0
    optional_decimals: int = 0
    width: int = 1
    grouped: bool = False
    percent: bool = False
    prefix: str = ""
    suffix: str = ""


def show_number(value: float, code: str, *, date_1904: bool = False) -> str:
    """`value` in the format `code`; a general number where the code cannot be followed.

    `date_1904` counts the days of dates from 1904 and not from 1900, as old Mac files do.
    """
    sections = split_sections(code)
    section = sections[0] if sections else "General"
    negative = value < 0
    if negative and len(sections) > 1 and sections[1].strip():
        # The second section writes its own minus or parentheses.
        layout = read_format(sections[1])
        prefix, suffix = (_without_brackets(t) for t in (layout.prefix, layout.suffix))
        bare = replace(layout, prefix=prefix, suffix=suffix)
        shown = _lay_out(-value, bare, date_1904)
        return shown if shown.startswith("-") else f"-{shown}"
    return _lay_out(value, read_format(section), date_1904)


@lru_cache(maxsize=4096)
def split_sections(code: str) -> tuple[str, ...]:
    """The sections of a format code: positive; negative; zero; text."""
    sections, current, quoted = [], "", False
    for character in code[:_MAX_CODE]:
        quoted ^= character == '"'
        if character == ";" and not quoted:
            sections.append(current)
            current = ""
        else:
            current += character
    return (*sections, current)


@lru_cache(maxsize=4096)
def read_format(section: str) -> NumberFormat:
    """What a section of a format code asks for."""
    literal = _CURRENCY.sub(lambda m: f'"{m.group(1)}"', section)
    literal = _BRACKETS.sub("", literal)
    bare = _QUOTED.sub("", literal)
    if bare.strip().lower() in ("general", "@", "", "standard"):
        return NumberFormat("general")
    if _ELAPSED.search(bare):
        return NumberFormat("elapsed")
    if _DATE_LETTERS.search(bare):
        has_date = bool(re.search(r"[yd]", bare, re.IGNORECASE)) or "mmm" in bare.lower()
        has_time = bool(re.search(r"[hs]", bare, re.IGNORECASE))
        return NumberFormat("datetime" if has_date and has_time else "date" if has_date else "time")
    digits = _DIGITS.search(bare)
    if digits is None or _UNSUPPORTED.search(bare):
        return NumberFormat("general")
    return _read_digits(literal, digits.group())


def _read_digits(literal: str, digits: str) -> NumberFormat:
    whole, _, fraction = digits.partition(".")
    if whole.endswith(",") or fraction.endswith(","):
        # A trailing comma scales by thousands, which hides digits: show them.
        return NumberFormat("general")
    before, _, after = literal.partition(digits[0])
    tail = after[len(digits) - 1 :] if after.startswith(digits[1:]) else after
    return NumberFormat(
        "number",
        decimals=min(fraction.count("0"), _MAX_DECIMALS),
        optional_decimals=min(fraction.count("#") + fraction.count("?"), _MAX_DECIMALS),
        width=min(max(whole.count("0"), 1), 64),
        grouped="," in whole,
        percent="%" in literal,
        prefix=_unquote(before),
        suffix=_unquote(tail),
    )


def _unquote(text: str) -> str:
    """Literal text of a section: quotes, escapes and paddings resolved."""
    return _QUOTED.sub(lambda m: m.group(1) or m.group(2) or " ", text).replace("%", "").strip(" ")


def _without_brackets(literal: str) -> str:
    """Parentheses stand for the minus sign, which is written out."""
    return literal.replace("(", "").replace(")", "").strip()


def _lay_out(value: float, layout: NumberFormat, date_1904: bool) -> str:
    if layout.kind == "number":
        return _fixed(value, layout)
    if layout.kind == "elapsed":
        return _elapsed(value)
    if layout.kind != "general":
        return _date(value, layout.kind, date_1904)
    return general_number(value)


def general_number(value: float) -> str:
    """A number without a format: no `.0`, at most 15 significant digits, as Excel keeps them."""
    if value != value or value in (float("inf"), float("-inf")):
        return ""
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    shown = f"{value:.15g}"
    if "e" not in shown:
        return shown
    return f"{value:.20f}".rstrip("0") if 1e-6 < abs(value) < 1 else shown


def _fixed(value: float, layout: NumberFormat) -> str:
    if layout.percent:
        value *= 100
    if abs(value) >= 1e21 or value != value:
        return general_number(value)
    most = min(layout.decimals + layout.optional_decimals, _MAX_DECIMALS)
    # Excel rounds halves away from zero, on the 15 digits it keeps.
    rounded = f"{abs(float(f'{value:.15g}')) + 10.0 ** -(most + 6):.{most}f}"
    whole, _, fraction = rounded.partition(".")
    while len(fraction) > layout.decimals and fraction.endswith("0"):
        fraction = fraction[:-1]
    sign = "-" if value < 0 and (whole.strip("0") or fraction.strip("0")) else ""
    whole = whole.zfill(layout.width)
    if layout.grouped:
        whole = f"{int(whole):,}".zfill(layout.width)
    number = f"{whole}.{fraction}" if fraction else whole
    gap = " " if layout.suffix[:1].isalpha() else ""
    percent = "%" if layout.percent else ""
    return f"{sign}{layout.prefix}{number}{percent}{gap}{layout.suffix}"


def _elapsed(days: float) -> str:
    seconds = round(abs(days) * 86_400)
    sign = "-" if days < 0 else ""
    return f"{sign}{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _date(serial: float, kind: str, date_1904: bool) -> str:
    """An ISO date, date and time, or time."""
    if not 0 <= serial <= _MAX_SERIAL:
        return general_number(serial)
    # Excel believes in 29 February 1900, so the days before it are one off.
    early = not date_1904 and 1 <= serial < 60
    days = serial + 1 if early else serial
    moment = _EPOCHS[date_1904] + datetime.timedelta(seconds=round(days * 86_400))
    if kind == "time" and serial < 1:
        return moment.strftime("%H:%M:%S").removesuffix(":00")
    if kind == "date" or (moment.hour, moment.minute, moment.second) == (0, 0, 0):
        return moment.date().isoformat()
    return moment.isoformat(sep=" ").removesuffix(":00")
