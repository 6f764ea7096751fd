"""Tending a bank: which cases to archive, which strategies to try.

Owns the proposals; nothing is changed here, so every command has a dry run. Archived cases stay in the log and can
be restored.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memento_casebank.engine import Engine
from memento_casebank.policies.base import CANDIDATE_DTYPE, Candidates, Query
from memento_casebank.records import Case, new_id, plan_signature, plan_steps
from memento_casebank.shelf import Shelf

__all__ = ["Forgettable", "propose_strategies", "to_forget"]

MIN_SHOWN = 8
"""Showings before a case can be judged useless (guides/casebank.md §5e)."""
MIN_TASKS = 5
"""Distinct tasks behind a strategy."""
MIN_CLUSTERS = 2
_CLUSTER_COSINE = 0.6
_NEIGHBOURS = 64
_Z90 = 1.645
_MIN_VARIANCE = 0.05
"""Of rewards in a small group: five successes out of five are not a certainty."""


@dataclass(frozen=True)
class Forgettable:
    """A case that could be archived, and why."""

    case_id: str
    question: str
    reason: str
    edit_id: str | None = None
    """The edit that archived it; None in a dry run."""


def to_forget(engine: Engine, namespace: str, *, now: float) -> list[Forgettable]:
    """Active cases that were shown often and are expected to do harm, exact copies of newer ones, and expired ones."""
    shelf = engine.shelf(namespace)
    proposals: dict[int, str] = {}
    active = shelf.table["status"] == 0
    for row in _rows(active & (shelf.table["valid_until"] <= now)):
        proposals[row] = "expired"
    for row, newer in _superseded(engine, shelf, active):
        proposals.setdefault(row, f"an exact copy with the same outcome is newer: {shelf.ids[newer]}")
    for row in _rows(active & (shelf.table["shown"] >= MIN_SHOWN)):
        reason = _harmful(engine, shelf, row, now)
        if reason is not None:
            proposals.setdefault(row, reason)
    return [
        Forgettable(shelf.ids[row], engine.case(shelf.ids[row]).question, reason)
        for row, reason in sorted(proposals.items())
    ]


def _rows(mask: NDArray[np.bool_]) -> list[int]:
    return np.flatnonzero(mask).tolist()


def _superseded(engine: Engine, shelf: Shelf, active: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """(row, newer row) of cases whose question, plan, steps, answer, lesson and outcome all came again."""
    table = shelf.table
    alike: dict[tuple[int, int, int, float], list[int]] = {}  # by keys, so that few texts have to be read
    for row in reversed(_rows(active)):
        reward = float(table["reward"][row])
        keys = int(table["task"][row]), int(table["plan"][row]), int(table["answer"][row])
        alike.setdefault((*keys, -1.0 if math.isnan(reward) else reward), []).append(row)
    for rows in alike.values():
        newest: dict[str, int] = {}
        for row in rows if len(rows) > 1 else ():
            text = _text(engine.standing(shelf.ids[row]).case)
            if text in newest:
                yield row, newest[text]
            else:
                newest[text] = row


def _text(case: Case) -> str:
    """What a planner reads of a case, but for case, spacing and the last stop of the question."""
    question = " ".join(case.question.casefold().split()).rstrip(".?! ")
    steps = [step.model_dump() for step in case.steps]
    return json.dumps([question, case.plan, steps, case.answer, case.lesson], sort_keys=True, default=str)


def _harmful(engine: Engine, shelf: Shelf, row: int, now: float) -> str | None:
    """Ask the policy what the case would be worth for the very question it answers: nowhere is it worth more."""
    facts = shelf.table[row]
    table = np.zeros(1, CANDIDATE_DTYPE)
    table["similarity"] = table["bm25"] = 1.0
    table["age_days"] = (now - facts["created"]) / 86_400.0
    for name in ("reward", "plan_length", "kind", "group", "plan"):
        table[name] = facts[name]
    one = Candidates((shelf.ids[row],), table, shelf.vectors[row : row + 1])
    policy = engine.learner(engine.case(shelf.ids[row]).namespace).policy
    choice = policy.choose(Query(shelf.vectors[row], now, int(facts["task"])), one, 1, np.random.default_rng(0))
    upper = float(choice.value[0] + _Z90 * choice.value_sd[0])
    if choice.scale != "lift" or upper >= 0:
        return None
    return f"shown {int(facts['shown'])} times; expected to change P(success) by at most {upper:+.2f} (95 %)"


def propose_strategies(engine: Engine, namespace: str, *, now: float) -> list[Case]:
    """Ways of working that did better than others on similar tasks, as cases of kind `strategy`, not yet entered.

    A way of working is the order of tools of an episode. It is proposed when at least five distinct tasks of at least
    two kinds used it and the 90 % lower bound of its gain in mean reward over their neighbours is above zero.
    """
    shelf = engine.shelf(namespace)
    table = shelf.table
    episodes = (table["status"] == 0) & ~table["strategy"] & ~np.isnan(table["reward"])
    known = {int(plan) for plan in table["plan"][table["strategy"]].tolist()}
    proposals: list[Case] = []
    for plan in np.unique(table["plan"][episodes]).tolist():
        members = np.flatnonzero(episodes & (table["plan"] == plan))
        if plan in known or len(np.unique(table["task"][members])) < MIN_TASKS:
            continue
        first = engine.case(shelf.ids[int(members[0])])
        if not plan_signature(first.plan, first.steps, first.answer).startswith("tools "):
            continue
        gain, low = _gain(shelf, members, episodes)
        if low > 0 and _clusters(shelf.vectors[members]) >= MIN_CLUSTERS:
            proposals.append(_strategy(engine, namespace, [shelf.ids[int(row)] for row in members], gain, now))
    return proposals


def _gain(shelf: Shelf, members: NDArray[np.intp], episodes: NDArray[np.bool_]) -> tuple[float, float]:
    """Mean reward of the members over that of their neighbours that did it otherwise, and its 90 % lower bound."""
    closeness = (shelf.vectors @ shelf.vectors[members].T).max(axis=1)
    others = episodes.copy()
    others[members] = False
    rows = np.flatnonzero(others)
    rows = rows[np.argsort(-closeness[rows], kind="stable")[:_NEIGHBOURS]]
    if len(rows) < MIN_TASKS:
        return 0.0, -1.0
    with_it, without = (shelf.table["reward"][index].astype(np.float64) for index in (members, rows))
    variance = sum(max(float(group.var()), _MIN_VARIANCE) / len(group) for group in (with_it, without))
    gain = float(with_it.mean() - without.mean())
    return gain, gain - _Z90 * math.sqrt(variance)


def _clusters(vectors: NDArray[np.float32]) -> int:
    """How many kinds of task there are: leaders that are not close to an earlier leader."""
    leaders: list[int] = []
    for i in range(len(vectors)):
        if not leaders or float((vectors[leaders] @ vectors[i]).max()) < _CLUSTER_COSINE:
            leaders.append(i)
    return len(leaders)


def _strategy(engine: Engine, namespace: str, members: list[str], gain: float, now: float) -> Case:
    episodes = [engine.standing(case_id).case for case_id in members]
    tools = [tool for step in episodes[-1].steps for tool in step.tools]
    examples = "; ".join(dict.fromkeys(episode.question[:120] for episode in episodes[-5:]))
    return Case(
        id=new_id("case"),
        namespace=namespace,
        created=now,
        question=f"Tasks such as: {examples}",
        plan={
            "strategy": tools,
            "example": plan_steps(episodes[-1].plan)[:10],
            "evidence": f"{len(members)} attempts did {gain:+.2f} better than other ways on similar tasks",
        },
        steps=episodes[-1].steps,
        tags=("strategy",),
        parents=tuple(members),
        kind="strategy",
        members=tuple(members),
        source="induced",
    )
