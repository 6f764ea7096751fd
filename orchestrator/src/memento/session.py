"""Everything an agent needs, opened for as long as a block lasts: models, servers, memory, journal.

Owns the wiring from settings to a ready `Agent`, and the start-up errors an operator can act on. It is the one
place that knows both the configuration and the parts.
"""

import math
import os
import tempfile
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
from openai import AsyncOpenAI

from memento.agent import Agent, RunResult
from memento.budget import Budget, Limits
from memento.dialects import parse_dialect
from memento.events import Emit, Event, OutcomeRecorded, Record, RunStarted, ServerStateChanged
from memento.executor import MayRepeat, never_repeat
from memento.journal import Journal, RunLog, RunNotFound, elapsed_seconds
from memento.memory import CaseMemory, OutcomeKind
from memento.model import Model
from memento.offline import OFFLINE_MODEL, StandIn, serve_stand_in
from memento.server_list import ServerList, load_server_list
from memento.settings import Settings
from memento.tool_cache import ToolCache, ToolCachePolicy
from memento.toolbox import ToolBox, ToolLimits, open_toolbox

__all__ = [
    "ConfigError",
    "ModelChoice",
    "Session",
    "check_home",
    "choose_models",
    "evaluation_budget",
    "open_session",
    "run_start",
    "server_environ",
    "tool_cache_policy",
]

_OPENAI = "https://api.openai.com/v1"

NO_MODEL = """\
no model is set up. There are three ways to go on:
  1. a key:          export OPENAI_API_KEY=sk-…   and   memento ask --model gpt-4.1 "…"
  2. a local server: memento ask --base-url http://localhost:11434/v1 --model qwen3 "…"   (Ollama, vLLM, llama.cpp …)
  3. no model:       memento ask --model offline "…"   (built-in rules, no language model, no network)"""


class ConfigError(Exception):
    """The operator must change a setting. The message says which and how."""


@dataclass(frozen=True)
class ModelChoice:
    """Which models play which role, and where they are."""

    planner: str
    executor: str
    judge: str | None
    base_url: str
    api_key: str

    @property
    def is_offline(self) -> bool:
        return self.planner == OFFLINE_MODEL


def choose_models(settings: Settings) -> ModelChoice:
    """Work out the models from the settings.

    Raises:
        ConfigError: no model is named, its endpoint needs a key that is not there, or roles cannot be mixed so.
    """
    planner = settings.planner_model or settings.model or settings.executor_model
    executor = settings.executor_model or settings.model or settings.planner_model
    if planner is None or executor is None:
        hint = "" if settings.api_key is None and settings.base_url is None else _NAME_A_MODEL
        raise ConfigError(hint or NO_MODEL)
    if OFFLINE_MODEL in (planner, executor):
        if planner != executor:
            raise ConfigError(
                f"the model {OFFLINE_MODEL!r} plays every role or none; got {planner!r} and {executor!r}."
            )
        if settings.judge_model is not None:
            raise ConfigError("the offline stand-in cannot judge; leave MEMENTO_JUDGE_MODEL out with --model offline.")
        return ModelChoice(planner, executor, None, base_url="", api_key="not-needed")
    base_url = settings.base_url or _OPENAI
    if settings.api_key is None and base_url == _OPENAI:
        raise ConfigError(f"the model {planner!r} at {_OPENAI} needs a key, and OPENAI_API_KEY is not set.\n{NO_MODEL}")
    if not base_url.startswith(("http://", "https://")):
        raise ConfigError(f"MEMENTO_BASE_URL must start with http:// or https://, not {base_url!r}.")
    return ModelChoice(planner, executor, settings.judge_model, base_url, settings.api_key or "not-needed")


_NAME_A_MODEL = (
    "no model is named: pass --model NAME or set MEMENTO_MODEL (a key or base URL alone does not say which)."
)


@dataclass(frozen=True)
class Session:
    """An agent ready to run, and where its runs are kept."""

    agent: Agent
    toolbox: ToolBox
    memory: CaseMemory
    journal: Journal
    files: list[str]
    folders: list[str]
    budget: Budget
    """Of all runs of the session together."""

    async def ask(
        self, question: str, *, watch: Callable[[Record], None] = lambda record: None, exclude_task: bool = False
    ) -> RunResult:
        """Run the agent on a question; each event goes to the journal and to `watch`."""
        log = self.journal.new_run()
        try:
            return await self.agent.run(
                question,
                log=log,
                emit=recording(log, watch),
                files=self.files,
                folders=self.folders,
                exclude_task=exclude_task,
                within=self.budget,
            )
        finally:
            log.close()

    async def resume(
        self,
        run_id: str,
        *,
        watch: Callable[[Record], None] = lambda record: None,
        may_repeat: MayRepeat = never_repeat,
    ) -> RunResult:
        """Go on with a run that was interrupted, or that a model's failure ended.

        What its record tells is not done again: no model call that was answered, no tool call that returned. A call
        with side effects that was under way is sent again only when `may_repeat` says so.

        Raises:
            RunNotFound: there is no such run.
            RunBusy: another process is at work on it.
        """
        log = self.journal.reopen(run_id)
        try:
            records = list(self.journal.records(log.run_id))
            started = run_start(records)
            return await self.agent.run(
                started.question,
                log=log,
                emit=recording(log, watch),
                files=started.files,
                folders=started.folders,
                exclude_task=started.exclude_task,
                within=self.budget,
                earlier=[record.event for record in records],
                elapsed_seconds=elapsed_seconds(records),
                may_repeat=may_repeat,
            )
        finally:
            log.close()

    async def record_outcome(
        self, run_id: str, reward: float | None, kind: OutcomeKind, *, cited: Sequence[str] = ()
    ) -> None:
        """Tell the case bank, and the run's record, how a run turned out.

        Raises:
            RunNotFound: there is no such run.
            MemoryUnavailable: the bank did not take it; it waits in the outbox.
        """
        log = self.journal.reopen(run_id)
        try:
            log.append(OutcomeRecorded(reward=reward, kind=kind))
            await self.memory.record_outcome(run_id=log.run_id, reward=reward, kind=kind, cited=list(cited))
        finally:
            log.close()


def run_start(records: Sequence[Record]) -> RunStarted:
    """What a run was asked, from its records.

    Raises:
        RunNotFound: it was interrupted before it began.
    """
    for record in records:
        if isinstance(record.event, RunStarted):
            return record.event
    raise RunNotFound("That run was interrupted before it began: there is nothing to go on with. Ask again.")


def recording(log: RunLog, watch: Callable[[Record], None]) -> Emit:
    """An `emit` that writes each event and then shows it."""

    def emit(event: Event) -> None:
        watch(log.append(event))

    return emit


@asynccontextmanager
async def open_session(
    settings: Settings,
    *,
    files: Sequence[Path] = (),
    folders: Sequence[Path] = (),
    environ: Mapping[str, str] | None = None,
    server_list: ServerList | None = None,
    stand_in: StandIn | None = None,
    seed: int | None = None,
    on_state: Callable[[ServerStateChanged], None] = lambda event: None,
) -> AsyncGenerator[Session]:
    """Open models, servers and memory; close them all when the block ends.

    Args:
        files, folders: what the question is about; the servers are allowed to read just these.
        environ: where variables in mcp.json and the servers' settings come from; default the process' own.
        stand_in: the rules to use for the model `offline`, for tests that inject faults.

    Raises:
        ConfigError: no usable model, or a file or folder is not there.
        ServerListError: mcp.json is wrong.
    """
    choice = choose_models(settings)
    try:
        dialect = parse_dialect(settings.dialect)
    except ValueError as exc:
        raise ConfigError(f"MEMENTO_DIALECT cannot be used: {exc}.") from exc
    check_home(settings.home)
    journal = Journal(settings.home)
    if choice.is_offline and seed is None:
        seed = journal.count()  # its rules are fixed: without a seed of its own every run would explore the same way
    environ = server_environ(settings, os.environ if environ is None else environ, files, folders)
    servers = server_list or load_server_list(settings.config, environ)
    async with AsyncExitStack() as stack:
        base_url = choice.base_url
        if choice.is_offline:
            base_url = await stack.enter_async_context(serve_stand_in(stand_in))
        client = await stack.enter_async_context(
            AsyncOpenAI(
                api_key=choice.api_key,
                base_url=base_url,
                timeout=settings.model_timeout_seconds,
                max_retries=settings.model_retries,
            )
        )

        def model(name: str, temperature: float | None = None, reasoning_effort: str | None = None) -> Model:
            return Model(
                client,
                name,
                temperature=settings.temperature if temperature is None else temperature,
                reasoning_effort=reasoning_effort or settings.reasoning_effort,
                max_output_tokens=settings.max_output_tokens,
                seed=seed,
                is_free=choice.is_offline,
                dialect=dialect,
            )

        def executor(name: str) -> Model:
            return model(name, settings.executor_temperature, settings.executor_reasoning_effort)

        toolbox = await stack.enter_async_context(
            open_toolbox(
                servers.servers,
                limits=ToolLimits(
                    connect_timeout_seconds=settings.connect_timeout_seconds,
                    call_timeout_seconds=settings.tool_timeout_seconds,
                ),
                environ=environ,
                log_folder=settings.home / "logs",
                on_state=on_state,
            )
        )
        memory = CaseMemory(
            toolbox=toolbox,
            mode=settings.memory,
            server=settings.memory_server,
            namespace=settings.namespace,
            limit=settings.cases_shown,
            outbox=settings.home / "outbox",
        )
        cache = tool_cache(settings)
        if cache is not None:
            stack.callback(cache.close)
        agent = Agent(
            planner=model(choice.planner, settings.planner_temperature, settings.planner_reasoning_effort),
            executor=executor(choice.executor),
            executors={kind: executor(name) for kind, name in (settings.executor_models or {}).items()},
            toolbox=toolbox,
            memory=memory,
            settings=settings,
            judge=model(choice.judge) if choice.judge else None,
            cache=cache,
        )
        yield Session(
            agent=agent,
            toolbox=toolbox,
            memory=memory,
            journal=journal,
            files=[str(file.resolve()) for file in files],
            folders=[str(folder.resolve()) for folder in folders],
            budget=evaluation_budget(settings),
        )


def tool_cache_policy(settings: Settings) -> ToolCachePolicy | None:
    """How long answers of tools are kept; `None` when they are not."""
    if not settings.tool_cache:
        return None
    return ToolCachePolicy(
        seconds=settings.tool_cache_seconds,
        error_seconds=settings.tool_cache_error_seconds,
        seconds_by_tool=settings.tool_cache_seconds_by_tool or {},
    )


def tool_cache(settings: Settings) -> ToolCache | None:
    policy = tool_cache_policy(settings)
    return None if policy is None else ToolCache(settings.home / "cache" / "tools.sqlite3", policy)


def evaluation_budget(settings: Settings) -> Budget:
    """What all runs of a session may use together. Its clock starts now."""
    limits = Limits(
        settings.eval_max_model_calls,
        settings.eval_max_tool_calls,
        settings.eval_max_total_tokens,
        settings.eval_max_cost_usd,
    )
    seconds = settings.eval_max_seconds
    deadline = math.inf if seconds is None else anyio.current_time() + seconds
    return Budget(limits, scope=" of the whole evaluation", deadline=deadline)


def check_home(home: Path) -> None:
    """Make the folder of all user data, and see that it can be written.

    Raises:
        ConfigError: it cannot.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise ConfigError(
            f"MEMENTO_HOME {home} cannot be written ({reason}); set it to a folder you can write."
        ) from exc


def server_environ(
    settings: Settings, environ: Mapping[str, str], files: Sequence[Path] = (), folders: Sequence[Path] = ()
) -> dict[str, str]:
    """The variables for mcp.json and for Memento's own servers.

    `MEMENTO_FOLDERS` names what a run may read: the files and folders given, else what the operator set.

    Raises:
        ConfigError: a file or folder is not there.
    """
    for path, wanted, is_wanted in [
        *((file, "file", file.is_file()) for file in files),
        *((folder, "folder", folder.is_dir()) for folder in folders),
    ]:
        if not is_wanted:
            what = f"is not a {wanted}" if path.exists() else "is not there"
            raise ConfigError(f"{path} {what}; give the path of a {wanted}.")
    given = {**environ, "MEMENTO_HOME": str(settings.home)}
    if files or folders:
        given["MEMENTO_FOLDERS"] = os.pathsep.join(str(path.resolve()) for path in [*folders, *files])
    return given
