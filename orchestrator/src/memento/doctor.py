"""Checking what a configuration uses: the folder, mcp.json, every server, the memory, the model.

Owns the checks and the fix named with each. It checks only what is used: no key is asked for that nothing needs.
"""

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from openai import AsyncOpenAI

from memento.dialects import Dialect, format_dialect, parse_dialect
from memento.model import Model, ModelError
from memento.offline import serve_stand_in
from memento.probe import probe
from memento.server_list import ServerList, ServerListError, load_server_list
from memento.session import ConfigError, ModelChoice, check_home, choose_models, server_environ
from memento.settings import Settings
from memento.toolbox import ToolBox, ToolLimits, open_toolbox

__all__ = ["Check", "run_checks"]

_MEMORY_TOOLS = {"retrieve_cases", "retain_case", "record_outcome"}


@dataclass(frozen=True)
class Check:
    """One thing looked at. A check that is not `ok` names its fix."""

    name: str
    ok: bool
    found: str
    fix: str = ""


async def run_checks(
    settings: Settings, environ: Mapping[str, str] | None = None, *, probe_models: bool = False
) -> AsyncGenerator[Check]:
    """Yield checks as they are made; none of them raises.

    Args:
        probe_models: ask each model what it can do, with a few small requests that may cost money.
    """
    environ = dict(os.environ if environ is None else environ)
    try:
        check_home(settings.home)
    except ConfigError as exc:
        yield Check("MEMENTO_HOME", False, str(exc), "set MEMENTO_HOME to a folder you can write")
        return
    yield Check("MEMENTO_HOME", True, str(settings.home))
    for check in await _servers(settings, environ):
        yield check
    for check in await _models(settings, probe_models):
        yield check


async def _servers(settings: Settings, environ: Mapping[str, str]) -> list[Check]:
    environ = server_environ(settings, environ)
    try:
        servers = load_server_list(settings.config, environ)
    except ServerListError as exc:
        return [Check("mcp.json", False, str(exc), "correct the file, or name another with --config")]
    checks = [Check("mcp.json", True, f"{servers.path or 'shipped with memento'}: {len(servers.servers)} servers")]
    limits = ToolLimits(connect_timeout_seconds=settings.connect_timeout_seconds)
    async with open_toolbox(
        servers.servers, limits=limits, environ=environ, log_folder=settings.home / "logs"
    ) as toolbox:
        checks += [_server(servers, toolbox, name, settings) for name in servers.servers]
        if settings.memory != "off":
            checks.append(_memory(toolbox, settings))
    return checks


def _server(servers: ServerList, toolbox: ToolBox, name: str, settings: Settings) -> Check:
    entry = servers.servers[name]
    if entry.disabled:
        return Check(f"server {name}", True, "disabled in mcp.json")
    problem = toolbox.problems.get(name)
    if problem is None:
        tools = [tool.name for tool in toolbox.servers[name].tools]
        return Check(f"server {name}", True, ", ".join(tools))
    if "not installed" in problem:
        fix = f"install it (pip install {Path(entry.command).name}), or correct its command in mcp.json"
    elif entry.type == "stdio":
        fix = f"try it by hand: {entry.command} {' '.join(entry.args)}; its log: {settings.home / 'logs' / name}.log"
    else:
        fix = f"check that {entry.url} is up and that the headers in mcp.json are right"
    return Check(f"server {name}", False, problem, fix)


def _memory(toolbox: ToolBox, settings: Settings) -> Check:
    name = settings.memory_server
    server = toolbox.servers.get(name)
    if server is None:
        fix = "add it, set MEMENTO_MEMORY_SERVER to the server that keeps cases, or MEMENTO_MEMORY=off"
        return Check("case memory", False, f"there is no server {name!r} in mcp.json", fix)
    missing = _MEMORY_TOOLS - {tool.name for tool in server.tools}
    if server.state == "failed":
        return Check("case memory", False, f"the server {name!r} is not available", f"see server {name}")
    if missing:
        found = f"the server {name!r} has no {', '.join(sorted(missing))}"
        return Check("case memory", False, found, "set MEMENTO_MEMORY_SERVER to the server that keeps cases")
    return Check("case memory", True, f"{name}, namespace {settings.namespace!r}")


async def _models(settings: Settings, probe_models: bool) -> list[Check]:
    try:
        dialect = parse_dialect(settings.dialect)
    except ValueError as exc:
        return [Check("MEMENTO_DIALECT", False, str(exc), "correct it; `memento doctor --probe` finds out what fits")]
    try:
        choice = choose_models(settings)
    except ConfigError as exc:
        found, _, rest = str(exc).partition("\n")
        return [Check("model", False, found, rest or "see memento ask --help")]
    async with _endpoint(choice) as base_url:
        timeout = settings.model_timeout_seconds
        async with AsyncOpenAI(api_key=choice.api_key, base_url=base_url, timeout=timeout, max_retries=0) as client:
            names = dict.fromkeys(name for name in (choice.planner, choice.executor, choice.judge) if name)
            check = _probed if probe_models and not choice.is_offline else _model
            return [await check(_as_used(client, name, settings, dialect)) for name in names]


def _as_used(client: AsyncOpenAI, name: str, settings: Settings, dialect: Dialect) -> Model:
    """The model with what a run would send."""
    return Model(
        client,
        name,
        temperature=settings.temperature,
        reasoning_effort=settings.reasoning_effort,
        max_output_tokens=settings.max_output_tokens,
        dialect=dialect,
    )


@asynccontextmanager
async def _endpoint(choice: ModelChoice) -> AsyncGenerator[str]:
    if not choice.is_offline:
        yield choice.base_url
        return
    async with serve_stand_in() as base_url:
        yield base_url


_MODEL_FIX = "correct the key, the model's name or the base URL, or use --model offline"


async def _model(model: Model) -> Check:
    name = f"model {model.name}"
    try:
        reply = await model.complete([{"role": "user", "content": "Question: Reply with the word ready."}])
    except ModelError as exc:
        return Check(name, False, str(exc), _MODEL_FIX)
    return Check(name, True, f"answered in {reply.seconds:.2f} s{_learned(model)}")


async def _probed(model: Model) -> Check:
    name = f"model {model.name}"
    try:
        probed = await probe(model)
    except ModelError as exc:
        return Check(name, False, str(exc), _MODEL_FIX)
    found = f"{', '.join(probed.findings)}{_learned(model)}"
    return Check(name, probed.calls_tools, found, "" if probed.calls_tools else "use another model for the executor")


def _learned(model: Model) -> str:
    """What to set, so that a run need not find it out again."""
    told = format_dialect(model.dialect)
    return f"; it takes MEMENTO_DIALECT={told}" if told else ""
