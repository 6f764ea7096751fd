"""The cache of tool answers: what is kept and for how long, who waits for whom, and what never is kept."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, TextContent, ToolAnnotations
from mcp.types import Tool as Tool_

from memento.budget import Budget, Limits
from memento.events import RunEnded, ToolCalled, ToolReturned
from memento.outcomes import FilePart, ToolOutcome
from memento.record import RunRecord
from memento.server_list import ServerEntry
from memento.terminal import event_line
from memento.tool_cache import ToolCache, ToolCachePolicy
from memento.toolbox import ToolBox, ToolLimits, ToolSpec, open_toolbox
from support.scripted_model import answers, calls, plans, says, scene

pytestmark = pytest.mark.anyio

SPEC = ToolSpec("web__read", "web", "read", "", {}, may_repeat=True, is_read_only=True, server_version="1")

WITH_DEFAULTS: dict[str, Any] = {
    "properties": {"top": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": 10}}
}


class Tool:
    """Counts how often it is asked."""

    def __init__(self, outcome: Callable[[int], ToolOutcome] = lambda n: ToolOutcome(f"answer {n}")) -> None:
        self.asked = 0
        self._outcome = outcome

    async def __call__(self) -> ToolOutcome:
        self.asked += 1
        await anyio.lowlevel.checkpoint()
        return self._outcome(self.asked)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def cache(tmp_path: Path, clock: Clock | None = None, **policy: Any) -> ToolCache:
    return ToolCache(tmp_path / "cache" / "tools.sqlite3", ToolCachePolicy(**policy), clock=clock or Clock())


async def test_the_second_call_is_answered_from_the_first_also_in_another_run(tmp_path: Path) -> None:
    tool = Tool()
    first = await cache(tmp_path).call(SPEC, {"url": "a"}, tool)
    second = await cache(tmp_path).call(SPEC, {"url": "a"}, tool)
    assert (first.text, first.cached, second.text, second.cached, tool.asked) == (
        "answer 1", False, "answer 1", True, 1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "arguments", "is_same"),
    [
        pytest.param(SPEC, {"page": 2, "url": "a"}, True, id="another order"),
        pytest.param(SPEC, {"url": "a", "page": 2, "format": None}, True, id="null is not given"),
        pytest.param(SPEC, {"url": "a", "page": 3}, False, id="another argument"),
        pytest.param(replace(SPEC, server_version="2"), {"url": "a", "page": 2}, False, id="another version"),
        pytest.param(replace(SPEC, server="other"), {"url": "a", "page": 2}, False, id="another server"),
        pytest.param(replace(SPEC, server_digest="x"), {"url": "a", "page": 2}, False, id="set up in another way"),
        pytest.param(replace(SPEC, input_schema=WITH_DEFAULTS), {"url": "a", "page": 2, "top": 10}, True, id="default"),
        pytest.param(
            replace(SPEC, input_schema=WITH_DEFAULTS),
            {"url": "a", "page": 2, "top": None},
            False,
            id="null that means something",
        ),
        pytest.param(replace(SPEC, tool="look"), {"url": "a", "page": 2}, False, id="another tool"),
    ],
)
async def test_what_makes_two_calls_the_same(
    tmp_path: Path, spec: ToolSpec, arguments: dict[str, Any], is_same: bool
) -> None:
    tool, kept = Tool(), cache(tmp_path)
    await kept.call(SPEC, {"url": "a", "page": 2}, tool)
    assert (await kept.call(spec, arguments, tool)).cached is is_same


@pytest.mark.parametrize(
    ("spec", "policy"),
    [
        pytest.param(replace(SPEC, is_read_only=False), {}, id="not read-only"),
        pytest.param(replace(SPEC, is_read_only=False), {"seconds_by_tool": {"web__read": 60}}, id="not even if asked"),
        pytest.param(replace(SPEC, is_open_world=False), {}, id="local state"),
        pytest.param(SPEC, {"seconds": 0}, id="switched off"),
        pytest.param(SPEC, {"seconds_by_tool": {"web__read": 0}}, id="switched off for this tool"),
    ],
)
async def test_what_is_never_kept(tmp_path: Path, spec: ToolSpec, policy: dict[str, Any]) -> None:
    tool, kept = Tool(), cache(tmp_path, **policy)
    await kept.call(spec, {}, tool)
    await kept.call(spec, {}, tool)
    assert tool.asked == 2
    assert not (tmp_path / "cache").exists()


async def test_each_tool_has_its_time_and_errors_a_short_one(tmp_path: Path) -> None:
    clock = Clock()
    kept = cache(tmp_path, clock, seconds=100, error_seconds=10, seconds_by_tool={"web__news": 20})
    page, news, gone = Tool(), Tool(), Tool(lambda n: ToolOutcome("404", is_error=True))
    specs = [SPEC, replace(SPEC, name="web__news", tool="news", is_open_world=False), replace(SPEC, tool="gone")]

    async def ask_all() -> None:
        for spec, tool in zip(specs, [page, news, gone], strict=True):
            await kept.call(spec, {}, tool)

    asked: list[tuple[int, int, int]] = []
    for now in (0, 9, 11, 21, 99, 101):
        clock.now = 1_000.0 + now
        await ask_all()
        asked.append((page.asked, news.asked, gone.asked))
    assert asked == [(1, 1, 1), (1, 1, 1), (1, 1, 2), (1, 2, 3), (1, 3, 4), (2, 3, 4)]
    assert (await kept.call(specs[2], {}, gone)).is_error


async def test_a_server_may_say_that_its_answer_holds_for_less(tmp_path: Path) -> None:
    server: MCPServer[Any] = MCPServer("web")

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    def read(ttl: Any) -> CallToolResult:
        """Read."""
        meta = {} if ttl is None else {"ttlMs": ttl}
        return CallToolResult(content=[TextContent(text="page")], _meta=meta)

    clock = Clock()
    kept = cache(tmp_path, clock, seconds=100)
    held: dict[str, list[bool]] = {}
    async with open_toolbox({"web": server}) as box:
        (spec,) = box.specs()
        for ttl in (0, -1, 5_000, 1e9, None, True, "never"):
            arguments = {"ttl": ttl}
            for now in (0, 4, 6, 99):
                clock.now = 1_000.0 + now
                outcome = await kept.call(spec, arguments, partial(box.call, spec, arguments))
                held.setdefault(str(ttl), []).append(outcome.cached)
    assert held.pop("0") == held.pop("-1") == [False] * 4
    assert held.pop("5000") == [False, True, False, False]
    assert list(held.values()) == [[False, True, True, True]] * 4, "what cannot be read is not said"


async def test_a_server_that_was_lost_or_too_slow_is_not_an_answer(tmp_path: Path) -> None:
    tool, kept = Tool(lambda n: ToolOutcome("lost", is_error=True, may_be_kept=False)), cache(tmp_path)
    await kept.call(SPEC, {}, tool)
    await kept.call(SPEC, {}, tool)
    assert tool.asked == 2


async def test_the_same_call_at_once_is_sent_once(tmp_path: Path) -> None:
    tool, kept = Tool(lambda n: ToolOutcome("a", cost_usd=0.5)), cache(tmp_path)
    got: list[ToolOutcome] = []

    async def one(url: str) -> None:
        got.append(await kept.call(SPEC, {"url": url}, tool))

    async with anyio.create_task_group() as group:
        for url in ["a"] * 20 + ["b"]:
            group.start_soon(one, url)
    assert tool.asked == 2
    assert sorted(outcome.cached for outcome in got) == [False] * 2 + [True] * 19
    assert sum(outcome.cost_usd for outcome in got) == 2 * 0.5, "what was not sent costs nothing"


@pytest.mark.parametrize(
    "outcome",
    [
        pytest.param(ToolOutcome("too slow", is_error=True, may_be_kept=False), id="what failed"),
        pytest.param(ToolOutcome("x" * 6_000_000), id="what is too large to keep"),
    ],
)
async def test_those_who_wait_share_also_what_is_not_kept_instead_of_asking_one_after_another(
    tmp_path: Path, outcome: ToolOutcome
) -> None:
    tool, kept = Tool(lambda n: outcome), cache(tmp_path)
    got: list[ToolOutcome] = []

    async def one() -> None:
        got.append(await kept.call(SPEC, {}, tool))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(one)
    assert tool.asked == 1
    assert {outcome.text for outcome in got} == {outcome.text}
    assert sorted(outcome.cached for outcome in got) == [False, True, True, True, True]
    await one()
    assert tool.asked == 2, "the next one asks anew"


async def test_when_the_one_who_asks_fails_another_asks(tmp_path: Path) -> None:
    kept, others = cache(tmp_path), list[ToolOutcome]()

    async def fail() -> ToolOutcome:
        await anyio.wait_all_tasks_blocked()
        raise KeyError("a bug")

    async def lead() -> None:
        with pytest.raises(KeyError):
            await kept.call(SPEC, {}, fail)

    async def follow() -> None:
        others.append(await kept.call(SPEC, {}, Tool()))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(lead)
            group.start_soon(follow)
    assert [outcome.text for outcome in others] == ["answer 1"]


async def test_when_the_one_who_asks_is_cancelled_another_asks(tmp_path: Path) -> None:
    kept, started, others = cache(tmp_path), anyio.Event(), list[ToolOutcome]()

    async def for_ever() -> ToolOutcome:
        started.set()
        await anyio.sleep_forever()
        raise AssertionError

    async def lead() -> None:
        with leader:
            await kept.call(SPEC, {}, for_ever)

    async def follow() -> None:
        others.append(await kept.call(SPEC, {}, Tool()))

    leader = anyio.CancelScope()
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(lead)
            await started.wait()
            for _ in range(3):
                group.start_soon(follow)
            await anyio.wait_all_tasks_blocked()
            leader.cancel()
    assert sorted((outcome.text, outcome.cached) for outcome in others) == [
        ("answer 1", False), ("answer 1", True), ("answer 1", True),
    ]  # fmt: skip


async def test_files_and_structure_come_back_as_they_were_and_what_is_too_large_is_not_kept(tmp_path: Path) -> None:
    whole = ToolOutcome("t", structured={"a": [1]}, files=(FilePart("image/png", b"\0\xff"),))
    kept = cache(tmp_path)
    await kept.call(SPEC, {}, Tool(lambda n: whole))
    assert await kept.call(SPEC, {}, Tool()) == replace(whole, cached=True)
    large = Tool(lambda n: ToolOutcome("x" * 6_000_000))
    for _ in range(2):
        await kept.call(SPEC, {"large": True}, large)
    assert large.asked == 2


async def test_the_oldest_answers_go_when_the_room_is_used_up(tmp_path: Path) -> None:
    clock = Clock()
    kept = cache(tmp_path, clock, max_bytes=5_000)
    tool = Tool(lambda n: ToolOutcome("x" * 1_000))
    for number in range(51):
        clock.now += 1
        await kept.call(SPEC, {"n": number}, tool)
    before = tool.asked
    assert (await kept.call(SPEC, {"n": 50}, tool)).cached
    assert not (await kept.call(SPEC, {"n": 0}, tool)).cached
    assert tool.asked == before + 1


async def test_a_damaged_file_costs_its_answers_and_never_a_call(tmp_path: Path) -> None:
    kept, tool = cache(tmp_path), Tool()
    await kept.call(SPEC, {}, tool)
    kept.close()
    path = tmp_path / "cache" / "tools.sqlite3"
    for ending in ("-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)
    path.write_bytes(b"this is no database" * 1_000)
    assert (await kept.call(SPEC, {}, tool)).text == "answer 2"
    assert (await kept.call(SPEC, {}, tool)).text == "answer 2", "a new file was begun"
    assert tool.asked == 2


async def test_a_place_that_cannot_be_written_costs_the_saving_and_never_a_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be", encoding="utf-8")
    kept, tool = cache(tmp_path), Tool()
    for _ in range(2):
        assert not (await kept.call(SPEC, {}, tool)).cached
    assert tool.asked == 2
    assert "cannot be used now" in caplog.text


def test_how_a_server_is_set_up_is_part_of_what_makes_two_calls_the_same() -> None:
    def digest(environ: dict[str, str] | None = None, **entry: Any) -> str:
        box = ToolBox({"web": ServerEntry(**entry)}, ToolLimits(), environ or {}, None, lambda event: None)
        box.servers["web"].state = "ready"
        box.servers["web"].tools = [Tool_(name="read", input_schema={"type": "object"})]
        return box.specs()[0].server_digest

    first = digest(command="web", env={"KEY": "secret"})
    assert first == digest(command="web", env={"KEY": "secret"})
    assert "secret" not in first
    others = [
        digest(command="web", env={"KEY": "other"}),
        digest(command="web", args=["--deep"], env={"KEY": "secret"}),
        digest(type="http", url="http://127.0.0.1:1/mcp"),
        digest({"MEMENTO_WEB_ENGINE": "b"}, command="web", env={"KEY": "secret"}),
    ]
    assert len({first, *others}) == 5


@pytest.mark.slow
async def test_a_process_that_is_killed_while_it_writes_leaves_a_file_that_can_be_used(tmp_path: Path) -> None:
    code = """
import anyio, itertools, sys
from pathlib import Path
from memento.tool_cache import ToolCache, ToolCachePolicy
from memento.outcomes import ToolOutcome
from memento.toolbox import ToolSpec
spec = ToolSpec("web__read", "web", "read", "", {}, may_repeat=True, is_read_only=True, server_version="1")
async def main():
    kept = ToolCache(Path(sys.argv[1]), ToolCachePolicy())
    async def send(): return ToolOutcome("x" * 50_000)
    for n in itertools.count():
        await kept.call(spec, {"n": n}, send)
        print(n, flush=True)
anyio.run(main)
"""
    path = tmp_path / "tools.sqlite3"
    for wanted in (3, 40):
        with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as process:  # noqa: ASYNC220
            assert process.stdout is not None
            done = next(n for n in map(int, process.stdout) if n >= wanted)
            process.kill()
        tool = Tool()
        for number in range(done + 1):
            outcome = await ToolCache(path, ToolCachePolicy()).call(SPEC, {"n": number}, tool)
            assert (outcome.cached, len(outcome.text)) == (True, 50_000)


@pytest.mark.slow
async def test_two_processes_share_the_file(tmp_path: Path) -> None:
    code = """
import anyio, sys
from pathlib import Path
from memento.tool_cache import ToolCache, ToolCachePolicy
from memento.outcomes import ToolOutcome
from memento.toolbox import ToolSpec
spec = ToolSpec("web__read", "web", "read", "", {}, may_repeat=True, is_read_only=True, server_version="1")
async def main():
    kept = ToolCache(Path(sys.argv[1]), ToolCachePolicy())
    async def send(): return ToolOutcome("x" * 500)
    for n in range(150):
        await kept.call(spec, {"n": n, "who": n % 2 and sys.argv[2]}, send)
anyio.run(main)
"""
    path = tmp_path / "tools.sqlite3"
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for who in "ab":
                group.start_soon(anyio.run_process, [sys.executable, "-c", code, str(path), who])
    tool = Tool()
    for number in range(0, 150, 2):
        assert (await ToolCache(path, ToolCachePolicy()).call(SPEC, {"n": number, "who": 0}, tool)).cached
    assert tool.asked == 0


def test_a_run_that_goes_on_counts_no_execution_for_an_answer_that_was_kept() -> None:
    budget = Budget(Limits(tool_calls=5))
    about: dict[str, Any] = {"cycle": 1, "subtask_id": "1", "tool": "web__read"}
    done: dict[str, Any] = {**about, "seconds": 0, "is_error": False, "text": ""}
    RunRecord(
        lambda event: None,
        budget,
        [
            ToolCalled(**about, call_id="a", arguments={}),
            ToolReturned(**done, call_id="a"),
            ToolCalled(**about, call_id="b", arguments={}),
            ToolReturned(**done, call_id="b", cached=True),
        ],
    )
    assert budget.tool_calls == 1


async def test_a_run_asks_a_read_only_tool_once_and_shows_that_the_answer_was_kept(tmp_path: Path) -> None:
    server: MCPServer[Any] = MCPServer("web", version="7")
    asked: list[str] = []

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    def read(url: str) -> str:
        """Read."""
        asked.append(url)
        if url == "gone":
            raise ToolError("not there")
        return f"page {url}"

    @server.tool()
    def post(url: str) -> str:
        """Post."""
        asked.append(f"post {url}")
        return "posted"

    batch = calls(("web__read", {"url": "a"}), ("web__post", {"url": "a"}), ("web__read", {"url": "gone"}))
    script = [plans("x"), batch, says("r"), answers("a")]
    async with scene(tmp_path, [*script, *script, *script], servers={"web": server}) as play:
        play.agent = replace(play.agent, cache=cache(tmp_path))
        await play.run()
        asked_first = sorted(asked)
        await play.run()
        assert sorted(asked) == sorted([*asked_first, "post a"])
        assert [event.tool_calls for event in play.of(RunEnded)] == [3, 1], "a kept answer is no execution"
        cached = [event for event in play.of(ToolReturned) if event.cached]
        assert sorted(event.tool for event in cached) == ["web__read", "web__read"]
        assert {event_line(event) for event in cached if not event.is_error} == {"  1.1 ← web__read (cached)"}
        assert "page a" in json.dumps(play.model.sent[-2]["messages"])
        play.agent = replace(play.agent, cache=None)
        await play.run()
    assert sorted(asked) == sorted(asked_first * 2 + ["post a"])
