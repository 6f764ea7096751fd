"""Each package is what its papers say: licence, changelog, dependencies, and who may import whom."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.repository import PACKAGES, ROOT, Package

ALL = pytest.mark.parametrize("package", [pytest.param(package, id=name) for name, package in PACKAGES.items()])
DOCUMENTS = "memento-documents"
HEADINGS = {"Security", "Removed", "Deprecated", "Added", "Changed", "Fixed"}
"""Those of https://keepachangelog.com."""

MAY_IMPORT = {
    "memento_kit": set[str](),
    "memento_search": {"memento_kit"},
    "memento_crawl": {"memento_kit"},
    "memento_documents": {"memento_kit"},
    "memento_code": {"memento_kit"},
    "memento_casebank": {"memento_kit"},
    "memento": {"memento_kit"},
}
"""Package → the others it may import. Imports go one way (docs/design)."""
MAY_IMPORT_LAZILY = {("memento_search", "memento_documents"), ("memento_crawl", "memento_documents")}
"""With an extra, and only inside a function: these parse PDF and office files when that package is there."""


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Each top-level module that a file imports, and whether it does so inside a function."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    inside = {id(node) for each in ast.walk(tree) if isinstance(each, functions) for node in ast.walk(each)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        else:
            continue
        for name in names:
            yield name.partition(".")[0], id(node) in inside


@ALL
def test_imports_go_one_way(package: Package) -> None:
    ours = set(MAY_IMPORT) - {package.module}
    for source in package.sources():
        for module, inside_function in imports(source):
            if module in ours and module not in MAY_IMPORT[package.module]:
                assert (package.module, module) in MAY_IMPORT_LAZILY, f"{source} imports {module}"
                assert inside_function, f"{source} imports {module} at its top"


@ALL
def test_only_documents_needs_pymupdf_to_run(package: Package) -> None:
    """PyMuPDF is AGPL-3.0: what imports it, or needs what imports it, would be too."""
    if package.name == DOCUMENTS:
        assert any(module == "pymupdf" for source in package.sources() for module, _ in imports(source))
        return
    for source in package.sources():
        assert not {"pymupdf", "fitz"} & {module for module, _ in imports(source)}, source
    needed = {re.split(r"[^A-Za-z0-9_.-]", dependency)[0].lower() for dependency in package.project["dependencies"]}
    assert not needed & {"pymupdf", DOCUMENTS}


@ALL
def test_the_licence_is_apache_but_for_documents(package: Package) -> None:
    expected = "AGPL-3.0-or-later" if package.name == DOCUMENTS else "Apache-2.0"
    assert package.project["license"] == expected


def test_the_licence_texts_are_there_whole() -> None:
    apache = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert re.search(r"Apache License\s+Version 2\.0, January 2004", apache)
    assert "END OF TERMS AND CONDITIONS" in apache
    agpl = PACKAGES[DOCUMENTS].read("LICENSE")
    assert re.search(r"GNU AFFERO GENERAL PUBLIC LICENSE\s+Version 3, 19 November 2007", agpl)
    assert "13. Remote Network Interaction" in agpl
    assert "END OF TERMS AND CONDITIONS" in agpl


@pytest.mark.parametrize(
    "folder", [ROOT, *(package.folder for package in PACKAGES.values())], ids=lambda path: path.name
)
def test_there_is_a_changelog_with_an_unreleased_section(folder: Path) -> None:
    lines = (folder / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# Changelog"
    assert any(re.fullmatch(r"## \[?Unreleased\]?", line) for line in lines)
    assert {line.removeprefix("### ") for line in lines if line.startswith("### ")} <= HEADINGS


@ALL
def test_a_package_is_described_typed_and_started_by_its_own_command(package: Package) -> None:
    project = package.project
    assert project["readme"] == "README.md"
    assert project["requires-python"] == ">=3.11"
    assert len(project["description"]) <= 100  # the registry of MCP servers takes no more
    assert (package.folder / "src" / package.module / "py.typed").exists()
    if package.module != "memento_kit":
        assert list(project["scripts"]) == [package.name.replace("-agent", "")]


@ALL
def test_every_dependency_has_a_floor(package: Package) -> None:
    """Without one, an old environment gets a version nobody here ever ran."""
    project = package.project
    extras = [dependency for extra in project.get("optional-dependencies", {}).values() for dependency in extra]
    loose = [each for each in [*project["dependencies"], *extras] if not re.search(r">=|==", each)]
    assert [each for each in loose if not each.startswith("memento-")] == []


@ALL
def test_all_is_sorted_and_importable(package: Package) -> None:
    module = __import__(package.module)
    names: list[str] = getattr(module, "__all__", [])
    assert names == sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    assert [name for name in names if not hasattr(module, name)] == []
