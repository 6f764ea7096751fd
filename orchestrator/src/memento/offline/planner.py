"""The stand-in as planner: imitate a case that worked on a similar question, avoid what failed, else explore.

Owns the reading of a planner conversation (the prompts of `memento.prompts`) and the three rules. It sees of a
case what any planner sees: its question, its plan and how it ended.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from memento.offline.strategies import Strategy, exploration_order, strategies_in
from memento.offline.wording import asks_aggregate, frame_similarity

__all__ = ["planner_reply"]

_IMITATE_FROM = 0.45
"""A case is followed when its question is at least this alike."""
_SAME_QUESTION = 0.999
_RESULT = re.compile(
    r"^\[\d+\.[^\]]+\] (?:done|failed|skipped): (.*?)(?=^\[\d+\.|\n\nGive the final answer|\Z)", re.M | re.S
)
_FOUND = re.compile(r"^Found: (.*?)(?: \(source: (.*)\))?$", re.DOTALL)
NOT_FOUND = "I could not find it."


@dataclass(frozen=True)
class _Case:
    case_id: str
    outcome: str
    question: str
    plan: Any


def planner_reply(messages: Sequence[dict[str, Any]], seed: int) -> str:
    """The planner's next message, a JSON object."""
    texts = [str(message.get("content") or "") for message in messages if message.get("role") == "user"]
    question = _question(texts)
    results = _latest_results(texts)
    if results:
        found = _FOUND.match(results[-1])
        if found:
            return json.dumps({"final_answer": found[1], "sources": [found[2]] if found[2] else []})
    if texts[-1].startswith("The work ends here"):
        return json.dumps({"final_answer": NOT_FOUND})
    tried = _tried(messages)
    strategy, cited = _choose(question, _cases(texts), tried, seed, files=_files(texts[0]))
    if strategy is None:
        return json.dumps({"final_answer": NOT_FOUND})
    return json.dumps({"plan": strategy.plan_for(question), "cases_used": cited}, ensure_ascii=False)


def _choose(
    question: str, cases: Sequence[_Case], tried: Sequence[Strategy], seed: int, files: Sequence[str]
) -> tuple[Strategy | None, list[str]]:
    """Which strategy to use, and the cases it was chosen for."""
    ranked = sorted(cases, key=lambda case: -_likeness(question, case))
    failed = {
        strategy: case.case_id
        for case in ranked
        if case.outcome == "failure" and case.question == question
        for strategy in strategies_in(case.plan)
    }
    for case in ranked:
        used = strategies_in(case.plan)
        worked = used[-1] if used else None  # the last way taken is the one that gave the answer
        if case.outcome != "success" or worked is None or worked in tried or worked in failed:
            continue
        if _likeness(question, case) >= _IMITATE_FROM:
            return worked, [case.case_id]
    order = exploration_order(question, seed)
    if files:  # a file that comes with the question is the first place to look; what it is, only reading it tells
        first = ("table", "read") if asks_aggregate(question) else ("read", "table")
        order.sort(key=lambda strategy: first.index(strategy.name) if strategy.name in first else len(first))
    left = [strategy for strategy in order if strategy not in tried]
    fresh = [strategy for strategy in left if strategy not in failed]
    chosen = next(iter(fresh or left), None)
    return chosen, sorted(set(failed.values())) if fresh else []


def _likeness(question: str, case: _Case) -> float:
    return 1.0 if case.question == question else frame_similarity(question, case.question)


def _question(texts: Sequence[str]) -> str:
    body = texts[0].removeprefix("Question: ")
    return re.split(r"\n\n(?:Attached files:|Folders to search:|The assistant's tools:)", body, maxsplit=1)[0].strip()


def _files(first: str) -> list[str]:
    listed = re.search(r"^Attached files:\n((?:- .*\n?)+)", first, re.M)
    return [line.removeprefix("- ") for line in listed[1].splitlines()] if listed else []


def _cases(texts: Sequence[str]) -> list[_Case]:
    found: dict[str, _Case] = {}
    for text in texts:
        inside = re.search(r"<cases>\n(.*?)\n</cases>", text, re.DOTALL)
        for line in inside[1].splitlines() if inside else []:
            row = cast(dict[str, Any], json.loads(line))
            found[row["case"]] = _Case(row["case"], row["outcome"], row["question"], row["plan"])
    return list(found.values())


def _tried(messages: Sequence[dict[str, Any]]) -> list[Strategy]:
    tried: list[Strategy] = []
    for message in messages:
        if message.get("role") != "assistant":
            continue
        try:
            plan = json.loads(str(message.get("content") or ""))
        except json.JSONDecodeError:
            continue
        tried += strategies_in(plan)
    return tried


def _latest_results(texts: Sequence[str]) -> list[str]:
    """The results of the last plan, in its order."""
    for text in reversed(texts):
        if text.startswith("Results of the plan:"):
            return [match[1].strip() for match in _RESULT.finditer(text)]
    return []
