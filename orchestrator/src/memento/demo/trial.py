"""Rounds of the demo: every question asked with memory off and with memory on, judged by an exact scorer.

Owns the order of the trial and its numbers. The agent, the servers and the wire are the real ones; only the
model is the offline stand-in. It draws nothing: `watch` is told of every attempt.
"""

import dataclasses
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import anyio
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from memento.demo.questions import Question, with_pages_at
from memento.events import ServerStateChanged
from memento.loopback import serve_on_loopback
from memento.scorers import gaia_correct
from memento.session import Session, open_session
from memento.settings import Settings

__all__ = ["Attempt", "Round", "TrialResult", "library_folder", "open_demo", "run_round", "run_trial"]

Memory = Literal["off", "on"]
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Attempt:
    """One question asked once."""

    round: int
    memory: Memory
    question: Question
    answer: str | None
    is_correct: bool
    tool_calls: int
    run_id: str


@dataclass(frozen=True)
class Round:
    """All questions asked once, in one way."""

    round: int
    memory: Memory
    attempts: list[Attempt]

    @property
    def accuracy(self) -> float:
        """The share of *all* questions answered correctly; an attempt without an answer is in it."""
        return sum(attempt.is_correct for attempt in self.attempts) / len(self.attempts)

    @property
    def tool_calls(self) -> int:
        return sum(attempt.tool_calls for attempt in self.attempts)


@dataclass(frozen=True)
class TrialResult:
    rounds: list[Round]

    @property
    def gain_last_round(self) -> float:
        """Accuracy with memory minus accuracy without, in the last round."""
        last = max(one.round for one in self.rounds)
        by_memory = {one.memory: one.accuracy for one in self.rounds if one.round == last}
        return by_memory["on"] - by_memory["off"]

    def as_json(self) -> dict[str, Any]:
        return {
            "rounds": [
                {
                    "round": one.round,
                    "memory": one.memory,
                    "accuracy": round(one.accuracy, 4),
                    "tool_calls": one.tool_calls,
                    "questions": len(one.attempts),
                }
                for one in self.rounds
            ],
            "gain_last_round": round(self.gain_last_round, 4),
        }


def library_folder() -> Path:
    """The bundled library: real PDF, XLSX, CSV and Markdown files."""
    return _HERE / "library"


@asynccontextmanager
async def open_demo(
    home: Path, *, on_state: Callable[[ServerStateChanged], None] = lambda event: None, namespace: str = "demo"
) -> AsyncGenerator[tuple[Session, list[Question]]]:
    """Open a session on the bundled library with the demo's pages served on loopback.

    Args:
        home: a folder of the demo's own, so that it never touches the user's case bank.
    """
    settings = Settings(home=home, model="offline", namespace=namespace)
    async with AsyncExitStack() as stack:
        pages = Starlette(routes=[Mount("/", StaticFiles(directory=_HERE / "pages"))])
        origin = await stack.enter_async_context(serve_on_loopback(pages))
        environ = {**os.environ, "MEMENTO_CRAWL_ALLOW_PRIVATE": origin.removeprefix("http://")}
        session = await stack.enter_async_context(
            open_session(settings, folders=[library_folder()], environ=environ, on_state=on_state)
        )
        yield session, with_pages_at(origin)


async def run_trial(
    session: Session, questions: Sequence[Question], *, rounds: int, watch: Callable[[Attempt], None]
) -> TrialResult:
    """Ask every question in every round, with memory off and on side by side.

    The two lanes share servers and model and nothing else: the lane without memory neither reads nor writes.
    """
    results: dict[tuple[int, Memory], Round] = {}

    async def lane(memory: Memory) -> None:
        for number in range(1, rounds + 1):
            results[number, memory] = await run_round(session, questions, number, memory=memory, watch=watch)

    async with anyio.create_task_group() as lanes:
        lanes.start_soon(lane, "off")
        lanes.start_soon(lane, "on")
    return TrialResult([results[key] for key in sorted(results)])


async def run_round(
    session: Session,
    questions: Sequence[Question],
    number: int,
    *,
    memory: Literal["off", "on", "read-only"],
    watch: Callable[[Attempt], None] = lambda attempt: None,
) -> Round:
    """Ask every question once. The round's number seeds the stand-in, so that it explores afresh each time."""
    agent = dataclasses.replace(
        session.agent,
        planner=dataclasses.replace(session.agent.planner, seed=number),
        memory=dataclasses.replace(session.memory, mode=memory),
    )
    session = dataclasses.replace(session, agent=agent, memory=agent.memory)
    lane: Memory = "off" if memory == "off" else "on"
    attempts: list[Attempt] = []
    for question in questions:
        run = await session.ask(question.text)
        is_correct = run.answer is not None and gaia_correct(run.answer, question.gold)
        if memory == "on" and run.status != "failed":  # a run that broke says nothing about its plan
            await session.record_outcome(run.run_id, float(is_correct), "verifier", cited=run.cases_used)
        attempt = Attempt(number, lane, question, run.answer, is_correct, run.tool_calls, run.run_id)
        attempts.append(attempt)
        watch(attempt)
    return Round(number, lane, attempts)
