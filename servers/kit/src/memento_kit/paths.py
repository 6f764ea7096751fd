"""Which files a server may touch, and where Memento keeps its own.

Owns the check that a path named by a model lies inside what the operator allowed, and `MEMENTO_HOME`.
It opens nothing: a caller opens what `AllowedPaths.resolve` returns, at once. Whoever can swap a folder for a
link between the check and the opening has write access to an allowed folder already; this does not stop them.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator
from pydantic_settings import NoDecode

__all__ = ["AllowedPaths", "PathList", "PathNotAllowed", "memento_home"]


class PathNotAllowed(Exception):
    """The path is outside what the operator allowed, or not there. The message is written for the model to read."""


def _split_paths(value: object) -> object:
    if isinstance(value, str):
        return tuple(Path(part).expanduser() for part in value.split(os.pathsep) if part)
    return value


PathList = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_split_paths)]
"""A settings field that takes paths joined by `:` (`;` on Windows), as `PATH` does."""


def memento_home() -> Path:
    """The folder of all user data: `MEMENTO_HOME`, else the platform's user data folder. Not created here."""
    set_by_user = os.environ.get("MEMENTO_HOME")
    if set_by_user:
        return Path(set_by_user).expanduser().absolute()
    import platformdirs  # only here: most servers never ask

    return platformdirs.user_data_path("memento", appauthor=False)


class AllowedPaths:
    """Folders and single files that the operator opened to a server.

    A relative path is looked up in each allowed folder in turn, so a model can say `report.pdf`.
    Links are followed before the check: a link that leads outside is outside.
    """

    def __init__(self, roots: Iterable[Path]) -> None:
        self.roots = tuple(Path(os.path.abspath(root.expanduser())) for root in roots)
        self._resolved = tuple(Path(os.path.realpath(root)) for root in self.roots)

    def resolve(self, path: str | Path) -> Path:
        """Return the real, existing path that `path` means.

        Raises:
            PathNotAllowed: it is not inside an allowed folder, or there is nothing there.
        """
        try:
            return self._resolve(path)
        # ValueError: a NUL or half a surrogate pair; OSError: a name too long, a loop of links, a folder that
        # may not be entered; RuntimeError: `~nobody`. All of them are paths that lead nowhere.
        except (OSError, ValueError, RuntimeError) as exc:
            raise PathNotAllowed(f"{str(path)!r} is not a usable path. {self.describe()}") from exc

    def _resolve(self, path: str | Path) -> Path:
        wanted = Path(path).expanduser()
        candidates = (
            [wanted] if wanted.is_absolute() else [*(root / wanted for root in self.roots), *self._named(wanted)]
        )
        inside = [real for real in (Path(os.path.realpath(c)) for c in candidates) if self._contains(real)]
        for real in inside:
            if real.exists():
                return real
        if inside:
            raise PathNotAllowed(f"There is no file or folder {str(path)!r}. {self.describe()}")
        raise PathNotAllowed(f"{str(path)!r} is outside the allowed folders. {self.describe()}")

    def describe(self) -> str:
        """Say in one sentence what is allowed."""
        if not self.roots:
            return "No folder is allowed here; the operator can allow some in the settings."
        return "Allowed: " + ", ".join(str(root) for root in self.roots) + "."

    def _named(self, wanted: Path) -> list[Path]:
        """Allowed single files that `wanted` names by their last parts."""
        return [root for root in self.roots if root.parts[-len(wanted.parts) :] == wanted.parts]

    def _contains(self, real: Path) -> bool:
        return any(real == root or root in real.parents for root in self._resolved)
