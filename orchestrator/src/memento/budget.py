"""Hard limits of one run: model calls, tool executions, tokens, money.

Owns the counting. Every loop of the agent takes from it *before* it spends, so that a run always ends and
never goes over by more than the one call that gives the final answer. Wall time is the agent's own scope.
"""

from dataclasses import dataclass, field

from memento.events import Usage
from memento.prices import add_usage

__all__ = ["Budget", "BudgetSpent"]


NOTHING_USED = Usage(input_tokens=0, output_tokens=0, cached_tokens=0, cost_usd=0.0)


class BudgetSpent(Exception):
    """A limit of the run is reached. The message names the limit."""


@dataclass
class Budget:
    """`None` is no limit. Unknown usage counts as nothing here, and is shown as unknown in the total."""

    max_model_calls: int
    max_tool_calls: int
    max_total_tokens: int | None = None
    max_cost_usd: float | None = None

    model_calls: int = 0
    tool_calls: int = 0
    usage: Usage = field(default_factory=lambda: NOTHING_USED)
    known_tokens: int = 0
    known_cost_usd: float = 0.0

    def take_model_call(self) -> None:
        """Count a model call that is about to be sent.

        Raises:
            BudgetSpent: there is none left, or the tokens or the money are used up.
        """
        if self.model_calls >= self.max_model_calls:
            raise BudgetSpent(f"the limit of {self.max_model_calls} model calls is reached")
        if self.max_total_tokens is not None and self.known_tokens >= self.max_total_tokens:
            raise BudgetSpent(f"the limit of {self.max_total_tokens} tokens is reached")
        if self.max_cost_usd is not None and self.known_cost_usd >= self.max_cost_usd:
            raise BudgetSpent(f"the limit of ${self.max_cost_usd:g} is reached")
        self.model_calls += 1

    def take_final_call(self) -> None:
        """Count the call that asks for the final answer, which every run may make."""
        self.model_calls += 1

    def take_tool_call(self) -> bool:
        """Count a tool execution that is about to be sent; `False` when there is none left."""
        if self.tool_calls >= self.max_tool_calls:
            return False
        self.tool_calls += 1
        return True

    def spent(self, usage: Usage) -> None:
        """Add what a model call used."""
        self.usage = add_usage(self.usage, usage)
        self.known_tokens += (usage.input_tokens or 0) + (usage.output_tokens or 0)
        self.known_cost_usd += usage.cost_usd or 0.0
