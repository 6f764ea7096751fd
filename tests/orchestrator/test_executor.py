"""The executor's conversation: what a turn with several calls puts into the history."""

from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.server import MCPServer

from support.scripted_model import answers, calls, plans, says, scene

pytestmark = pytest.mark.anyio


async def test_calls_of_one_turn_run_side_by_side_and_their_results_stand_in_the_order_of_the_calls(
    tmp_path: Path,
) -> None:
    server: MCPServer[Any] = MCPServer("pair")
    second_is_done = anyio.Event()

    @server.tool()
    async def first() -> str:
        """Answers once the other did."""
        await second_is_done.wait()
        return "one"

    @server.tool()
    async def second() -> str:
        """Answers at once."""
        second_is_done.set()
        return "two"

    batch = calls(("pair__first", {}), ("pair__second", {}))
    async with scene(tmp_path, [plans("x"), batch, says("r"), answers("a")], servers={"pair": server}) as play:
        with anyio.fail_after(20):
            await play.run()
    told = play.model.sent[2]["messages"][-2:]
    assert [("one" in message["content"], "two" in message["content"]) for message in told] == [
        (True, False),
        (False, True),
    ]


@pytest.mark.parametrize(
    "ids",
    [
        pytest.param(["same", "same", "same"], id="one id for all"),
        pytest.param([None, None, None], id="no ids"),
        pytest.param(["", None, "call_1"], id="an id that looks like ours"),
    ],
)
async def test_each_call_of_a_turn_has_an_id_of_its_own_in_the_next_request(
    tmp_path: Path, ids: list[str | None]
) -> None:
    turn = calls(*[("calc__shout", {"text": text}) for text in ("a", "b", "c")])
    for call, given in zip(turn["tool_calls"], ids, strict=True):
        call["id"] = given
    async with scene(tmp_path, [plans("x"), turn, says("r"), answers("a")]) as play:
        await play.run()
    *_, asked, a, b, c = play.model.sent[2]["messages"]
    sent = [call["id"] for call in asked["tool_calls"]]
    assert len(set(sent)) == 3
    assert all(sent)
    assert [message["tool_call_id"] for message in (a, b, c)] == sent
    assert ["A" in a["content"], "B" in b["content"], "C" in c["content"]] == [True] * 3
