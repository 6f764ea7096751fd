"""A model that goes in circles is nudged, then stopped, then the run ends; and what was learned is kept."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from memento.events import Nudged, SubtaskDone
from memento.guards import CallSeen, LoopGuard
from support.fake_bank import FakeBank
from support.scripted_model import answers, calls, plans, says, scene


def seen(tool: str = "t", arguments: Any = None, result: str = "r", *, is_error: bool = False) -> CallSeen:
    return CallSeen(tool, {} if arguments is None else arguments, result, is_error)


def actions(guard: LoopGuard, *turns: list[CallSeen]) -> list[str]:
    return [guard.turn(turn).action for turn in turns]


def test_the_same_call_with_the_same_result_is_stale_and_with_another_result_it_is_not() -> None:
    assert actions(LoopGuard(4), *[[seen()]] * 5) == ["go on", "go on", "nudge", "go on", "stop"]
    polling = [[seen(result=f"{percent} %")] for percent in range(20)]
    assert actions(LoopGuard(4), *polling) == ["go on"] * 20


def test_a_turn_with_one_new_result_is_not_stale() -> None:
    guard = LoopGuard(2)
    assert guard.turn([seen()]).action == "go on"
    assert guard.turn([seen(), seen(arguments={"page": 2}, result="new")]).action == "go on"
    assert guard.turn([seen()]).action == "nudge"


def test_the_reason_names_what_happened() -> None:
    guard = LoopGuard(2)
    guard.turn([seen("search__web", {"q": "x"})])
    assert guard.turn([seen("search__web", {"q": "x"})]).reason == (
        "made the same call of search__web again, with the same result"
    )
    assert guard.turn([seen("search__web", {"q": "y"})]).reason == "got nothing new from search__web"
    assert LoopGuard(2).turn([seen("crawl", is_error=True)]).reason == "got an error from crawl"


@given(st.lists(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.booleans()), max_size=3)))
def test_a_guard_stops_exactly_after_the_allowed_number_of_stale_turns_in_a_row(
    turns: list[list[tuple[str, str, bool]]],
) -> None:
    guard, stale, known = LoopGuard(3), 0, set[str]()
    for turn in turns:
        verdict = guard.turn([seen(tool, result=result, is_error=error) for tool, result, error in turn])
        is_stale = bool(turn) and all(error or result in known for _, result, error in turn)
        known.update(result for _, result, _ in turn)
        stale = stale + 1 if is_stale else 0
        assert verdict.action == ("stop" if stale >= 3 else "nudge" if stale == 1 else "go on")


@pytest.mark.anyio
async def test_an_executor_that_repeats_itself_is_nudged_then_stopped_and_the_lesson_is_kept(tmp_path: Path) -> None:
    bank = FakeBank([])

    def anyone(body: dict[str, Any]) -> dict[str, Any]:
        if body.get("tools"):
            return calls(("calc__add", {"a": 1, "b": 1}))
        return answers("no way") if len(body["messages"]) > 3 else plans("add for ever")

    servers: dict[str, Any] = {"casebank": bank.server, "calc": _calculator()}
    async with scene(tmp_path, [anyone] * 20, servers=servers, max_turns_per_subtask=30, max_plans=1) as play:
        result = await play.run("Q?")
    (done,) = play.of(SubtaskDone)
    reason = "made the same call of calc__add again, with the same result"
    assert (done.status, done.result) == ("failed", f"stopped, because it went in circles: it {reason}")
    assert [event.reason for event in play.of(Nudged)] == [reason]
    assert result.tool_calls == 1 + 4
    nudge = play.model.sent[4]["messages"][-1]
    assert nudge["role"] == "user"
    assert nudge["content"].startswith(f"You {reason}, and nothing was learned in the last turns.")
    kept = next(row for name, row in bank.seen if name == "retain")
    assert kept["lesson"] == f"1.1 went in circles: {reason}; stopped because the limit of 1 plans is reached"


def _calculator() -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("calc")

    @server.tool()
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    @server.tool()
    def fail(n: int) -> str:
        """Fail."""
        raise ToolError(f"no {n}")

    return server


@pytest.mark.anyio
async def test_one_error_after_another_ends_a_subtask_also_when_each_is_another(tmp_path: Path) -> None:
    def anyone(body: dict[str, Any]) -> dict[str, Any]:
        if body.get("tools"):
            return calls(("calc__fail", {"n": len(body["messages"])}))
        return answers("no way") if len(body["messages"]) > 3 else plans("fail")

    async with scene(tmp_path, [anyone] * 20, servers={"calc": _calculator()}, max_turns_per_subtask=30) as play:
        result = await play.run("Q?")
    assert result.tool_calls == 4
    assert play.of(SubtaskDone)[0].lesson == "went in circles: got an error from calc__fail"


@pytest.mark.anyio
async def test_a_planner_that_gives_a_plan_again_that_led_nowhere_is_nudged(tmp_path: Path) -> None:
    script = [
        plans("Look it up"),
        says(""),
        says(""),
        plans("look  it up"),
        plans("another way"),
        says("r"),
        answers("a"),
    ]
    async with scene(tmp_path, script, max_plans=3) as play:
        result = await play.run("Q?")
    assert result.answer == "a"
    assert [(event.cycle, event.reason) for event in play.of(Nudged)] == [(2, "gave a plan again that led nowhere")]
    assert "carried out already" in play.model.sent[4]["messages"][-1]["content"]


@pytest.mark.anyio
async def test_two_plans_in_a_row_that_lead_nowhere_end_the_run_with_the_reason(tmp_path: Path) -> None:
    script = [plans("one"), says(""), says(""), plans("two"), says(""), says(""), answers("not to be found")]
    async with scene(tmp_path, script, max_plans=9) as play:
        result = await play.run("Q?")
    assert (result.answer, result.reason) == ("not to be found", "2 plans in a row led nowhere")


@pytest.mark.anyio
async def test_a_planner_that_refuses_gets_one_more_chance_and_its_words_are_told(tmp_path: Path) -> None:
    refusal = {"content": None, "refusal": "Not that."}
    async with scene(tmp_path, [refusal, refusal]) as play:
        result = await play.run("Q?")
    assert result.status == "failed"
    assert result.reason.endswith("The planner refused: Not that.")
