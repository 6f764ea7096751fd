"""memento_code.arithmetic: exact where it can be, right where it cannot, and never a long wait."""

import math
from contextlib import suppress
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp import Client

from memento_code.arithmetic import CannotCalculate, calculate
from memento_code.server import Settings, build_server


@pytest.mark.parametrize(
    ("expression", "exact", "unit"),
    [
        ("1/3 + 1/6", "1/2", None),
        ("0.1 + 0.2", "3/10", None),
        ("2^100", "1267650600228229401496703205376", None),
        ("2**-3", "1/8", None),
        ("-2^2", "-4", None),
        ("2^3^2", "512", None),
        ("27^(1/3)", "3", None),
        ("(4/9)^0.5", "2/3", None),
        ("(-8)^(1/3)", "-2", None),
        ("sqrt(1/4)", "1/2", None),
        ("20!", "2432902008176640000", None),
        ("(2+3)!", "120", None),
        ("comb(50, 3)", "19600", None),
        ("gcd(84, 36) + lcm(4, 6)", "24", None),
        ("17 // 5", "3", None),
        ("-7 mod 3", "2", None),
        ("7 % 3", "1", None),
        ("15% of 80", "12", None),
        ("200 * 15%", "30", None),
        ("1/4 to %", "25", "%"),
        ("1,234,567 * 2", "2469134", None),
        ("max(1,234)", "234", None),
        ("2(3+4)", "14", None),
        ("(1+1)(2+2)", "8", None),
        ("007", "7", None),
        ("1e3", "1000", None),
        ("round(2.675, 2)", "67/25", None),
        ("round(-2.5)", "-3", None),
        ("floor(-7/2)", "-4", None),
        ("ceil(pi)", "4", None),
        ("log10(1000)", "3", None),
        ("log(1/8, 2)", "-3", None),
        ("sum(1, 2, 3) / mean(1, 2, 3)", "3", None),
        ("1 < 2 <= 2", "true", None),
        ("1/3 == 0.333", "false", None),
        ("5 km / 2 h to m/s", "25/36", "m/s"),
        ("5 km to mile", "78125/25146", "mi"),
        ("72 degF to degC", "200/9", "°C"),
        ("20 degC to kelvin", "5863/20", "K"),
        ("5 in to cm", "127/10", "cm"),
        ("3 ft in cm", "2286/25", "cm"),
        ("12 ft + 5 in to m", "18923/5000", "m"),
        ("9.81 m/s^2 * 75 kg to N", "2943/4", "N"),
        ("1 year -> day", "1461/4", "d"),
        ("1 GB to MiB", "1953125/2048", "MiB"),
        ("3 km / (1500 m)", "2", None),
        ("mean(1 m, 2 m)", "3/2", "m"),
        ("2 m * 3 m", "6", "m^2"),
        ("sqrt(9 m^2)", "3", "m"),
        ("round(7.346 kg, 1)", "73/10", "kg"),
    ],
)
def test_an_exact_result_is_given_as_a_fraction(expression: str, exact: str, unit: str | None) -> None:
    found = calculate(expression)
    assert (found.exact, found.unit) == (exact, unit)


@pytest.mark.parametrize(
    ("expression", "decimal"),
    [
        ("1/3", "0.33333333333333333333"),
        ("sqrt(2)", "1.4142135623730950488"),
        ("pi", "3.1415926535897932385"),
        ("e^2", "7.3890560989306502272"),
        ("sin(30 degree)", "0.5"),
        ("sin(1)", "0.84147098480789650665"),
        ("ln(10)", "2.302585092994045684"),
        ("2^0.5 * 2^0.5", "2"),
        ("9**9**9", "4.2812477317574704804e+369693099"),
        ("10^10^10", "1e+10000000000"),
    ],
)
def test_an_inexact_result_has_the_digits_asked_for(expression: str, decimal: str) -> None:
    found = calculate(expression, digits=20)
    assert found.decimal == decimal


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("1/0", "Division by zero"),
        ("0^-1", "Division by zero"),
        ("3 m + 2 s", "The units do not fit"),
        ("3 m to kg", "The units do not fit"),
        ("foo(3)", "There is no function 'foo'"),
        ("3 foo", "'foo' is no unit, constant or function"),
        ("sqrt(-1)", "not real"),
        ("log(0)", "not defined"),
        ("asin(2)", "not defined"),
        ("1 +", "is not an expression"),
        ("2 3", "An operator is missing between '2' and '3'"),
        ("", "is not an expression"),
        ("'a' + 'b'", "means nothing here"),
        ("x.y", "means nothing here"),
        ("__import__('os')", "means nothing here"),
        ("10000!", "0 to 5000"),
        ("comb(10^9, 10^8)", "too large"),
        ("10^10^10^10", "too large"),
        ("1e999999999", "too large"),
        ("3^100000 * 3^100000", "digits"),
        ("2^(1 m)", "A plain number is needed"),
        ("+".join(["1"] * 300), "parts"),
        ("(" * 300 + "1" + ")" * 300, "not an expression"),
        ("sqrt(1, 2, 3)", "does not take 3"),
    ],
)
def test_what_cannot_be_calculated_says_why(expression: str, told: str) -> None:
    with pytest.raises(CannotCalculate, match=told.replace("(", r"\(").replace(")", r"\)").replace("+", r"\+")):
        calculate(expression)


NUMBERS = st.fractions(-1000, 1000, max_denominator=50)


@given(NUMBERS, NUMBERS, NUMBERS)
def test_it_agrees_with_fractions(a: Fraction, b: Fraction, c: Fraction) -> None:
    assert calculate(f"({a}) * ({b}) - ({c}) / 7").exact == str(a * b - c / 7)


@given(NUMBERS, st.integers(1, 9))
def test_a_power_and_its_root_cancel_exactly(a: Fraction, n: int) -> None:
    assert calculate(f"root(({abs(a)})^{n}, {n})").exact == str(abs(a))


@given(st.floats(-50, 50), st.sampled_from(["sin", "cos", "exp", "atan", "tanh"]))
def test_it_agrees_with_the_math_module(x: float, function: str) -> None:
    found = float(calculate(f"{function}({x:.12f})").decimal)
    assert found == pytest.approx(getattr(math, function)(float(f"{x:.12f}")), rel=1e-9, abs=1e-12)


@given(st.text(alphabet="0123456789+-*/^%!()., kmsinto=<>e", max_size=25))
def test_any_text_is_calculated_or_refused(expression: str) -> None:
    with suppress(CannotCalculate):
        assert calculate(expression).decimal


WORDS = "1 2 3.5 0 + - * / ^ ! % ( ) , km s degC kg m pi e sqrt( log( round( max( sum( to in < == ** mod of 1e9 ->"


@given(st.lists(st.sampled_from(WORDS.split()), max_size=9).map(" ".join))
def test_any_row_of_words_is_calculated_or_refused(expression: str) -> None:
    with suppress(CannotCalculate):
        assert calculate(expression).decimal


@pytest.mark.anyio
async def test_the_tool_answers_with_structure_and_refuses_with_a_reason() -> None:
    async with Client(build_server(Settings())) as client:
        good = await client.call_tool("calculate", {"expression": "5 km / 20 min to mile/hour", "digits": 6})
        bad = await client.call_tool("calculate", {"expression": "1/0"})
    expected: dict[str, Any] = {
        "expression": "5 km / 20 min to mile/hour",
        "decimal": "9.32057",
        "exact": "78125/8382",
        "unit": "mi/h",
    }
    assert good.structured_content == expected
    assert bad.is_error
    assert "Division by zero." in str(bad.content)
