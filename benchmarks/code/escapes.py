"""Which attacks work at each level of isolation, as root and as a user without privileges.

Owns the running of `tests/support/escapes.py` outside the tests, and the table of what came of it. An attack is judged
from outside as well as by its own word: by what it left behind, not only by what it printed.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio

from memento_code.sandbox import Sandbox
from memento_code.session import Session

__all__ = ["UNPRIVILEGED", "as_unprivileged_user", "attack_all", "show"]

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
UNPRIVILEGED = 54_321
"""A user id that no account has: what it may do, everybody may."""
_BECOME = [
    "setpriv", f"--reuid={UNPRIVILEGED}", f"--regid={UNPRIVILEGED}", "--clear-groups",
    "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "/usr/bin/env",
]  # fmt: skip
"""With `env` between: setpriv itself still holds root's power over files when it looks for the program."""
_AS_MODULE = (
    "import runpy, site, sys; site.addsitedir(sys.argv.pop(1)); runpy.run_module('benchmarks.code', {}, '__main__')"
)
_MARKS = {True: "WORKED", False: "stopped", None: "not run"}

Tried = dict[str, bool | None]
"""For each attack whether it worked; None where it was not run, as it would do harm."""


async def attack_all(sandbox: Sandbox) -> dict[str, Tried]:
    """Run every attack in a session of its own. Returns those on the system, and those on the session's process."""
    attacks: Any = importlib.import_module("support.escapes")
    os.environ["OPENAI_API_KEY"] = attacks.KEY
    system: Tried = {}
    for name, code in attacks.ESCAPES.items():
        if sandbox.level == "none" and name not in attacks.SAFE_UNCONFINED:
            system[name] = None
            continue
        with tempfile.TemporaryDirectory() as folder, attacks.lay_out_prey(Path(folder)) as prey:
            said = await _attack(sandbox, attacks.prelude(prey.told) + code)
            system[name] = "ESCAPED" in said or bool(prey.was_reached())
    protocol: Tried = {}
    for name, (code, ends) in attacks.PROTOCOL_ATTACKS.items():
        protocol[name] = not await _survives(sandbox, code, 0.5 if ends in ("limit", "killed") else 60)
    return {"escapes": system, "protocol attacks": protocol}


def as_unprivileged_user(levels: Sequence[str], kernel: Path | None) -> dict[str, dict[str, Tried]] | str:
    """Run the attacks once more as a user without privileges; returns them by level, or why that cannot be done."""
    if os.getuid() != 0:
        return "only root can become another user; this run was without privileges already"
    python = _python_for_everybody()
    if python is None:
        return f"neither {os.path.realpath(sys.executable)} nor a system's Python of its version is open to other users"
    machine = [] if kernel is None else ["--kernel", str(kernel)]
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    done = subprocess.run(
        [*_BECOME, python, "-B", "-c", _AS_MODULE, packages, "--escapes", "--json", "--levels", *levels, *machine],
        cwd=ROOT,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8"},
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode != 0:
        return f"the run as user {UNPRIVILEGED} failed, see above"
    return next(iter(json.loads(done.stdout)["escapes"].values()))


def _python_for_everybody() -> str | None:
    """This Python; or, when it lies in a private home, the system's of its version, which can load its packages."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for python in (os.path.realpath(sys.executable), f"/usr/bin/python{version}", f"/usr/local/bin/python{version}"):
        tried = subprocess.run(
            [*_BECOME, python, "-c", "pass"],
            stderr=subprocess.DEVNULL,
            check=False,
        )
        if tried.returncode == 0:
            return python
    return None


def show(found: Mapping[str, dict[str, dict[str, Tried]] | str]) -> None:
    """Print a line for each attack and the sums, by user and level; e2b runs elsewhere and is not attacked."""
    columns = {
        f"{level}, {user}": kinds
        for user, levels in found.items()
        if isinstance(levels, dict)
        for level, kinds in levels.items()
    }
    attacks = {(kind, name): None for kinds in columns.values() for kind, tried in kinds.items() for name in tried}
    print(f"{'':46}" + "".join(f"{column:>22}" for column in columns) + f"{'e2b':>22}")
    for kind, name in attacks:
        marks = [_MARKS[kinds[kind].get(name)] for kinds in columns.values()]
        print(f"{name[:45]:46}" + "".join(f"{mark:>22}" for mark in [*marks, "n/a (remote)"]))
    for column, kinds in columns.items():
        for kind, tried in kinds.items():
            ran = [worked for worked in tried.values() if worked is not None]
            print(f"{column}: {sum(ran)} of {len(ran)} {kind} worked, {len(tried) - len(ran)} not run (harmful)")
    for user, levels in found.items():
        if isinstance(levels, str):
            print(f"{user}: {levels}")


async def _survives(sandbox: Sandbox, code: str, seconds: float) -> bool:
    """Whether the host answers, believes nothing forged, and can end the session, whatever the code does to it."""
    with anyio.move_on_after(seconds + 60):
        async with await _started(sandbox) as session:
            ran = await session.run(code, timeout_seconds=seconds)
        return "FORGED" not in str(ran)
    return False


async def _attack(sandbox: Sandbox, code: str) -> str:
    said = ""
    async with await _started(sandbox) as session, anyio.create_task_group() as beside:
        beside.start_soon(_watch, session)
        said = (await session.run(code, timeout_seconds=30)).stdout.text
        beside.cancel_scope.cancel()
    return said


async def _watch(session: Session) -> None:
    while True:
        await session.enforce_memory()
        await session.enforce_folder()
        await anyio.sleep(0.1)


async def _started(sandbox: Sandbox) -> Session:
    return await sandbox.start(max_value_chars=10_000, output_bytes=100_000)
