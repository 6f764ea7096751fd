"""The command `memento`.

Owns arguments, exit codes and what goes to stdout. Exit codes: 0 done, 1 no answer or a failed check, 2 the
command or a setting must be changed, 130 interrupted.
"""

import importlib.metadata
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import anyio
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from memento.settings import Settings
from memento_kit import StartupError

if TYPE_CHECKING:
    from memento.events import Record, ToolCalled
    from memento.journal import Journal

__all__ = ["app", "main"]

app = typer.Typer(
    name="memento",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
runs_app = typer.Typer(help="Look at past runs.", no_args_is_help=True)
app.add_typer(runs_app, name="runs")

_CONFIG_ERROR = 2
_INTERRUPTED = 130

ConfigOption = Annotated[Path | None, typer.Option("--config", help="mcp.json to use (default ./mcp.json)")]
ModelOption = Annotated[str | None, typer.Option("--model", help="model for every role; `offline` needs no key")]
BaseUrlOption = Annotated[str | None, typer.Option("--base-url", help="OpenAI-compatible endpoint")]
JsonOption = Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")]
RunJsonOption = Annotated[
    bool, typer.Option("--json", help="one JSON object on stdout; each event as a JSON line on stderr, as it happens")
]
PlannerOption = Annotated[str | None, typer.Option("--planner-model", help="model that plans")]
JudgeOption = Annotated[str | None, typer.Option("--judge-model", help="model that checks the answer")]
ExecutorOption = Annotated[str | None, typer.Option("--executor-model", help="model that uses the tools")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"memento {importlib.metadata.version('memento-agent')}")
        raise typer.Exit


@app.callback()
def command(
    version: Annotated[
        bool, typer.Option("--version", help="print the version and stop", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """An agent that gets better at research with every task, with no model fine-tuned."""


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="what you want to know")],
    file: Annotated[list[Path] | None, typer.Option("--file", help="a file the question is about")] = None,
    folder: Annotated[list[Path] | None, typer.Option("--folder", help="a folder to search")] = None,
    model: ModelOption = None,
    planner_model: PlannerOption = None,
    executor_model: ExecutorOption = None,
    judge_model: JudgeOption = None,
    base_url: BaseUrlOption = None,
    memory: Annotated[
        Literal["on", "read-only", "off"] | None,
        typer.Option("--memory", help="show and keep cases, show only, or off"),
    ] = None,
    config: ConfigOption = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="ask every tool anew")] = False,
    only_estimate: Annotated[
        bool, typer.Option("--estimate", help="say what the question will probably cost, and do not ask it")
    ] = False,
    as_json: RunJsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress, only the answer")] = False,
) -> None:
    """Answer one question."""
    if not question.strip():
        _stop('the question is empty; give it as one argument: memento ask "…"')
    settings = _settings(
        model=model,
        planner_model=planner_model,
        executor_model=executor_model,
        judge_model=judge_model,
        base_url=base_url,
        memory=memory,
        config=config,
        tool_cache=False if no_cache else None,
    )
    asked = _Asked(question.strip(), file or [], folder or [], as_json, quiet)
    if only_estimate:
        _run(_estimate, settings, asked)
    _run(_ask, settings, asked, kept=asked.how_to_go_on)


@app.command()
def resume(
    run: Annotated[str, typer.Argument(help="run id, its beginning or end, or `last`")],
    repeat_calls: Annotated[
        bool,
        typer.Option("--repeat-calls", help="send calls with side effects again that were under way, without asking"),
    ] = False,
    base_url: BaseUrlOption = None,
    config: ConfigOption = None,
    as_json: RunJsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress, only the answer")] = False,
) -> None:
    """Go on with a run that was interrupted or failed. What it has done is neither done nor paid for again."""
    from memento.events import RunEnded
    from memento.journal import RunNotFound
    from memento.session import run_start

    journal = _journal()
    try:
        run_id = journal.find(run)
        records = list(journal.records(run_id))
        started = run_start(records)
    except RunNotFound as exc:
        _stop(str(exc))
    ends = [record.event for record in records if isinstance(record.event, RunEnded)]
    if ends and ends[-1].status in {"answered", "no_answer"}:
        _stop(f"run {run_id} has come to its end: memento runs show {run_id}")
    settings = _settings(
        planner_model=started.planner_model,
        executor_model=started.executor_model,
        base_url=base_url,
        memory=started.memory,
        config=config,
    )
    asked = _Asked(
        started.question,
        [*map(Path, started.files)],
        [*map(Path, started.folders)],
        as_json,
        quiet,
        run_id,
        repeat_calls,
    )
    _run(_ask, settings, asked, started.seed, records, kept=asked.how_to_go_on)


@app.command()
def demo(
    rounds: Annotated[int, typer.Option("--rounds", min=1, max=20, help="how often every question is asked")] = 3,
    out: Annotated[Path | None, typer.Option("--out", help="where to write the picture (SVG)")] = None,
    as_json: JsonOption = False,
) -> None:
    """Watch the agent learn: 28 questions in rounds, with memory off and on. No key, no network."""
    from memento.demo.show import show_demo

    _run(show_demo, _settings().home, rounds, out, as_json)


@app.command()
def doctor(
    model: ModelOption = None,
    planner_model: PlannerOption = None,
    executor_model: ExecutorOption = None,
    base_url: BaseUrlOption = None,
    config: ConfigOption = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="ask each model what it can do (about five small requests)")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check every server, key and model that the configuration uses, and name each fix."""
    settings = _settings(
        model=model, planner_model=planner_model, executor_model=executor_model, base_url=base_url, config=config
    )
    _run(_doctor, settings, probe, as_json)


@app.command()
def feedback(
    run: Annotated[str, typer.Argument(help="run id, its beginning or end, or `last`")],
    verdict: Annotated[Literal["good", "bad"], typer.Argument(help="was the answer right?")],
    config: ConfigOption = None,
) -> None:
    """Tell the memory whether a run's answer was good."""
    _run(_feedback, _settings(config=config), run, verdict)


@app.command()
def tools(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the tools that the executor is offered, and why a server is missing."""
    _run(_tools, _settings(config=config), as_json)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def cases(context: typer.Context) -> None:
    """Look after the case bank: the same as the command memento-casebank."""
    from memento.server_list import find_command

    command = find_command("memento-casebank")
    try:
        done = subprocess.run([command, *(context.args or ["--help"])], check=False)
    except FileNotFoundError:
        _stop("memento-casebank is not installed: pip install memento-casebank")
    raise typer.Exit(done.returncode)


runs_app.command("resume")(resume)


@runs_app.command("rm")
def runs_rm(
    runs: Annotated[list[str], typer.Argument(help="run ids, their beginnings or ends, or `last`")],
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Delete runs with their events and results. What the case bank learned from them stays."""
    from memento.journal import RunBusy, RunNotFound

    journal = _journal()
    try:
        found = list(dict.fromkeys(journal.find(run) for run in runs))
        if not yes:
            if not sys.stdin.isatty():
                _stop(f"this deletes {len(found)} run(s) for good; add --yes to do it.")
            typer.confirm(f"Delete {', '.join(found)} for good?", abort=True)
        for run_id in found:
            journal.remove(run_id)
            typer.echo(f"deleted {run_id}")
    except (RunNotFound, RunBusy) as exc:
        _stop(str(exc))


@runs_app.command("export")
def runs_export(
    run: Annotated[str, typer.Argument(help="run id, its beginning or end, or `last`")],
    out: Annotated[Path | None, typer.Option("--out", help="file to write (default RUN.zip)")] = None,
) -> None:
    """Write a run's events and stored results into one zip file."""
    from memento.journal import RunNotFound

    journal = _journal()
    try:
        run_id = journal.find(run)
        path = out or Path(f"{run_id}.zip")
        journal.export(run_id, path)
    except RunNotFound as exc:
        _stop(str(exc))
    except OSError as exc:
        _stop(f"the export cannot be written to {exc.filename}: {exc.strerror}")
    typer.echo(path)


@runs_app.command("list")
def runs_list(
    limit: Annotated[int, typer.Option("--limit", min=1, help="how many")] = 20, as_json: JsonOption = False
) -> None:
    """The newest runs."""
    found = _journal().runs(limit=limit)
    if as_json:
        _print_json({"runs": [run.model_dump() for run in found]})
        return
    table = Table("run", "status", "answer", "reward", "question")
    table.columns[0].no_wrap = True  # what `memento feedback` and `runs show` ask for
    for run in found:
        reward = "?" if run.reward is None else f"{run.reward:g}"
        table.add_row(run.run_id, run.status, Text(run.answer or "–"), reward, Text(run.question))
    Console().print(table if found else "No run has been kept yet.")


@runs_app.command("show")
def runs_show(
    run: Annotated[str, typer.Argument(help="run id, its beginning or end, or `last`")], as_json: JsonOption = False
) -> None:
    """Every event of one run."""
    from memento.journal import RunNotFound
    from memento.terminal import event_line

    journal = _journal()
    try:
        records = list(journal.records(journal.find(run)))
    except RunNotFound as exc:
        _stop(str(exc))
    if as_json:
        _print_json({"records": [record.model_dump(mode="json") for record in records]})
        return
    for record in records:
        line = event_line(record.event)
        if line:
            typer.echo(f"{record.time:%H:%M:%S} {line}")


def main() -> None:
    """Run the command; every failure an operator can mend is one line and an exit code."""
    # The MCP SDK logs a traceback for each line of garbage a server prints; the run's record says it in one line.
    logging.basicConfig(stream=sys.stderr, level=logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    for noisy in ("mcp", "mcp.client.stdio", "httpx2", "openai", "uvicorn.error"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").addFilter(_tells_something_new)
    app()


def _tells_something_new(record: logging.LogRecord) -> bool:
    """False for a server's closed standard input: the run says in one line that the server is gone.

    Older versions of asyncio (Python 3.11.2) log it, with a traceback, unless somebody waited for that pipe to close.
    """
    return not (record.exc_info and isinstance(record.exc_info[1], BrokenPipeError | ConnectionResetError))


def _run(body: Callable[..., Coroutine[Any, Any, int | None]], *args: Any, kept: Callable[[], str] = str) -> None:
    """Run an async command, and turn what an operator can mend into one line."""
    from memento.journal import RunBusy, RunNotFound
    from memento.server_list import ServerListError
    from memento.session import ConfigError

    try:
        code = anyio.run(body, *args)
    except KeyboardInterrupt:
        typer.echo(f"\nInterrupted. {kept()}".rstrip(), err=True)
        raise typer.Exit(_INTERRUPTED) from None
    except (ConfigError, ServerListError, RunBusy, RunNotFound) as exc:
        _stop(str(exc))
    raise typer.Exit(code or 0)


def _settings(**given: Any) -> Settings:
    try:
        return Settings(**{key: value for key, value in given.items() if value is not None})
    except StartupError as exc:
        _stop(str(exc))


def _journal() -> "Journal":
    from memento.journal import Journal
    from memento.session import ConfigError, check_home

    home = _settings().home
    try:
        check_home(home)
    except ConfigError as exc:
        _stop(str(exc))
    return Journal(home)


@dataclass
class _Asked:
    """What `ask` or `resume` was told; `run_id` is known once the run has begun."""

    question: str
    files: list[Path]
    folders: list[Path]
    as_json: bool
    quiet: bool
    run_id: str | None = None
    repeat_calls: bool = False

    def how_to_go_on(self) -> str:
        return "" if self.run_id is None else f"To go on: memento resume {self.run_id}"


async def _ask(
    settings: Settings, asked: _Asked, seed: int | None = None, earlier: "Sequence[Record] | None" = None
) -> int:
    from memento.session import open_session
    from memento.terminal import RunView, print_result

    view = RunView(Console(stderr=True), quiet=asked.quiet or asked.as_json)

    def watch(record: "Record") -> None:
        asked.run_id = record.run_id
        if asked.as_json:
            typer.echo(record.model_dump_json(), err=True)
        view.watch(record)

    async def may_repeat(call: "ToolCalled") -> bool:
        if asked.repeat_calls or not (sys.stdin.isatty() and sys.stderr.isatty()):
            return asked.repeat_calls
        with view.paused():
            return await anyio.to_thread.run_sync(
                lambda: typer.confirm(f"{call.tool} was under way and may have taken effect. Send it again?", err=True)
            )

    with view:
        async with open_session(
            settings, files=asked.files, folders=asked.folders, seed=seed, on_state=view.server_changed
        ) as session:
            if earlier is None:
                result = await session.ask(asked.question, watch=watch)
            else:
                view.recall(earlier)
                result = await session.resume(earlier[0].run_id, watch=watch, may_repeat=may_repeat)
    if asked.as_json:
        _print_json(
            {
                "answer": result.answer,
                "run_id": result.run_id,
                "status": result.status,
                "reason": result.reason,
                "sources": result.sources,
                "cases_shown": result.cases_shown,
                "cases_used": result.cases_used,
                "cost": result.usage.cost_usd,
                "usage": result.usage.model_dump(),
                "model_calls": result.model_calls,
                "tool_calls": result.tool_calls,
                "seconds": round(result.seconds, 3),
            }
        )
    else:
        print_result(Console(), result)
    return 0 if result.answer is not None else 1


async def _estimate(settings: Settings, asked: _Asked) -> int:
    from memento.estimate import estimate
    from memento.session import choose_models, open_session
    from memento.terminal import estimate_lines

    choice = choose_models(settings)
    async with open_session(settings, files=asked.files, folders=asked.folders) as session:
        found = estimate(
            asked.question,
            session.files,
            session.folders,
            specs=session.toolbox.specs(hidden_servers=frozenset({settings.memory_server})),
            journal=session.journal,
            settings=settings,
            planner_model=choice.planner,
            executor_model=choice.executor,
            base_url=choice.base_url,
            is_free=choice.is_offline,
        )
    if asked.as_json:
        _print_json(vars(found))
    else:
        typer.echo("\n".join(estimate_lines(found)))
    return 0


async def _doctor(settings: Settings, probe: bool, as_json: bool) -> int:
    from memento.doctor import run_checks

    console = Console()
    checks = [check async for check in run_checks(settings, probe_models=probe)]
    if as_json:
        _print_json({"checks": [vars(check) for check in checks], "ok": all(check.ok for check in checks)})
    else:
        for check in checks:
            mark = Text("✓ ", style="green") if check.ok else Text("✗ ", style="red")
            console.print(mark + Text(f"{check.name}: {check.found}"), soft_wrap=True)
            if not check.ok:
                console.print(Text(f"  fix: {check.fix}"), soft_wrap=True)
    return 0 if all(check.ok for check in checks) else 1


async def _feedback(settings: Settings, run: str, verdict: Literal["good", "bad"]) -> int:
    from memento.feedback import give_feedback

    typer.echo(await give_feedback(settings, run, 1.0 if verdict == "good" else 0.0))
    return 0


async def _tools(settings: Settings, as_json: bool) -> int:
    import os

    from memento.server_list import load_server_list
    from memento.session import check_home, server_environ, tool_cache_policy
    from memento.toolbox import ToolLimits, open_toolbox

    check_home(settings.home)
    environ = server_environ(settings, os.environ)
    servers = load_server_list(settings.config, environ)
    limits = ToolLimits(connect_timeout_seconds=settings.connect_timeout_seconds)
    async with open_toolbox(
        servers.servers, limits=limits, environ=environ, log_folder=settings.home / "logs"
    ) as toolbox:
        specs = toolbox.specs(hidden_servers=frozenset({settings.memory_server}))
        states = toolbox.states()
        problems = toolbox.problems
    off = [name for name, entry in servers.servers.items() if entry.disabled]
    kept = tool_cache_policy(settings)
    if as_json:
        _print_json(
            {
                "tools": [spec.as_function()["function"] for spec in specs],
                "servers": {state.name: {**asdict(state), "for_memory": state.name == settings.memory_server}
                            for state in states},
                "missing": problems | dict.fromkeys(off, "disabled in mcp.json"),
            }
        )  # fmt: skip
        return 0
    table = Table("tool", "effect", "what it does")
    for spec in specs:
        effect = "reads" if spec.is_read_only else "acts"
        hours = 0.0 if kept is None else kept.seconds_for(spec) / 3600
        summary = Text(" ".join(spec.description.split("\n\n")[0].split()))
        table.add_row(spec.name, f"{effect}, kept {hours:g} h" if hours else effect, summary)
    console = Console()
    console.print(table)
    for state in states:
        if state.name not in problems:
            hidden = f", {state.hidden} hidden by mcp.json" if state.hidden else ""
            use = "; for the case memory, not offered to models" if state.name == settings.memory_server else ""
            line = f"{state.state}: {state.name} {state.version}".rstrip() + f": {state.tools} tools{hidden}{use}"
            console.print(Text(line, style="dim"), soft_wrap=True)
    for server, problem in problems.items():
        console.print(Text(f"missing: {server}: {problem}", style="red"), soft_wrap=True)
    for server in off:
        console.print(Text(f"missing: {server}: disabled in mcp.json"), soft_wrap=True)
    return 0


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False))


def _stop(problem: str) -> NoReturn:
    typer.echo(f"memento: {problem}", err=True)
    raise typer.Exit(_CONFIG_ERROR)


if __name__ == "__main__":
    main()
