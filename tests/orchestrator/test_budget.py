"""Limits hold: whatever is asked side by side, nothing goes over by more than one call."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memento.budget import Budget, BudgetSpent, Limits
from memento.events import ModelCalled, RunEnded, SubtaskDone, Usage, Warned
from support.fake_bank import FakeBank
from support.scripted_model import answers, calls, plans, says, scene

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Call:
    """One model call of a worker: the most it was said to use, what it used, and how long it took, in steps."""

    at_most: int
    used: int
    steps: int
    told: bool
    """Whether the server said what it used."""


def one_call() -> st.SearchStrategy[Call]:
    def call(at_most: int, share: float, steps: int, told: bool) -> Call:
        return Call(at_most, int(at_most * share), steps, told)

    return st.builds(call, st.integers(1, 400), st.floats(0, 1), st.integers(0, 5), st.booleans())


@given(
    workers=st.lists(st.lists(one_call(), min_size=1, max_size=6), min_size=1, max_size=6),
    tokens=st.integers(1, 1_000),
    model_calls=st.integers(1, 20),
    tool_calls=st.integers(0, 12),
    shared=st.booleans(),
)
def test_nothing_goes_over_by_more_than_one_call_however_calls_run_side_by_side(
    workers: list[list[Call]], tokens: int, model_calls: int, tool_calls: int, shared: bool
) -> None:
    limits = Limits(model_calls=model_calls, tool_calls=tool_calls, tokens=tokens, cost_usd=tokens / 1_000)
    whole = Budget(limits)
    budgets = [Budget(Limits(), within=whole) for _ in workers] if shared else [whole] * len(workers)
    used: list[int] = []

    async def work(budget: Budget, calls_: list[Call]) -> None:
        for call in calls_:
            at_most = Usage(input_tokens=call.at_most, output_tokens=0, cost_usd=call.at_most / 1_000)
            try:
                async with budget.model_call(at_most) as spent:
                    for _ in range(call.steps):
                        await anyio.lowlevel.checkpoint()
                    if call.told:
                        used.append(call.used)
                        spent(Usage(input_tokens=call.used, output_tokens=0, cost_usd=call.used / 1_000))
                budget.take_tool_call()
            except BudgetSpent:
                return

    async def main() -> None:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                for budget, calls_ in zip(budgets, workers, strict=True):
                    group.start_soon(work, budget, calls_)

    anyio.run(main)
    biggest = max(used, default=0)
    assert whole.known_tokens == sum(used)
    assert whole.known_tokens < tokens + max(1, biggest)
    assert whole.known_cost_usd < (tokens + max(1, biggest)) / 1_000 + 1e-9
    assert whole.model_calls <= model_calls
    assert whole.tool_calls <= tool_calls


async def test_calls_run_side_by_side_while_there_is_plenty_and_one_by_one_near_the_limit() -> None:
    budget = Budget(Limits(tokens=1_000))
    running, together = 0, list[int]()

    async def call(at_most: int) -> None:
        nonlocal running
        async with budget.model_call(Usage(input_tokens=at_most, output_tokens=0)) as spent:
            running += 1
            together.append(running)
            await anyio.lowlevel.checkpoint()
            running -= 1
            spent(Usage(input_tokens=at_most, output_tokens=0))

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(call, 100)
    assert max(together) == 3
    together.clear()
    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(call, 300)
    assert together == [1, 2]
    together.clear()
    refused: list[str] = []

    async def refused_call() -> None:
        try:
            await call(10)
        except BudgetSpent as exc:
            refused.append(str(exc))

    async with anyio.create_task_group() as group:
        group.start_soon(call, 5_000)
        group.start_soon(refused_call)
    assert together == [1], "the second waited for the first, which used everything up"
    assert refused == ["the limit of 1000 tokens is reached"]


async def test_a_call_that_fails_leaves_the_sum_unknown_and_its_reservation_free() -> None:
    budget = Budget(Limits(tokens=10))
    with pytest.raises(ZeroDivisionError):
        async with budget.model_call(Usage(input_tokens=50, output_tokens=50)):
            raise ZeroDivisionError
    assert (budget.model_calls, budget.known_tokens, budget.usage.input_tokens) == (1, 0, None)
    async with budget.model_call(Usage(input_tokens=1, output_tokens=1)) as spent:
        spent(Usage(input_tokens=1, output_tokens=1))
    assert budget.known_tokens == 2


async def test_the_models_are_told_the_limits_and_warned_near_the_end(tmp_path: Path) -> None:
    look = calls(("calc__add", {"a": 1, "b": 1}))
    script = [plans("x"), look, calls(("calc__add", {"a": 2, "b": 2})), says("r"), answers("a")]
    async with scene(tmp_path, script, max_tool_calls=2, max_model_calls=50, max_total_tokens=None) as play:
        await play.run()
    first, *_, third, fourth, last = [body["messages"] for body in play.model.sent]
    assert "Limits of the whole work: 3 plans, 50 model calls, 2 tool calls, 900 s." in first[1]["content"]
    assert not any("Little is left" in str(message) for message in third)
    warning = "Little is left: 0 tool calls of 2."
    assert [message["role"] for message in fourth][-2:] == ["tool", "user"]
    assert warning in fourth[-1]["content"]
    assert warning in last[-1]["content"], "the planner is warned too"


async def test_an_executor_is_warned_before_its_last_turns(tmp_path: Path) -> None:
    def loop(body: dict[str, Any]) -> dict[str, Any]:
        number = len(body["messages"])
        if not body.get("tools"):
            return answers("a") if number > 3 else plans("x")
        done = says("r")
        return done if body.get("tool_choice") == "none" else calls(("calc__add", {"a": number, "b": 1}))

    async with scene(tmp_path, [loop] * 12, max_turns_per_subtask=6) as play:
        await play.run()
    told = [message["content"] for message in play.model.sent[-2]["messages"] if message["role"] == "user"]
    assert told[1].startswith("Little is left: 3 turns of 6.")
    assert told[2].startswith("The limit for this subtask is reached")
    assert len(told) == 3, "warned once"


async def test_the_budget_of_an_evaluation_holds_over_its_runs_and_allows_no_last_call(tmp_path: Path) -> None:
    whole = Budget(Limits(model_calls=4), scope=" of the whole evaluation")
    script = [plans("x"), says("r"), answers("first"), plans("y")]
    async with scene(tmp_path, script) as play:
        first = await play.run(within=whole)
        second = await play.run(within=whole)
        third = await play.run(within=whole)
    assert (first.answer, second.answer, third.answer) == ("first", None, None)
    reason = "the limit of 4 model calls of the whole evaluation is reached"
    assert (second.status, second.reason, third.reason) == ("no_answer", reason, reason)
    assert (len(play.model.sent), whole.model_calls) == (4, 4)
    assert [event.status for event in play.of(SubtaskDone)] == ["done", "failed"]


async def test_the_time_of_an_evaluation_ends_a_run_too(tmp_path: Path) -> None:
    whole = Budget(Limits(), scope=" of the whole evaluation", deadline=anyio.current_time() - 1)
    async with scene(tmp_path, [answers("at once")], max_seconds=100.0) as play:
        result = await play.run(within=whole)
    assert result.reason == "the time of the whole evaluation is over"


async def test_an_answer_is_not_judged_when_no_model_call_is_left_and_the_outcome_stays_unknown(tmp_path: Path) -> None:

    bank = FakeBank([])
    async with scene(
        tmp_path, [answers("3")], servers={"casebank": bank.server}, with_judge=True, max_model_calls=1
    ) as play:
        result = await play.run()
    assert (result.answer, result.model_calls, bank.outcomes) == ("3", 1, [])
    assert any("the limit of 1 model calls is reached" in event.text for event in play.of(Warned))


async def test_the_sum_in_the_record_is_the_sum_of_its_model_calls(tmp_path: Path) -> None:
    usage = {"prompt_tokens": 60, "completion_tokens": 40, "total_tokens": 100}
    script = [plans("x", "y"), says("r"), says("r"), answers("a")]
    async with scene(tmp_path, script, usage=usage) as play:
        await play.run()
    (ended,) = play.of(RunEnded)
    assert ended.usage.input_tokens == sum(event.usage.input_tokens for event in play.of(ModelCalled)) == 240
