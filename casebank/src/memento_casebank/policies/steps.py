"""Credit below the level of a case: what a subtask, or a way of doing one, has been worth.

`StepLedger` keeps running means of what followed a (subtask, tools) pair (AgentPRM, arXiv 2502.10325: Monte-Carlo
returns on a hash of state and action). `step_evidence` compares ways of doing similar steps among retrieved cases
(JitRL, arXiv 2601.18510: advantage = mean return of the action over the mean of all) and says it in words, because a
planner without access to its logits can read evidence but not be steered by it.

Both need only what a case records. Nothing is learned from unknown outcomes.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from memento_casebank.policies.base import stable_key
from memento_casebank.policies.slots import SlotTable

__all__ = ["StepAdvantage", "StepLedger", "StepLike", "StepValue", "action_signature", "step_evidence", "step_returns"]

_WORD = re.compile(r"[^\W\d_]{4,}")
_KEY_WORDS = 4


class StepLike(Protocol):
    """A step as a case records it."""

    @property
    def subtask(self) -> str: ...
    @property
    def tools(self) -> Sequence[str]: ...
    @property
    def reward(self) -> float | None: ...


@dataclass(frozen=True)
class StepValue:
    """What followed a step, -1 (failure) to 1 (success), discounted by how far off the end was."""

    mean: float
    count: float


@dataclass(frozen=True)
class StepAdvantage:
    action: str
    advantage: float
    """Mean return over the mean of all similar steps; returns are 0..1."""
    sd: float
    count: int

    def __str__(self) -> str:
        steps = "1 similar step" if self.count == 1 else f"{self.count} similar steps"
        return f"in {steps} `{self.action}` scored {self.advantage:+.2f}"


def action_signature(tools: Sequence[str]) -> str:
    """The tools in order, repeats folded: `search→crawl`; `no tool` when there were none."""
    folded = [tool for at, tool in enumerate(tools) if at == 0 or tool != tools[at - 1]]
    return "→".join(folded) or "no tool"


def step_returns(steps: Sequence[StepLike], outcome: float | None, discount: float = 0.9) -> list[float | None]:
    """What each step led to, 0..1: the mean of the rewards from it on, nearer ones weighing more.

    Steps without a reward of their own take no part; the outcome counts as the reward of the end. None where
    nothing is known from that step on.
    """
    total, weight = (outcome, 1.0) if outcome is not None else (0.0, 0.0)
    returns: list[float | None] = []
    for step in reversed(steps):
        total, weight = discount * total, discount * weight
        if step.reward is not None:
            total, weight = total + step.reward, weight + 1.0
        returns.append(total / weight if weight > 0 else None)
    return returns[::-1]


class StepLedger:
    """Running means per (subtask, tools)."""

    def __init__(self, discount: float = 0.9) -> None:
        self._discount = discount
        self._returns = SlotTable([0.0, 0.0])  # sum of signed returns, count

    def learn(self, steps: Sequence[StepLike], outcome: float | None) -> None:
        """Take in one run: each step is credited with γ^(steps to the end) · (2·reward - 1)."""
        for at, step in enumerate(steps):
            reward = step.reward if step.reward is not None else outcome
            if reward is None:
                continue
            distance = 0 if step.reward is not None else len(steps) - 1 - at
            row = self._returns.rows([_key(step)])
            self._returns.data[row] += (self._discount**distance * (2.0 * reward - 1.0), 1.0)

    def value(self, step: StepLike) -> StepValue:
        """What is known of a step; count 0 when it was never done."""
        total, count = self._returns.look([_key(step)])[0]
        return StepValue(float(total / count) if count else 0.0, float(count))

    def progress(self, steps: Sequence[StepLike]) -> list[float]:
        """How much each step changed the outlook (len(steps),): value of the step minus that of the one before."""
        values = [0.0, *(self.value(step).mean for step in steps)]
        return [after - before for before, after in itertools.pairwise(values)]

    def where_it_failed(self, steps: Sequence[StepLike], drop: float = 0.2) -> int | None:
        """Index of the first step whose outlook fell by more than `drop`; None: none did."""
        return next((at for at, change in enumerate(self.progress(steps)) if change < -drop), None)

    def state_dict(self) -> dict[str, Any]:
        return self._returns.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._returns.load_state_dict(state)


def step_evidence(
    runs: Sequence[tuple[Sequence[StepLike], float | None]], *, least: int = 2, discount: float = 0.9
) -> list[StepAdvantage]:
    """Compare the ways in which similar cases did their steps, best first.

    Args:
        runs: steps and outcome of each retrieved case.
        least: steps an action must have been seen in.

    Returns:
        An empty list when there is nothing to compare: fewer than two actions, or no known outcome.
    """
    by_action: dict[str, list[float]] = {}
    for steps, outcome in runs:
        for step, value in zip(steps, step_returns(steps, outcome, discount), strict=True):
            if value is not None:
                by_action.setdefault(action_signature(step.tools), []).append(value)
    if len(by_action) < 2:
        return []
    average = float(np.mean([value for values in by_action.values() for value in values]))
    found = [
        StepAdvantage(action, float(np.mean(values)) - average, float(np.std(values)), len(values))
        for action, values in by_action.items()
        if len(values) >= least
    ]
    return sorted(found, key=lambda one: (-one.advantage, one.action))


def _key(step: StepLike) -> int:
    """The same kind of subtask done the same way: its longest words, in any order, and its tools."""
    words = sorted(set(_WORD.findall(step.subtask.lower())), key=lambda word: (-len(word), word))[:_KEY_WORDS]
    return stable_key(" ".join(sorted(words)) + "\n" + action_signature(step.tools))
