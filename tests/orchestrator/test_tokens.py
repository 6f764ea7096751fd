"""Counting tokens without a tokenizer, and the ledger: what is told, what is counted here, what is unknown."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.server import MCPServer
from mcp.types import CallToolResult, TextContent, ToolAnnotations
from openai import AsyncOpenAI

from memento.budget import NOTHING_USED
from memento.estimate import estimate
from memento.events import CasesRead, CaseWritten, ModelCalled, RunEnded, ToolReturned, Usage
from memento.model import Model
from memento.picture import RunPicture
from memento.prices import add_usage
from memento.terminal import cost_text, estimate_lines
from memento.tokens import TokenEstimator, count_tokens
from memento.tool_cache import ToolCache, ToolCachePolicy
from memento_casebank.server import Settings as BankSettings
from memento_casebank.server import build_server
from support.loopback import answer, loopback_server
from support.scripted_model import answers, calls, completion, plans, says, scene

pytestmark = pytest.mark.anyio

KNOWN = {  # texts and how many o200k_base tokens they have, counted once with tiktoken elsewhere
    "The quick brown fox jumps over the lazy dog.": 10,
    "def add(a, b):\n    return a + b\n": 13,
    '{"id": 12345, "name": "item", "tags": ["a", "b"]}': 20,
    "Donaudampfschifffahrtsgesellschaft ist ein langes Wort.": 16,
    "我们今天去看大桥。": 8,
}


@pytest.mark.parametrize(("text", "tokens"), KNOWN.items())
def test_a_count_is_near_that_of_a_common_tokenizer(text: str, tokens: int) -> None:
    assert 0.6 * tokens <= count_tokens(text) <= 1.5 * tokens


def test_counts_follow_what_a_server_reports() -> None:
    estimator = TokenEstimator()
    messages = [{"role": "user", "content": "word " * 500}]
    for _ in range(20):
        estimator.learn(estimator.input_tokens(messages), 1_500)
    assert 1_450 < estimator.input_tokens(messages) < 1_550
    estimator.learn(estimator.input_tokens(messages), None)
    estimator.learn(0, 10)
    assert 1_450 < estimator.input_tokens(messages) < 1_550


async def test_every_kind_of_token_that_a_server_tells_is_in_the_ledger(tmp_path: Path) -> None:
    usage: Any = {
        "prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150,
        "prompt_tokens_details": {"cached_tokens": 40, "audio_tokens": 3, "image_tokens": 20},
        "completion_tokens_details": {"reasoning_tokens": 30, "audio_tokens": 2},
    }  # fmt: skip
    async with scene(tmp_path, [plans("x"), says("r"), answers("a")], usage=usage) as play:
        result = await play.run()
    used = result.usage
    assert (used.input_tokens, used.cached_tokens, used.image_tokens) == (300, 120, 60)
    assert (used.output_tokens, used.reasoning_tokens, used.audio_tokens) == (150, 90, 15)
    assert not used.is_estimated
    assert play.of(RunEnded)[0].usage == used


async def test_a_priced_call_whose_usage_is_not_told_is_estimated_and_says_so() -> None:
    def reply(request: httpx2.Request) -> httpx2.Response:
        return completion(says("Hello there, this is a reply."))

    http = httpx2.AsyncClient(transport=httpx2.MockTransport(reply))
    async with AsyncOpenAI(api_key="k", base_url="https://api.openai.com/v1", http_client=http) as client:
        told = (await Model(client, "gpt-4.1").complete([{"role": "user", "content": "Say hello."}])).usage
    assert told.is_estimated
    assert told.input_tokens is not None
    assert told.output_tokens is not None
    assert 0 < (told.cost_usd or 0) < 0.001
    assert "(about " in cost_text(told)


async def test_what_a_server_reports_corrects_the_counts_of_the_calls_that_it_does_not_report() -> None:
    asked: list[dict[str, Any]] = [{"role": "user", "content": "word " * 200}]
    told = [None, {"prompt_tokens": 900, "completion_tokens": 1, "total_tokens": 901}, None]

    def reply(request: httpx2.Request) -> httpx2.Response:
        return completion(says("Yes."), usage=told.pop(0))

    http = httpx2.AsyncClient(transport=httpx2.MockTransport(reply))
    async with AsyncOpenAI(api_key="k", base_url="http://m/v1", http_client=http) as client:
        model = Model(client, "m")
        before, reported, after = [(await model.complete(asked)).usage for _ in range(3)]
    assert (before.is_estimated, reported.is_estimated, after.is_estimated) == (True, False, True)
    assert (before.input_tokens or 0) * 1.5 < (after.input_tokens or 0) <= 900


async def test_a_sum_with_an_estimate_is_an_estimate_and_with_an_unknown_unknown() -> None:
    known = Usage(input_tokens=1, output_tokens=1, cached_tokens=0, cost_usd=0.5)
    about = known.model_copy(update={"is_estimated": True})
    assert add_usage(add_usage(NOTHING_USED, known), about) == Usage(
        input_tokens=2, output_tokens=2, cached_tokens=0, cost_usd=1.0, is_estimated=True
    )
    assert add_usage(known, Usage()).cost_usd is None


async def test_what_a_tool_says_that_it_cost_is_in_the_sum_and_counts_against_the_limit(tmp_path: Path) -> None:
    server: MCPServer[Any] = MCPServer("paid")

    @server.tool()
    def look(n: int) -> CallToolResult:
        """Look."""
        return CallToolResult(content=[TextContent(text=f"seen {n}")], _meta={"memento/cost_usd": 0.02})

    usage = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}
    script = [plans("x"), calls(("paid__look", {"n": 1}), ("paid__look", {"n": 2})), answers("a")]
    async with scene(tmp_path, script, servers={"paid": server}, usage=usage, max_cost_usd=0.03) as play:
        for model in (play.agent.planner, play.agent.executor):
            model.is_free = True
        result = await play.run()
    assert [event.cost_usd for event in play.of(ToolReturned)] == [0.02, 0.02]
    assert result.usage.cost_usd == pytest.approx(0.04)
    assert result.reason == "the limit of $0.03 is reached"
    models = sum(event.usage.cost_usd or 0 for event in play.of(ModelCalled))
    tools = sum(event.cost_usd for event in play.of(ToolReturned))
    assert play.of(RunEnded)[0].usage.cost_usd == pytest.approx(models + tools)
    assert json.dumps(play.model.sent[-1]["messages"])


async def test_a_model_behind_a_server_is_in_the_sum_and_counts_against_the_limit_once(tmp_path: Path) -> None:
    server: MCPServer[Any] = MCPServer("paid", version="1")
    use = {"model": "text-embedding-3-large", "base_url": "https://api.openai.com/v1/", "output_tokens": 0}

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    def look(n: int) -> CallToolResult:
        """Look."""
        told = {"memento/models": [{**use, "input_tokens": n}, "nonsense"][: 1 if n else 2]}
        return CallToolResult(content=[TextContent(text=f"seen {n}")], _meta=told)

    usage = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}
    twice = ("paid__look", {"n": 100_000})
    script = [plans("x"), calls(twice), calls(twice), says("done"), answers("a")]
    async with scene(tmp_path, script, servers={"paid": server}, usage=usage) as play:
        for model in (play.agent.planner, play.agent.executor):
            model.is_free = True
        play.agent = replace(play.agent, cache=ToolCache(tmp_path / "tools.sqlite3", ToolCachePolicy()))
        result = await play.run()
    assert [[u.model for u in event.models] for event in play.of(ToolReturned)] == [["text-embedding-3-large"], []]
    assert result.usage.cost_usd == pytest.approx(0.013)
    assert result.usage.input_tokens == 100_000 + 10 * result.model_calls
    assert play.of(RunEnded)[0].usage == result.usage
    picture = RunPicture()
    for record in play.journal.records(result.run_id):
        picture.add(record)
    assert picture.cost_usd == pytest.approx(0.013)

    async with scene(
        tmp_path,
        [plans("x"), calls(("paid__look", {"n": 0})), says("done"), answers("a")],
        servers={"paid": server},
        usage=usage,
    ) as play:
        result = await play.run()
    assert result.usage.input_tokens is None, "a use that cannot be read is unknown, not nothing"


async def test_embeddings_that_the_case_bank_makes_are_in_the_ledger(tmp_path: Path) -> None:
    body = {"data": [{"index": 0, "embedding": [1.0] * 8}], "usage": {"prompt_tokens": 7, "total_tokens": 7}}
    usage = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}
    async with loopback_server() as endpoint:
        endpoint.answers["/v1/embeddings"] = answer(json.dumps(body).encode(), "Content-Type: application/json")
        bank = build_server(
            BankSettings(path=tmp_path / "bank", embedder="openai", embedder_url=f"{endpoint.base}/v1", embedder_dim=8)
        )
        script = [plans("x"), says("done"), answers("a")]
        async with scene(tmp_path, script, servers={"casebank": bank}, usage=usage) as play:
            result = await play.run()

    (read, *_), (kept,) = play.of(CasesRead), play.of(CaseWritten)
    assert [u.usage.input_tokens for u in read.models] == [7]
    assert {u.usage.input_tokens for u in kept.models} == {7}
    uses = [use for event in (*play.of(CasesRead), kept) for use in event.models]
    assert len(uses) == len(endpoint.requests)
    assert result.usage.input_tokens == 10 * result.model_calls + 7 * len(uses)
    assert result.usage.cost_usd is None, "nobody knows the price of this endpoint"


async def test_an_estimate_goes_by_the_runs_of_the_same_models_and_tells_when_there_are_too_few(tmp_path: Path) -> None:
    def reckoned(play: Any, planner: str = "planner") -> Any:
        return estimate(
            "Which is longer?", ["a.pdf"], [], specs=play.agent.toolbox.specs(), journal=play.journal,
            settings=play.agent.settings, planner_model=planner, executor_model="executor",
            base_url="http://model.test/v1",
        )  # fmt: skip

    usage = {"prompt_tokens": 60, "completion_tokens": 40, "total_tokens": 100}
    async with scene(tmp_path, [answers("a")] * 4, usage=usage, max_total_tokens=5_000) as play:
        before = reckoned(play)
        for _ in range(4):
            await play.run()
        after, other = reckoned(play), reckoned(play, "another")
    assert (before.likely_tokens, before.runs, before.most_tokens) == (None, 0, 5_000)
    assert 200 < before.least_tokens < 900
    assert (after.likely_tokens, after.runs) == ((100, 100, 100), 4)
    assert (after.likely_cost_usd, after.least_cost_usd) == (None, None), "nobody knows the price of this model"
    assert (other.likely_tokens, other.runs) == (None, 0)
    assert len(play.model.sent) == 4, "no model was asked for it"
    assert estimate_lines(before)[1] == "probably   not known: 0 runs of these models are kept, and three are needed"
    assert estimate_lines(after)[1] == "probably   100 to 100 tokens (half under 100), cost unknown, by 4 runs"
    assert estimate_lines(after)[2] == "at most    5,000 tokens, no limit on money"


def test_what_was_counted_in_the_turn_before_is_not_counted_again() -> None:
    history = [{"role": "user", "content": f"a turn with the number {number} of its own"} for number in range(50)]
    TokenEstimator().input_tokens(history)
    known = count_tokens.cache_info()
    TokenEstimator().input_tokens([*history, {"role": "user", "content": "and one turn that nobody has seen so far"}])
    now = count_tokens.cache_info()
    assert now.misses - known.misses == 1
