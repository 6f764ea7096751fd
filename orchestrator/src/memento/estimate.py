"""What a question will probably cost, before it is asked: from the runs of the same models that are kept.

Owns the reckoning of `memento ask --estimate`. It calls no model. Without runs to go by it tells the least (one plan
and one answer) and the most (the limits), and nothing in between.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from memento.events import RunEnded, RunStarted, Usage
from memento.journal import Journal
from memento.prices import price_usd
from memento.prompts import PLANNER, planner_task
from memento.settings import Settings
from memento.tokens import count_tokens
from memento.toolbox import ToolSpec

__all__ = ["Estimate", "estimate"]

_MAX_RUNS = 50
"""The newest runs that are looked at."""
_ENOUGH_RUNS = 3
_SHORT_REPLY_TOKENS = 100


@dataclass(frozen=True)
class Estimate:
    """Tokens and dollars: the least, what most runs took (the 10th to the 90th percentile), and the most.

    `likely_…` is `None` where too few runs are kept, a price nobody knows is `None`, and no limit is `None`.
    """

    least_tokens: int
    least_cost_usd: float | None
    likely_tokens: tuple[int, int, int] | None
    """10th percentile, median, 90th percentile."""
    likely_cost_usd: tuple[float, float, float] | None
    most_tokens: int | None
    most_cost_usd: float | None
    runs: int
    """How many runs of the same models it goes by."""


def estimate(
    question: str,
    files: Sequence[str],
    folders: Sequence[str],
    *,
    specs: Sequence[ToolSpec],
    journal: Journal,
    settings: Settings,
    planner_model: str,
    executor_model: str,
    base_url: str,
    is_free: bool = False,
) -> Estimate:
    """Reckon what `question` will use; the built-in stand-in `is_free`."""
    asked = count_tokens(PLANNER) + count_tokens(planner_task(question, files, folders, specs))
    least = Usage(input_tokens=asked, output_tokens=_SHORT_REPLY_TOKENS, cached_tokens=0)
    ends = _ends(journal, planner_model, executor_model)
    tokens = [(e.usage.input_tokens or 0) + (e.usage.output_tokens or 0) for e in ends if e.usage.input_tokens]
    costs = [end.usage.cost_usd for end in ends if end.usage.cost_usd is not None]
    enough = len(tokens) >= _ENOUGH_RUNS
    return Estimate(
        least_tokens=asked + _SHORT_REPLY_TOKENS,
        least_cost_usd=0.0 if is_free else price_usd(planner_model, base_url, least),
        likely_tokens=_spread(tokens) if enough else None,
        likely_cost_usd=_spread(costs) if enough and len(costs) == len(tokens) else None,
        most_tokens=settings.max_total_tokens,
        most_cost_usd=settings.max_cost_usd,
        runs=len(tokens),
    )


def _ends(journal: Journal, planner_model: str, executor_model: str) -> list[RunEnded]:
    """How the newest runs of these two models ended that came to their end."""
    found: list[RunEnded] = []
    for run in journal.runs(limit=_MAX_RUNS):
        if run.status not in {"answered", "no_answer"}:
            continue
        events = journal.events(run.run_id)
        started = next((event for event in events if isinstance(event, RunStarted)), None)
        ended = next((event for event in reversed(events) if isinstance(event, RunEnded)), None)
        if started and ended and (started.planner_model, started.executor_model) == (planner_model, executor_model):
            found.append(ended)
    return found


_Number = TypeVar("_Number", int, float)


def _spread(values: Sequence[_Number]) -> tuple[_Number, _Number, _Number]:
    tenths = statistics.quantiles(values, n=10, method="inclusive")
    kind = type(values[0])
    return kind(tenths[0]), kind(statistics.median(values)), kind(tenths[-1])
