"""What the documents show works: code runs, JSON parses, links lead somewhere."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.repository import ROOT, CodeBlock, code_blocks, documents

BLOCKS = [block for document in documents() for block in code_blocks(document)]


def blocks(language: str) -> pytest.MarkDecorator:
    chosen = [block for block in BLOCKS if block.language == language and "no-run" not in block.flags]
    return pytest.mark.parametrize("block", [pytest.param(block, id=block.place) for block in chosen])


@pytest.fixture
def reader_folder(tmp_path: Path) -> Path:
    """Where a reader would try the examples: an empty folder but for the files that examples name."""
    import pymupdf

    with pymupdf.open() as pdf:
        pdf.new_page().insert_text((72, 72), "Annual report\n\nRevenue was 4.2 million.")  # pyright: ignore[reportUnknownMemberType]
        pdf.save(tmp_path / "report.pdf")  # pyright: ignore[reportUnknownMemberType]
    return tmp_path


@blocks("python")
def test_each_python_block_runs(block: CodeBlock, reader_folder: Path) -> None:
    environment = {**os.environ, "MEMENTO_HOME": str(reader_folder / "home")}
    done = subprocess.run(
        [sys.executable, "-c", block.text],
        cwd=reader_folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, f"{block.place}\n{done.stderr}"


@blocks("json")
def test_each_json_block_parses_and_a_server_list_starts_commands_that_exist(block: CodeBlock) -> None:
    value = json.loads(block.text)
    if not isinstance(value, dict) or "mcpServers" not in value:
        return
    for name, entry in value["mcpServers"].items():  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        assert re.fullmatch(r"[a-z][a-z0-9_-]*", name)  # pyright: ignore[reportUnknownArgumentType]
        command = str(entry.get("command", ""))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        if command.startswith("memento"):
            assert (Path(sys.executable).parent / command).exists(), f"there is no command {command}"
        else:
            assert command or entry.get("url")  # pyright: ignore[reportUnknownMemberType]


def test_there_is_something_to_run_and_to_parse() -> None:
    """Were the fences read wrongly, the tests above would pass with nothing in them."""
    languages = [block.language for block in BLOCKS]
    assert languages.count("python") >= 2
    assert languages.count("json") >= 4
    shown = sum(document.read_text(encoding="utf-8").count("\n```json\n") for document in documents())
    assert languages.count("json") >= shown


@pytest.mark.parametrize("document", [pytest.param(path, id=str(path.relative_to(ROOT))) for path in documents()])
def test_each_link_within_the_repository_leads_to_something(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for block in code_blocks(document):
        text = text.replace(block.text, "")
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text))
    local = [target.partition("#")[0] for target in targets if "://" not in target and not target.startswith("mailto:")]
    missing = [target for target in local if target and not (document.parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("script", ["demo", "test", "check"])
def test_the_scripts_that_the_readme_names_exist(script: str) -> None:
    assert f"scripts/{script}" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert os.access(ROOT / "scripts" / script, os.X_OK)
