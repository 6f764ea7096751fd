"""Arithmetic without a programming language: exact fractions, arbitrary precision, units.

Owns a small grammar of its own, evaluated over Python's syntax tree; nothing is ever passed to `eval`. Numbers stay
fractions as long as the operations allow it and become mpmath numbers of the wanted precision where they do not
(√2, sin 1). Units come from pint, with exact conversion factors. Every step is bounded in size, so that `9**9**9`
is an error at once and not a long wait. Not covered: symbols, equations, complex numbers, matrices; `run_python`
has those.
"""

import ast
import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

__all__ = ["Calculation", "CannotCalculate", "calculate"]

_MAX_BITS = 100_000
"""Size of the largest exact number, about 30,000 digits; larger powers are computed to the wanted precision."""
_MAX_EXPONENT = 10**12
"""Binary exponent of the largest inexact number."""
_MAX_SHOWN_DIGITS = 2_000
_MAX_NODES = 400
_MAX_FACTORIAL = 5_000
_MAX_ROOT = 64

Value = Any
"""A Fraction, an mpmath number, a bool, or a pint quantity of one of the first two."""


class CannotCalculate(Exception):
    """The expression is wrong or too large. The message says where and what to write instead."""


@dataclass(frozen=True)
class Calculation:
    """What an expression comes to. `exact` is a whole number or a fraction `p/q`, or None when there is none."""

    exact: str | None
    decimal: str
    unit: str | None


def calculate(expression: str, *, digits: int = 15) -> Calculation:
    """Evaluate `expression`, showing decimals to `digits` significant digits.

    Raises:
        CannotCalculate: syntax, unknown names, units that do not fit, division by zero, numbers too large.
    """
    import pint

    body, target = _split_target(expression)
    python, names = _as_python(body)
    try:
        tree = ast.parse(python, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
        raise CannotCalculate(
            f"{body.strip()!r} is not an expression; write it like '(3 km + 200 m) / 4 min to m/s'."
        ) from exc
    if sum(1 for _ in ast.walk(tree)) > _MAX_NODES:
        raise CannotCalculate(f"The expression has more than {_MAX_NODES} parts; split it up.")
    evaluation = _Evaluation(python, names, digits)
    try:
        value = evaluation.value(tree.body)
        if target is not None:
            value = evaluation.converted(value, target)
        return evaluation.shown(value)
    except ZeroDivisionError as exc:
        raise CannotCalculate("Division by zero.") from exc
    except pint.PintError as exc:
        raise CannotCalculate("The units do not go together; convert to plain ones (kelvin, metres) first.") from exc
    except (OverflowError, RecursionError) as exc:
        raise CannotCalculate("A number in it gets too large.") from exc


# --- from what people write to Python's grammar ---------------------------------------------------------------------

_TOKEN = re.compile(
    r"(?P<number>(?:\d+(?:_\d+)*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]*\.))|(?P<name>[^\W\d]\w*|[°µΩÅ]\w*)"
    r"|(?P<operator>\*\*|//|<=|>=|==|!=|[-+*/%(),<>!])|(?P<space>\s+)|(?P<other>.)"
)
_SAME = str.maketrans({"^": "**", "×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "π": " pi ", "√": " sqrt "})
_TARGET = re.compile(r"\s(?:to|in|as)\s+(?P<after>[^\W\d_°][^+=<>]*|°\w+|%)\s*$|->\s*(?P<arrow>.+)$")


def _split_target(expression: str) -> tuple[str, str | None]:
    """`3 ft to cm` is `3 ft` and `cm`. The last `to`, `in`, `as` or `->` counts."""
    matches = [match for at in range(len(expression)) if (match := _TARGET.match(expression, at))]
    if not matches:
        return expression, None
    last = matches[-1]
    return expression[: last.start()], (last["after"] or last["arrow"]).strip()


def _as_python(expression: str) -> tuple[str, dict[str, str]]:
    """Names become placeholders (`in` and `as` are keywords of Python), and side by side means times.

    Number and unit stay together: `5 km / 2 h` is `(5 km) / (2 h)`.
    """
    text = expression.translate(_SAME)
    if "(" not in text:
        text = re.sub(r"(?<![\d.])\d{1,3}(?:,\d{3})+(?!\d)", lambda match: match[0].replace(",", ""), text)
    text = re.sub(r"%\s+of\b", "/100*", text)
    text = re.sub(r"\bmod\b(?!\s*\()", "%", text)
    tokens = [(str(match.lastgroup), match[0]) for match in _TOKEN.finditer(text) if match.lastgroup != "space"]
    names: dict[str, str] = {}
    pieces: list[str] = []
    group_open = False
    for index, (kind, token) in enumerate(tokens):
        before = tokens[index - 1] if index else ("", "")
        after = tokens[index + 1] if index + 1 < len(tokens) else ("", "")
        if kind == "other":
            raise CannotCalculate(f"{token!r} means nothing here.")
        if kind == "name":
            placeholder = names.setdefault(token, f"n{len(names)}_")
            joined = before[0] in ("number", "name") or before[1] in (")", "!")
            pieces += ["*", placeholder] if joined else [placeholder]
        elif kind == "number":
            if before[0] in ("number", "name") or before[1] == ")":
                raise CannotCalculate(f"An operator is missing between {before[1]!r} and {token!r}.")
            if after[0] == "name" and not _is_call(tokens, index + 1) and not group_open and before[1] != "**":
                pieces.append("(")
                group_open = True
            pieces.append(_plain_number(token))
        elif token == "(" and (before[0] == "number" or before[1] == ")"):
            pieces += ["*", "("]
        elif token == "%" and after[0] not in ("number", "name") and after[1] != "(":
            pieces.append("/100")
        elif token == "!":
            pieces = [*_factorial(pieces, names)]
        else:
            pieces.append(token)
        if group_open and _ends_group(tokens, index):
            pieces.append(")")
            group_open = False
    return "".join(pieces), names


def _is_call(tokens: list[tuple[str, str]], index: int) -> bool:
    return tokens[index][1].lower() in _FUNCTIONS and index + 1 < len(tokens) and tokens[index + 1][1] == "("


def _ends_group(tokens: list[tuple[str, str]], index: int) -> bool:
    """A number's units go on over further names and their powers: `9.81 kg m s**-2`."""
    kind, token = tokens[index]
    after = tokens[index + 1] if index + 1 < len(tokens) else ("", "")
    if token == "**" or (token == "-" and tokens[index - 1][1] == "**"):
        return False
    if after[1] == "**" and kind == "name":
        return False
    return after[0] != "name" or _is_call(tokens, index + 1)


def _factorial(pieces: list[str], names: dict[str, str]) -> list[str]:
    """`5!` and `(2+3)!`: the operand is the last piece, or all back to the matching parenthesis."""
    start, depth = len(pieces), 0
    while start > 0:
        start -= 1
        depth += pieces[start].count(")") - pieces[start].count("(")
        if depth <= 0:
            break
    if start > 0 and pieces[start] == "(" and pieces[start - 1] in names.values():
        start -= 1  # the operand is a function with its arguments
    if not pieces or depth != 0:
        raise CannotCalculate("There is no number before '!'.")
    return [*pieces[:start], names.setdefault("factorial", f"n{len(names)}_"), "(", *pieces[start:], ")"]


def _plain_number(token: str) -> str:
    """Without leading zeros, which Python's grammar refuses."""
    return re.sub(r"^0+(?=\d)", "", token)


# --- evaluation -----------------------------------------------------------------------------------------------------


class _Evaluation:
    def __init__(self, source: str, names: dict[str, str], digits: int) -> None:
        import mpmath

        self._source = source
        self._names = {placeholder: name for name, placeholder in names.items()}
        self._digits = digits
        self.mp: Any = mpmath.MPContext()
        self.mp.dps = digits + 15

    def value(self, node: ast.expr) -> Value:
        match node:
            case ast.Constant():
                return self._literal(node)
            case ast.Name():
                return self._name(self._names[node.id])
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self.value(operand)
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self.value(operand)
            case ast.BinOp(left=left, op=operator, right=right):
                return self.checked(self._binary(operator, self.value(left), self.value(right)))
            case ast.Compare(left=left, ops=operators, comparators=others):
                return self._compare([left, *others], operators)
            case ast.Call(func=ast.Name(id=placeholder), args=arguments, keywords=[]):
                return self.checked(
                    self._call(self._names[placeholder], [self.value(argument) for argument in arguments])
                )
            case _:
                raise CannotCalculate(
                    "Only numbers, units, + - * / // % ^ !, comparisons and functions are understood."
                )

    def _literal(self, node: ast.Constant) -> Fraction:
        text = (ast.get_source_segment(self._source, node) or "").replace("_", "")
        try:
            number = Decimal(text)
        except InvalidOperation as exc:
            raise CannotCalculate(f"{text!r} is not a number.") from exc
        if abs(number.adjusted()) > _MAX_BITS // 4:
            raise CannotCalculate(f"{text!r} is too large or too small.")
        return Fraction(number)

    def _name(self, name: str) -> Value:
        constants = {"pi": lambda: +self.mp.pi, "e": lambda: +self.mp.e, "tau": lambda: 2 * self.mp.pi}
        if name in constants:
            return constants[name]()
        if name.lower() in _FUNCTIONS and name not in _units():
            raise CannotCalculate(f"{name} is a function: write {name}(…).")
        return self._unit(name)

    def _unit(self, name: str) -> Value:
        import pint

        try:
            return _units().Quantity(Fraction(1), name)
        except (pint.UndefinedUnitError, AttributeError, ValueError, TypeError, AssertionError) as exc:
            functions = ", ".join(sorted(_FUNCTIONS))
            raise CannotCalculate(f"{name!r} is no unit, constant or function. Functions: {functions}.") from exc

    def _binary(self, operator: ast.operator, left: Value, right: Value) -> Value:
        import pint

        if isinstance(operator, ast.Pow):
            return self.power(left, right)
        operations: dict[type[ast.operator], Callable[[Value, Value], Value]] = {
            ast.Add: lambda a, b: a + b,
            ast.Sub: lambda a, b: a - b,
            ast.Mult: lambda a, b: a * b,
            ast.Div: lambda a, b: a / b,
            ast.FloorDiv: lambda a, b: self._floor(a / b),
            ast.Mod: lambda a, b: a - b * self._floor(a / b),
        }
        if type(operator) not in operations:
            raise CannotCalculate("Only + - * / // % and ^ join numbers.")
        try:
            return operations[type(operator)](*self._offsets_as_kelvin(operator, left, right))
        except pint.OffsetUnitCalculusError as exc:
            raise CannotCalculate(
                "Temperatures in °C or °F cannot be combined like this; convert them to kelvin first."
            ) from exc
        except pint.DimensionalityError as exc:
            raise CannotCalculate(_misfit(left, right)) from exc

    def _offsets_as_kelvin(self, operator: ast.operator, left: Value, right: Value) -> tuple[Value, Value]:
        """`20 degC` is a point on a scale, not twenty times a unit."""
        if isinstance(operator, ast.Mult) and _is_quantity(right) and not _is_quantity(left) and right.magnitude == 1:
            return 1, _units().Quantity(left, right.units)
        return left, right

    def power(self, base: Value, exponent: Value) -> Value:
        if _is_quantity(exponent):
            exponent = self._number(exponent)
        if _is_quantity(base):
            if not isinstance(exponent, Fraction) or abs(exponent) > 100:
                raise CannotCalculate("A quantity can only be raised to a small fixed power.")
            return _units().Quantity(
                self.power(base.magnitude, exponent),
                base.units ** (int(exponent) if exponent.denominator == 1 else float(exponent)),
            )
        if base == 0 and exponent < 0:
            raise CannotCalculate("Division by zero.")
        if isinstance(base, Fraction) and isinstance(exponent, Fraction):
            exact = self._exact_power(base, exponent)
            if exact is not None:
                return exact
        if base < 0 and not (isinstance(exponent, Fraction) and exponent.denominator == 1):
            raise CannotCalculate("A root of a negative number is not real.")
        self._check_exponent(base, exponent)
        return self.mp.power(self.real(base), self.real(exponent))

    def _exact_power(self, base: Fraction, exponent: Fraction) -> Fraction | None:
        root = _exact_root(base, exponent.denominator) if exponent.denominator <= _MAX_ROOT else None
        if root is None or abs(exponent.numerator) * max(_bits(root) - 1, 1) > _MAX_BITS:
            return root if root is not None and root in (0, 1) else None
        return root**exponent.numerator

    def _check_exponent(self, base: Value, exponent: Value) -> None:
        if base != 0 and abs(self.mp.log(abs(self.real(base)), 2) * self.real(exponent)) > _MAX_EXPONENT:
            raise CannotCalculate("The power is too large to be computed, even roughly.")

    def _compare(self, nodes: list[ast.expr], operators: list[ast.cmpop]) -> bool:
        import pint

        values = [self.value(node) for node in nodes]
        signs: dict[type[ast.cmpop], Callable[[Value, Value], bool]] = {
            ast.Lt: lambda a, b: a < b,
            ast.LtE: lambda a, b: a <= b,
            ast.Gt: lambda a, b: a > b,
            ast.GtE: lambda a, b: a >= b,
            ast.Eq: lambda a, b: a == b,
            ast.NotEq: lambda a, b: a != b,
        }
        try:
            return all(bool(signs[type(sign)](a, b)) for sign, a, b in zip(operators, values, values[1:], strict=False))
        except (KeyError, TypeError, ValueError, pint.DimensionalityError) as exc:
            raise CannotCalculate(f"These cannot be compared. {_misfit(*values[:2])}") from exc

    def _call(self, name: str, arguments: list[Value]) -> Value:
        function = _FUNCTIONS.get(name.lower())
        if function is None:
            raise CannotCalculate(f"There is no function {name!r}. Functions: {', '.join(sorted(_FUNCTIONS))}.")
        try:
            return function(self, *arguments)
        except TypeError as exc:
            raise CannotCalculate(f"{name} does not take {len(arguments)} such values.") from exc
        except ValueError as exc:
            raise CannotCalculate(f"{name}: {exc}.") from exc

    def converted(self, value: Value, target: str) -> Value:
        import pint

        if target == "%":
            return _units().Quantity(self._number(value) * 100, "percent")
        python, names = _as_python(target)
        try:
            unit = _Evaluation(python, names, self._digits).value(ast.parse(python, mode="eval").body)
        except (SyntaxError, CannotCalculate) as exc:
            raise CannotCalculate(f"{target!r} is no unit to convert to.") from exc
        if not _is_quantity(unit):
            raise CannotCalculate(f"{target!r} is no unit to convert to.")
        try:
            quantity = value if _is_quantity(value) else _units().Quantity(value)
            converted = quantity.to(unit.units)
            return converted if unit.magnitude == 1 else converted / unit.magnitude
        except pint.DimensionalityError as exc:
            raise CannotCalculate(_misfit(value, unit)) from exc

    def shown(self, value: Value) -> Calculation:
        unit: str | None = None
        if isinstance(value, bool):
            return Calculation(str(value).lower(), str(value).lower(), None)
        if _is_quantity(value):
            if value.dimensionless and len(dict(value.unit_items())) > 1:
                value = value.to_reduced_units()  # km/m is a thousand
            unit = _unit_text(value) or None
            value = value.magnitude
        if isinstance(value, int):
            value = Fraction(value)
        if isinstance(value, Fraction):
            too_long = _bits(value) > _MAX_SHOWN_DIGITS * math.log2(10)
            return Calculation(None if too_long else str(value), self._decimal(value), unit)
        return Calculation(None, self._decimal(value), unit)

    def _decimal(self, value: Value) -> str:
        if isinstance(value, Fraction) and value.denominator == 1 and _bits(value) < self._digits * math.log2(10):
            return str(value)
        text = str(self.mp.nstr(self.real(value), self._digits, strip_zeros=True, min_fixed=-6, max_fixed=self._digits))
        return text.removesuffix(".0").replace(".0e", "e")

    def real(self, value: Value) -> Any:
        """As an mpmath number."""
        if isinstance(value, Fraction):
            return self.mp.mpf(value.numerator) / value.denominator
        return self.mp.mpf(value)

    def _number(self, value: Value) -> Value:
        """Without its unit, which must cancel out; angles are taken in radians.

        Raises:
            CannotCalculate: it has a dimension.
        """
        if not _is_quantity(value):
            return value
        if not value.dimensionless:
            raise CannotCalculate(f"A plain number is needed here, not one in {_unit_text(value)}.")
        return value.to_base_units().magnitude

    def plain(self, value: Value) -> Value:
        """`_number`, for the functions."""
        return self._number(value)

    def _floor(self, value: Value) -> Fraction:
        number = self._number(value)
        return Fraction(math.floor(number) if isinstance(number, Fraction) else int(self.mp.floor(number)))

    def checked(self, value: Value) -> Value:
        number = value.magnitude if _is_quantity(value) else value
        if isinstance(number, Fraction) and _bits(number) > _MAX_BITS:
            raise CannotCalculate(f"A number in it has more than {int(_MAX_BITS / math.log2(10)):,} digits.")
        return value


def _misfit(left: Value, right: Value) -> str:
    """pint's own words cannot be shown: they fail on fractional exponents."""
    sides = [(_unit_text(side) if _is_quantity(side) else "") or "a plain number" for side in (left, right)]
    return f"The units do not fit: one side is {sides[0]}, the other {sides[1]}."


def _unit_text(quantity: Value) -> str:
    """The unit with symbols, as `kg·m/s^2`."""
    above: list[str] = []
    below: list[str] = []
    for name, exponent in quantity.unit_items():
        size = abs(exponent)
        symbol = str(_units().get_symbol(name)) + (f"^{size}" if size != 1 else "")
        (above if exponent > 0 else below).append(symbol)
    return "·".join(above) + "".join(f"/{symbol}" for symbol in below) if above or not below else "1/" + "/".join(below)


def _bits(number: Fraction) -> int:
    return max(number.numerator.bit_length(), number.denominator.bit_length())


def _is_quantity(value: Value) -> bool:
    return hasattr(value, "dimensionality")


@functools.cache
def _units() -> Any:
    import pint

    # pint's hints do not know exact fractions
    make: Any = pint.UnitRegistry
    return make(non_int_type=Fraction, autoconvert_offset_to_baseunit=True)


def _exact_root(number: Fraction, degree: int) -> Fraction | None:
    """The real root when it is a fraction itself."""
    if degree == 1:
        return number
    if number < 0:
        root = _exact_root(-number, degree) if degree % 2 else None
        return None if root is None else -root
    top, bottom = _whole_root(number.numerator, degree), _whole_root(number.denominator, degree)
    return None if top is None or bottom is None else Fraction(top, bottom)


def _whole_root(number: int, degree: int) -> int | None:
    """By bisection; `number` is not negative."""
    low, high = 0, 1 << (number.bit_length() // degree + 1)
    while low < high:
        middle = (low + high + 1) // 2
        if middle**degree <= number:
            low = middle
        else:
            high = middle - 1
    return low if low**degree == number else None


# --- functions ------------------------------------------------------------------------------------------------------


def _real_function(name: str) -> Callable[..., Value]:
    def apply(evaluation: _Evaluation, x: Value) -> Value:
        result = getattr(evaluation.mp, name)(evaluation.real(evaluation.plain(x)))
        if getattr(result, "imag", 0) != 0 or not evaluation.mp.isfinite(result):
            raise ValueError("not defined there")
        return evaluation.mp.re(result)

    return apply


def _log(evaluation: _Evaluation, x: Value, base: Value | None = None) -> Value:
    number = evaluation.plain(x)
    if number <= 0 or (base is not None and (base <= 0 or base == 1)):
        raise ValueError("not defined there")
    if isinstance(number, Fraction) and isinstance(base, Fraction) and base.denominator == 1 and base > 1:
        power = round(float(evaluation.mp.log(evaluation.real(number), evaluation.real(base))))
        if abs(power) * _bits(base) <= _MAX_BITS and base**power == number:
            return Fraction(power)
    logarithm = evaluation.mp.log(evaluation.real(number))
    return logarithm if base is None else logarithm / evaluation.mp.log(evaluation.real(base))


def _whole(evaluation: _Evaluation, value: Value) -> int:
    number = evaluation.plain(value)
    if not isinstance(number, Fraction) or number.denominator != 1:
        raise ValueError("a whole number is needed")
    return int(number)


def _factorial_of(evaluation: _Evaluation, x: Value) -> Fraction:
    number = _whole(evaluation, x)
    if not 0 <= number <= _MAX_FACTORIAL:
        raise ValueError(f"defined here for 0 to {_MAX_FACTORIAL}")
    return Fraction(math.factorial(number))


def _choose(count: Callable[[int, int], int]) -> Callable[..., Fraction]:
    def apply(evaluation: _Evaluation, n: Value, k: Value) -> Fraction:
        of, taken = _whole(evaluation, n), _whole(evaluation, k)
        if not (taken >= 0 and of >= 0) or min(taken, abs(of - taken) or taken) * max(of.bit_length(), 1) > _MAX_BITS:
            raise ValueError("the numbers are negative or too large")
        return Fraction(count(of, taken))

    return apply


def _rounded(to: Callable[[Fraction], int]) -> Callable[..., Value]:
    def apply(evaluation: _Evaluation, x: Value) -> Value:
        if _is_quantity(x):
            return _units().Quantity(apply(evaluation, x.magnitude), x.units)
        return (
            Fraction(to(x))
            if isinstance(x, Fraction)
            else Fraction(to(Fraction(int(evaluation.mp.floor(x * 2**64)), 2**64)))
        )

    return apply


def _round(evaluation: _Evaluation, x: Value, places: Value = Fraction(0)) -> Value:
    """Halves away from zero, as taught in school."""
    if _is_quantity(x):
        return _units().Quantity(_round(evaluation, x.magnitude, places), x.units)
    scale = Fraction(10) ** max(-1000, min(1000, _whole(evaluation, places)))
    number = x if isinstance(x, Fraction) else Fraction(str(evaluation.mp.nstr(x, evaluation.mp.dps)))
    whole = math.floor(abs(number) * scale + Fraction(1, 2))
    return Fraction(whole if number >= 0 else -whole) / scale


def _sum(evaluation: _Evaluation, first: Value, *others: Value) -> Value:
    total = first
    for value in others:
        total = evaluation.checked(total + value)
    return total


def _mean(evaluation: _Evaluation, first: Value, *others: Value) -> Value:
    return _sum(evaluation, first, *others) / (1 + len(others))


def _root(evaluation: _Evaluation, x: Value, degree: Value = Fraction(2)) -> Value:
    return evaluation.power(x, 1 / evaluation.plain(degree))


def _cube_root(evaluation: _Evaluation, x: Value) -> Value:
    return _root(evaluation, x, Fraction(3))


def _absolute(_: _Evaluation, x: Value) -> Value:
    return abs(x)


def _least(_: _Evaluation, *values: Value) -> Value:
    return min(values)


def _greatest(_: _Evaluation, *values: Value) -> Value:
    return max(values)


def _of_whole_numbers(function: Callable[..., int]) -> Callable[..., Fraction]:
    def apply(evaluation: _Evaluation, *values: Value) -> Fraction:
        return Fraction(function(*(_whole(evaluation, value) for value in values)))

    return apply


def _log_to(base: int | None) -> Callable[..., Value]:
    def apply(evaluation: _Evaluation, x: Value) -> Value:
        return _log(evaluation, x, None if base is None else Fraction(base))

    return apply


_REAL_FUNCTIONS = ("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "exp")
_FUNCTIONS: dict[str, Callable[..., Value]] = {
    **{name: _real_function(name) for name in _REAL_FUNCTIONS},
    "sqrt": _root,
    "cbrt": _cube_root,
    "root": _root,
    "ln": _log_to(None),
    "log": _log,
    "log10": _log_to(10),
    "log2": _log_to(2),
    "abs": _absolute,
    "floor": _rounded(math.floor),
    "ceil": _rounded(math.ceil),
    "round": _round,
    "factorial": _factorial_of,
    "gcd": _of_whole_numbers(math.gcd),
    "lcm": _of_whole_numbers(math.lcm),
    "comb": _choose(math.comb),
    "perm": _choose(math.perm),
    "min": _least,
    "max": _greatest,
    "sum": _sum,
    "mean": _mean,
}
