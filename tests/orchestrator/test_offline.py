"""The stand-in's rules: what it sees in a question, how it finds an answer, and how it uses cases."""

import json
from typing import Any

import pytest

from memento.events import CaseShown
from memento.offline.answers import Passage, find_answer
from memento.offline.planner import planner_reply
from memento.offline.strategies import STRATEGIES, Strategy, exploration_order, strategies_in
from memento.offline.wording import expression_in, file_named_in, frame_similarity, names_in, numbers_in, url_in
from memento.prompts import answer_now, case_message, planner_task, results_message

BY_NAME = {strategy.name: strategy for strategy in STRATEGIES}


RIVERS = "The Po is 652 km long. The Danube is 2,850 km long."
FORTH = "It was begun in 1882. The Forth Bridge was opened in 1890, and built by John Fowler and Benjamin Baker."


@pytest.mark.parametrize(
    ("question", "text", "answer"),
    [
        ("In which year was the Forth Bridge opened?", FORTH, "1890"),
        ("Who built the Forth Bridge?", FORTH, "John Fowler and Benjamin Baker"),
        (
            "Who designed the Stari Most?",
            "The Stari Most is old. It was designed by Mimar Hayruddin.",
            "Mimar Hayruddin",
        ),
        ("How long in km is the Po?", RIVERS, "652"),
        ("How long in km is the Danube?", RIVERS, "2850"),
    ],
)
def test_the_asked_part_of_the_best_sentence_is_the_answer(question: str, text: str, answer: str) -> None:
    found = find_answer(question, [Passage(text, "here")])
    assert found is not None
    assert (found.answer, found.place) == (answer, "here")


def test_a_passage_about_something_else_gives_no_answer() -> None:
    assert find_answer("Who designed the Golden Gate Bridge?", [Passage("Cheese was made by Anna.", "x")]) is None
    assert find_answer("Who designed it?", []) is None


def test_what_a_rule_can_see_in_a_question() -> None:
    text = "What is (3^2 + 1,000) mod 7, says http://127.0.0.1:80/a.html or notes.pdf by Ada Lovelace?"
    assert expression_in("What is (37^5 + 1234) mod 1009?") == "(37**5 + 1234) % 1009"
    assert expression_in("In which year, 1890 or 1891?") is None
    assert url_in(text) == "http://127.0.0.1:80/a.html"
    assert file_named_in(text) == "notes.pdf"
    assert names_in("Did Ada Lovelace meet Charles Babbage?") == ["Ada Lovelace", "Charles Babbage"]
    assert numbers_in("1,234 and 5.5 and -3") == ["1234", "5.5", "-3"]


def test_questions_that_ask_alike_are_alike_whatever_they_ask_about() -> None:
    same = frame_similarity("In which year was the Forth Bridge opened?", "In which year was the Pont Neuf opened?")
    other = frame_similarity("In which year was the Forth Bridge opened?", "What is (3 + 4) mod 5?")
    assert same == 1.0
    assert other < 0.3


def test_the_order_of_exploration_depends_on_question_and_seed_and_holds_every_strategy() -> None:
    orders = [[s.name for s in exploration_order(f"question {n}?", seed)] for n in range(20) for seed in range(3)]
    assert all(sorted(order) == sorted(BY_NAME) for order in orders)
    firsts = [order[0] for order in orders]
    assert set(firsts) == set(BY_NAME), "no strategy is preferred over 60 draws"
    assert exploration_order("q", 1) == exploration_order("q", 1)


def conversation(question: str, cases: list[CaseShown], *more: dict[str, Any]) -> list[dict[str, Any]]:
    messages = [
        {"role": "system", "content": "…"},
        {"role": "user", "content": planner_task(question, [], ["/library"], [])},
    ]
    if cases:
        messages.append({"role": "user", "content": case_message(cases)})
    return [*messages, *more]


def shown(case_id: str, question: str, strategy: Strategy, reward: float | None) -> CaseShown:
    return CaseShown(case_id=case_id, question=question, plan={"plan": strategy.plan_for(question)}, reward=reward)


def chosen(messages: list[dict[str, Any]], seed: int = 0) -> tuple[str, list[str]]:
    reply = json.loads(planner_reply(messages, seed))
    return strategies_in(reply)[0].name, reply["cases_used"]


QUESTION = "In which year was the Forth Bridge opened?"
ALIKE = "In which year was the Pont Neuf completed?"


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_whatever_worked_on_a_similar_question_is_imitated(name: str) -> None:
    cases = [shown("c1", ALIKE, BY_NAME[name], 1.0)]
    assert chosen(conversation(QUESTION, cases)) == (name, ["c1"])


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_what_failed_on_the_same_question_is_avoided_also_when_it_worked_on_a_similar_one(name: str) -> None:
    cases = [shown("c1", ALIKE, BY_NAME[name], 1.0), shown("c2", QUESTION, BY_NAME[name], 0.0)]
    for seed in range(10):
        assert chosen(conversation(QUESTION, cases), seed)[0] != name


def test_a_case_with_an_unknown_outcome_or_another_kind_of_question_is_not_followed() -> None:
    order = [strategy.name for strategy in exploration_order(QUESTION, 0)]
    last = BY_NAME[order[-1]]
    for case in (shown("c1", ALIKE, last, None), shown("c2", "What is (3 + 4) mod 5?", last, 1.0)):
        assert chosen(conversation(QUESTION, [case]))[0] == order[0]


def test_a_way_that_found_nothing_in_this_run_is_not_tried_again() -> None:
    messages = conversation(QUESTION, [])
    tried: list[str] = []
    for cycle in range(1, 4):
        reply = planner_reply(messages, 0)
        tried.append(strategies_in(json.loads(reply))[0].name)
        results = results_message([(f"{cycle}.1", "done", "Nothing found: no hit.")], 3 - cycle)
        messages += [{"role": "assistant", "content": reply}, {"role": "user", "content": results}]
    assert len(set(tried)) == 3
    forced = [*messages, {"role": "user", "content": answer_now("the limit of 3 plans is reached")}]
    assert json.loads(planner_reply(forced, 0)) == {"final_answer": "I could not find it."}


def test_the_last_subtasks_finding_becomes_the_final_answer_with_its_source() -> None:
    results = results_message(
        [("1.1", "done", "Found: Danube (source: a.pdf page 1)"), ("1.2", "done", "Found: 2850 (source: b.md)")], 2
    )
    messages = conversation(QUESTION, [], {"role": "assistant", "content": "{}"}, {"role": "user", "content": results})
    assert json.loads(planner_reply(messages, 0)) == {"final_answer": "2850", "sources": ["b.md"]}
