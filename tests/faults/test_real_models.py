"""Two OpenAI-compatible servers that nobody here wrote: llama.cpp's, which samples, and aimock, which misbehaves."""

import json
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from openai import AsyncOpenAI

from memento.agent import Agent
from memento.dialects import Dialect, format_dialect
from memento.events import ModelCalled, RunEnded, ToolReturned
from memento.journal import Journal
from memento.memory import CaseMemory
from memento.model import Model, ModelError, ModelRefused, ModelUnavailable
from memento.probe import probe
from memento.settings import Settings
from memento.toolbox import open_toolbox
from support.node import NODE, NPM, node_environment
from support.scripted_model import ScriptedModel, answers, calculator, plans
from support.tiny_model import write_tiny_model

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(300)]

SUPPORT = Path(__file__).resolve().parents[1] / "support"
AIMOCK = "@copilotkit/aimock@1.43.0"
ADD: Any = {
    "type": "function",
    "function": {
        "name": "calc__add",
        "description": "Add two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}


@contextmanager
def process(*args: str, **more: Any) -> Generator[subprocess.Popen[str]]:
    server = subprocess.Popen(
        args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8", **more
    )
    try:
        yield server
    finally:
        server.kill()
        server.communicate()


# --- llama.cpp ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    pytest.importorskip("xllamacpp", reason="there is no wheel of llama.cpp's server for this machine")
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_tiny_model(path)
    with process(sys.executable, str(SUPPORT / "llama_server.py"), str(path)) as server:
        assert server.stdout is not None
        yield f"{server.stdout.readline().strip()}/v1"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_llama_cpp_samples_a_tool_call_that_fits_the_schema_and_takes_its_result(
    llama: str, stream: bool
) -> None:
    async with AsyncOpenAI(api_key="k", base_url=llama, max_retries=0) as client:
        dialect = Dialect(stream=stream)
        model = Model(client, "tiny", max_output_tokens=300, temperature=0.8, seed=3, dialect=dialect)
        messages: list[dict[str, Any]] = [{"role": "user", "content": "Add 1 and 2."}]
        reply = await model.complete(messages, tools=[ADD])
        (request,) = reply.tool_requests
        arguments = json.loads(request.arguments)
        assert request.name == "calc__add"
        assert sorted(arguments) == ["a", "b"]
        assert all(isinstance(value, int) for value in arguments.values())
        assert (reply.finish_reason, reply.usage.is_estimated) == ("tool_calls", False)
        assert (reply.usage.input_tokens or 0) > 100
        assert reply.usage.cost_usd is None, "nobody knows what a server of one's own costs"
        messages += [reply.message, {"role": "tool", "tool_call_id": request.id, "content": "3"}]
        again = await model.complete(messages, tools=[ADD])
        assert again.tool_requests or again.text
        last = await model.complete(messages, tools=[ADD], use_tools=False)
        assert last.tool_requests == []


async def test_llama_cpps_own_refusals_are_one_line_each(llama: str) -> None:
    async with AsyncOpenAI(api_key="k", base_url=llama, max_retries=0) as client:
        model = Model(client, "tiny", max_output_tokens=10)
        with pytest.raises(ModelRefused, match=r"refused the request \(HTTP 400\).*context") as too_long:
            await model.complete([{"role": "user", "content": "x" * 20_000}])
        assert "\n" not in str(too_long.value)
        cut = await model.complete([{"role": "user", "content": "Hi."}], tools=[ADD])
        assert cut.finish_reason == "length"
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
        assert (await model.complete([{"role": "user", "content": [image]}])).finish_reason == "length"
        assert not model.dialect.images, "it said so with a 500, and the image was named to it instead"


async def test_a_probe_finds_what_llama_cpp_does(llama: str) -> None:
    async with AsyncOpenAI(api_key="k", base_url=llama, max_retries=0) as client:
        probed = await probe(Model(client, "tiny", max_output_tokens=200, seed=3))
    assert probed.calls_tools
    assert probed.findings[1:3] == ["counts tokens", "calls tools"]
    assert probed.findings[-1] == "takes no images"
    assert format_dialect(probed.dialect) == "images=false"


async def test_an_executor_on_llama_cpp_calls_real_tools_and_the_run_ends(llama: str, tmp_path: Path) -> None:
    scripted = ScriptedModel([plans("add two numbers"), answers("as far as it came")], forever=answers("end"))
    settings = Settings(home=tmp_path, memory="off", max_turns_per_subtask=4, max_plans=1)
    log = Journal(tmp_path).new_run()
    with anyio.fail_after(120):
        async with (
            scripted.client() as wire,
            AsyncOpenAI(api_key="k", base_url=llama, max_retries=0) as client,
            open_toolbox({"calc": calculator()}) as toolbox,
        ):
            agent = Agent(
                planner=Model(wire, "planner"),
                executor=Model(client, "tiny", max_output_tokens=200, temperature=0.8),
                toolbox=toolbox,
                memory=CaseMemory(toolbox=toolbox, mode="off"),
                settings=settings,
            )
            result = await agent.run("How much?", log=log, emit=log.append)
    log.close()
    events = Journal(tmp_path).events(result.run_id)
    assert result.status == "answered"
    assert any(isinstance(event, ToolReturned) for event in events)
    told = [event for event in events if isinstance(event, ModelCalled) and event.role == "executor"]
    assert len(told) >= 2
    assert not any(event.usage.is_estimated for event in told)
    (ended,) = [event for event in events if isinstance(event, RunEnded)]
    all_calls = [event for event in events if isinstance(event, ModelCalled)]
    assert ended.usage.input_tokens == sum(event.usage.input_tokens or 0 for event in all_calls)


# --- aimock --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def aimock(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    folder = tmp_path_factory.mktemp("aimock")
    installed = subprocess.run(
        [NODE, NPM, "install", "--no-audit", "--no-fund", "--prefix", str(folder), AIMOCK],
        env=node_environment(), timeout=200, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert installed.returncode == 0, installed.stderr
    call = {"name": "calc__add", "arguments": '{"a": 1, "b": 2}'}
    fixtures = [
        {"match": {"userMessage": "Add 1 and 2.", "hasToolResult": False}, "response": {"toolCalls": [call]}},
        {"match": {"userMessage": "Add 1 and 2.", "hasToolResult": True}, "response": {"content": "It is 3."}},
        {"match": {"userMessage": "hello"}, "response": {"content": "Hello."}},
    ]
    path = folder / "fixtures.json"
    path.write_text(json.dumps({"fixtures": fixtures}), encoding="utf-8")
    package = folder / "node_modules" / "@copilotkit" / "aimock"
    manifest = json.loads((package / "package.json").read_text(encoding="utf-8"))
    script = package / next(value for key, value in manifest["bin"].items() if key == "llmock")
    with process(NODE, str(script), "--port", "0", "--fixtures", str(path), "--log-level", "info") as server:
        assert server.stdout is not None
        for line in server.stdout:
            if "http://" in line:
                yield "http://" + line.split("http://")[1].split()[0].rstrip("/.,") + "/v1"
                return
        pytest.fail("aimock did not start")


async def chaos(base_url: str, **rates: float) -> None:
    async with httpx2.AsyncClient() as http:
        (await http.post(base_url.removesuffix("/v1") + "/__aimock/chaos", json=rates)).raise_for_status()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_aimock_scripted_calls_go_through_a_whole_turn(aimock: str, stream: bool) -> None:
    async with AsyncOpenAI(api_key="k", base_url=aimock, max_retries=0) as client:
        model = Model(client, "gpt-4.1", dialect=Dialect(stream=stream))
        messages: list[dict[str, Any]] = [{"role": "user", "content": "Add 1 and 2."}]
        reply = await model.complete(messages, tools=[ADD])
        (request,) = reply.tool_requests
        assert (request.name, json.loads(request.arguments)) == ("calc__add", {"a": 1, "b": 2})
        messages += [reply.message, {"role": "tool", "tool_call_id": request.id, "content": "3"}]
        assert (await model.complete(messages, tools=[ADD])).text == "It is 3."


@pytest.mark.parametrize("rate", ["rateLimitRate", "dropRate", "malformedRate", "disconnectRate"])
async def test_aimocks_faults_are_one_line_each_and_pass(aimock: str, rate: str) -> None:
    async with AsyncOpenAI(api_key="k", base_url=aimock, max_retries=0, timeout=20) as client:
        model = Model(client, "gpt-4.1")
        hello = [{"role": "user", "content": "hello"}]
        await chaos(aimock, **{rate: 1.0})
        try:
            with pytest.raises(ModelError) as failed:
                await model.complete(hello)
        finally:
            await chaos(aimock, **{rate: 0.0})
        assert "\n" not in str(failed.value)
        if rate != "malformedRate":
            assert isinstance(failed.value, ModelUnavailable)
        assert (await model.complete(hello)).text == "Hello."


async def test_a_fault_that_passes_is_retried_and_not_noticed(aimock: str) -> None:
    async with AsyncOpenAI(api_key="k", base_url=aimock, max_retries=6) as client:
        await chaos(aimock, rateLimitRate=0.3, dropRate=0.2)
        try:
            replies = [
                await Model(client, "gpt-4.1").complete([{"role": "user", "content": "hello"}]) for _ in range(4)
            ]
        finally:
            await chaos(aimock, rateLimitRate=0.0, dropRate=0.0)
    assert {reply.text for reply in replies} == {"Hello."}


# --- a wire that stops -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", [b"", b'{"id": "c", "choices": [{"message": {"role": "assist'], ids=["nothing", "half"]
)
async def test_an_answer_that_just_stops_is_an_endpoint_that_may_work_later(body: bytes) -> None:
    async def stop(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5000\r\n\r\n"
            await stream.send(head + body)

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, stop)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with AsyncOpenAI(api_key="k", base_url=f"http://127.0.0.1:{port}/v1", max_retries=0) as client:
            with pytest.raises(ModelUnavailable, match="cannot be reached"):
                await Model(client, "m").complete([{"role": "user", "content": "hi"}])
        group.cancel_scope.cancel()
