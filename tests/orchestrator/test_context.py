"""Trimming a history: rarely, thoroughly, and never between a call and its result."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.server import MCPServer

from memento.context import size_chars, trimmed
from memento.model import Message
from support.scripted_model import answers, calls, plans, says, scene

HEAD: list[Message] = [{"role": "system", "content": "s" * 100}, {"role": "user", "content": "the task"}]


def turn(number: int, sizes: list[int], after: str = "") -> list[Message]:
    requests = [{"id": f"{number}-{at}", "type": "function", "function": {"name": "t"}} for at in range(len(sizes))]
    messages: list[Message] = [{"role": "assistant", "content": None, "tool_calls": requests}]
    messages += [
        {"role": "tool", "tool_call_id": f"{number}-{at}", "content": f"{number}-{at}:" + "x" * size}
        for at, size in enumerate(sizes)
    ]
    if after:
        messages.append({"role": "user", "content": after})
    return messages


def put_away(text: str) -> str:
    return f"[away {text[:3]}]"


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 3_000), min_size=1, max_size=3), st.sampled_from(["", "nudge"]))),
    st.integers(500, 20_000),
)
def test_what_is_left_is_a_history_that_the_api_takes(turns: list[tuple[list[int], str]], high: int) -> None:
    messages = HEAD + [message for n, (sizes, after) in enumerate(turns) for message in turn(n, sizes, after)]
    before = [dict(message) for message in messages]
    kept = trimmed(messages, high_chars=high, low_chars=high // 2, put_away=put_away)
    assert messages == before, "what was given is not changed"
    assert kept[:2] == HEAD
    newest = [message for n, (sizes, after) in list(enumerate(turns))[-2:] for message in turn(n, sizes, after)]
    assert kept[len(kept) - len(newest) :] == newest
    open_calls: list[str] = []
    for message in kept[2:]:
        if message["role"] == "tool":
            open_calls.remove(message["tool_call_id"])
            continue
        assert not open_calls, "every call has its result before anything else is said"
        requests: list[dict[str, str]] = message.get("tool_calls") or []
        open_calls = [call["id"] for call in requests]
    assert not open_calls
    if size_chars(messages) <= high:
        assert kept == messages
    elif len(turns) > 2:
        assert size_chars(kept) <= max(high // 2, size_chars(HEAD + newest)) + 200, "down to the low mark, or the least"


def test_results_give_way_before_turns_do_and_the_oldest_first() -> None:
    messages = [*HEAD, *turn(0, [1_000]), *turn(1, [1_000]), *turn(2, [1_000]), *turn(3, [10]), *turn(4, [10])]
    kept = trimmed(messages, high_chars=3_000, low_chars=2_600, put_away=put_away)
    contents = [message["content"] for message in kept if message["role"] == "tool"]
    assert contents[0] == "[away 0-0]"
    assert contents[1].startswith("1-0:xxx")
    assert len(kept) == len(messages)


def test_when_results_are_not_enough_the_oldest_turns_go_whole_and_are_missed() -> None:
    messages = HEAD + [message for number in range(40) for message in turn(number, [300])]
    kept = trimmed(messages, high_chars=9_000, low_chars=4_000, put_away=put_away)
    assert kept[2]["content"].startswith("[Earlier turns ")
    assert kept[3]["role"] == "assistant"
    assert size_chars(kept) < 4_200
    longer = kept + [message for number in range(40, 70) for message in turn(number, [300])]
    again = trimmed(longer, high_chars=9_000, low_chars=4_000, put_away=put_away)
    assert again[:3] == kept[:3], "said once, and in the same words: the prefix that is cached ends no earlier"
    assert [message["role"] for message in again[3:]] == ["assistant", "tool"] * ((len(again) - 3) // 2)


def test_images_that_were_seen_give_way_too() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    shown: list[Message] = [{"role": "user", "content": [{"type": "text", "text": "x:"}, image]}]
    messages = [*HEAD, *turn(0, [10]), *shown, *turn(1, [10]), *turn(2, [10])]
    assert size_chars(messages) < 6_000, "an image counts what it costs, not its bytes"
    kept = trimmed(messages, high_chars=3_000, low_chars=1_000, put_away=put_away)
    assert "[images that were shown here]" in [message["content"] for message in kept]


@pytest.mark.anyio
async def test_a_long_work_is_trimmed_rarely_and_what_was_put_away_can_be_read_again(tmp_path: Path) -> None:
    server: MCPServer[Any] = MCPServer("big")

    @server.tool()
    def page(number: int) -> str:
        """A page."""
        return f"page {number}: the code is {number * 37}. " + f"{number} filler words " * 200

    def anyone(body: dict[str, Any]) -> dict[str, Any]:
        messages = body["messages"]
        if not body.get("tools"):
            return answers("a") if len(messages) > 3 else plans("read all pages")
        last = str(messages[-1]["content"])
        if last.startswith("[characters"):
            return says(last)
        done = len(sizes)
        sizes.append(size_chars(messages))
        if done == 20:
            away = next(m["content"] for m in messages if "put away to save room" in str(m.get("content")))
            return calls(("run__read_result", {"result": away.split("result='")[1].split("'")[0]}))
        return calls(("big__page", {"number": done}))

    sizes: list[int] = []
    async with scene(
        tmp_path, [anyone] * 40, servers={"big": server}, max_turns_per_subtask=40, max_context_chars=30_000
    ) as play:
        result = await play.run("Q?")
    assert result.status == "answered"
    assert max(sizes) <= 30_000
    histories = [body["messages"] for body in play.model.sent if body.get("tools")]
    rewritten = sum(later[: len(earlier)] != earlier for earlier, later in pairwise(histories))
    assert 1 <= rewritten <= 3, "trimmed rarely: the prefix that a provider caches changes only then"
    told = play.model.sent[-1]["messages"][-1]["content"]
    assert "the code is" in told
