"""MCP server "code": run Python in a sandbox that keeps its variables, and calculate exactly.

The tool layer: what a model may ask for and what it is told. Isolation is `sandbox`'s, a session's life `sessions`'s.
"""

import base64
import itertools
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, cast

import anyio
import anyio.to_thread
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, ImageContent, ToolAnnotations
from pydantic import BaseModel, Field
from pydantic_settings import SettingsConfigDict
from typing_extensions import TypedDict  # pydantic cannot read that of `typing` before Python 3.12

from memento_code.arithmetic import CannotCalculate, calculate
from memento_code.callers import Caller
from memento_code.e2b import E2BSandbox
from memento_code.environment import default_python
from memento_code.environment import main as environment
from memento_code.execution import DataTable, MadeFile, RaisedError, Result, cut
from memento_code.file_tools import add_file_tools, file_link
from memento_code.installer import CannotInstall, Installer
from memento_code.sandbox import Level, Limits, Sandbox
from memento_code.session import SessionLost
from memento_code.sessions import NoSuchSession, Ran, SessionName, Sessions
from memento_kit import (
    AllowedPaths,
    PathList,
    Server,
    ServerSettings,
    StartupError,
    memento_home,
    serve,
    strip_invisible,
    untrusted_result,
)

__all__ = ["Settings", "build_server", "main"]

_MIB = 1 << 20
_MAX_PROGRESS_CHARS = 200
_SAVE_SECONDS = 10.0
_MAX_FORM_CHARS = 2_000
_FORMS = ("markdown", "latex", "json", "html", "svg")
_GAPS = {
    "microvm": ["QEMU is what stands between the machine and the host; it is confined, and shares the host's kernel"],
    "namespace": ["the kernel is shared with the host"],
    "landlock": [
        "the kernel is shared with the host",
        "code runs beside the host's processes, though it cannot see or signal them",
        "the size of the session's folder is looked at ten times a second, not limited by the kernel",
    ],
    "podman": ["the kernel is shared with the host"],
    "docker": [
        "the kernel is shared with the host",
        "who may start containers of docker's daemon is root on the host: so is this server's user",
    ],
    "e2b": ["what the isolation is worth is E2B's word; code and data leave this machine for theirs"],
    "none": ["everything the server's user may do, the code may do: files, network, processes"],
}


_NETWORK = {"none": "the host's", "e2b": "none, as asked of E2B and not verified"}


class Settings(ServerSettings):
    """What the operator decides. Each field is one row of the README's table."""

    model_config = SettingsConfigDict(env_prefix="MEMENTO_CODE_")

    isolation: Level | None = None
    """Use this level and no other: microvm, namespace, landlock, podman, docker, none, or e2b.
    Default: the strongest that passes the probe."""
    allow_unsandboxed: bool = False
    """Permit level `none`: run the code with the server's own rights when nothing stronger works."""
    kernel: Path | None = None
    """Kernel of the virtual machines of level `microvm`, as /boot/vmlinuz-VERSION. Without one it is not tried."""
    python: Path | None = None
    """Interpreter of the environment whose packages sessions may import, as a virtual environment's bin/python.
    Default: that which `memento-code environment create` made, or else the server's own."""
    folders: PathList = ()
    """Folders and files of this computer that `add_file` may copy into a session, joined by `:`. None by default."""
    installable_packages: str = ""
    """What `install_packages` may install: names joined by commas, `*` for anything. Empty: there is no such tool."""
    packages_folder: Path | None = None
    """Where they go, for all sessions and for good. Default: `code-packages` in `MEMENTO_HOME`."""
    package_index: str | None = None
    """URL of the package index. Default: pip's own."""
    timeout_seconds: float = Field(default=60.0, gt=0, le=3_600)
    """Time limit of a run that asks for none, and the most one may ask for."""
    process_memory_megabytes: int = Field(default=1_024, ge=64)
    """Address space of one process of a session."""
    total_memory_megabytes: int = Field(default=1_536, ge=64)
    """Memory of all processes of a session together."""
    processes: int = Field(default=48, ge=4)
    """Processes and threads of a session."""
    open_files: int = Field(default=256, ge=16)
    """Open files of one process."""
    file_megabytes: int = Field(default=64, ge=1)
    """Size of one file."""
    folder_megabytes: int = Field(default=256, ge=1)
    """Size of the session's folder, and of its /tmp."""
    cpu_seconds: int = Field(default=600, ge=1)
    """CPU time of one process over its whole life."""
    max_sessions: int = Field(default=8, ge=1)
    """Sessions alive at once; for one more, the longest unused is ended."""
    idle_minutes: float = Field(default=30.0, gt=0)
    """A session unused for so long is ended."""
    spare_session: bool = True
    """Keep one more session started, that is nobody's yet, so that the next new one is there at once."""
    sessions_outlive_clients: bool = False
    """Over HTTP: a client that connects anew with the same token may go on in its earlier sessions."""
    output_kilobytes: int = Field(default=64, ge=1)
    """What is kept of each output stream of a run: its beginning and its end."""
    max_value_chars: int = Field(default=20_000, ge=100)
    """What is kept of the last expression's value, and of a traceback."""


class ShownResult(TypedDict, total=False):
    """The forms of one result besides its text and its table: `html`, `markdown`, `svg`, `latex`, `json`."""

    text: str
    html: str
    markdown: str
    svg: str
    latex: str
    json: Annotated[str, Field(description="JSON as text")]
    picture: Annotated[int, Field(description="Which of the pictures shown beside this, from 1")]
    is_main_result: bool
    left_out: Annotated[list[str], Field(description="Forms that were too long")]


class PythonResult(BaseModel):
    """How a run ended."""

    value: str | None = Field(default=None, description="repr of the last line, when it is an expression")
    stdout: str = ""
    stderr: str = ""
    error: RaisedError | None = Field(default=None, description="What the code raised")
    tables: list[DataTable] | None = Field(default=None, description="Data frames: the first rows of each")
    results: list[ShownResult] | None = Field(
        default=None, description="What the value and `display` showed in more forms than text, in order"
    )
    pictures: int = Field(default=0, description="How many figures are shown beside this")
    dropped_bytes: int = Field(default=0, description="Output that was left out in the middle")
    seconds: float
    session: str = Field(description="Pass it again to go on with the same variables")
    state: str = Field(
        description="kept: variables of earlier runs were there; new: a fresh session; lost: gone with this run"
    )
    files: list[MadeFile] | None = Field(default=None, description="Files the run made or changed, for read_file")
    limit: str | None = Field(default=None, description="The limit that the code ran into")
    lost: str | None = Field(default=None, description="Why the variables of the session are gone")
    isolation: str


class CalculationResult(BaseModel):
    """What an expression comes to."""

    expression: str
    decimal: str
    exact: str | None = Field(default=None, description="Whole number or fraction, when there is one")
    unit: str | None = None


class ResetResult(BaseModel):
    """Whether there was a session to end."""

    session: str
    had_variables: bool


class InstallResult(BaseModel):
    """What was installed by name; what it needs came with it."""

    installed: list[str]


class SandboxInfo(BaseModel):
    """What code runs in here."""

    isolation: str
    mechanisms: list[str]
    verified: list[str] = Field(description="Tried from inside at start, and stopped")
    gaps: list[str] = Field(description="What this level does not protect against")
    stronger_levels: dict[str, str] = Field(description="Stronger levels that do not hold here, and why")
    limits: dict[str, float]
    network: str
    python: str
    sessions: list[str]


def build_server(settings: Settings) -> Server[Sessions]:
    """Wire the server up. The level of isolation is found while clients already connect; runs wait for it."""
    limits = Limits(
        process_memory_bytes=settings.process_memory_megabytes * _MIB,
        total_memory_bytes=settings.total_memory_megabytes * _MIB,
        processes=settings.processes,
        open_files=settings.open_files,
        file_bytes=settings.file_megabytes * _MIB,
        folder_bytes=settings.folder_megabytes * _MIB,
        cpu_seconds=settings.cpu_seconds,
    )

    installer = _installer(settings)

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncGenerator[Sessions]:
        sessions = Sessions(
            limits,
            wanted=settings.isolation,
            allow_none=settings.allow_unsandboxed,
            python=settings.python or default_python(),
            packages_folder=installer.folder if installer is not None else None,
            max_sessions=settings.max_sessions,
            idle_seconds=settings.idle_minutes * 60,
            outlive_clients=settings.sessions_outlive_clients,
            max_value_chars=settings.max_value_chars,
            output_bytes=settings.output_kilobytes * 1024,
            keep_spare=settings.spare_session,
            kernel=settings.kernel,
        )
        async with anyio.create_task_group() as background:
            background.start_soon(sessions.look_after)
            try:
                yield sessions
            finally:
                with anyio.CancelScope(shield=True):
                    await sessions.close()
                background.cancel_scope.cancel()

    server: Server[Sessions] = Server(
        "code",
        instructions="run_python keeps variables between calls of one session. No network, no files of the host. "
        "For plain arithmetic and units, calculate is exact and needs no code.",
        lifespan=lifespan,
    )
    timeout_field = Field(gt=0, le=3_600, description="Stop it after so long; default: the server's limit")
    runs_code = ToolAnnotations(
        read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False
    )

    @server.tool(title="Run Python", annotations=runs_code)
    async def run_python(
        ctx: Context[Sessions],
        code: Annotated[str, Field(min_length=1, max_length=200_000, description="Python 3 code, any number of lines")],
        session: SessionName = None,
        timeout_seconds: Annotated[float | None, timeout_field] = None,
    ) -> Annotated[CallToolResult, PythonResult]:
        """Run Python code in a sandbox; returns what it printed and the value of its last line.

        Variables, imports and files in the working folder live on for the next call with the same session.
        There is no network and no file of the host. Code that runs too long is interrupted, its variables stay.
        """
        return await _execute(ctx, settings, session, {"code": code}, timeout_seconds)

    @server.tool(title="Run a shell command", annotations=runs_code)
    async def run_shell(
        ctx: Context[Sessions],
        command: Annotated[str, Field(min_length=1, max_length=50_000, description="Command line for /bin/sh")],
        session: SessionName = None,
        timeout_seconds: Annotated[float | None, timeout_field] = None,
    ) -> Annotated[CallToolResult, PythonResult]:
        """Run a shell command in the session's folder, in the same sandbox as its Python; `value` is the exit code."""
        return await _execute(ctx, settings, session, {"shell": command}, timeout_seconds)

    @server.tool(
        "calculate", title="Calculate", annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False)
    )
    async def calculate_(
        expression: Annotated[
            str,
            Field(
                min_length=1, max_length=2_000, description="Like '15% of 80', '2^100', '5 km / 20 min to mile/hour'"
            ),
        ],
        digits: Annotated[int, Field(ge=1, le=1_000, description="Significant digits of the decimal")] = 15,
    ) -> CalculationResult:
        """Calculate exactly: fractions, powers, roots, factorials, logarithms, trigonometry, and physical units.

        Convert with `to`: '72 degF to degC'. For anything with steps, data or symbols use run_python.
        """
        try:
            found = await anyio.to_thread.run_sync(lambda: calculate(expression, digits=digits))
        except CannotCalculate as exc:
            raise ToolError(str(exc)) from exc
        return CalculationResult(expression=expression, decimal=found.decimal, exact=found.exact, unit=found.unit)

    @server.tool(
        title="Reset a Python session",
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
        ),
    )
    async def reset_session(ctx: Context[Sessions], session: SessionName = None) -> ResetResult:
        """End a session: its variables, files and running processes are gone; the next run starts afresh."""
        caller = ctx.request_context.lifespan_context.caller(ctx)
        try:
            had = await ctx.request_context.lifespan_context.reset(caller, session)
        except NoSuchSession as exc:
            raise ToolError(str(exc)) from exc
        return ResetResult(session=session or "default", had_variables=had)

    @server.tool(title="About the sandbox", annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False))
    async def sandbox_info(ctx: Context[Sessions]) -> SandboxInfo:
        """Say how code is isolated here, what was verified, what limits hold, and which sessions live."""
        sessions = ctx.request_context.lifespan_context
        sandbox = await sessions.sandbox()
        return SandboxInfo(
            isolation=sandbox.level,
            mechanisms=list(sandbox.mechanisms),
            verified=list(sandbox.verified),
            gaps=_GAPS[sandbox.level],
            stronger_levels=sandbox.rejected,
            limits=_limits(settings, own_machine=sandbox.level == "e2b"),
            network=_NETWORK.get(sandbox.level, "none"),
            python=sandbox.python,
            sessions=sessions.names(sessions.caller(ctx)),
        )

    if installer is not None:
        _add_install_tool(server, installer)
    add_file_tools(server, AllowedPaths(settings.folders), settings.file_megabytes * _MIB)
    return server


def _limits(settings: Settings, *, own_machine: bool) -> dict[str, float]:
    """What holds for a session; on a machine of its own, memory and the like are those of the machine."""
    limits: dict[str, float] = {
        "timeout_seconds": settings.timeout_seconds,
        "output_kilobytes": settings.output_kilobytes,
        "idle_minutes": settings.idle_minutes,
    }
    if not own_machine:
        limits |= {
            "process_memory_megabytes": settings.process_memory_megabytes,
            "total_memory_megabytes": settings.total_memory_megabytes,
            "processes": settings.processes,
            "file_megabytes": settings.file_megabytes,
            "cpu_seconds": settings.cpu_seconds,
        }
    return limits


def _installer(settings: Settings) -> Installer | None:
    allowed = [name for name in settings.installable_packages.split(",") if name.strip()]
    if not allowed or settings.isolation == "e2b":
        return None
    folder = (settings.packages_folder or memento_home() / "code-packages").expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)  # sessions may have a user id of their own
    except OSError as exc:
        raise StartupError(f"MEMENTO_CODE_PACKAGES_FOLDER {str(folder)!r} cannot be made ({exc.strerror})") from exc
    return Installer(allowed, folder, settings.package_index)


def _add_install_tool(server: Server[Sessions], installer: Installer) -> None:
    @server.tool(
        title="Install packages",
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=True
        ),
    )
    async def install_packages(
        ctx: Context[Sessions],
        packages: Annotated[
            list[Annotated[str, Field(min_length=1, max_length=200)]],
            Field(min_length=1, max_length=20, description="Names, each with an optional version: 'numpy>=2'"),
        ],
    ) -> InstallResult:
        """Install Python packages for all sessions, as far as the operator allows; they can be imported at once."""
        sandbox = await ctx.request_context.lifespan_context.sandbox()
        try:
            await installer.install(packages, python=sandbox.python)
        except CannotInstall as exc:
            raise ToolError(str(exc)) from exc
        return InstallResult(installed=packages)


async def _execute(
    ctx: Context[Sessions],
    settings: Settings,
    session: str | None,
    request: dict[str, Any],
    timeout_seconds: float | None,
) -> CallToolResult:
    sessions = ctx.request_context.lifespan_context
    sandbox = await sessions.sandbox()
    caller = sessions.caller(ctx)
    limit = min(timeout_seconds or settings.timeout_seconds, settings.timeout_seconds)
    refused: Exception | None = None
    ran: Ran | None = None
    async with anyio.create_task_group() as beside:
        beside.start_soon(_tell_progress, ctx, sessions, caller, session or "default", limit)
        try:
            ran = await sessions.ask(caller, session, request, timeout_seconds=limit)
        except (NoSuchSession, SessionLost) as exc:
            refused = exc  # raised outside, or the task group would wrap it
        beside.cancel_scope.cancel()
    if ran is None:
        raise ToolError(str(refused) if isinstance(refused, NoSuchSession) else f"No session could be had: {refused}.")
    saved = await _save_long_output(sessions, caller, ran)
    result = _result(ran, sandbox)
    answer = untrusted_result(
        result, text=_shown(result), source=f"code in session {ran.session}", note=_note(ran, result, saved)
    )
    pictures = [
        ImageContent(data=base64.b64encode(image).decode(), mime_type=_image_type(image))
        for image in ran.outcome.images
    ]
    links = [file_link(ran.session, made) for made in ran.outcome.files]
    failed = result.error is not None or result.lost is not None or result.limit is not None
    failed = failed or ("shell" in request and result.value != "0")
    return answer.model_copy(update={"content": [*answer.content, *pictures, *links], "is_error": failed})


async def _tell_progress(
    ctx: Context[Sessions], sessions: Sessions, caller: Caller, session: str, limit_seconds: float
) -> None:
    """Every second: how long it has been, and what the code printed last."""
    for seconds in itertools.count(1):
        await anyio.sleep(1)
        line = strip_invisible(sessions.last_line(caller, session))
        await ctx.report_progress(min(seconds, limit_seconds), limit_seconds, line[:_MAX_PROGRESS_CHARS] or "running")


async def _save_long_output(sessions: Sessions, caller: Caller, ran: Ran) -> str | None:
    """Put an output that is too long to show into a file of the session; returns a sentence that says where."""
    said: list[str] = []
    if ran.outcome.lost:
        return None
    for name, output in (("stdout", ran.outcome.stdout), ("stderr", ran.outcome.stderr)):
        if not output.spooled:
            continue
        path = f".output/{name}.txt"
        content = base64.b64encode(output.spooled).decode()
        try:
            kept = await sessions.ask(
                caller, ran.session, {"do": "write_file", "arguments": [path, content]}, timeout_seconds=_SAVE_SECONDS
            )
        except (NoSuchSession, SessionLost):
            return None
        if kept.outcome.file is not None:
            said.append(f"the first {len(output.spooled)} bytes of {name} are in {path}")
    return "; ".join(said) or None


def _result(ran: Ran, sandbox: Sandbox | E2BSandbox) -> PythonResult:
    outcome = ran.outcome
    state = "lost" if outcome.lost else "new" if ran.is_new else "kept"
    error = outcome.error
    limit = outcome.interrupted
    if limit is None and error is not None and sandbox.level != "e2b":  # there the limits are the template's
        limit = sandbox.limits.hit_by(error.name, outcome.errno, error.traceback)
    return PythonResult(
        value=outcome.value,
        stdout=outcome.stdout.text,
        stderr=outcome.stderr.text,
        error=error,
        tables=outcome.tables or None,
        results=_shown_results(outcome.results) or None,
        pictures=len(outcome.images),
        files=outcome.files or None,
        dropped_bytes=outcome.stdout.dropped_bytes + outcome.stderr.dropped_bytes,
        seconds=round(outcome.seconds, 3),
        session=ran.session,
        state=state,
        limit=limit,
        lost=outcome.lost or ran.lost_before,
        isolation=sandbox.level,
    )


def _shown_results(results: list[Result]) -> list[ShownResult]:
    shown: list[ShownResult] = []
    pictures = 0
    for result in results:
        forms: dict[str, Any] = {form: value for form in _FORMS if (value := getattr(result, form)) is not None}
        if "json" in forms:
            forms["json"] = json.dumps(result.json, ensure_ascii=False)
        if result.image is not None:
            pictures += 1
            forms["picture"] = pictures
        if result.left_out:
            forms["left_out"] = result.left_out
        if forms:
            text = {} if result.text is None or result.is_main_result else {"text": result.text}
            shown.append(cast("ShownResult", {**text, **forms, "is_main_result": result.is_main_result}))
    return shown


def _image_type(image: bytes) -> str:
    return "image/png" if image.startswith(b"\x89PNG") else "image/jpeg"


def _note(ran: Ran, result: PythonResult, saved: str | None) -> str:
    said = [f"{result.seconds:g} s, isolation {result.isolation}, session {result.session!r} ({result.state})"]
    if ran.lost_before:
        said.append(f"the earlier variables of this session are gone: {ran.lost_before}")
    if result.limit and result.limit != ran.outcome.interrupted:
        said.append(f"the code ran into the {result.limit}")
    elif result.limit and not ran.outcome.lost:
        said.append(f"the code was interrupted at its {result.limit}; the variables are still there")
    if ran.outcome.lost:
        said.append(f"the session has ended and its variables are lost: {ran.outcome.lost}")
    if saved:
        said.append(saved)
    return "; ".join(said) + "."


def _shown(result: PythonResult) -> str:
    error = result.error
    blocks = [
        ("", result.stdout),
        ("stderr:\n", result.stderr),
        ("", (error.traceback or f"{error.name}: {error.message}") if error else ""),
        ("value: ", result.value or ""),
    ]
    for shown in result.results or []:
        # Markup is long, and the program's word as well: its beginning is enough to know it by.
        blocks += [(f"{form}:\n", cut(shown.get(form, ""), _MAX_FORM_CHARS)) for form in _FORMS if form in shown]
        if "left_out" in shown:
            blocks.append(("too long to show: ", ", ".join(shown["left_out"])))
    return "\n".join(label + text.rstrip("\n") for label, text in blocks if text) or "(nothing was printed)"


def main() -> None:
    """The command `memento-code`; with `environment` as its first word, `environment.py`'s."""
    if sys.argv[1:2] == ["environment"]:
        sys.exit(environment(sys.argv[2:]))
    serve("memento-code", lambda: build_server(Settings()))


if __name__ == "__main__":
    main()
