"""memento_documents.number_format against what Excel shows for the same value and format."""

# ruff: noqa: DTZ001 - a cell of a workbook has no time zone

import datetime as dt
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memento_documents.number_format import display


@pytest.mark.parametrize(
    ("value", "number_format", "shown"),
    [
        (None, "General", ""),
        ("text", "0.00", "text"),
        (True, "General", "TRUE"),
        (0, "General", "0"),
        (1234567, "General", "1234567"),
        (0.1 + 0.2, "General", "0.3"),
        (1 / 3, "General", "0.3333333333"),
        (3.0, "General", "3"),
        (123456789012, "General", "1.23457E+11"),
        (1234.5, "0", "1235"),
        (2.675, "0.00", "2.68"),
        (-2.5, "0", "-3"),
        (0.5, "# ?/?", "1/2"),
        (5.25, "# ??/??", "5 1/4"),
        (-0.33, "# ?/8", "-3/8"),
        (2, "# ?/?", "2"),
        (3, '[>2]"many";"few"', "many"),
        (1, '[>2]"many";"few"', "few"),
        ("text", '0;0;0;"<"@">"', "<text>"),
        (5, '0" a;b"', "5 a;b"),
        (1234567.891, "#,##0.00", "1,234,567.89"),
        (0.5, "#,##0.00", "0.50"),
        (0.5, "#.##", ".5"),
        (5, "#.##", "5."),
        (7, "000", "007"),
        (0.1256, "0.0%", "12.6%"),
        (0.5, "0%", "50%"),
        (1234.5, '"€"#,##0.00', "€1,234.50"),
        (1234.5, "[$€-407]#,##0.00", "€1,234.50"),
        (1234.5, '#,##0.00" kg"', "1,234.50 kg"),
        (-1234, "#,##0;(#,##0)", "(1,234)"),
        (-5, "0;[Red]-0", "-5"),
        (0, '0;-0;"none"', "none"),
        (12345678, '0.0,,"M"', "12.3M"),
        (123456, "0.00E+00", "1.23E+05"),
        (dt.date(2024, 3, 1), "yyyy-mm-dd", "2024-03-01"),
        (dt.datetime(2024, 3, 1, 14, 5, 9), "dd/mm/yy hh:mm:ss", "01/03/24 14:05:09"),
        (dt.datetime(2024, 3, 1, 14, 5), "h:mm AM/PM", "2:05 PM"),
        (dt.datetime(2024, 3, 1, 0, 30), "h:mm AM/PM", "12:30 AM"),
        (dt.datetime(2024, 12, 5), 'd mmmm yyyy"y"', "5 December 2024y"),
        (dt.datetime(2024, 12, 5), "ddd d-mmm-yy", "Thu 5-Dec-24"),
        (dt.time(9, 30), "hh:mm", "09:30"),
        (dt.datetime(2024, 3, 1), "General", "2024-03-01 00:00:00"),
        (dt.timedelta(hours=30, minutes=5), "[h]:mm", "30:05:00"),
    ],
)
def test_a_value_is_shown_as_excel_shows_it(value: object, number_format: str, shown: str) -> None:
    assert display(value, number_format) == shown


@given(st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False, width=32)), st.text(max_size=20))
def test_no_format_however_odd_stops_a_number_from_being_shown(value: float, number_format: str) -> None:
    assert isinstance(display(value, number_format), str)


@given(st.datetimes(), st.text(alphabet='ymdhs/:-.0 AMPamp"\\[]$', max_size=20))
def test_no_format_however_odd_stops_a_date_from_being_shown(value: dt.datetime, number_format: str) -> None:
    assert isinstance(display(value, number_format), str)


@given(st.integers(-(10**12), 10**12), st.integers(0, 4))
def test_a_decimal_format_says_the_number_itself(value: int, places: int) -> None:
    pattern = "#,##0" + ("." + "0" * places if places else "")
    shown = Decimal(display(value / 8, pattern).replace(",", ""))
    assert abs(shown - Decimal(value) / 8) <= Decimal("0.5").scaleb(-places)
