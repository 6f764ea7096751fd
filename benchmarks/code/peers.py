"""What others take for the same: a Jupyter kernel, monty, sandlock, sandbox-runtime.

Owns how each is started and asked. One that is not there or fails is reported with the reason, once, and left out of
the rounds that follow; the others go on.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import anyio

__all__ = ["JUPYTER_NEW", "Peers"]

JUPYTER_NEW = "ipykernel: new session, first result"
_SECONDS = 90.0
_TIMED = """
import json, sys, time
seconds = {}
def timed(name, do):
    began = time.perf_counter()
    done = do()
    seconds[name] = time.perf_counter() - began
    return done
"""
_SCRIPTS = {
    "ipykernel": f"""
from jupyter_client.manager import start_new_kernel
def run():
    client.execute_interactive("1 + 1", output_hook=lambda message: None)
def start():
    global client
    manager, client = start_new_kernel(kernel_name="python3")
    run()
    return manager
def run_100():
    for _ in range(100):
        run()
manager = timed({JUPYTER_NEW!r}, start)
timed("ipykernel: warm result (mean of 100)", run_100)
seconds["ipykernel: warm result (mean of 100)"] /= 100
client.stop_channels()
manager.shutdown_kernel(now=True)
""",
    "monty": """
import pydantic_monty
with pydantic_monty.Monty() as pool, pool.checkout() as warming:
    warming.feed_run("1 + 1")
    def start():
        session = pool.checkout().__enter__()
        session.feed_run("1 + 1")
        return session
    session = timed("monty: new session, first result", start)
    timed("monty: warm result", lambda: session.feed_run("1 + 1"))
    session.__exit__(None, None, None)
""",
    "sandlock": """
import sandlock
readable = ["/usr", "/lib", "/lib64", "/bin", "/etc", sys.base_prefix, sys.prefix]
box = sandlock.Sandbox(fs_readable=readable, clean_env=True)
done = timed("sandlock: python -c pass", lambda: box.run([sys.executable, "-c", "pass"]))
if not done.success:
    sys.exit(f"the command failed: {done}")
""",
}
_ANSWER = "\nprint(json.dumps(seconds))"


class Peers:
    """The peers that `python` has, and the command `srt`. `missing` says which gave no figure, and why."""

    def __init__(self, python: Path | None, srt: str | None) -> None:
        self._python = python
        self._srt = srt
        self.missing: dict[str, str] = {}

    async def measure(self) -> dict[str, float]:
        """Take every measure once."""
        taken: dict[str, float] = {}
        for name, script in _SCRIPTS.items():
            if self._python is None:
                self.missing[name] = "not asked for: --peers names no Python"
            said = await self._run(name, [str(self._python), "-c", _TIMED + script + _ANSWER])
            if said is not None:
                taken |= json.loads(said.splitlines()[-1])
        if self._srt is None:
            self.missing["sandbox-runtime"] = "not asked for: --srt names no command"
        began = time.perf_counter()  # srt takes one text for a shell
        if await self._run("sandbox-runtime", [str(self._srt), "-c", f"{sys.executable} -c pass"]) is not None:
            taken["sandbox-runtime: python -c pass"] = time.perf_counter() - began
        return taken

    async def _run(self, name: str, command: list[str]) -> str | None:
        """What it printed; None, with the reason in `missing`, when it did not end well."""
        if name in self.missing:
            return None
        try:
            with anyio.fail_after(_SECONDS):
                done = await anyio.run_process(command, check=False, stderr=subprocess.PIPE)
        except TimeoutError:
            self.missing[name] = f"no answer in {_SECONDS:g} s"
        except OSError as exc:
            self.missing[name] = f"{command[0]} could not be started ({exc.strerror})"
        else:
            if done.returncode == 0:
                return done.stdout.decode()
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            self.missing[name] = f"exit code {done.returncode}: {lines[-1] if lines else 'it said nothing'}"
        print(f"{name}: {self.missing[name]}", file=sys.stderr, flush=True)
        return None
