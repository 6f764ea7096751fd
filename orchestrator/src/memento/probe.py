"""What a model's endpoint can do, found by asking it: a few small requests with known answers.

Owns the questions and the reading of what comes back. What an endpoint refuses is learned by the model itself on the
way (`dialects.learned`); what it takes and then ignores shows only in an answer, and is what this is for.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from openai.types.chat import ChatCompletionFunctionToolParam

from memento.dialects import Dialect, text_calls
from memento.model import Message, Model, ModelError, Reply

__all__ = ["Probed", "probe"]

_Found = TypeVar("_Found")

_NOTE: ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {
        "name": "note",
        "description": "Write a word down.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
    },
}
_ASK_TO_CALL: list[Message] = [
    {"role": "system", "content": "You work with tools."},
    {"role": "user", "content": "Call the tool `note` with the word ready. Write nothing else."},
]
_RED_SQUARE = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAS0lEQVR42u3PQQkAAAgAsetfWiP4FgYrsKZeS0BA"
    "QEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEDgsqnc8OJg6Ln3AAAAAElFTkSuQmCC"
    ""
)


@dataclass(frozen=True)
class Probed:
    """What was found. `findings` are words for a person, one per thing that was asked for."""

    dialect: Dialect
    findings: list[str]
    calls_tools: bool


async def probe(model: Model) -> Probed:
    """Ask `model` about five small things. Its dialect is then what the endpoint takes.

    Raises:
        ModelError: not even a plain question is answered.
    """
    plain = await model.complete(
        [
            {"role": "system", "content": "Answer with one word."},
            {"role": "user", "content": "Question: Reply with the word ready."},
        ]
    )
    findings = [f"answers ({plain.seconds:.2f} s)"]
    findings.append("counts tokens" if not plain.usage.is_estimated else "counts no tokens (they are estimated)")
    called = await _told(findings, "tools", lambda: _call_a_tool(model, findings))
    if called is not None:
        await _told(findings, "the turn after a tool", lambda: _stop_calling(model, called, findings))
    await _told(findings, "images", lambda: _look(model, findings))
    return Probed(model.dialect, findings, called is not None)


async def _told(findings: list[str], what: str, step: Callable[[], Awaitable[_Found]]) -> _Found | None:
    try:
        return await step()
    except ModelError as exc:
        findings.append(f"{what}: {exc}")
        return None


async def _call_a_tool(model: Model, findings: list[str]) -> Reply | None:
    """A reply that calls; where the endpoint took the tools and the model never saw them, they are told in words."""
    reply = await model.complete(_ASK_TO_CALL, tools=[_NOTE])
    if not reply.tool_requests and model.dialect.native_tools:
        before, model.dialect = model.dialect, replace(model.dialect, native_tools=False)
        try:
            reply = await model.complete(_ASK_TO_CALL, tools=[_NOTE])
        finally:
            if not reply.tool_requests:
                model.dialect = before
    if not reply.tool_requests:
        findings.append("calls no tool")
        return None
    findings.append("calls tools, as text" if text_calls(reply.text, ["note"]) else "calls tools")
    return reply


async def _stop_calling(model: Model, called: Reply, findings: list[str]) -> None:
    results = [{"role": "tool", "tool_call_id": each.id, "content": "noted"} for each in called.tool_requests]
    last = await model.complete([*_ASK_TO_CALL, called.message, *results], tools=[_NOTE], use_tools=False)
    findings.append("calls on when told to stop (ignored)" if last.tool_requests else "stops calling when told")


async def _look(model: Model, findings: list[str]) -> None:
    question = {"type": "text", "text": "Which colour is this square? Answer with one word."}
    picture = {"type": "image_url", "image_url": {"url": _RED_SQUARE}}
    reply = await model.complete([{"role": "user", "content": [question, picture]}])
    if not model.dialect.images:
        findings.append("takes no images")
    elif "red" in reply.text.lower():
        findings.append("sees images")
    else:
        findings.append("takes images, and did not say what was on one")
