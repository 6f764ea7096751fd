"""The agent: read cases, plan, do the subtasks, plan again with what was learned, answer, keep the attempt.

Owns the order of a run and its limits (spec/memento.md §2.3). It does not know which servers exist, which
model answers, where the record goes or how progress is drawn: those arrive as arguments.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import anyio

from memento.budget import Budget, BudgetSpent, Limits
from memento.dialects import strip_thinking
from memento.events import (
    Answered,
    CasesRead,
    CaseWritten,
    Emit,
    Event,
    ModelUse,
    Nudged,
    OutcomeRecorded,
    PlanMade,
    RunEnded,
    RunResumed,
    RunStarted,
    RunStatus,
    SubtaskDone,
    SubtaskStarted,
    Usage,
    Warned,
)
from memento.executor import Executor, MayRepeat, never_repeat
from memento.journal import RunLog
from memento.judge import judge_question, read_verdict
from memento.memory import CaseMemory, MemoryUnavailable
from memento.model import Message, Model, ModelError
from memento.plan import FinalAnswer, Plan, PlanUnreadable, Subtask, parse_planner_reply, ready_subtasks
from memento.prompts import (
    OFFLINE_EXECUTOR,
    PLANNER,
    answer_now,
    case_message,
    executor_task,
    experience,
    planner_task,
    repair,
    results_message,
    same_plan,
)
from memento.record import RunRecord
from memento.results import ResultStore
from memento.settings import Settings
from memento.tool_cache import ToolCache
from memento.toolbox import ToolBox

__all__ = ["Agent", "RunResult"]

_MAX_RESULT_CHARS_FOR_PLANNER = 4_000
_MAX_TOOLS_KEPT = 200
"""Names of called tools that are kept with a step of a case."""
_MAX_LESSON_CHARS = 1_000
_MAX_FRUITLESS_PLANS = 2
"""In a row: plans of which no subtask was done."""


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
    tools: list[str] = field(default_factory=list[str])
    sources: list[str] = field(default_factory=list[str])
    lesson: str | None = None

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
    record: RunRecord
    executor: Executor
    exclude_task: bool
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
    planner_turn: int = 0
    """Of this cycle."""

    @property
    def budget(self) -> Budget:
        return self.record.budget

    @property
    def done(self) -> set[str]:
        return {result.label for result in self.results if result.status == "done"}

    def say(self, text: str) -> None:
        self.messages.append({"role": "user", "content": text})


@dataclass(frozen=True, kw_only=True)
class Agent:
    planner: Model
    executor: Model
    toolbox: ToolBox
    memory: CaseMemory
    settings: Settings
    judge: Model | None = None
    cache: ToolCache | None = None
    executors: Mapping[str, Model] = field(default_factory=dict[str, Model])
    """By kind of subtask; what has another kind, or none, goes to `executor`."""

    async def run(
        self,
        question: str,
        *,
        log: RunLog,
        emit: Emit,
        files: Sequence[str] = (),
        folders: Sequence[str] = (),
        exclude_task: bool = False,
        within: Budget | None = None,
        earlier: Sequence[Event] = (),
        elapsed_seconds: float = 0.0,
        may_repeat: MayRepeat = never_repeat,
    ) -> RunResult:
        """Answer `question`, inside the limits of the settings, and keep the attempt as a case.

        The case is written with an unknown outcome. A judge model, if there is one, then says what it thinks;
        a person or a scorer may say better later.

        Args:
            exclude_task: evaluation mode: cases of this very question are not shown.
            within: the budget of the evaluation that this run is part of.
            earlier: the events of earlier sittings of this run, which then goes on where they end.
            elapsed_seconds: how long those were at work; it counts against the limit on wall time.
            may_repeat: asked before a call with side effects, under way at the interruption, is sent again.
        """
        settings = self.settings
        limits = Limits(
            settings.max_model_calls, settings.max_tool_calls, settings.max_total_tokens, settings.max_cost_usd
        )
        record = RunRecord(emit, Budget(limits, within), earlier)
        executor = Executor(
            model=self.executor,
            toolbox=self.toolbox,
            hidden_servers=frozenset({settings.memory_server}),
            store=ResultStore(log.folder, settings.max_result_chars),
            cache=self.cache,
            record=record,
            max_turns=settings.max_turns_per_subtask,
            max_stale_turns=settings.max_stale_turns,
            max_context_chars=settings.max_context_chars,
            accepts_images=settings.executor_images,
            may_repeat=may_repeat,
        )
        run = _Run(question, list(files), list(folders), log, record, executor, exclude_task)
        started = time.monotonic() - elapsed_seconds
        record.emit(
            RunStarted(
                question=question,
                files=run.files,
                folders=run.folders,
                planner_model=self.planner.name,
                executor_model=self.executor.name,
                memory=self.memory.mode,
                limits=settings.model_dump(mode="json", include=_LIMITS),
                seed=self.planner.seed,
                exclude_task=exclude_task,
            )
        )
        if earlier:
            record.emit(RunResumed(elapsed_seconds=elapsed_seconds))
        for server, problem in self.toolbox.problems.items():
            record.emit(Warned(text=f"The {server} server is not available: {problem}"))
        status: RunStatus = "failed"
        detail = "it crashed"
        try:
            if record.answered is not None:  # interrupted while it was kept or judged
                answered = record.answered
                _recall(run)
            else:
                answered = await self._answer(run, elapsed_seconds)
                record.emit(answered)
            await self._keep_and_judge(run, answered)
            status, detail = "no_answer" if answered.answer is None else "answered", ""
        except (ModelError, PlanUnreadable) as exc:
            status, detail = "failed", _sentence(exc)
            answered = Answered(answer=None, reason=detail)
            record.emit(answered)
            _close_plan(run)
            if run.results:  # what was done is kept, with an outcome that stays unknown
                await self._keep_and_judge(run, answered)
        except anyio.get_cancelled_exc_class():
            status, detail = "cancelled", ""
            raise
        finally:
            seconds = time.monotonic() - started
            record.emit(
                RunEnded(
                    status=status,
                    seconds=seconds,
                    model_calls=run.budget.model_calls,
                    tool_calls=run.budget.tool_calls,
                    usage=run.budget.usage,
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
            usage=run.budget.usage,
            model_calls=run.budget.model_calls,
            tool_calls=run.budget.tool_calls,
            seconds=seconds,
        )

    # --- planning ----------------------------------------------------------------------------------------

    async def _answer(self, run: _Run, elapsed_seconds: float) -> Answered:
        limit, shared = self.settings.max_seconds, run.budget.within or run.budget
        reason = f"the limit of {self.settings.max_plans} plans is reached"
        with anyio.CancelScope() as wall:

            def start_clock() -> None:  # going through what is on record takes none of the run's time
                wall.deadline = min(anyio.current_time() + max(0.0, limit - elapsed_seconds), shared.deadline)

            run.record.when_live(start_clock)
            try:
                if self.settings.mode != "planner":
                    return await self._execute_alone(run)
                final = await self._plan_and_execute(run)
                if final is not None:
                    return self._answered(run, final)
            except (BudgetSpent, _Fruitless) as exc:
                reason = str(exc)
        if wall.cancelled_caught:
            is_shared = anyio.current_time() >= shared.deadline
            reason = f"the time{shared.scope} is over" if is_shared else f"the limit of {limit:g} s is reached"
        run.record.emit(Warned(text=f"Stopping here: {reason}."))
        with anyio.move_on_after(self.settings.final_seconds):
            return await self._forced_answer(run, reason)
        return Answered(answer=None, reason=f"{reason}, and the planner gave no answer in time", forced=True)

    async def _plan_and_execute(self, run: _Run) -> FinalAnswer | None:
        """Up to `max_plans` cycles; `None` when they are used up."""
        specs = run.executor.specs
        limits = [f"{self.settings.max_plans} plans", *run.budget.words(), f"{self.settings.max_seconds:g} s"]
        task = planner_task(run.question, run.files, run.folders, specs, limits, [*self.executors])
        run.messages = [
            {"role": "system", "content": PLANNER},
            {"role": "user", "content": task},
        ]
        fruitless: list[Plan] = []
        for cycle in range(1, self.settings.max_plans + 1):
            run.cycle, run.planner_turn = cycle, 0
            self._add_cases(run, await self._read_cases(run, run.question))
            reply = await self._planner_says(run)
            if isinstance(reply, Plan) and any(_same(reply, plan) for plan in fruitless):
                run.record.emit(Nudged(cycle=cycle, reason="gave a plan again that led nowhere"))
                run.say(same_plan())
                reply = await self._planner_says(run)
            if isinstance(reply, FinalAnswer):
                return reply
            run.record.emit(PlanMade(cycle=cycle, plan=reply))
            run.cited.update(dict.fromkeys(reply.cases_used))
            await self._execute(run, reply)
            results = _close_plan(run)
            run.say(_results_text(results, self.settings.max_plans - cycle, run.budget.nearly_spent()))
            fruitless = [] if any(result.status == "done" for result in results) else [*fruitless, reply]
            if len(fruitless) >= _MAX_FRUITLESS_PLANS:
                raise _Fruitless(f"{len(fruitless)} plans in a row led nowhere")
        return None

    async def _execute_alone(self, run: _Run) -> Answered:
        """The paper's ablations without a planner: one executor is given the question itself (Table 5)."""
        if self.settings.mode == "offline-executor":
            task = executor_task(run.question, run.files, run.folders, [], run.question)
            messages: list[Message] = [{"role": "user", "content": f"{task}\n\n{OFFLINE_EXECUTOR}"}]
            reply = await run.record.ask(self.executor, messages, role="executor", cycle=1, turn=1)
            answer = strip_thinking(reply.text)
            return Answered(answer=answer or None, reason="" if answer else reply.refusal or "the reply was empty")
        run.cycle = 1
        plan = Plan(subtasks=[Subtask(id="1", description=run.question)])
        run.record.emit(PlanMade(cycle=1, plan=plan))
        await self._execute(run, plan)
        (result,) = _close_plan(run)
        if result.status != "done":
            return Answered(answer=None, reason=result.text)
        return Answered(answer=result.text, sources=list(dict.fromkeys(result.sources)))

    async def _read_cases(self, run: _Run, query: str, subtask_id: str | None = None) -> CasesRead:
        known = run.record.cases_read(run.cycle, subtask_id)
        if known is not None:
            return known
        await run.record.go_live()
        cases = await self.memory.read(
            query,
            cycle=run.cycle,
            run_id=run.log.run_id,
            exclude_task=run.exclude_task,
            subtask_id=subtask_id,
        )
        run.record.emit(cases)
        if cases.state == "unavailable":
            run.record.emit(Warned(text=f"Case memory could not be read: {cases.detail}"))
        return cases

    def _add_cases(self, run: _Run, cases: CasesRead) -> None:
        run.decision_id = cases.decision_id or run.decision_id
        run.shown.update(dict.fromkeys(case.case_id for case in cases.cases))
        text = case_message(cases.cases, cases.evidence)
        if text:
            run.say(text)

    async def _planner_says(self, run: _Run) -> Plan | FinalAnswer:
        try:
            return await self._ask_planner(run)
        except PlanUnreadable as exc:
            run.say(repair(str(exc)))
        try:
            return await self._ask_planner(run)
        except PlanUnreadable as exc:
            raise PlanUnreadable(f"The planner's reply could not be read, also after a repair: {exc}") from exc

    async def _forced_answer(self, run: _Run, reason: str) -> Answered:
        """The last call of a run: no more work, the best answer that the results support (defect 13)."""
        if run.plan is not None:  # stopped in the middle of it
            run.say(_results_text(_close_plan(run), 0))
        run.say(answer_now(reason))
        try:
            reply = await self._ask_planner(run, is_final=True)
        except PlanUnreadable:
            reply = None
        except BudgetSpent as exc:  # of the whole evaluation, which allows no last call either
            return Answered(answer=None, reason=str(exc), forced=True)
        if isinstance(reply, FinalAnswer):
            return self._answered(run, reply, reason=reason, forced=True)
        return Answered(answer=None, reason=f"{reason}, and the planner gave no answer", forced=True)

    async def _ask_planner(self, run: _Run, *, is_final: bool = False) -> Plan | FinalAnswer:
        run.planner_turn += 1
        turn = _FINAL_TURN if is_final else run.planner_turn
        reply = await run.record.ask(
            self.planner, run.messages, role="planner", cycle=run.cycle, turn=turn, is_final=is_final
        )
        run.messages.append(reply.message)
        if reply.refusal and not reply.text:
            raise PlanUnreadable(f"The planner refused: {reply.refusal}")
        try:
            return parse_planner_reply(reply.text, run.done)
        except PlanUnreadable as exc:
            if reply.finish_reason != "length":
                raise
            raise PlanUnreadable(f"It was cut off at the limit on a reply's length; write less. {exc}") from exc

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
                free = self._width(run) - (len(started) - len(finished))
                done = [key for key, result in finished.items() if result.status == "done"]
                ready = [subtask for subtask in ready_subtasks(plan, done) if subtask.id not in started]
                for subtask in ready[:free]:
                    started.add(subtask.id)
                    run.record.emit(
                        SubtaskStarted(cycle=run.cycle, subtask_id=subtask.id, description=subtask.description)
                    )
                    group.start_soon(one, subtask)
                if len(started) == len(finished):
                    break
                result = await receive.receive()
                finished[result.subtask.id] = result
                run.record.emit(_subtask_done(result))

    def _width(self, run: _Run) -> int:
        """How many subtasks may run at once: never more than there are model calls for, but one."""
        most = run.budget.limits.model_calls
        left = self.settings.parallel_subtasks if most is None else most - run.budget.model_calls
        return max(1, min(self.settings.parallel_subtasks, left))

    async def _subtask(self, run: _Run, subtask: Subtask) -> _SubtaskResult:
        known = run.record.subtask_done(run.cycle, subtask.id)
        if known is not None:
            return _from_record(known, subtask)
        earlier = [(result.subtask.description, result.text) for result in run.results if result.status == "done"]
        needed = [
            (run.finished[needed].subtask.description, run.finished[needed].text) for needed in subtask.depends_on
        ]
        before = await self._experience(run, subtask) if self.settings.memory_per_subtask else []
        try:
            executor = replace(run.executor, model=self.executors.get(subtask.kind or "", run.executor.model))
            report = await executor.run(
                question=run.question,
                files=run.files,
                folders=run.folders,
                known=[*earlier, *needed],
                subtask=subtask,
                cycle=run.cycle,
                earlier=before,
            )
        except ModelError as exc:
            return _SubtaskResult(run.cycle, subtask, "failed", str(exc))
        status: Literal["done", "failed"] = "failed" if report.failed else "done"
        return _SubtaskResult(run.cycle, subtask, status, report.text, report.tools, report.sources, report.lesson)

    async def _experience(self, run: _Run, subtask: Subtask) -> list[str]:
        """How work like this subtask went before, in lines for the executor."""
        cases = await self._read_cases(run, subtask.description, subtask.id)
        run.shown.update(dict.fromkeys(case.case_id for case in cases.cases))
        return experience(cases.cases, cases.evidence)

    # --- keeping -----------------------------------------------------------------------------------------

    async def _keep_and_judge(self, run: _Run, answered: Answered) -> None:
        with anyio.move_on_after(self.settings.final_seconds) as limit:
            is_kept = run.record.has_case or await self._keep(run, answered)
            if is_kept and self.judge is not None and answered.answer is not None and not run.record.has_outcome:
                await self._judge(run, self.judge, answered.answer, answered.cases_used)
        if limit.cancelled_caught:
            text = f"Keeping and judging the attempt took over {self.settings.final_seconds:g} s and was given up"
            run.record.emit(Warned(text=text))

    async def _judge(self, run: _Run, judge: Model, answer: str, cited: list[str]) -> None:
        """Ask the judge and record what it says; no verdict leaves the outcome unknown."""
        findings = [f"{result.subtask.description}: {result.text}" for result in run.results]
        question = judge_question(run.question, answer, findings)
        verdict, problem = None, "the judge gave no verdict that can be read"
        try:
            verdict = read_verdict((await run.record.ask(judge, question, role="judge", cycle=0, turn=1)).text)
        except (BudgetSpent, ModelError) as exc:
            problem = str(exc)
        if verdict is None:
            run.record.emit(Warned(text=f"The answer was not judged, its outcome stays unknown: {problem}"))
            return
        try:
            await self.memory.record_outcome(
                run_id=run.log.run_id,
                reward=verdict.reward,
                kind="judge",
                confidence=verdict.confidence,
                cited=cited,
            )
        except MemoryUnavailable as exc:
            run.record.emit(Warned(text=f"The outcome could not be told to the case bank now: {exc}"))
        run.record.emit(OutcomeRecorded(reward=verdict.reward, kind="judge", confidence=verdict.confidence))

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
        stopped = [f"stopped because {answered.reason}"] if answered.reason else []
        lesson = "; ".join([*(f"{r.label} {r.lesson}" for r in run.results if r.lesson), *stopped])
        optional = {"answer": answered.answer, "decision_id": run.decision_id, "lesson": lesson[:_MAX_LESSON_CHARS]}
        case.update({key: value for key, value in optional.items() if value})
        models: list[ModelUse] = []
        try:
            case_id = await self.memory.retain(case, instead_of=run.record.half_case, models=models)
        except MemoryUnavailable as exc:
            run.record.emit(CaseWritten(case_id=None, detail=str(exc), models=models))
            run.record.emit(Warned(text=f"The case could not be kept in memory now: {exc}"))
            return False
        run.record.emit(CaseWritten(case_id=case_id, models=models))
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
_FINAL_TURN = 0
"""The forced last answer, whichever turn of its cycle it is."""


class _Fruitless(Exception):
    """The planner goes in circles. The message is the reason for the end."""


def _same(plan: Plan, other: Plan) -> bool:
    return [_words(subtask) for subtask in plan.subtasks] == [_words(subtask) for subtask in other.subtasks]


def _words(subtask: Subtask) -> str:
    return " ".join(subtask.description.casefold().split())


def _recall(run: _Run) -> None:
    """Take the results and the shown cases of a run that has its answer from its record."""
    for event in run.record.events:
        if isinstance(event, CasesRead):
            run.decision_id = (None if event.subtask_id else event.decision_id) or run.decision_id
            run.shown.update(dict.fromkeys(case.case_id for case in event.cases))
        elif isinstance(event, PlanMade):
            run.cycle = event.cycle
            for subtask in event.plan.subtasks:
                done = run.record.subtask_done(event.cycle, subtask.id)
                if done is not None:
                    run.results.append(_from_record(done, subtask))


def _from_record(done: SubtaskDone, subtask: Subtask) -> _SubtaskResult:
    return _SubtaskResult(done.cycle, subtask, done.status, done.result, done.tools, done.sources, done.lesson)


def _close_plan(run: _Run) -> list[_SubtaskResult]:
    """Take the plan at work into the results, in its own order; what did not get to run is marked so."""
    closed: list[_SubtaskResult] = []
    for subtask in run.plan.subtasks if run.plan else []:
        result = run.finished.get(subtask.id)
        if result is None:
            result = _SubtaskResult(run.cycle, subtask, "skipped", "not done: what it needs failed, or time ran out")
            run.record.emit(_subtask_done(result))
        closed.append(result)
    run.results.extend(closed)
    run.plan, run.finished = None, {}
    return closed


def _subtask_done(result: _SubtaskResult) -> SubtaskDone:
    return SubtaskDone(
        cycle=result.cycle,
        subtask_id=result.subtask.id,
        status=result.status,
        result=result.text,
        tools=result.tools,
        sources=result.sources,
        lesson=result.lesson,
    )


def _whole_plan(results: Sequence[_SubtaskResult]) -> dict[str, Any]:
    """Every subtask of every cycle with how it ended: a case must not be just the last replan (defect 9)."""
    return {
        "plan": [
            {
                "id": result.label,
                "description": result.subtask.description,
                "depends_on": [
                    *result.subtask.builds_on,
                    *(f"{result.cycle}.{needed}" for needed in result.subtask.depends_on),
                ],
                "status": result.status,
            }
            for result in results
        ]
    }


def _results_text(results: Sequence[_SubtaskResult], plans_left: int, left: Sequence[str] = ()) -> str:
    rows = [(result.label, result.status, _cut(result.text)) for result in results]
    return results_message(rows, plans_left, left)


def _cut(text: str) -> str:
    limit = _MAX_RESULT_CHARS_FOR_PLANNER
    return text if len(text) <= limit else f"{text[:limit]} […{len(text) - limit} more characters]"


def _sentence(error: Exception) -> str:
    return str(error) or type(error).__name__
