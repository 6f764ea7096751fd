"""The environment of libraries that sessions import from: made once, by `memento-code environment create`.

A virtual environment of the Python that runs this, filled by pip with wheels only. It is the operator's: a session can
read it and never write to it. Also made once is matplotlib's list of fonts, which costs each session a second else.
"""

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from memento_kit import memento_home

__all__ = ["PACKAGES", "default_python", "main"]

PACKAGES = ("numpy", "pandas", "matplotlib", "scipy", "sympy", "openpyxl")
_FONTS = "_memento_fonts"
"""Folder beside the packages with what matplotlib would keep in `MPLCONFIGDIR`; `worker.py` links it in."""
_MAKE_FONT_LIST = "import matplotlib.font_manager"


class _CannotCreate(Exception):
    """The message is one line, for the operator."""


def default_python() -> Path | None:
    """The interpreter of the environment in `MEMENTO_HOME`; None while there is none."""
    python = _default_folder() / "bin" / "python"
    return python if python.exists() else None


def main(argv: Sequence[str]) -> int:
    """`memento-code environment …`; returns the exit code."""
    options = argparse.ArgumentParser(prog="memento-code environment", description=(__doc__ or "").splitlines()[0])
    create = options.add_subparsers(required=True).add_parser("create", help="make the environment, once")
    create.add_argument("folder", nargs="?", type=Path, help="default: code-environment in MEMENTO_HOME")
    create.add_argument("--packages", nargs="+", default=list(PACKAGES), help=f"default: {' '.join(PACKAGES)}")
    chosen = options.parse_args(argv)
    folder: Path = (chosen.folder or _default_folder()).expanduser().absolute()
    try:
        _create(folder, chosen.packages)
    except _CannotCreate as exc:
        _say(str(exc))
        return 2
    except KeyboardInterrupt:
        _say(f"stopped; nothing is left of {folder}")
        return 130
    use = "" if folder == _default_folder() else f": start the server with MEMENTO_CODE_PYTHON={folder}/bin/python"
    _say(f"{folder} is ready{use}")
    return 0


def _default_folder() -> Path:
    return memento_home() / "code-environment"


def _create(folder: Path, packages: Sequence[str]) -> None:
    """Make it, or leave nothing behind."""
    if folder.exists():
        raise _CannotCreate(f"{folder} exists already: remove it first, or name another folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _say(f"making {folder}")
        _run([sys.executable, "-m", "venv", str(folder)], "a virtual environment could not be made")
        folder.chmod(0o755)  # sessions may have a user id of their own
        python = str(folder / "bin" / "python")
        _say(f"installing {', '.join(packages)} and what they need; pip tells its steps")
        pip = ["-m", "pip", "install", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check"]
        hint = "could not be installed: see pip's words above, and check the network or PIP_INDEX_URL"
        _run([python, *pip, "--progress-bar", "off", *packages], f"{', '.join(packages)} {hint}")
        _list_fonts(folder, python)
    except OSError as exc:
        raise _CannotCreate(f"{folder} cannot be made: {exc.strerror}") from exc
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _list_fonts(folder: Path, python: str) -> None:
    packages = Path(sysconfig.get_path("purelib", "venv", vars={"base": str(folder), "platbase": str(folder)}))
    if (packages / "matplotlib").is_dir():
        _say("listing fonts for matplotlib")
        environment = {**os.environ, "MPLCONFIGDIR": str(packages / _FONTS)}
        _run([python, "-I", "-c", _MAKE_FONT_LIST], "matplotlib could not list the fonts", environment)


def _run(command: list[str], failed: str, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, env=environment, check=False)
    if done.returncode != 0:
        raise _CannotCreate(failed)


def _say(text: str) -> None:
    print(f"memento-code: {text}", file=sys.stderr, flush=True)  # noqa: T201 - the command's answer
