"""Reading a planner's reply: what must be understood, and what must be refused in words the model can use."""

import json
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memento.dialects import strip_thinking
from memento.plan import FinalAnswer, Plan, PlanUnreadable, parse_planner_reply, ready_subtasks

PLAN = '{"plan": [{"id": 1, "description": "look"}, {"id": 2, "description": "add up", "depends_on": [1]}]}'


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(PLAN, id="plain"),
        pytest.param(f"Here is the plan: {PLAN} I hope it helps.", id="inside prose"),
        pytest.param(f"```json\n{PLAN}\n```", id="fenced"),
        pytest.param(f"<think>{{maybe}} not</think>\n{PLAN}", id="after thinking"),
        pytest.param(f"so I think</think>{PLAN}", id="after thinking whose opening tag the server kept"),
        pytest.param(f'{{"note": "unrelated"}} {PLAN}', id="after another object"),
    ],
)
def test_a_plan_is_read_wherever_the_model_puts_it(reply: str) -> None:
    plan = parse_planner_reply(reply)
    assert isinstance(plan, Plan)
    assert [(task.id, task.description, task.depends_on) for task in plan.subtasks] == [
        ("1", "look", []),
        ("2", "add up", ["1"]),
    ]


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        pytest.param('{"final_answer": "42", "sources": ["a.pdf"]}', "42", id="json"),
        pytest.param('{"final_answer": 42}', "42", id="a number"),
        pytest.param("FINAL ANSWER: 42", "42", id="the paper's line"),
        pytest.param("\n\n  FINAL ANSWER: 42", "42", id="leading white space"),
        pytest.param("I am done.\n**FINAL ANSWER:** 42", "42", id="bold, after prose"),
        pytest.param("<think>FINAL ANSWER: 41</think>FINAL ANSWER: 42", "42", id="not the one it thought of"),
    ],
)
def test_a_final_answer_is_read_in_both_forms(reply: str, answer: str) -> None:
    final = parse_planner_reply(reply)
    assert isinstance(final, FinalAnswer)
    assert final.answer == answer


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        pytest.param("", "The reply is empty.", id="empty"),
        pytest.param("<think>hm</think>", "The reply is empty.", id="only thoughts"),
        pytest.param("I would search the web.", 'There is no JSON object with "plan"', id="prose"),
        pytest.param('{"plan": []}', '"plan" is empty', id="no subtask"),
        pytest.param('{"plan": [{"id": 1}]}', "A subtask is malformed: description", id="no description"),
        pytest.param('{"plan": [{"id": 1, "description": ""}]}', "A subtask is malformed: description", id="blank"),
        pytest.param(
            '{"plan": [{"id": 1, "description": "a"}, {"id": 1, "description": "b"}]}', "the same id", id="twice"
        ),
        pytest.param(
            '{"plan": [{"id": 1, "description": "a", "depends_on": [7]}]}', "depends on '7'", id="unknown dependency"
        ),
        pytest.param(
            '{"plan": [{"id": 1, "description": "a", "depends_on": [2]}, '
            '{"id": 2, "description": "b", "depends_on": [1]}]}',
            "wait for each other",
            id="a cycle",
        ),
        pytest.param('{"plan": ' + json.dumps(["x"] * 25) + "}", "at most 24", id="too many"),
        pytest.param('{"final_answer": ""}', 'There is no JSON object with "plan"', id="empty answer"),
        pytest.param('{"final_answer": {"value": 1}}', 'There is no JSON object with "plan"', id="an object as answer"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(reply: str, told: str) -> None:
    with pytest.raises(PlanUnreadable) as refused:
        parse_planner_reply(reply)
    assert told in str(refused.value)


KEYS = st.sampled_from(["plan", "final_answer", "id", "description", "depends_on", "cases_used"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner)
)


@given(st.text() | JSON.map(json.dumps))
def test_any_reply_is_either_read_or_refused_with_words(reply: str) -> None:
    try:
        assert isinstance(parse_planner_reply(reply), Plan | FinalAnswer)
    except PlanUnreadable as refused:
        words = str(refused)
    else:
        return
    assert words


@given(
    st.lists(st.text(string.ascii_letters, min_size=1), min_size=1, max_size=8).flatmap(
        lambda texts: st.tuples(
            st.just(texts), st.tuples(*(st.sets(st.integers(0, max(n - 1, 0))) for n in range(len(texts))))
        )
    )
)
def test_following_the_ready_subtasks_does_every_subtask_once_and_in_order(drawn: tuple[list[str], Any]) -> None:
    texts, needs = drawn
    steps = [
        {"id": n, "description": text, "depends_on": sorted(need for need in needs[n] if need < n)}
        for n, text in enumerate(texts)
    ]
    plan = parse_planner_reply(json.dumps({"plan": steps}))
    assert isinstance(plan, Plan)
    done: list[str] = []
    while ready := ready_subtasks(plan, done):
        for task in ready:
            assert set(task.depends_on) <= set(done)
        done += [task.id for task in ready]
    assert sorted(done, key=int) == [task.id for task in plan.subtasks]


def test_text_without_thinking_is_left_alone() -> None:
    assert strip_thinking("a < b and c > d") == "a < b and c > d"
