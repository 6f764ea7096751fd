"""The command line of the case bank: `memento-casebank …`, and the same under `memento cases …`.

Owns arguments and printing. What the bank refuses becomes one line on stderr and exit code 2.
"""

import json
import os
import sys
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TextIO, TypeVar, cast

import anyio
import typer
from pydantic import BaseModel, ValidationError
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from memento_casebank.bank import CaseBank, export_file
from memento_casebank.bench import commands as bench
from memento_casebank.opening import open_bank, settings_embedder
from memento_casebank.records import BankError, CaseStatus, Edit, EditAction
from memento_casebank.reembedding import reembed as move_to_embedder
from memento_casebank.replay import NotEnoughEvidence
from memento_casebank.settings import Settings
from memento_casebank.views import CaseView, explanation_text
from memento_kit.settings import StartupError

__all__ = ["app", "main"]

T = TypeVar("T")

app = typer.Typer(
    help="The case bank: what the agent has experienced, and what it learned from it. Without a command it is the MCP "
    "server, over stdio (or --transport streamable-http --port PORT).",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Namespace = Annotated[str, typer.Option("--namespace", "-n", help="whose cases")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="most rows to print")]


class Status(StrEnum):
    """What `list` and `search` look at."""

    active = "active"
    disabled = "disabled"
    quarantined = "quarantined"
    archived = "archived"
    any = "any"


CaseId = Annotated[str, typer.Argument(help="a case id, as `list` and `search` print them")]

_chosen: dict[str, Any] = {}
"""What `--bank` said; one command runs per process."""


@app.callback()
def bank_options(
    bank: Annotated[
        Path | None, typer.Option("--bank", help="folder of the bank (default: MEMENTO_CASEBANK_PATH)")
    ] = None,
) -> None:
    """Options of every command."""
    _chosen["path"] = bank


@app.command("list")
def list_cases(
    namespace: Namespace = "default",
    status: Status = Status.active,
    tag: Annotated[str | None, typer.Option(help="only cases with this tag")] = None,
    limit: Limit = 20,
    offset: Annotated[int, typer.Option(min=0, help="skip this many")] = 0,
    as_json: AsJson = False,
) -> None:
    """List cases, newest first."""
    _print_cases("", namespace, status, tag, limit, offset, as_json)


@app.command()
def search(
    text: Annotated[str, typer.Argument(help="what to look for")],
    namespace: Namespace = "default",
    status: Status = Status.active,
    tag: Annotated[str | None, typer.Option(help="only cases with this tag")] = None,
    limit: Limit = 10,
    offset: Annotated[int, typer.Option(min=0, help="skip this many")] = 0,
    as_json: AsJson = False,
) -> None:
    """Look for cases by meaning and words; nothing is learned from it."""
    _print_cases(text, namespace, status, tag, limit, offset, as_json)


@app.command()
def show(case_id: CaseId, as_json: AsJson = False) -> None:
    """Show one case in full, with every edit made to it."""

    async def read(bank: CaseBank) -> tuple[CaseView, list[Edit]]:
        return await bank.case(case_id), await bank.edits(case_id)

    view, edits = _with_bank(read)
    if as_json:
        _print_json({"case": view.model_dump(mode="json"), "edits": [edit.model_dump(mode="json") for edit in edits]})
        return
    for name, value in view.model_dump(exclude_none=True).items():
        if value not in ("", []):
            typer.echo(f"{name}: {json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value}")
    for edit in edits:
        typer.echo(f"edit {edit.id}: {edit.action} {edit.undoes or ''} {edit.reason}".rstrip())


@app.command()
def stats(as_json: AsJson = False) -> None:
    """Print figures about the bank: cases, outcomes, and success with cases and without."""
    view = _with_bank(lambda bank: bank.stats())
    if as_json:
        _print_json(view)
        return
    typer.echo(f"{view.path} ({view.bank_id}), policy {view.policy}, embedder {view.embedder}, index {view.index}")
    typer.echo(f"log: {view.log_bytes / 1e6:.1f} MB, " + ", ".join(f"{n} {name}" for name, n in view.records.items()))
    for space in view.namespaces:
        rewards = ", ".join(f"{count} {name}" for name, count in space.rewards.items())
        copies = space.cases - space.groups
        typer.echo(f"\n{space.namespace}: {space.cases} cases ({rewards}; {copies} near copies)")
        typer.echo(f"  not active: {sum(space.by_status.values()) - space.by_status.get('active', 0)}")
        typer.echo(f"  {space.decisions} decisions, learned from {space.learned_from}")
        for name, estimate in (("with cases", space.success_with_cases), ("without", space.success_without)):
            if estimate is not None:
                typer.echo(
                    f"  mean reward {name}: {estimate.mean:.2f} [90 % {estimate.low:.2f} .. {estimate.high:.2f}]"
                )
        if space.calibration_error is not None:
            typer.echo(f"  calibration error of recent predictions: {space.calibration_error:.3f}")


@app.command()
def explain(
    decision_id: Annotated[str, typer.Argument(help="as retrieve_cases returned it")],
    limit: Limit = 10,
    offset: Annotated[int, typer.Option(min=0, help="skip this many candidates")] = 0,
    as_json: AsJson = False,
) -> None:
    """Say why each case was or was not shown in a decision."""
    view = _with_bank(lambda bank: bank.explain(decision_id, limit=limit, offset=offset))
    if as_json:
        _print_json(view)
    else:
        typer.echo(explanation_text(view))


@app.command("import")
def import_cases(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="JSON lines")],
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="for cases that come without one (an export of a bank names them)")
    ] = "default",
    as_json: AsJson = False,
) -> None:
    """Import an export of another bank, or a memory file of the paper's repository. Safe to repeat."""

    async def read(bank: CaseBank) -> dict[str, int]:
        with file.open(encoding="utf-8", errors="surrogateescape") as source:
            done = await bank.import_from(source, name=file.name, namespace=namespace)
        await bank.flush()
        return vars(done)

    done = _with_bank(read, new=True)
    if as_json:
        _print_json(done)
    else:
        typer.echo("imported " + ", ".join(f"{n} {kind}" for kind, n in done.items() if kind != "quarantined"))
        if done["quarantined"]:
            typer.echo(
                f"{done['quarantined']} case(s) hold text that gives orders and are quarantined: "
                "`list --status quarantined`, `show`, and `edit CASE release` for those that are harmless"
            )


@app.command()
def export(
    file: Annotated[Path | None, typer.Argument(help="where to write; default: standard output")] = None,
    vectors: Annotated[bool, typer.Option(help="with vectors, so that an import need not embed again")] = True,
) -> None:
    """Write the whole bank as JSON lines, without loss. Works while a server has the bank open."""
    with _refusals():
        log = _settings().path / "bank.sqlite3"
        if not log.exists():
            raise BankError(f"There is no case bank in {log.parent}.")
        if file is None:
            export_file(log, sys.stdout, vectors=vectors)
            return
        with _replacing(file) as target:
            count = export_file(log, target, vectors=vectors)
        typer.echo(f"{count} lines written to {file}", err=True)


@app.command()
def forget(
    namespace: Namespace = "default",
    apply: Annotated[bool, typer.Option("--apply", help="archive them; without it this is a dry run")] = False,
    as_json: AsJson = False,
) -> None:
    """Archive cases that are expired, copies of newer ones, or expected to do harm. Nothing is deleted."""
    found = _with_bank(lambda bank: bank.forget(namespace=namespace, dry_run=not apply))
    if as_json:
        _print_json({"archived": apply, "cases": [vars(case) for case in found]})
        return
    for case in found:
        typer.echo(f"{case.case_id}  {case.reason}  ({case.question[:80]})")
    typer.echo(f"{len(found)} case(s) {'archived' if apply else 'would be archived (--apply does it)'}")
    if apply and found:
        typer.echo(f"to take it back: undo {found[0].edit_id}")


@app.command()
def quarantine(case_id: CaseId, reason: Annotated[str, typer.Option(help="kept with the edit")] = "by hand") -> None:
    """Keep a case, and everything made from it, out of sight."""
    _edit(case_id, "quarantine", reason)


@app.command()
def edit(
    case_id: CaseId,
    action: Annotated[str, typer.Argument(help="disable, enable, release, archive, restore or revise")],
    reason: Annotated[str, typer.Option(help="kept with the edit")] = "",
    changes: Annotated[str, typer.Option(help="for revise: a JSON object with the new values")] = "",
) -> None:
    """Change whether a case may be shown, or correct its text."""
    actions = {"disable", "enable", "release", "archive", "restore", "revise", "quarantine"}
    if action not in actions:
        raise typer.BadParameter(f"{action!r} is none of {', '.join(sorted(actions))}")
    parsed = _json_object(changes, "--changes") if changes else None
    _edit(case_id, action, reason, parsed)  # pyright: ignore[reportArgumentType] - checked above


@app.command()
def undo(edit_id: Annotated[str, typer.Argument(help="as the edit printed it, or `show`")]) -> None:
    """Take back an edit, with all that were made together with it."""
    _print_edits(_with_bank(lambda bank: bank.undo(edit_id)))


@app.command()
def strategies(
    namespace: Namespace = "default",
    apply: Annotated[bool, typer.Option("--apply", help="enter them; without it this is a dry run")] = False,
) -> None:
    """Propose ways of working that did better than others on at least five tasks (off by default when retrieving)."""
    found = _with_bank(lambda bank: bank.induce_strategies(namespace=namespace, dry_run=not apply))
    for case in found:
        typer.echo(f"{case.id}  {case.plan['evidence']}: {' → '.join(case.plan['strategy'])}")
    typer.echo(f"{len(found)} strategies {'entered' if apply else 'would be entered (--apply does it)'}")
    if apply and found:
        typer.echo("to take one back: edit CASE archive; `forget` proposes those that do harm")


@app.command()
def replay(
    policy: Annotated[str, typer.Option(help="the policy to estimate")],
    policy_settings: Annotated[str, typer.Option(help="its settings as a JSON object")] = "{}",
    namespace: Namespace = "default",
    limit: Annotated[int, typer.Option(min=1, max=32, help="most cases it would show")] = 4,
    minimum_sample: Annotated[float, typer.Option(min=1, help="least effective sample size for an answer")] = 50.0,
    as_json: AsJson = False,
) -> None:
    """Estimate how another policy would have done on this bank's own log (SNIPS and doubly robust)."""
    settings = _json_object(policy_settings, "--policy-settings")
    found = _with_bank(
        lambda bank: bank.replay(
            policy, policy_settings=settings, namespace=namespace, limit=limit, minimum_sample=minimum_sample
        )
    )
    if as_json:
        _print_json(asdict(found))
        return
    typer.echo(f"{found.policy}, on {found.decisions} decisions with a known outcome")
    typer.echo(f"effective sample size {found.effective_sample_size:.0f}, unsupported {found.unsupported:.1%}")
    for name, estimate in (("logged", found.logged), ("SNIPS", found.snips), ("doubly robust", found.doubly_robust)):
        typer.echo(f"{name:14s} {estimate.mean:.3f} [90 % {estimate.low:.3f} .. {estimate.high:.3f}]")


@app.command()
def rebuild() -> None:
    """Learn everything again from the log and rebuild the chromadb index; prints the fingerprint of each namespace."""
    with _progress("learning") as progress:
        prints = _with_bank(lambda bank: bank.rebuild(progress=progress))
    for namespace, fingerprint in prints.items():
        typer.echo(f"{namespace}: {fingerprint}")
    typer.echo("rebuilt")


@app.command()
def reembed() -> None:
    """Move the bank to the embedder that the settings name. Can be interrupted and run again."""
    with _refusals(), _progress("embedding") as progress:
        settings = _settings()
        count = move_to_embedder(
            settings.path,
            settings_embedder(settings),
            lock_timeout_seconds=settings.lock_timeout_seconds,
            chroma_url=settings.chroma_url or None,
            progress=progress,
        )
    typer.echo(f"{count} texts embedded")


app.add_typer(bench.app, name="bench")
app.command("leak-check")(bench.leak)


def main() -> None:
    app()


def _settings() -> Settings:
    path: Path | None = _chosen.get("path")
    return Settings() if path is None else Settings(path=path)


@contextmanager
def _refusals() -> Generator[None]:
    try:
        yield
    except BrokenPipeError:
        raise  # typer ends quietly when nobody reads on
    except (StartupError, BankError, NotEnoughEvidence, ValidationError, OSError) as exc:
        typer.echo(f"memento-casebank: {exc}", err=True)
        raise typer.Exit(2) from exc


def _json_object(text: str, option: str) -> dict[str, Any]:
    try:
        value: Any = json.loads(text)
    except ValueError as exc:
        raise typer.BadParameter(f"not JSON: {exc}", param_hint=option) from exc
    if not isinstance(value, dict):
        raise typer.BadParameter("not a JSON object", param_hint=option)
    return cast(dict[str, Any], value)


@contextmanager
def _replacing(file: Path) -> Generator[TextIO]:
    """Write a file that takes the place of `file` when it is whole; a failure leaves what was there."""
    if file.exists() and not file.is_file():  # a pipe or a device
        with file.open("w", encoding="utf-8") as target:
            yield target
        return
    file = file.resolve()  # a link stays one
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with part.open("x", encoding="utf-8") as target:
            if file.exists():
                part.chmod(file.stat().st_mode)
            yield target
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _with_bank(work: Callable[[CaseBank], Awaitable[T]], *, new: bool = False) -> T:
    """Do something with the bank; one that `--bank` names has to be there, unless it may be `new`."""

    async def go() -> T:
        settings = _settings()
        if _chosen.get("path") is not None and not new and not (settings.path / "bank.sqlite3").exists():
            raise BankError(f"There is no case bank in {settings.path}.")
        async with open_bank(settings) as bank:
            return await work(bank)

    with _refusals():
        return anyio.run(go)


def _print_cases(
    text: str, namespace: str, status: Status, tag: str | None, limit: int, offset: int, as_json: bool
) -> None:
    wanted: CaseStatus | None = None if status is Status.any else status.value
    page = _with_bank(
        lambda bank: bank.search(text, namespace=namespace, status=wanted, tag=tag, limit=limit, offset=offset)
    )
    if as_json:
        _print_json(page)
        return
    table = Table("case", "reward", "shown", "status", "question")
    for case in page.cases:
        reward = "?" if case.reward is None else f"{case.reward:g}"
        table.add_row(case.case_id, reward, str(case.shown), case.status, case.question[:200])
    Console().print(table)
    if page.next_offset is not None:
        typer.echo(f"{page.total} cases match; next page: --offset {page.next_offset}")


def _edit(case_id: str, action: EditAction, reason: str, changes: dict[str, Any] | None = None) -> None:
    _print_edits(_with_bank(lambda bank: bank.edit(case_id, action, reason=reason, changes=changes)))


def _print_edits(edits: list[Edit]) -> None:
    for made in edits:
        typer.echo(f"{made.id}  {made.action}  {made.case_id}  {made.reason}".rstrip())


def _print_json(value: BaseModel | dict[str, Any]) -> None:
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", exclude_none=True)
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


@contextmanager
def _progress(what: str) -> Generator[Callable[[int, int], None]]:
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
