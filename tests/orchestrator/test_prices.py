"""What a call costs: known only where the provider is known, summed without inventing zeros."""

import re
from datetime import UTC, datetime

import pytest

from memento.events import Usage
from memento.prices import add_usage, price_usd
from memento.terminal import cost_text

USED = Usage(input_tokens=1_000_000, output_tokens=1_000_000, cached_tokens=0)


def test_a_known_model_at_its_provider_has_a_price_that_grows_with_use() -> None:
    once = price_usd("gpt-4.1", "https://api.openai.com/v1/", USED)
    half = price_usd("gpt-4.1", "https://api.openai.com/v1/", Usage(input_tokens=500_000, output_tokens=500_000))
    assert once is not None
    assert half is not None
    assert 1 < half < once < 100
    cached = price_usd("gpt-4.1", "https://api.openai.com/v1/", USED.model_copy(update={"cached_tokens": 900_000}))
    assert cached is not None
    assert cached < once


@pytest.mark.parametrize(
    ("model", "base_url", "usage"),
    [
        ("no-such-model", "https://api.openai.com/v1/", USED),
        ("gpt-4.1", "http://localhost:11434/v1/", USED),
        ("gpt-4.1", "https://api.openai.com/v1/", Usage(input_tokens=10)),
        ("gpt-4.1", "https://api.openai.com/v1/", Usage()),
    ],
)
def test_what_nobody_knows_is_unknown_and_not_zero(model: str, base_url: str, usage: Usage) -> None:
    assert price_usd(model, base_url, usage) is None


def test_a_sum_with_an_unknown_part_is_unknown() -> None:
    known = Usage(input_tokens=1, output_tokens=2, cached_tokens=0, cost_usd=0.5)
    assert add_usage(known, known) == Usage(input_tokens=2, output_tokens=4, cached_tokens=0, cost_usd=1.0)
    assert add_usage(known, known.model_copy(update={"cost_usd": None})).cost_usd is None


def test_costs_read_as_what_they_are() -> None:
    assert cost_text(Usage()) == "cost unknown (tokens unknown)"
    assert cost_text(Usage(input_tokens=1200, output_tokens=3, cost_usd=0.0)) == "$0.0000 (1,200 + 3 tokens)"
    priced = cost_text(Usage(input_tokens=1, output_tokens=1, cost_usd=0.25))
    told = re.match(r"\$0\.2500 by genai-prices [\d.]+ of (\d{4}-\d\d-\d\d) \(1 \+ 1 tokens\)$", priced)
    assert told is not None, priced
    assert "2026-01-01" < told[1] <= datetime.now(UTC).date().isoformat(), (
        "the newest price in the table that is in force"
    )
