"""`mcp.json`: which MCP servers there are and how each is started or reached.

Owns reading and expanding the file (Claude Code's format: `mcpServers`, `${VAR}`, `${VAR:-default}`; VS Code's
`servers` is accepted too). It starts nothing.
"""

import importlib.resources
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

__all__ = ["ServerEntry", "ServerList", "ServerListError", "find_command", "load_server_list"]

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class ServerListError(Exception):
    """`mcp.json` must be changed. The message names the file, the entry and the fix."""


class ServerEntry(BaseModel):
    """One server, with every variable expanded."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, extra="ignore")

    type: Literal["stdio", "http", "sse"] = "stdio"
    command: str = ""
    args: list[str] = []
    env: dict[str, str] = {}
    cwd: str | None = None
    url: str = ""
    headers: dict[str, str] = {}
    allow_tools: list[str] = Field(default=["*"], alias="allowTools")
    """Globs over tool names; the others are not offered to the model."""
    deny_tools: list[str] = Field(default=[], alias="denyTools")
    disabled: bool = False

    def offers(self, tool: str) -> bool:
        """Whether the operator lets the model see `tool`. Deny wins over allow, on every transport alike."""
        if any(fnmatchcase(tool, pattern) for pattern in self.deny_tools):
            return False
        return any(fnmatchcase(tool, pattern) for pattern in self.allow_tools)


@dataclass(frozen=True)
class ServerList:
    path: Path | None
    """The file it came from; `None` for the list that is shipped with the package."""
    servers: dict[str, ServerEntry]


def load_server_list(path: Path | None, environ: Mapping[str, str]) -> ServerList:
    """Read `path`, or else `./mcp.json`, or else the list shipped with the package.

    Raises:
        ServerListError: the file is missing or not valid, or a variable is unset and has no default.
    """
    if path is None and Path("mcp.json").is_file():
        path = Path("mcp.json")
    if path is None:
        text = importlib.resources.files("memento").joinpath("mcp.json").read_text(encoding="utf-8")
        return ServerList(None, _parse(text, "the mcp.json shipped with memento", environ, folder=None))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise ServerListError(f"{path} cannot be read: {exc}. Give another file with --config.") from exc
    return ServerList(path, _parse(text, str(path), environ, folder=path.resolve().parent))


def _parse(text: str, where: str, environ: Mapping[str, str], *, folder: Path | None) -> dict[str, ServerEntry]:
    try:
        document: Any = json.loads(text)
    except json.JSONDecodeError as exc:
        raise ServerListError(f"{where} is not JSON: {exc.msg} at line {exc.lineno}, column {exc.colno}.") from exc
    top = cast(dict[str, Any], document) if isinstance(document, dict) else {}
    entries = top.get("mcpServers", top.get("servers"))
    if not isinstance(entries, dict):
        raise ServerListError(f'{where} needs an object "mcpServers" (or "servers") that maps names to servers.')
    named = cast(dict[str, Any], entries)
    return {name: _entry(name, raw, where, environ, folder) for name, raw in named.items()}


def _entry(name: str, raw: Any, where: str, environ: Mapping[str, str], folder: Path | None) -> ServerEntry:
    if not _NAME.fullmatch(name):
        raise ServerListError(f"{where}: the server name {name!r} must be letters, digits, - and _ only.")
    if not isinstance(raw, dict):
        raise ServerListError(f"{where}: server {name!r} must be an object.")
    given = cast(dict[str, Any], raw)
    fields: dict[str, Any] = {"type": "http" if "url" in given and "command" not in given else "stdio", **given}
    if fields["type"] in ("streamable-http", "streamableHttp"):
        fields["type"] = "http"
    if fields.get("disabled") is True:
        return ServerEntry(type="stdio", command="disabled", disabled=True)
    try:
        entry = ServerEntry.model_validate(_expand(fields, environ, f"{where}: server {name!r}"))
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ServerListError(f"{where}: server {name!r}: {field}: {first['msg']}.") from exc
    if entry.type == "stdio":
        if not entry.command:
            raise ServerListError(f'{where}: server {name!r} needs a "command" (or a "url").')
        return entry.model_copy(update={"command": find_command(entry.command, folder)})
    if not entry.url.startswith(("http://", "https://")):
        raise ServerListError(f'{where}: server {name!r} needs a "url" that starts with http:// or https://.')
    return entry


def _expand(value: Any, environ: Mapping[str, str], where: str) -> Any:
    if isinstance(value, dict):
        return {key: _expand(inner, environ, where) for key, inner in cast(dict[str, Any], value).items()}
    if isinstance(value, list):
        return [_expand(inner, environ, where) for inner in cast(list[Any], value)]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        if environ.get(name):
            return environ[name]
        if default is None:
            raise ServerListError(
                f"{where} uses ${{{name}}}, and {name} is not set. Set it, or write ${{{name}:-default}}."
            )
        return default

    return _VARIABLE.sub(replace, value)


def find_command(command: str, folder: Path | None = None) -> str:
    """Look for a bare command beside our own interpreter first: Memento's servers are installed with it.

    A relative path counts from the folder of `mcp.json`, as it does for Claude Code in a project.
    """
    if os.sep in command or (os.altsep and os.altsep in command):
        path = Path(command).expanduser()
        return str(path if path.is_absolute() or folder is None else folder / path)
    beside = shutil.which(command, path=str(Path(sys.executable).parent))
    return beside or shutil.which(command) or command
