"""The agent: read cases, plan, do the subtasks, plan again with what was learned, answer, keep the attempt.

Owns the order of a run and its limits (spec/memento.md §2.3). It does not know which servers exist, which
model answers, where the record goes or how progress is drawn: those arrive as arguments.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import anyio

from memento.budget import Budget, BudgetSpent
from memento.events import (
    Answered,
    CasesRead,
    CaseWritten,
    Emit,
    ModelCalled,
    OutcomeRecorded,
    PlanMade,
    Role,
    RunEnded,
    RunStarted,
    RunStatus,
    SubtaskDone,
    SubtaskStarted,
    Usage,
    Warned,
)
from memento.executor import Executor
from memento.journal import RunLog
from memento.judge import judge_answer
from memento.memory import CaseMemory, MemoryUnavailable
from memento.model import Message, Model, ModelError, Reply
from memento.plan import FinalAnswer, Plan, PlanUnreadable, Subtask, parse_planner_reply, ready_subtasks
from memento.prompts import PLANNER, answer_now, case_message, experience, planner_task, repair, results_message
from memento.results import ResultStore
from memento.settings import Settings
from memento.toolbox import ToolBox

__all__ = ["Agent", "RunResult"]

_MAX_RESULT_CHARS_FOR_PLANNER = 4_000
_MAX_TOOLS_KEPT = 200
"""Names of called tools that are kept with a step of a case."""


@dataclass(frozen=True)
class RunResult:
    """What a run came to. `answer` is `None` when there is none, and `reason` then says why."""

    run_id: str
    answer: str | None
    reason: str
    status: RunStatus
    sources: list[str]
    cases_shown: list[str]
    cases_used: list[str]
    usage: Usage
    model_calls: int
    tool_calls: int
    seconds: float


@dataclass
class _SubtaskResult:
    cycle: int
    subtask: Subtask
    status: Literal["done", "failed", "skipped"]
    text: str
    tools: list[str]
    sources: list[str]

    @property
    def label(self) -> str:
        return f"{self.cycle}.{self.subtask.id}"


@dataclass
class _Run:
    """The state of one run: the planner's conversation and the subtask memory. The record is the event list."""

    question: str
    files: list[str]
    folders: list[str]
    log: RunLog
    emit: Emit
    budget: Budget
    executor: Executor
    messages: list[Message] = field(default_factory=list[Message])
    results: list[_SubtaskResult] = field(default_factory=list[_SubtaskResult])
    """Of the plans that are over, each in its plan's order."""
    plan: Plan | None = None
    """The plan at work now, and what of it is finished."""
    finished: dict[str, _SubtaskResult] = field(default_factory=dict[str, _SubtaskResult])
    shown: dict[str, None] = field(default_factory=dict[str, None])
    cited: dict[str, None] = field(default_factory=dict[str, None])
    decision_id: str | None = None
    cycle: int = 0


@dataclass(frozen=True, kw_only=True)
class Agent:
    planner: Model
    executor: Model
    toolbox: ToolBox
    memory: CaseMemory
    settings: Settings
    judge: Model | None = None

    async def run(
        self,
        question: str,
        *,
        log: RunLog,
        emit: Emit,
        files: Sequence[str] = (),
        folders: Sequence[str] = (),
        exclude_task: bool = False,
    ) -> RunResult:
        """Answer `question`, inside the limits of the settings, and keep the attempt as a case.

        The case is written with an unknown outcome. A judge model, if there is one, then says what it thinks;
        a person or a scorer may say better later.

        Args:
            exclude_task: evaluation mode: cases of this very question are not shown.
        """
        settings = self.settings
        budget = Budget(
            settings.max_model_calls, settings.max_tool_calls, settings.max_total_tokens, settings.max_cost_usd
        )
        hidden = frozenset({settings.memory_server})
        store = ResultStore(log, settings.max_result_chars)
        executor = Executor(
            model=self.executor,
            toolbox=self.toolbox,
            specs=self.toolbox.specs(hidden_servers=hidden),
            store=store,
            budget=budget,
            emit=emit,
            max_turns=settings.max_turns_per_subtask,
        )
        run = _Run(question, list(files), list(folders), log, emit, budget, executor)
        started = time.monotonic()
        emit(
            RunStarted(
                question=question,
                files=run.files,
                folders=run.folders,
                planner_model=self.planner.name,
                executor_model=self.executor.name,
                memory=self.memory.mode,
                limits=settings.model_dump(mode="json", include=_LIMITS),
            )
        )
        for server, problem in self.toolbox.problems.items():
            emit(Warned(text=f"The {server} server is not available: {problem}"))
        status: RunStatus = "failed"
        detail = "it crashed"
        try:
            answered = await self._answer(run, exclude_task=exclude_task)
            emit(answered)
            await self._keep_and_judge(run, answered)
            status, detail = "no_answer" if answered.answer is None else "answered", ""
        except (ModelError, PlanUnreadable) as exc:
            status, detail = "failed", _sentence(exc)
            answered = Answered(answer=None, reason=detail)
            emit(answered)
            _close_plan(run)
            if run.results:  # what was done is kept, with an outcome that stays unknown
                await self._keep_and_judge(run, answered)
        except anyio.get_cancelled_exc_class():
            status, detail = "cancelled", ""
            raise
        finally:
            seconds = time.monotonic() - started
            emit(
                RunEnded(
                    status=status,
                    seconds=seconds,
                    model_calls=budget.model_calls,
                    tool_calls=budget.tool_calls,
                    usage=budget.usage,
                    detail=detail,
                )
            )
        return RunResult(
            run_id=log.run_id,
            answer=answered.answer,
            reason=answered.reason,
            status=status,
            sources=answered.sources,
            cases_shown=list(run.shown),
            cases_used=answered.cases_used,
            usage=budget.usage,
            model_calls=budget.model_calls,
            tool_calls=budget.tool_calls,
            seconds=seconds,
        )

    # --- planning ----------------------------------------------------------------------------------------

    async def _answer(self, run: _Run, *, exclude_task: bool) -> Answered:
        limit = self.settings.max_seconds
        reason = f"the limit of {self.settings.max_plans} plans is reached"
        with anyio.move_on_after(limit) as wall:
            try:
                final = await self._plan_and_execute(run, exclude_task=exclude_task)
                if final is not None:
                    return self._answered(run, final)
            except BudgetSpent as exc:
                reason = str(exc)
        if wall.cancelled_caught:
            reason = f"the limit of {limit:g} s is reached"
        run.emit(Warned(text=f"Stopping here: {reason}."))
        with anyio.move_on_after(self.settings.final_seconds):
            return await self._forced_answer(run, reason)
        return Answered(answer=None, reason=f"{reason}, and the planner gave no answer in time", forced=True)

    async def _plan_and_execute(self, run: _Run, *, exclude_task: bool) -> FinalAnswer | None:
        """Up to `max_plans` cycles; `None` when they are used up."""
        specs = run.executor.specs
        run.messages = [
            {"role": "system", "content": PLANNER},
            {"role": "user", "content": planner_task(run.question, run.files, run.folders, specs)},
        ]
        for cycle in range(1, self.settings.max_plans + 1):
            run.cycle = cycle
            cases = await self.memory.read(run.question, cycle=cycle, run_id=run.log.run_id, exclude_task=exclude_task)
            run.emit(cases)
            self._add_cases(run, cases)
            reply = await self._planner_says(run)
            if isinstance(reply, FinalAnswer):
                return reply
            run.emit(PlanMade(cycle=cycle, plan=reply))
            run.cited.update(dict.fromkeys(reply.cases_used))
            await self._execute(run, reply)
            run.messages.append(_user(_results_text(_close_plan(run), self.settings.max_plans - cycle)))
        return None

    def _add_cases(self, run: _Run, cases: CasesRead) -> None:
        if cases.state == "unavailable":
            run.emit(Warned(text=f"Case memory could not be read: {cases.detail}"))
        run.decision_id = cases.decision_id or run.decision_id
        run.shown.update(dict.fromkeys(case.case_id for case in cases.cases))
        text = case_message(cases.cases, cases.evidence)
        if text:
            run.messages.append(_user(text))

    async def _planner_says(self, run: _Run) -> Plan | FinalAnswer:
        run.budget.take_model_call()
        reply = await self._ask_planner(run)
        try:
            return parse_planner_reply(reply.text)
        except PlanUnreadable as exc:
            run.messages.append(_user(repair(str(exc))))
        run.budget.take_model_call()
        reply = await self._ask_planner(run)
        try:
            return parse_planner_reply(reply.text)
        except PlanUnreadable as exc:
            raise PlanUnreadable(f"The planner's reply could not be read, also after a repair: {exc}") from exc

    async def _forced_answer(self, run: _Run, reason: str) -> Answered:
        """The last call of a run: no more work, the best answer that the results support (defect 13)."""
        if run.plan is not None:  # stopped in the middle of it
            run.messages.append(_user(_results_text(_close_plan(run), 0)))
        run.messages.append(_user(answer_now(reason)))
        run.budget.take_final_call()
        reply = await self._ask_planner(run)
        try:
            parsed = parse_planner_reply(reply.text)
        except PlanUnreadable:
            parsed = None
        if isinstance(parsed, FinalAnswer):
            return self._answered(run, parsed, reason=reason, forced=True)
        return Answered(answer=None, reason=f"{reason}, and the planner gave no answer", forced=True)

    async def _ask_planner(self, run: _Run) -> Reply:
        try:
            reply = await self.planner.complete(run.messages)
        except ModelError:
            run.budget.spent(Usage())  # nobody knows what a call that failed has cost
            raise
        run.messages.append(reply.message)
        run.budget.spent(reply.usage)
        run.emit(_model_called("planner", self.planner, reply, run.cycle))
        return reply

    def _answered(self, run: _Run, final: FinalAnswer, *, reason: str = "", forced: bool = False) -> Answered:
        run.cited.update(dict.fromkeys(final.cases_used))
        sources = final.sources or [source for result in run.results for source in result.sources]
        used = [case for case in run.cited if case in run.shown]
        return Answered(
            answer=final.answer, reason=reason, forced=forced, sources=list(dict.fromkeys(sources)), cases_used=used
        )

    # --- executing ---------------------------------------------------------------------------------------

    async def _execute(self, run: _Run, plan: Plan) -> None:
        """Run the plan's subtasks, each as soon as what it depends on is done."""
        run.plan, run.finished = plan, {}
        finished, started = run.finished, set[str]()
        send, receive = anyio.create_memory_object_stream[_SubtaskResult](len(plan.subtasks))

        async def one(subtask: Subtask) -> None:
            await send.send(await self._subtask(run, subtask))

        async with send, receive, anyio.create_task_group() as group:
            while True:
                free = self.settings.parallel_subtasks - (len(started) - len(finished))
                done = [key for key, result in finished.items() if result.status == "done"]
                ready = [subtask for subtask in ready_subtasks(plan, done) if subtask.id not in started]
                for subtask in ready[:free]:
                    started.add(subtask.id)
                    run.emit(SubtaskStarted(cycle=run.cycle, subtask_id=subtask.id, description=subtask.description))
                    group.start_soon(one, subtask)
                if len(started) == len(finished):
                    break
                result = await receive.receive()
                finished[result.subtask.id] = result
                run.emit(_subtask_done(result))

    async def _subtask(self, run: _Run, subtask: Subtask) -> _SubtaskResult:
        earlier = [(result.subtask.description, result.text) for result in run.results if result.status == "done"]
        needed = [
            (run.finished[needed].subtask.description, run.finished[needed].text) for needed in subtask.depends_on
        ]
        before = await self._experience(run, subtask) if self.settings.memory_per_subtask else []
        try:
            report = await run.executor.run(
                question=run.question,
                files=run.files,
                folders=run.folders,
                known=[*earlier, *needed],
                subtask=subtask,
                cycle=run.cycle,
                earlier=before,
            )
        except ModelError as exc:
            run.budget.spent(Usage())
            return _SubtaskResult(run.cycle, subtask, "failed", str(exc), [], [])
        status: Literal["done", "failed"] = "failed" if report.failed else "done"
        return _SubtaskResult(run.cycle, subtask, status, report.text, report.tools, report.sources)

    async def _experience(self, run: _Run, subtask: Subtask) -> list[str]:
        """How work like this subtask went before, in lines for the executor."""
        cases = await self.memory.read(
            subtask.description, cycle=run.cycle, run_id=run.log.run_id, subtask_id=subtask.id
        )
        run.emit(cases)
        if cases.state == "unavailable":
            run.emit(Warned(text=f"Case memory could not be read: {cases.detail}"))
        run.shown.update(dict.fromkeys(case.case_id for case in cases.cases))
        return experience(cases.cases, cases.evidence)

    # --- keeping -----------------------------------------------------------------------------------------

    async def _keep_and_judge(self, run: _Run, answered: Answered) -> None:
        with anyio.move_on_after(self.settings.final_seconds) as limit:
            if await self._keep(run, answered) and self.judge is not None and answered.answer is not None:
                await self._judge(run, self.judge, answered.answer, answered.cases_used)
        if limit.cancelled_caught:
            text = f"Keeping and judging the attempt took over {self.settings.final_seconds:g} s and was given up"
            run.emit(Warned(text=text))

    async def _judge(self, run: _Run, judge: Model, answer: str, cited: list[str]) -> None:
        """Ask the judge and record what it says; no verdict leaves the outcome unknown."""
        run.budget.take_final_call()
        findings = [f"{result.subtask.description}: {result.text}" for result in run.results]
        verdict, reply, problem = await judge_answer(judge, question=run.question, answer=answer, findings=findings)
        if reply is not None:
            run.budget.spent(reply.usage)
            run.emit(_model_called("judge", judge, reply, run.cycle))
        if verdict is None:
            run.emit(Warned(text=f"The answer was not judged, its outcome stays unknown: {problem}"))
            return
        run.emit(OutcomeRecorded(reward=verdict.reward, kind="judge", confidence=verdict.confidence))
        try:
            await self.memory.record_outcome(
                run_id=run.log.run_id,
                reward=verdict.reward,
                kind="judge",
                confidence=verdict.confidence,
                cited=cited,
            )
        except MemoryUnavailable as exc:
            run.emit(Warned(text=f"The outcome could not be told to the case bank now: {exc}"))

    async def _keep(self, run: _Run, answered: Answered) -> bool:
        """Write the attempt to case memory, with an outcome that is not known yet; `False` when it is not there."""
        if self.memory.mode != "on":
            return False
        case: dict[str, Any] = {
            "question": run.question,
            "plan": _whole_plan(run.results),
            "run_id": run.log.run_id,
            "model": self.planner.name,
            "steps": [
                {
                    "subtask": result.subtask.description,
                    "tools": result.tools[:_MAX_TOOLS_KEPT],
                    "status": result.status,
                }
                for result in run.results
            ],
            "cost": {
                "tokens": run.budget.known_tokens,
                "model_calls": run.budget.model_calls,
                "tool_calls": run.budget.tool_calls,
            },
            "parents": list(run.shown),
        }
        optional = {"answer": answered.answer, "decision_id": run.decision_id}
        case.update({key: value for key, value in optional.items() if value is not None})
        try:
            case_id = await self.memory.retain(case)
        except MemoryUnavailable as exc:
            run.emit(CaseWritten(case_id=None, detail=str(exc)))
            run.emit(Warned(text=f"The case could not be kept in memory now: {exc}"))
            return False
        run.emit(CaseWritten(case_id=case_id))
        return True


_LIMITS = {
    "max_plans",
    "max_turns_per_subtask",
    "max_model_calls",
    "max_tool_calls",
    "max_total_tokens",
    "max_cost_usd",
    "max_seconds",
    "parallel_subtasks",
}


def _close_plan(run: _Run) -> list[_SubtaskResult]:
    """Take the plan at work into the results, in its own order; what did not get to run is marked so."""
    closed: list[_SubtaskResult] = []
    for subtask in run.plan.subtasks if run.plan else []:
        result = run.finished.get(subtask.id)
        if result is None:
            result = _SubtaskResult(
                run.cycle, subtask, "skipped", "not done: what it needs failed, or time ran out", [], []
            )
            run.emit(_subtask_done(result))
        closed.append(result)
    run.results.extend(closed)
    run.plan, run.finished = None, {}
    return closed


def _subtask_done(result: _SubtaskResult) -> SubtaskDone:
    return SubtaskDone(cycle=result.cycle, subtask_id=result.subtask.id, status=result.status, result=result.text)


def _whole_plan(results: Sequence[_SubtaskResult]) -> dict[str, Any]:
    """Every subtask of every cycle with how it ended: a case must not be just the last replan (defect 9)."""
    return {
        "plan": [
            {
                "id": result.label,
                "description": result.subtask.description,
                "depends_on": [f"{result.cycle}.{needed}" for needed in result.subtask.depends_on],
                "status": result.status,
            }
            for result in results
        ]
    }


def _results_text(results: Sequence[_SubtaskResult], plans_left: int) -> str:
    rows = [(result.label, result.status, _cut(result.text)) for result in results]
    return results_message(rows, plans_left)


def _cut(text: str) -> str:
    limit = _MAX_RESULT_CHARS_FOR_PLANNER
    return text if len(text) <= limit else f"{text[:limit]} […{len(text) - limit} more characters]"


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _sentence(error: Exception) -> str:
    return str(error) or type(error).__name__


def _model_called(role: Role, model: Model, reply: Reply, cycle: int, subtask_id: str | None = None) -> ModelCalled:
    return ModelCalled(
        role=role,
        model=model.name,
        seconds=reply.seconds,
        usage=reply.usage,
        cycle=cycle,
        subtask_id=subtask_id,
        finish_reason=reply.finish_reason,
    )
