"""What this repository consists of: its packages, its documents, the tools its servers offer."""

import functools
import re
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memento.server_list import load_server_list
from support.server_process import server_process

__all__ = ["PACKAGES", "ROOT", "SERVERS", "CodeBlock", "Package", "code_blocks", "documents", "tools_of"]

ROOT = Path(__file__).parents[2]
SERVERS = load_server_list(ROOT / "mcp.json", environ={}).servers


@dataclass(frozen=True)
class Package:
    """One member of the workspace."""

    folder: Path

    @property
    def project(self) -> dict[str, Any]:
        """The [project] table of its pyproject.toml."""
        return tomllib.loads((self.folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    @property
    def name(self) -> str:
        return self.project["name"]

    @property
    def module(self) -> str:
        (source,) = (folder for folder in (self.folder / "src").iterdir() if (folder / "__init__.py").exists())
        return source.name

    def sources(self) -> list[Path]:
        return sorted((self.folder / "src").rglob("*.py"))

    def read(self, document: str) -> str:
        return (self.folder / document).read_text(encoding="utf-8")


def _members() -> Iterator[Package]:
    workspace = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["uv"]["workspace"]
    for pattern in workspace["members"]:
        for folder in sorted(ROOT.glob(pattern)):
            if (folder / "pyproject.toml").exists():
                yield Package(folder)


PACKAGES = {package.name: package for package in _members()}


@functools.cache
def tools_of(server: str) -> list[dict[str, Any]]:
    """The tools that a server of mcp.json lists, in MCP's own spelling."""
    entry = SERVERS[server]
    with (
        tempfile.TemporaryDirectory() as folder,
        server_process([entry.command, *entry.args], entry.env, Path(folder)) as running,
    ):
        running.initialize()
        return running.request("tools/list")["result"]["tools"]


def documents() -> list[Path]:
    """Every Markdown file that is ours."""
    top = ["servers", "casebank", "orchestrator", "docs", "benchmarks"]
    found = [*ROOT.glob("*.md"), *(path for folder in top for path in (ROOT / folder).rglob("*.md"))]
    return sorted(path for path in found if not {".venv", "node_modules", "build"} & set(path.parts))


@dataclass(frozen=True)
class CodeBlock:
    """A fenced block of a document: ` ```language flags `."""

    document: Path
    line: int
    language: str
    flags: tuple[str, ...]
    text: str

    @property
    def place(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"


_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^`\n]*)\n(?P<text>.*?)^(?P=indent)``` *$", re.MULTILINE | re.DOTALL)


def code_blocks(document: Path) -> list[CodeBlock]:
    whole = document.read_text(encoding="utf-8")
    blocks: list[CodeBlock] = []
    for match in _FENCE.finditer(whole):
        language, *flags = match["info"].split() or [""]
        line = whole.count("\n", 0, match.start()) + 1
        text = re.sub(rf"(?m)^{match['indent']}", "", match["text"])
        blocks.append(CodeBlock(document, line, language, tuple(flags), text))
    return blocks
