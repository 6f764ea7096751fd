"""Endpoints differ: a row per difference, from the request that goes out to what is read in the reply."""

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memento.dialects import Dialect, adapted, learned, parse_dialect, text_calls
from memento.events import ModelCalled, ToolReturned
from support.scripted_model import answers, calls, completion, plans, says, scene

TOOL = {"type": "function", "function": {"name": "calc__add", "description": "Add.", "parameters": {"type": "object"}}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


def request(**more: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": "Rules."}, {"role": "user", "content": "Task."}]
    return {"model": "m", "messages": messages, **more}


@pytest.mark.parametrize(
    ("dialect", "sent", "expected"),
    [
        pytest.param(
            Dialect(limit_parameter="max_tokens"), {"max_completion_tokens": 5}, {"max_tokens": 5}, id="max_tokens"
        ),
        pytest.param(Dialect(temperature=False), {"temperature": 0.5}, {}, id="no temperature"),
        pytest.param(Dialect(reasoning_effort=False), {"reasoning_effort": "low"}, {}, id="no reasoning effort"),
        pytest.param(
            Dialect(stream=True), {}, {"stream": True, "stream_options": {"include_usage": True}}, id="stream"
        ),
        pytest.param(Dialect(stream=True, stream_usage=False), {}, {"stream": True}, id="stream without usage"),
        pytest.param(Dialect(seed=False), {"seed": 1}, {}, id="no seed"),
        pytest.param(
            Dialect(tool_choice=False), {"tools": [TOOL], "tool_choice": "none"}, {"tools": [TOOL]}, id="no tool choice"
        ),
    ],
)
def test_a_parameter_is_put_as_the_endpoint_takes_it(
    dialect: Dialect, sent: dict[str, Any], expected: dict[str, Any]
) -> None:
    before = request(**sent)
    assert adapted(before, dialect) == request(**expected)
    assert before == request(**sent), "the request itself is not changed"
    assert adapted(before, Dialect()) == before


def test_instructions_take_the_role_that_the_endpoint_knows() -> None:
    assert adapted(request(), Dialect(system_role="developer"))["messages"][0]["role"] == "developer"
    assert adapted(request(), Dialect(system_role="user"))["messages"] == [
        {"role": "user", "content": "Rules.\n\nTask."}
    ]


def test_without_tools_of_its_own_calls_and_results_are_words_and_roles_alternate() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "calc__add", "arguments": '{"a": 1}'}}
    history = [
        *request()["messages"],
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
        {"role": "user", "content": "Little is left."},
    ]
    put = adapted({"model": "m", "messages": history, "tools": [TOOL]}, Dialect(native_tools=False))
    assert "tools" not in put
    system, task, assistant, result = put["messages"]
    assert system["content"].startswith("Rules.\n\nYou can call these tools:\n")
    assert '"calc__add"' in system["content"]
    assert assistant == {
        "role": "assistant",
        "content": '<tool_call>{"name": "calc__add", "arguments": {"a": 1}}</tool_call>',
    }
    assert result == {"role": "user", "content": "Result of c1:\n1\n\nLittle is left."}
    assert task["content"] == "Task."
    last = adapted(
        {"model": "m", "messages": history, "tools": [TOOL], "tool_choice": "none"}, Dialect(native_tools=False)
    )
    assert "calc__add" not in last["messages"][0]["content"], "in the last turn no tool is offered"


def test_an_image_is_named_to_an_endpoint_that_takes_none() -> None:
    seen = [{"role": "user", "content": [{"type": "text", "text": "chart.png:"}, IMAGE]}]
    put = adapted({"model": "m", "messages": seen}, Dialect(images=False))
    assert put["messages"] == [{"role": "user", "content": "chart.png:\n[an image that you cannot see]"}]


@pytest.mark.parametrize(
    ("error", "sent", "change"),
    [
        ("Unsupported parameter: 'max_completion_tokens'", {"max_completion_tokens": 5},
         {"limit_parameter": "max_tokens"}),
        ("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", {"max_tokens": 5},
         {"limit_parameter": "max_completion_tokens"}),
        ("Unsupported value: 'temperature' does not support 0.2 with this model.", {"temperature": 0.2},
         {"temperature": False}),
        ("Unknown name \"reasoning_effort\": Cannot find field.", {"reasoning_effort": "low"},
         {"reasoning_effort": False}),
        ("extra fields not permitted: seed", {"seed": 1}, {"seed": False}),
        ("tool_choice none is not supported", {"tools": [TOOL], "tool_choice": "none"}, {"tool_choice": False}),
        ("registry.ollama.ai/library/gemma:2b does not support tools", {"tools": [TOOL]}, {"native_tools": False}),
        ("This model only support stream mode, please enable the stream parameter.", {}, {"stream": True}),
        ("Unrecognized request argument supplied: stream_options", {"stream": True, "stream_options": {}},
         {"stream_usage": False}),
        ("System role not supported", {}, {"system_role": "user"}),
        ("Unknown role: developer is required instead of system", {}, {"system_role": "developer"}),
    ],
)  # fmt: skip
def test_what_a_refusal_names_is_left_out_from_then_on(
    error: str, sent: dict[str, Any], change: dict[str, Any]
) -> None:
    before = Dialect(limit_parameter="max_tokens" if "max_tokens" in sent else "max_completion_tokens")
    after = learned(before, error, request(**sent))
    assert after is not None
    assert {name: getattr(after, name) for name in change} == change


def test_a_refusal_that_names_nothing_that_was_sent_teaches_nothing() -> None:
    assert learned(Dialect(), "The model `x` does not exist", request()) is None
    assert learned(Dialect(), "temperature is out of range", request()) is None
    assert learned(Dialect(), "This model's context length is 4096 tokens", request()) is None


def test_the_operators_words_are_read_and_wrong_ones_refused() -> None:
    assert parse_dialect("") == Dialect()
    assert parse_dialect("system_role=user, native_tools=false") == Dialect(system_role="user", native_tools=False)
    with pytest.raises(ValueError, match="there is no capability 'tools'; there are limit_parameter, system_role"):
        parse_dialect("tools=false")
    with pytest.raises(ValueError, match="system_role is one of system, developer, user, not 'admin'"):
        parse_dialect("system_role=admin")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param('<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>', [("f", {"a": 1})], id="hermes"),
        pytest.param(
            'I add.\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>\n<tool_call>{"name": "g"}</tool_call>',
            [("f", dict[str, Any]()), ("g", dict[str, Any]())],
            id="two with words before",
        ),
        pytest.param('<tool_call>{"name": "f", "arguments": {"a": 1}}', [("f", {"a": 1})], id="never closed"),
        pytest.param('<function=f>{"a": 1}</function>', [("f", {"a": 1})], id="llama 3"),
        pytest.param(
            "<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\ntwo words\n</parameter>\n"
            "</function>\n</tool_call>",
            [("f", {"a": 1, "b": "two words"})],
            id="qwen coder",
        ),
        pytest.param('[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}]', [("f", {"a": 1})], id="mistral"),
        pytest.param(
            '<|python_tag|>{"name": "f", "parameters": {"a": 1}}<|eom_id|>', [("f", {"a": 1})], id="python tag"
        ),
        pytest.param('```json\n{"name": "f", "arguments": {"a": 1}}\n```', [("f", {"a": 1})], id="fenced"),
        pytest.param(
            '{"function": {"name": "f", "arguments": "{\\"a\\": 1}"}}', [("f", {"a": 1})], id="openai's shape"
        ),
        pytest.param('{"tool": "f", "parameters": {"a": 1}}', [("f", {"a": 1})], id="bare json"),
        pytest.param('<think>{"name": "f"}</think>It is 3.', [], id="only thought of"),
        pytest.param('<tool_call>{"name": "unknown"}</tool_call>', [], id="a tool that was not offered"),
        pytest.param('The config is {"name": "f", "arguments": {}} as I said.', [], id="json inside prose"),
        pytest.param('{"answer": 3}', [], id="json that is no call"),
        pytest.param("<tool_call>{broken</tool_call>", [], id="broken"),
    ],
)
def test_calls_written_as_text_are_read(text: str, expected: list[tuple[str, dict[str, Any]]]) -> None:
    assert [(name, json.loads(arguments)) for name, arguments in text_calls(text, {"f", "g"})] == expected


@given(st.text() | st.from_regex(r"(<tool_call>|<function=f>|```json\n|\[TOOL_CALLS\]|[{}\[\]\":,f])*", fullmatch=True))
def test_no_text_breaks_the_reader(text: str) -> None:
    assert all(name in {"f", "g"} for name, _ in text_calls(text, {"f", "g"}))


# --- through the agent -----------------------------------------------------------------------------------------


def refuses(body: dict[str, Any], **unless: str) -> httpx2.Response | None:
    """A 400 with the words of the first condition that the request does not meet."""
    for name, words in unless.items():
        if name in body or (name == "system" and body["messages"][0]["role"] == "system"):
            return httpx2.Response(400, json={"error": {"message": words, "type": "invalid_request_error"}})
    return None


@pytest.mark.anyio
async def test_an_old_fashioned_endpoint_is_learnt_by_refusals_once_and_then_spoken_to_in_its_way(
    tmp_path: Path,
) -> None:
    def endpoint(body: dict[str, Any]) -> Any:
        refused = refuses(
            body, temperature="temperature is not supported", tools="this model does not support tools",
            system="System role not supported",
        )  # fmt: skip
        if refused is not None:
            return refused
        first, last = body["messages"][0]["content"], body["messages"][-1]["content"]
        if "You plan the work" in first:
            return answers("3") if "Results of the plan" in last else plans("add 1 and 2")
        if "Result of" in last:
            return says("It is 3.")
        return says('Let me see.\n<tool_call>{"name": "calc__add", "arguments": {"a": 1, "b": 2}}</tool_call>')

    async with scene(tmp_path, [endpoint] * 20) as play:
        for model in (play.agent.planner, play.agent.executor):
            model.temperature = 0.1
        result = await play.run()
        sent_first = len(play.model.sent)
        await play.run()
    assert (result.answer, result.tool_calls) == ("3", 1)
    assert play.of(ToolReturned)[0].tool == "calc__add"
    assert (sent_first, len(play.model.sent) - sent_first) == (4 + 5, 4), (
        "nothing is asked a second time that was refused"
    )
    kept = next(event for event in play.of(ModelCalled) if event.role == "executor")
    assert kept.message["content"].startswith("Let me see."), "the message is kept as it came"


@pytest.mark.anyio
async def test_a_refusal_that_teaches_nothing_ends_the_run_with_its_words(tmp_path: Path) -> None:
    said = httpx2.Response(400, json={"error": {"message": "context length exceeded: 9000 > 4096"}})
    async with scene(tmp_path, [said]) as play:
        result = await play.run()
    assert result.status == "failed"
    assert "context length exceeded: 9000 > 4096" in result.reason


@pytest.mark.anyio
async def test_a_reply_cut_off_at_its_length_is_asked_for_again_shorter(tmp_path: Path) -> None:
    def cut(message: dict[str, Any]) -> httpx2.Response:
        body = json.loads(completion(message).content)
        body["choices"][0]["finish_reason"] = "length"
        return httpx2.Response(200, json=body)

    script = [
        cut({"content": '{"plan": [{"id": "1", "desc'}),
        plans("x"),
        cut(says("It is a very lo")),
        says("3"),
        answers("3"),
    ]
    async with scene(tmp_path, script) as play:
        result = await play.run()
    assert result.answer == "3"
    assert (
        "It was cut off at the limit on a reply's length; write less." in play.model.sent[1]["messages"][-1]["content"]
    )
    assert "was cut off" in play.model.sent[3]["messages"][-1]["content"]


@pytest.mark.anyio
async def test_a_reply_that_a_filter_stopped_is_a_refusal(tmp_path: Path) -> None:
    body = json.loads(completion({"content": ""}).content)
    body["choices"][0]["finish_reason"] = "content_filter"
    filtered = httpx2.Response(200, json=body)
    async with scene(tmp_path, [plans("x"), filtered, filtered, answers("none")]) as play:
        result = await play.run()
    assert result.answer == "none"
    assert "the model refused: the provider's content filter stopped the reply" in str(play.model.sent[-1]["messages"])


@pytest.mark.anyio
async def test_calls_as_text_count_as_calls_in_a_resumed_run_too(tmp_path: Path) -> None:
    said = says('<tool_call>{"name": "calc__add", "arguments": {"a": 1, "b": 2}}</tool_call>')
    down = httpx2.Response(500, json={"error": {"message": "down"}})
    async with scene(tmp_path, [plans("x"), said, says("3"), down, answers("3")]) as play:
        failed = await play.run("Q?")
        log = play.journal.reopen(failed.run_id)
        earlier = [e for e in play.journal.events(failed.run_id) if e.type != "subtask_done"]
        result = await play.agent.run("Q?", log=log, emit=log.append, earlier=earlier)
        log.close()
    assert (result.answer, result.tool_calls, len(play.model.sent)) == ("3", 1, 5)


@pytest.mark.anyio
async def test_subtasks_of_a_kind_go_to_the_model_of_that_kind(tmp_path: Path) -> None:
    import dataclasses

    from memento.model import Model

    steps = [{"id": "1", "description": "count", "kind": "code"}, {"id": "2", "description": "look", "kind": "other"}]
    script = [{"content": json.dumps({"plan": steps})}, says("r"), says("r"), answers("a")]
    async with scene(tmp_path, script, parallel_subtasks=1) as play:
        play.agent = dataclasses.replace(play.agent, executors={"code": Model(play.agent.executor.client, "coder")})
        await play.run()
    assert [body["model"] for body in play.model.sent] == ["planner", "coder", "executor", "planner"]
    assert 'of one of these kinds a "kind": code.' in play.model.sent[0]["messages"][1]["content"]


@pytest.mark.anyio
async def test_the_papers_ablations_leave_out_the_planner_and_then_the_tools(tmp_path: Path) -> None:
    script = [calls(("calc__add", {"a": 1, "b": 2})), says("3")]
    async with scene(tmp_path / "on", script, mode="online-executor") as play:
        result = await play.run("What is 1 + 2?")
    assert (result.answer, result.tool_calls) == ("3", 1)
    assert {body["model"] for body in play.model.sent} == {"executor"}
    async with scene(tmp_path / "off", [says("<think>1+2</think>3")], mode="offline-executor") as play:
        result = await play.run("What is 1 + 2?")
    assert (result.answer, result.tool_calls) == ("3", 0)
    assert "tools" not in play.model.sent[0]
