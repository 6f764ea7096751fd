"""A cell's value as Excel would show it.

Covers the formats that workbooks are full of: general numbers, decimals, thousands, percent, currency,
scientific, fractions, dates and times, sections for negative, zero and text, conditions in brackets. Not covered: fill
and padding characters, locale-dependent month names; those show the plain value.
Source: ECMA-376 part 1, §18.8.31 (numFmts).
"""

import datetime as dt
import operator
import re
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

__all__ = ["display"]

_GENERAL_DIGITS = 10
"""A column of usual width shows ten significant digits or so; more is noise of binary fractions."""
_QUOTED = re.compile(r'"([^"]*)"|\\(.)|\[[^\]]*\]|_.|\*.')
_PIECE = re.compile(r'"[^"]*"|\\.|.', re.DOTALL)
_CONDITION = re.compile(r"\[(<=|>=|<>|<|>|=)\s*(-?\d+(?:\.\d+)?)\]")
_COMPARED = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq,
             "<>": operator.ne}  # fmt: skip
_FRACTION = re.compile(r"(?:([#0?]+) +)?[#0?]+ ?/ ?([#0?]+|\d+)")
_DIGITS = re.compile(r"[#0?][#0?,]*(?:\.[0#?]*,*)?(?:E[+-][0#]+)?")
_DATE_TOKEN = re.compile(r"yyyy|yy|mmmmm|mmmm|mmm|mm|m|dddd|ddd|dd|d|hh|h|ss|s|am/pm|a/p|\.0+", re.IGNORECASE)


def display(value: object, number_format: str = "General") -> str:
    """Return `value` (a str, bool, number, date, time or None) as a cell with this format shows it."""
    match value:
        case None:
            return ""
        case bool():
            return "TRUE" if value else "FALSE"
        case str():
            return _text(value, number_format)
        case int() | float():
            return _number(value, number_format)
        case dt.datetime() | dt.date() | dt.time():
            return _moment(value, number_format)
        case dt.timedelta():
            return _duration(value)
        case _:
            return str(value)


def _number(value: float, number_format: str) -> str:
    if number_format in ("General", "@", ""):
        return _general(value)
    section, value = _section(number_format, value)
    literal_free = _QUOTED.sub(_literal_or_nothing, section)
    pattern = _DIGITS.search(literal_free)
    if pattern is None:
        return literal_free.strip() or _general(value)  # a format of words only, as `"-"` for zero
    fraction = _FRACTION.search(literal_free)
    if fraction is not None:
        shown = _fraction(value, fraction[2], mixed=fraction[1] is not None)
        return (literal_free[: fraction.start()] + shown + literal_free[fraction.end() :]).strip()
    shown = _digits(value, pattern[0], percent="%" in literal_free)
    return (literal_free[: pattern.start()] + shown + literal_free[pattern.end() :]).strip()


def _sections(number_format: str) -> list[str]:
    """Parted by semicolons, but not by those in quotes or after a backslash."""
    sections = [""]
    for piece in _PIECE.findall(number_format):
        if piece == ";":
            sections.append("")
        else:
            sections[-1] += piece
    return sections[:4]


def _text(value: str, number_format: str) -> str:
    """The fourth section is that of texts; a format of one section with `@` is for them alone."""
    sections = _sections(number_format)
    section = sections[3] if len(sections) == 4 else sections[0] if "@" in sections[0] else "@"
    return _QUOTED.sub(_literal_or_nothing, section.replace("@", "\0")).replace("\0", value)


def _fraction(value: float, denominator: str, *, mixed: bool) -> str:
    """`5 1/4`, with the whole in front where `mixed`; a denominator in digits is fixed, else it has so many places."""
    places = len(denominator)
    if denominator.isdecimal() and int(denominator):
        over = int(denominator)
        near, fixed = Fraction(round(abs(value) * over), over), over
    else:
        near, fixed = Fraction(abs(value)).limit_denominator(10 ** min(places, 6) - 1), 0
    whole = int(near) if mixed else 0
    rest = near - whole
    parts = [str(whole)] if whole or not rest else []
    if rest:
        under = fixed or rest.denominator
        parts.append(f"{rest.numerator * (under // rest.denominator)}/{under}")
    return ("-" if value < 0 else "") + " ".join(parts)


def _section(number_format: str, value: float) -> tuple[str, float]:
    """Pick `positive;negative;zero;text`; a section for negatives shows the number without its sign."""
    sections = _sections(number_format)
    conditions = [_CONDITION.search(section) for section in sections]
    if any(conditions):
        for section, condition in zip(sections, conditions, strict=True):
            if condition is None or _COMPARED[condition[1]](value, float(condition[2])):
                return section, value
        return sections[-1], value
    if value < 0 and len(sections) > 1:
        return sections[1], -value
    if value == 0 and len(sections) > 2:
        return sections[2], value
    return sections[0], value


def _literal_or_nothing(match: re.Match[str]) -> str:
    currency = re.fullmatch(r"\[\$([^-\]]*)(?:-[0-9A-Fa-f]+)?\]", match[0])
    return currency[1] if currency else (match[1] or match[2] or "")


def _digits(value: float, pattern: str, *, percent: bool) -> str:
    mantissa, _, exponent = pattern.partition("E")
    whole, point, fraction = mantissa.rstrip(",").partition(".")
    thousands = len(mantissa) - len(mantissa.rstrip(","))  # each trailing comma divides by a thousand
    places = len(fraction)
    if exponent:
        text = f"{value:.{places}E}"
        head, _, power = text.partition("E")
        return f"{head}E{power[0]}{power[1:].lstrip('0').rjust(len(exponent) - 1, '0')}"
    number = Decimal(repr(value)) * (100 if percent else 1)
    rounded = number.scaleb(-3 * thousands).quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_UP)
    text = f"{rounded:,.{places}f}" if "," in whole else f"{rounded:.{places}f}"
    while fraction.endswith(("#", "?")) and text.endswith("0"):
        text, fraction = text[:-1], fraction[:-1]
    text += point if point and "." not in text else ""  # `#.##` shows 5 as `5.`
    sign, unsigned = ("-", text[1:]) if text.startswith("-") else ("", text)
    digits, _, decimals = unsigned.partition(".")
    digits = digits.rjust(whole.count("0"), "0") if "0" in whole else digits.lstrip("0")
    return sign + digits + unsigned[len(unsigned) - len(decimals) - ("." in unsigned) :]


def _general(value: float) -> str:
    if isinstance(value, int) or value.is_integer():
        return str(int(value)) if abs(value) < 1e11 else f"{value:.6g}".upper()
    text = f"{value:.{_GENERAL_DIGITS}g}"
    return text.upper() if "e" in text else text


def _moment(value: dt.datetime | dt.date | dt.time, number_format: str) -> str:
    pattern = _QUOTED.sub(lambda match: (match[1] or match[2] or "").translate(_SHIELD), number_format.split(";")[0])
    tokens = list(_DATE_TOKEN.finditer(pattern))
    if number_format in ("General", "") or not tokens:
        return value.isoformat(" ") if isinstance(value, dt.datetime) else value.isoformat()
    twelve_hours = any(token[0].lower() in ("am/pm", "a/p") for token in tokens)
    shown: list[str] = []
    at = 0
    for index, token in enumerate(tokens):
        shown.append(pattern[at : token.start()])
        before = tokens[index - 1][0].lower() if index else ""
        after = tokens[index + 1][0].lower() if index + 1 < len(tokens) else ""
        shown.append(
            _token(
                value, token[0].lower(), minutes=before.startswith("h") or after.startswith("s"), twelve=twelve_hours
            )
        )
        at = token.end()
    return ("".join(shown) + pattern[at:]).translate(_UNSHIELD)


_SHIELD = {ord(letter): 0xE000 + ord(letter) for letter in "yYmMdDhHsSaApP."}
"""Quoted letters move to a private area while the format is read, so that no date code is seen in them."""
_UNSHIELD = {private: letter for letter, private in _SHIELD.items()}


def _token(value: dt.datetime | dt.date | dt.time, token: str, *, minutes: bool, twelve: bool) -> str:
    moment = dt.datetime.combine(dt.date(1900, 1, 1), value) if isinstance(value, dt.time) else value
    hour, minute, second = getattr(moment, "hour", 0), getattr(moment, "minute", 0), getattr(moment, "second", 0)
    if token in ("m", "mm") and minutes:
        return f"{minute:0{len(token)}d}"
    if token.startswith("."):
        return f"{getattr(moment, 'microsecond', 0) / 1_000_000:.{len(token) - 1}f}"[1:]
    hour = (hour % 12 or 12) if twelve else hour
    simple = {
        "yyyy": f"{moment.year:04d}", "yy": f"{moment.year % 100:02d}",
        "m": str(moment.month), "mm": f"{moment.month:02d}",
        "d": str(moment.day), "dd": f"{moment.day:02d}", "h": str(hour), "hh": f"{hour:02d}", "s": str(second),
        "ss": f"{second:02d}", "am/pm": "AM" if getattr(moment, "hour", 0) < 12 else "PM",
        "a/p": "A" if getattr(moment, "hour", 0) < 12 else "P",
    }  # fmt: skip
    named = {"mmm": "%b", "mmmm": "%B", "ddd": "%a", "dddd": "%A"}
    if token == "mmmmm":
        return moment.strftime("%B")[0]
    return simple[token] if token in simple else moment.strftime(named[token])


def _duration(value: dt.timedelta) -> str:
    seconds = round(value.total_seconds())
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    return f"{sign}{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
