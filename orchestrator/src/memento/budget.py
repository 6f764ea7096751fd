"""Hard limits of a run, or of an evaluation of many runs: model calls, tool executions, tokens, money.

Owns the counting. Whatever spends asks here *before* it spends, so that a run always ends. Calls and executions
never go over their limit, but for the one call that gives the final answer. What a model call will use is known
only afterwards: calls run side by side only while even the most that they could use leaves something over, so
tokens and money are never exceeded by more than one call. Wall time is kept by the agent, whose scope can stop what
is under way.
"""

import math
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

from memento.events import Usage
from memento.prices import add_usage

__all__ = ["NOTHING_USED", "Budget", "BudgetSpent", "Limits"]


NOTHING_USED = Usage(input_tokens=0, output_tokens=0, cached_tokens=0, cost_usd=0.0)

_NEARLY = 0.8
"""Share of a limit after which the model is warned."""


class BudgetSpent(Exception):
    """A limit is reached. The message names the limit."""


@dataclass(frozen=True)
class Limits:
    """`None` is no limit."""

    model_calls: int | None = None
    tool_calls: int | None = None
    tokens: int | None = None
    """Input and output together."""
    cost_usd: float | None = None


@dataclass
class Budget:
    """What is used of the limits. Unknown usage counts as nothing here, and is shown as unknown in the total."""

    limits: Limits
    within: "Budget | None" = None
    """The evaluation that this run is part of: every call counts there too, and its limits know no exception."""
    scope: str = ""
    """Told with a limit, such as " of the evaluation"."""
    deadline: float = math.inf
    """When the time is over, on anyio's clock; whoever does the work keeps it."""

    model_calls: int = 0
    tool_calls: int = 0
    usage: Usage = field(default_factory=lambda: NOTHING_USED)
    known_tokens: int = 0
    known_cost_usd: float = 0.0
    _reserved_tokens: int = 0
    _reserved_cost_usd: float = 0.0
    _in_flight: int = 0
    _returned: anyio.Event = field(default_factory=anyio.Event)

    @asynccontextmanager
    async def model_call(self, at_most: Usage, *, is_final: bool = False) -> AsyncGenerator[Callable[[Usage], None]]:
        """Count a model call; the block sends it, and gives what it used to the function it gets.

        A block that ends without saying so leaves the usage unknown: nobody knows what a call that failed has cost.

        Args:
            at_most: the most that this call can use, as far as anybody knows. While calls are under way that could
                use up what is left, this one waits for them.
            is_final: the call that asks for the final answer, which every run may make whatever it has spent.

        Raises:
            BudgetSpent: no model call is left, or the tokens or the money are used up.
        """
        await self._wait_for_room(is_final)
        for budget in self.chain():
            budget.model_calls += 1
            budget._take(at_most, 1)
        used = Usage()

        def spent(usage: Usage) -> None:
            nonlocal used
            used = usage

        try:
            yield spent
        finally:
            for budget in self.chain():
                budget._take(at_most, -1)
                budget.add(used)
                budget._returned.set()
                budget._returned = anyio.Event()

    def take_tool_call(self) -> None:
        """Count a tool execution that is about to be sent.

        Raises:
            BudgetSpent: there is none left.
        """
        for budget in self.chain():
            most = budget.limits.tool_calls
            if most is not None and budget.tool_calls >= most:
                raise BudgetSpent(f"the limit of {most} tool calls{budget.scope} is reached")
        for budget in self.chain():
            budget.tool_calls += 1

    def give_back_tool_call(self) -> None:
        """Uncount a tool call that nothing had to be executed for: its answer was kept from an earlier one."""
        for budget in self.chain():
            budget.tool_calls -= 1

    def spend(self, cost_usd: float) -> None:
        """Add what a tool said that it cost."""
        for budget in self.chain() if cost_usd else ():
            known = budget.usage.cost_usd
            cost = None if known is None else known + cost_usd
            budget.usage = budget.usage.model_copy(update={"cost_usd": cost})
            budget.known_cost_usd += cost_usd

    def spend_usage(self, usage: Usage) -> None:
        """Add what a server said that a model of its own has used; it is no model call of the run."""
        for budget in self.chain():
            budget.add(usage)

    def add(self, usage: Usage) -> None:
        """Add what a model call used."""
        self.usage = add_usage(self.usage, usage)
        self.known_tokens += (usage.input_tokens or 0) + (usage.output_tokens or 0)
        self.known_cost_usd += usage.cost_usd or 0.0

    def words(self) -> list[str]:
        """The limits of the run, in words."""
        limits = self.limits
        told = [(limits.model_calls, "model calls"), (limits.tool_calls, "tool calls"), (limits.tokens, "tokens")]
        money = [] if limits.cost_usd is None else [f"${limits.cost_usd:.2f}"]
        return [*(f"{most:,} {what}" for most, what in told if most is not None), *money]

    def nearly_spent(self) -> list[str]:
        """What is left of the limits that are nearly used up, in words; empty while there is plenty."""
        return [f"{text} of {most}" for text, most, share in self._shares() if share >= _NEARLY]

    def _shares(self) -> Iterator[tuple[str, str, float]]:
        limits = self.limits
        if limits.model_calls is not None:
            left = max(0, limits.model_calls - self.model_calls)
            yield f"{left} model calls", f"{limits.model_calls}", self.model_calls / max(1, limits.model_calls)
        if limits.tool_calls is not None:
            left = max(0, limits.tool_calls - self.tool_calls)
            yield f"{left} tool calls", f"{limits.tool_calls}", self.tool_calls / max(1, limits.tool_calls)
        if limits.tokens is not None:
            left = max(0, limits.tokens - self.known_tokens)
            yield f"{left:,} tokens", f"{limits.tokens:,}", self.known_tokens / limits.tokens
        if limits.cost_usd is not None:
            money = max(0.0, limits.cost_usd - self.known_cost_usd)
            yield f"${money:.2f}", f"${limits.cost_usd:.2f}", self.known_cost_usd / limits.cost_usd

    def chain(self) -> Iterator["Budget"]:
        """This budget and those it is within."""
        budget: Budget | None = self
        while budget is not None:
            yield budget
            budget = budget.within

    async def _wait_for_room(self, is_final: bool) -> None:
        while True:
            full: Budget | None = None
            for budget in self.chain():
                if not (is_final and budget is self):
                    budget._refuse_if_spent()
                    if not budget._has_room():
                        full = budget
            if full is None:
                return
            await full._returned.wait()

    def _refuse_if_spent(self) -> None:
        limits = self.limits
        if limits.model_calls is not None and self.model_calls >= limits.model_calls:
            raise BudgetSpent(f"the limit of {limits.model_calls} model calls{self.scope} is reached")
        if limits.tokens is not None and self.known_tokens >= limits.tokens:
            raise BudgetSpent(f"the limit of {limits.tokens} tokens{self.scope} is reached")
        if limits.cost_usd is not None and self.known_cost_usd >= limits.cost_usd:
            raise BudgetSpent(f"the limit of ${limits.cost_usd:g}{self.scope} is reached")

    def _has_room(self) -> bool:
        """Whether another call may start beside those under way: they cannot use up the rest."""
        if self._in_flight == 0:
            return True
        limits = self.limits
        if limits.tokens is not None and self.known_tokens + self._reserved_tokens >= limits.tokens:
            return False
        return limits.cost_usd is None or self.known_cost_usd + self._reserved_cost_usd < limits.cost_usd

    def _take(self, at_most: Usage, sign: int) -> None:
        self._in_flight += sign
        self._reserved_tokens += sign * ((at_most.input_tokens or 0) + (at_most.output_tokens or 0))
        # A sum of floats that go in and out in any order must end at nothing again.
        self._reserved_cost_usd = (
            0.0 if self._in_flight == 0 else self._reserved_cost_usd + sign * (at_most.cost_usd or 0.0)
        )
