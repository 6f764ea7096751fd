"""What Excel displays for a value under a number format: a list by hand, after ECMA-376 part 1, §18.8.31."""

import datetime as dt

from memento_documents.number_format import display

__all__ = ["displayed_share"]

_MOMENT = dt.datetime(2024, 3, 1, 14, 5, 9)  # noqa: DTZ001 - a cell has no time zone
_CASES: list[tuple[object, str, str]] = [
    (1234.5, "General", "1234.5"), (1e12, "General", "1E+12"), (0.1 + 0.2, "General", "0.3"), (12, "General", "12"),
    (-7, "General", "-7"), (123456789012, "General", "1.23457E+11"), (True, "General", "TRUE"), ("x", "General", "x"),
    (1234.5, "0", "1235"), (1234.5, "0.00", "1234.50"), (1234567, "#,##0", "1,234,567"), (0.5, "#,##0.00", "0.50"),
    (0.125, "0%", "13%"), (0.125, "0.0%", "12.5%"), (-0.5, "0%", "-50%"), (1234.5, "0.00E+00", "1.23E+03"),
    (0.00012, "0.0E+0", "1.2E-4"), (5, "00000", "00005"), (5.25, "#.##", "5.25"), (0, "#,##0;(#,##0);\"-\"", "-"),
    (-5, "#,##0;(#,##0)", "(5)"), (-5, "0.00_);(0.00)", "(5.00)"), (1234, "\"€\"#,##0.00", "€1,234.00"),
    (1234, "[$€-407]#,##0", "€1,234"), (1234, "#,##0\\ \"kg\"", "1,234 kg"), (1234567, "#,##0,", "1,235"),
    (1234567, "0.0,,\"M\"", "1.2M"), (12, "0\" pcs\"", "12 pcs"), (1.5, "0.0#", "1.5"), (1.25, "0.0#", "1.25"),
    (_MOMENT, "yyyy-mm-dd", "2024-03-01"), (_MOMENT, "dd/mm/yyyy", "01/03/2024"), (_MOMENT, "d-mmm-yy", "1-Mar-24"),
    (_MOMENT, "mmmm d, yyyy", "March 1, 2024"), (_MOMENT, "h:mm AM/PM", "2:05 PM"), (_MOMENT, "hh:mm:ss", "14:05:09"),
    (_MOMENT, "m/d/yy h:mm", "3/1/24 14:05"), (_MOMENT, "dddd", "Friday"), (_MOMENT, "ddd", "Fri"),
    (_MOMENT, "mmmmm", "M"), (dt.time(9, 5), "h:mm", "9:05"), (dt.timedelta(hours=30), "[h]:mm:ss", "30:00:00"),
    (0.5, "# ?/?", "1/2"), (5.25, "# ??/??", "5 1/4"), (3, "[>2]\"many\";\"few\"", "many"),
    (1, "[>2]\"many\";\"few\"", "few"), (0.33, "# ?/8", "3/8"),
    (0.1, "[Red]0.0", "0.1"), ("text", "0.00", "text"), ("text", "0;0;0;\"<\"@\">\"", "<text>"), (12, "@", "12"),
]  # fmt: skip


def displayed_share() -> float:
    """The share of the list that `number_format` shows exactly so."""
    return sum(display(value, number_format) == shown for value, number_format, shown in _CASES) / len(_CASES)
