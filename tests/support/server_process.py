"""A server as a process of its own, spoken to line by line: for tests about starting, stopping and the wire itself.

Tests about what a server *does* use `mcp.Client`, which hides all of this.
"""

import itertools
import json
import os
import subprocess
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import pytest

__all__ = ["INITIALIZE", "INITIALIZED", "ServerProcess", "http_server_process", "server_process", "tool_call"]

INITIALIZE: dict[str, Any] = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
INITIALIZED: dict[str, Any] = {"jsonrpc": "2.0", "method": "notifications/initialized"}

STOP_SECONDS = 20
"""How long a server may take to end; a hang is a failure, not a wait."""


def tool_call(tool: str, **arguments: object) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}


class ServerProcess:
    """One running server: what it is told, what it answers, and how it ended."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.stdin = cast(IO[str], process.stdin)
        self.stdout = cast(IO[str], process.stdout)
        self.stderr = cast(IO[str], process.stderr)
        self._ids = itertools.count(1000)

    def send(self, *messages: dict[str, Any]) -> None:
        self.stdin.write("".join(json.dumps(message) + "\n" for message in messages))
        self.stdin.flush()

    def receive(self) -> dict[str, Any]:
        line = self.stdout.readline()
        assert line, f"it ended without an answer, saying: {self.stderr.read()}"
        return json.loads(line)

    def initialize(self) -> dict[str, Any]:
        self.send(INITIALIZE)
        result = self.receive()["result"]
        self.send(INITIALIZED)
        return result

    def request(self, method: str, params: Any = None) -> dict[str, Any]:
        """Send one request and return its answer, with either `result` or `error`; notifications are passed over."""
        number = next(self._ids)
        self.send({"jsonrpc": "2.0", "id": number, "method": method, **({} if params is None else {"params": params})})
        while (answer := self.receive()).get("id") != number:
            assert "method" in answer, f"an answer to nothing that was asked: {answer}"
        return answer

    def wait_for(self, words: str) -> str:
        """Return the first line of the log that contains `words`."""
        seen: list[str] = []
        for line in self.stderr:
            if words in line:
                return line.rstrip("\n")
            seen.append(line)
        raise AssertionError(f"it ended without saying {words!r}, but: {''.join(seen)}")

    def end(self) -> tuple[int, list[str], list[str]]:
        """Wait for the process to end by itself; its exit code and what is left on stdout and stderr."""
        try:
            code = self.process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pytest.fail("the server did not stop")
        rest = "" if self.stdout.closed else self.stdout.read()
        return code, rest.splitlines(), self.stderr.read().splitlines()


@contextmanager
def server_process(
    command: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Generator[ServerProcess]:
    """Start `command` with `env` added to this process's own variables; kill it at the end if it still runs."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, env={**os.environ, **(env or {})}, cwd=cwd, encoding="utf-8"
    ) as process:
        try:
            yield ServerProcess(process)
        finally:
            process.kill()


@contextmanager
def http_server_process(
    command: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Generator[tuple[ServerProcess, str]]:
    """Start `command` on a free port, and give the URL it announced besides."""
    with server_process([*command, "--port", "0"], env, cwd) as running:
        yield running, running.wait_for("listening on ").partition("listening on ")[2]
