"""Excel workbooks, new and old: values as people see them, tables, merges, exact offsets."""

import datetime
import re

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from office_files import old_workbook_file, replaced, sheet_file, workbook_file

from retrieval.errors import EmptyDocument
from retrieval.parsing import parse_bytes
from retrieval.parsing.number_format import show_number


def kinds(document):
    return [(b.kind, b.text) for b in document.blocks]


def offsets_hold(document):
    return all(document.text[b.start : b.end] == b.text for b in document.blocks)


def fill_prices(book):
    sheet = book.active
    sheet.title = "Prices"
    rows = [
        ["Price list 2024"],
        ["Item", "Price", "Since", "Share", "Code", "Ok"],
        ["Lamp\nred", 12.0, datetime.date(2024, 1, 1), 0.256, 42, True],
        ["Chair | oak", 1234.5, datetime.datetime(2024, 1, 1, 12, 30), 0.5, 7, False],
        [],
        ["Total", "=SUM(B3:B4)"],
    ]
    for row in rows:
        sheet.append(row)
    sheet["D3"].number_format = "0.0%"
    sheet["D4"].number_format = "0%"
    sheet["B4"].number_format = "#,##0.00"
    sheet["E3"].number_format = sheet["E4"].number_format = "0000"
    secret = book.create_sheet("Lists")
    secret["A1"] = "hidden"
    secret.sheet_state = "hidden"
    book.create_sheet("Blank")


def test_workbook_shows_values_as_people_see_them():
    document = parse_bytes(workbook_file(fill_prices), "dir/prices.xlsx")
    assert document.title == "prices"
    assert kinds(document) == [
        ("heading", "Prices"),
        ("paragraph", "Price list 2024"),
        (
            "table",
            "Item | Price | Since | Share | Code | Ok\n"
            "Lamp red | 12 | 2024-01-01 | 25.6% | 0042 | TRUE\n"
            "Chair / oak | 1,234.50 | 2024-01-01 12:30 | 50% | 0007 | FALSE",
        ),
        ("paragraph", "Total"),
    ]
    assert offsets_hold(document)


def test_workbook_formula_gives_its_cached_value():
    data = workbook_file(lambda book: book.active.append(["Total", "=1+1"]))
    path = "xl/worksheets/sheet1.xml"
    data = replaced(data, path, lambda x: re.sub(rb"<v\s*/>|<v></v>", b"<v>2</v>", x))
    assert parse_bytes(data, "a.xlsx").blocks[1].text == "Total | 2"


def test_workbook_merged_cells_fill_down_and_tables_stand_side_by_side():
    def fill(book):
        sheet = book.active
        for row in [
            ["Team", "Name", None, "City", "Zip"],
            ["Core", "Ann", None, "Bonn", 53111],
            [None, "Bob", None, "Ulm", 89073],
        ]:
            sheet.append(row)
        sheet.merge_cells("A2:A3")

    tables = [b.text for b in parse_bytes(workbook_file(fill), "a.xlsx").blocks[1:]]
    assert tables == [
        "Team | Name\nCore | Ann\nCore | Bob",
        "City | Zip\nBonn | 53111\nUlm | 89073",
    ]


def test_workbook_spacer_columns_do_not_part_labels_from_numbers():
    def fill(book):
        for row in [["Item", None, "2023", None, "2024"], ["Rent", None, 5, None, 6]]:
            book.active.append(row)

    assert parse_bytes(workbook_file(fill), "a.xlsx").blocks[1].text == (
        "Item | 2023 | 2024\nRent | 5 | 6"
    )


def test_workbook_shared_texts_lose_phonetic_hints_and_keep_runs():
    shared = (
        "<si><r><t>To</t></r><r><t>kyo</t></r><rPh><t>hint</t></rPh></si><si><t>a_x000D_b</t></si>"
    )
    row = '<row r="{}"><c t="s"><v>{}</v></c><c t="{}"><v>{}</v></c></row>'
    cells = row.format(1, 0, "s", 1) + row.format(2, 9, "e", "#N/A") + row.format(3, 0, "b", 1)
    data = sheet_file(f"<sheetData>{cells}</sheetData>", shared)
    assert parse_bytes(data, "a.xlsx").blocks[1].text == "Tokyo | a b\n | #N/A\nTokyo | TRUE"


def test_workbook_without_cells_is_empty():
    with pytest.raises(EmptyDocument, match=r"a\.xlsx"):
        parse_bytes(workbook_file(lambda book: None), "a.xlsx")


def test_large_sheet_stays_one_table():
    def fill(book):
        for number in range(20_000):
            book.active.append([number, f"row {number}"])

    document = parse_bytes(workbook_file(fill), "a.xlsx")
    assert [b.kind for b in document.blocks] == ["heading", "table"]
    assert document.blocks[1].text.count("\n") == 19_999


def test_old_workbook_is_read_like_a_new_one():
    document = parse_bytes(old_workbook_file(), "prices.xls")
    assert kinds(document) == [
        ("heading", "Prices"),
        ("table", "Item | Price | Since\nLamp | 12 | 2024-01-01\nChair | 50%\nChair | 7.25"),
    ]
    assert document.title == "prices"
    assert offsets_hold(document)


@pytest.mark.parametrize(
    ("value", "code", "shown"),
    [
        (12.0, "General", "12"),
        (0.1 + 0.2, "General", "0.3"),
        (1e-5, "General", "0.00001"),
        (0.256, "0%", "26%"),
        (1234.5, '"$"#,##0.00', "$1,234.50"),
        (1234.5, "#,##0.00 [$€-407]", "1,234.50€"),
        (-5, "0.00;(0.00)", "-5.00"),
        (-5, '_($* #,##0.00_);_($* (#,##0.00);_($* "-"??_);_(@_)', "-$5.00"),
        (-12, "[Red]0.0;[Blue]-0.0", "-12.0"),
        (1.005, "0.00", "1.01"),
        (1234, "00000", "01234"),
        (12, '0 "kg"', "12 kg"),
        (45292.5, "m/d/yy h:mm", "2024-01-01 12:00"),
        (45292, "[$-409]mmmm\\ d\\,\\ yyyy;@", "2024-01-01"),
        (0.75, "h:mm", "18:00"),
        (1.5, "[h]:mm:ss", "36:00:00"),
        (1, "mm-dd-yy", "1900-01-01"),
        (12, "# ?/?", "12"),
        (1e300, "yyyy", "1e+300"),
    ],
)
def test_numbers_follow_their_format(value, code, shown):
    assert show_number(value, code) == shown


def test_dates_may_count_from_1904():
    assert show_number(0, "yyyy-mm-dd", date_1904=True) == "1904-01-01"


@given(
    value=st.floats() | st.floats(allow_nan=False, allow_infinity=False, width=16),
    code=st.text(alphabet='0#?.,%;()[]"$€-+ymdhsAP/eE@*_\\ rG', max_size=24) | st.text(max_size=8),
)
def test_any_number_under_any_format_is_one_line(value, code):
    assert "\n" not in show_number(value, code.replace("\n", " "))


@given(value=st.integers(min_value=-(10**14), max_value=10**14), decimals=st.integers(0, 4))
def test_fixed_formats_keep_the_value(value, decimals):
    number = value / 10**decimals
    code = "#,##0" + ("." + "0" * decimals if decimals else "")
    assert float(show_number(number, code).replace(",", "")) == pytest.approx(number, rel=1e-14)


CELL = st.text(max_size=30) | st.integers(-(10**9), 10**9) | st.floats(-1e9, 1e9) | st.none()


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.lists(CELL, max_size=5), max_size=8))
def test_any_workbook_has_exact_offsets_and_clean_cells(rows):
    def fill(book):
        for row in rows:
            # These characters do not exist in XML, so no workbook holds them.
            illegal = openpyxl.cell.cell.ILLEGAL_CHARACTERS_RE
            book.active.append(
                [illegal.sub("", c).lstrip("=") if isinstance(c, str) else c for c in row]
            )

    try:
        document = parse_bytes(workbook_file(fill), "a.xlsx")
    except EmptyDocument:
        return
    assert offsets_hold(document)
    for block in document.blocks:
        if block.kind == "table":
            widths = [line.count(" | ") for line in block.text.split("\n")]
            assert max(widths) < 5
            assert len(widths) <= len(rows)
