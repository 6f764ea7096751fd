"""Packages that the operator lets a model install: wheels only, by pip, outside the sandbox and confined by itself.

Sessions have no network, so pip runs beside them: with a clean environment, Landlock around everything but the target
folder and its own temporary one, a time limit, and `--only-binary :all:`, so that no code of a package runs while it is
installed. What it may ask for by name is the operator's list; what those packages need comes with them.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread

from memento_code.confine import landlock_abi
from memento_code.sandbox import inside_sources

__all__ = ["CannotInstall", "Installer"]

_SECONDS = 300.0
_MAX_SAID_CHARS = 600
_REQUIREMENT = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9._-]*)"  # name
    r"(?:\[[A-Za-z0-9,._-]+\])?"  # extras
    r"(?:(?:==|>=|<=|~=|!=|<|>)[A-Za-z0-9.*+!_-]+)?"  # version
)
_READABLE = ("/usr", "/bin", "/lib", "/lib64", "/etc", "/proc", "/dev", "/run/systemd/resolve")
_PASSED_ON = ("PATH", "LANG", "SSL_CERT_FILE", "PIP_CERT", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "PIP_INDEX_URL")
_CONFINED = """
import json, runpy, sys
told = json.loads(sys.argv[1])
module = type(sys)('confine')
exec(told['confine'], module.__dict__)
if told['landlock']:
    module.restrict_files(told['read_only'], told['read_write'], may_connect=True)
sys.argv = ['pip', *sys.argv[2:]]
runpy.run_module('pip', run_name='__main__', alter_sys=True)
"""


class CannotInstall(Exception):
    """It may not or could not be installed; the message is for the model to read."""


class Installer:
    """Installs into `folder`, which sessions import from. `allowed` holds names of distributions, or `*` for any."""

    def __init__(self, allowed: Iterable[str], folder: Path, index_url: str | None = None) -> None:
        self._allowed = {_normal(name) for name in allowed}
        self.folder = folder
        self._index_url = index_url

    async def install(self, requirements: Sequence[str], *, python: str) -> None:
        """Install `requirements`, each a name with an optional version, for the interpreter `python`.

        Raises:
            CannotInstall: one is not allowed or not well-formed, or pip failed.
        """
        for requirement in requirements:
            self._check(requirement)
        with tempfile.TemporaryDirectory(prefix="memento-install-") as temporary:
            said, code = await self._run_pip(requirements, python, temporary)
        if code != 0:
            raise CannotInstall(f"pip did not install it: {said[-_MAX_SAID_CHARS:].strip() or f'exit code {code}'}")

    def _check(self, requirement: str) -> None:
        parsed = _REQUIREMENT.fullmatch(requirement)
        if parsed is None:
            raise CannotInstall(
                f"{requirement!r} is not the name of a package, or that with a version, like 'numpy>=2'."
            )
        if "*" not in self._allowed and _normal(parsed[1]) not in self._allowed:
            allowed = ", ".join(sorted(self._allowed)) or "none"
            raise CannotInstall(f"{parsed[1]!r} may not be installed here. Allowed by the operator: {allowed}.")

    async def _run_pip(self, requirements: Sequence[str], python: str, temporary: str) -> tuple[str, int]:
        told = {
            "confine": inside_sources()["confine"],
            "landlock": sys.platform.startswith("linux") and landlock_abi() > 0,
            "read_only": [*_READABLE, str(Path(python).parents[1])],
            "read_write": [str(self.folder), temporary, "/dev/null"],
        }
        index = ["--index-url", self._index_url] if self._index_url else []
        arguments = ["install", "--only-binary", ":all:", "--upgrade", "--target", str(self.folder), *index]
        quiet = ["--quiet", "--no-input", "--disable-pip-version-check", "--no-cache-dir", "--no-warn-conflicts"]
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        with subprocess.Popen(  # noqa: ASYNC220 - it returns at once, and its whole group can be killed
            [python, "-I", "-c", _CONFINED, json.dumps(told), *arguments, *quiet, "--", *requirements],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=temporary,
            env={**environment, "HOME": temporary, "TMPDIR": temporary},
            start_new_session=True,
        ) as process:
            try:
                with anyio.fail_after(_SECONDS):
                    _, said = await anyio.to_thread.run_sync(process.communicate, abandon_on_cancel=True)
            except TimeoutError as exc:
                raise CannotInstall(f"pip took longer than {_SECONDS:g} s.") from exc
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        return said.decode("utf-8", "replace"), process.returncode


def _normal(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
