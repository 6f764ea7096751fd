"""The ways of working that the stand-in knows, each a plan, and how it recognises them in a case.

Owns the fixed list. It does not know which of them suits a question; the order in which it would try them is
drawn from the question and the seed, and says nothing about the question.
"""

import hashlib
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

__all__ = ["STRATEGIES", "Strategy", "exploration_order", "strategies_in"]


@dataclass(frozen=True)
class Strategy:
    """A way of working: each step is an instruction to the executor, before the question is added to it."""

    name: str
    steps: tuple[str, ...]

    def plan_for(self, question: str) -> list[dict[str, Any]]:
        """The plan's subtasks for `question`; each depends on the one before."""
        return [
            {"id": str(number), "description": f"{step}: {question}", "depends_on": [str(number - 1)] * (number > 1)}
            for number, step in enumerate(self.steps, 1)
        ]


STRATEGIES = (
    Strategy("search", ("Search the files, read the best hit and answer",)),
    Strategy("read", ("Read the document that is attached or named and answer",)),
    Strategy("table", ("Query the table that fits and answer",)),
    Strategy("page", ("Fetch the page at the given address and answer",)),
    Strategy("compute", ("Compute with code",)),
    Strategy("join", ("Search the files for the thing described and name it", "Look up the named thing and answer")),
    Strategy("check", ("Check whether the files mention what is asked at all",)),
)


def exploration_order(question: str, seed: int) -> list[Strategy]:
    """All strategies in an order that is fixed by question and seed, and tells nothing about either."""
    without_host = re.sub(r"//[^/\s]+", "//", question)  # the demo's pages lie on another port every time
    digest = hashlib.sha256(f"{seed}\0{without_host}".encode()).digest()
    order = list(STRATEGIES)
    random.Random(int.from_bytes(digest[:8], "big")).shuffle(order)
    return order


def strategies_in(plan: Any) -> list[Strategy]:
    """The strategies whose steps stand in a plan, in the plan's order."""
    descriptions = [str(cast(dict[str, Any], step).get("description", "")) for step in _steps(plan)]
    return list(dict.fromkeys(_recognised(descriptions)))


def _steps(plan: Any) -> list[Any]:
    if isinstance(plan, dict):
        plan = cast(dict[str, Any], plan).get("plan")
    return [step for step in cast(list[Any], plan) if isinstance(step, dict)] if isinstance(plan, list) else []


def _recognised(descriptions: Iterable[str]) -> Iterable[Strategy]:
    for description in descriptions:
        for strategy in STRATEGIES:
            if any(description.startswith(step) for step in strategy.steps):
                yield strategy
