"""memento_code: E2B's stream of events is read; the local worker speaks the same one, which their SDK reads as well."""

import json
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
from e2b_code_interpreter.models import Execution as TheirExecution
from e2b_code_interpreter.models import parse_output

from memento_code.execution import Execution, OutputSink
from memento_code.sandbox import Limits, find_sandbox

pytestmark = pytest.mark.anyio

JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
KINDS = ["stdout", "stderr", "result", "error", "files", "file", "end_of_execution", "number_of_executions", "new"]
FIELDS = [
    "text", "html", "svg", "json", "png", "jpeg", "data", "is_main_result", "left_out", "total_rows", "name", "value",
    "traceback", "errno", "files", "file",
]  # fmt: skip
LIMITS = Limits(1 << 30, 3 << 29, 48, 256, 64 << 20, 256 << 20, 600)


def reader(max_value_chars: int = 300) -> Execution:
    return Execution(max_value_chars=max_value_chars, output_bytes=1_000)


CODE = """
class P:
    def __repr__(self): return 'P'
    def _repr_png_(self): return b'\\x89PNG\\r\\n\\x1a\\n' + bytes(9)
    def _repr_html_(self): return '<p>'
display(P())
1 / 0 if fails else 6 * 7
"""


@pytest.mark.parametrize("fails", [False, True])
async def test_the_worker_speaks_what_e2bs_own_sdk_reads(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[object] = []
    take = Execution.take

    def heard(execution: Execution, event: object) -> None:
        lines.append(event)
        take(execution, event)

    monkeypatch.setattr(Execution, "take", heard)
    sandbox = await find_sandbox(LIMITS, wanted="landlock", allow_none=False)
    async with await sandbox.start(max_value_chars=10_000, output_bytes=10_000) as session:
        await session.run(f"fails = {fails}", timeout_seconds=30)
        lines.clear()
        ours = await session.run(CODE, timeout_seconds=30)
    theirs = TheirExecution()
    for line in lines:
        parse_output(theirs, json.dumps(line))
    assert theirs.execution_count == 2
    assert [result.text for result in theirs.results] == [result.text for result in ours.results]
    assert (theirs.results[0].png, theirs.results[0].html) == ("iVBORw0KGgoAAAAAAAAAAAA=", "<p>")
    assert theirs.text == ours.value == (None if fails else "42")
    raised = theirs.error
    assert (raised is not None) == fails
    if raised is not None and ours.error is not None:
        told = (ours.error.name, ours.error.message, ours.error.traceback)
        assert (raised.name, raised.value, raised.traceback) == told


@hypothesis.given(st.lists(st.dictionaries(st.sampled_from(FIELDS), JSON), max_size=5), st.sampled_from(KINDS))
def test_any_event_is_read_or_refused_and_what_is_kept_is_bounded(fields: list[dict[str, Any]], kind: str) -> None:
    execution = reader()
    for event in fields:
        try:
            execution.take({"type": kind, **event})
        except ValueError:
            continue
    outcome = execution.outcome(seconds=0, interrupted=None, lost=None)
    assert len(outcome.results) <= 50
    for result in outcome.results:
        for form in (result.text, result.html, result.svg):
            assert len(form or "") < 400
        assert result.png is None or result.png.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "event",
    [
        *(None, [], "x", {}, {"type": 5}, {"type": "error"}, {"type": "stdout", "text": 5}),
        *({"type": "result", "png": 5}, {"type": "result", "text": {}}, {"type": "files", "files": [{"path": 1}]}),
    ],
)
def test_what_is_no_event_is_refused(event: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - pydantic's message says which field
        reader().take(event)


def test_more_than_fifty_results_and_ten_pictures_are_not_kept() -> None:
    execution = reader()
    for number in range(60):
        execution.take({"type": "result", "text": str(number), "png": "iVBORw0KGgo="})
    outcome = execution.outcome(seconds=0, interrupted=None, lost=None)
    assert (len(outcome.results), len(outcome.images)) == (50, 10)
    assert outcome.results[10].left_out == ["png"]


def test_a_table_that_is_none_is_left_out_and_its_result_kept() -> None:
    execution = reader()
    odd: list[object] = [{"a": [1], "b": [1, 2]}, {"a": [{}]}, {"a": 5}, [1]]
    for data in odd:
        execution.take({"type": "result", "text": "t", "data": data})
    outcome = execution.outcome(seconds=0, interrupted=None, lost=None)
    assert (len(outcome.results), outcome.tables) == (4, [])


@hypothesis.given(st.lists(st.binary(max_size=50)), st.integers(2, 40))
def test_a_sink_keeps_the_beginning_and_the_end_and_counts_the_rest(pieces: list[bytes], limit: int) -> None:
    sink = OutputSink(limit)
    for piece in pieces:
        sink.add(piece)
    whole, output = b"".join(pieces), sink.output()
    if not output.dropped_bytes:
        assert output.text == whole.decode("utf-8", "replace")
        return
    assert output.dropped_bytes == len(whole) - limit // 2 * 2
    assert output.spooled == whole
