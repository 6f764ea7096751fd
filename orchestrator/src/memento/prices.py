"""What a model call costs. The price table is the package genai-prices'; `None` is unknown."""

from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from memento.events import Usage

if TYPE_CHECKING:
    from genai_prices.types import ConditionalPrice, ModelInfo

__all__ = ["add_usage", "price_source", "price_usd"]


def price_usd(model: str, base_url: str, usage: Usage) -> float | None:
    """Dollars for `usage` of `model` at the provider behind `base_url`, or `None` when the table does not know it.

    A model's name alone is not enough: a local server may serve any model under any name, and at no price that
    we know. Only a provider that the table knows by its address is priced.
    """
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    from genai_prices import Usage as PricedUsage
    from genai_prices import calc_price  # 0.25 s to import: only a run that has a price to look up pays it

    try:
        price = calc_price(
            PricedUsage(
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                cache_read_tokens=usage.cached_tokens or 0,
            ),
            model_ref=model,
            provider_api_url=base_url,
        )
    except LookupError:
        return None
    return float(price.total_price)


@cache
def price_source() -> str:
    """Where prices come from and how fresh they are, for the reader of a report.

    The package tells no date of its own, so it is that of the newest price in it that is in force.
    """
    import genai_prices
    from genai_prices.data_snapshot import get_snapshot
    from genai_prices.types import StartDateConstraint

    today = datetime.now(UTC).date()
    prices = [price for provider in get_snapshot().providers for model in provider.models for price in _list(model)]
    starts = [price.constraint.start_date for price in prices if isinstance(price.constraint, StartDateConstraint)]
    newest = max((start for start in starts if start <= today), default=None)
    of = f" of {newest.isoformat()}" if newest else ""
    return f"genai-prices {genai_prices.__version__}{of}"


def _list(model: "ModelInfo") -> "list[ConditionalPrice]":
    return model.prices if isinstance(model.prices, list) else []


def add_usage(first: Usage, second: Usage) -> Usage:
    """Sum two usages. A sum with an unknown part is unknown: never a number that is too small."""

    return Usage(
        input_tokens=_add(first.input_tokens, second.input_tokens),
        output_tokens=_add(first.output_tokens, second.output_tokens),
        cached_tokens=_add(first.cached_tokens, second.cached_tokens),
        reasoning_tokens=_add_told(first.reasoning_tokens, second.reasoning_tokens),
        audio_tokens=_add_told(first.audio_tokens, second.audio_tokens),
        image_tokens=_add_told(first.image_tokens, second.image_tokens),
        cost_usd=_add(first.cost_usd, second.cost_usd),
        is_estimated=first.is_estimated or second.is_estimated,
    )


_Number = TypeVar("_Number", int, float)


def _add(a: _Number | None, b: _Number | None) -> _Number | None:
    return None if a is None or b is None else a + b


def _add_told(a: int | None, b: int | None) -> int | None:
    """A part that most servers do not tell apart: what was told is summed."""
    return None if a is None and b is None else (a or 0) + (b or 0)
