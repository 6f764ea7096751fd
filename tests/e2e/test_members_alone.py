"""Each package, built as a wheel and installed into an environment that holds nothing else of ours but the kit.

In the workspace everything is importable by everybody; only this shows a dependency that a package forgot to declare.
"""

import os
import shutil
import subprocess
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

from support.repository import PACKAGES, ROOT, Package

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

KIT = "memento-kit"
ALL = pytest.mark.parametrize("package", [pytest.param(package, id=name) for name, package in PACKAGES.items()])


def uv() -> str:
    private = ROOT / ".tools" / "bin" / "uv"
    found = str(private) if private.exists() else shutil.which("uv")
    assert found, "no uv; run scripts/setup"
    return found


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command without anything that could lend it this repository's packages; its output."""
    hidden = {"PYTHONPATH", "VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    if Path("/etc/ssl/certs/ca-certificates.crt").exists():  # as scripts/setup does
        environment.setdefault("UV_SYSTEM_CERTS", "true")
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, encoding="utf-8", timeout=500
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One wheel per package, all of the same build."""
    folder = tmp_path_factory.mktemp("wheels")
    run(uv(), "build", "--quiet", "--wheel", "--all-packages", "--out-dir", folder, cwd=ROOT)
    return {wheel.name.split("-")[0].replace("_", "-"): wheel for wheel in folder.glob("*.whl")}


@ALL
def test_a_package_alone_is_enough_to_import_it_and_to_start_its_command(
    package: Package, wheels: dict[str, Path], tmp_path: Path
) -> None:
    run(uv(), "venv", "--quiet", "env", cwd=tmp_path)
    python = tmp_path / "env" / "bin" / "python"
    run(uv(), "pip", "install", "--quiet", "--python", python, *{wheels[package.name], wheels[KIT]}, cwd=tmp_path)

    shown = run(python, "-I", "-c", f"import {package.module}; print({package.module}.__file__)", cwd=tmp_path)
    assert Path(shown.strip()).is_relative_to(tmp_path / "env")
    for command in package.project.get("scripts", {}):
        version = run(tmp_path / "env" / "bin" / command, "--version", cwd=tmp_path)
        assert package.project["version"] in version

    installed = run(uv(), "pip", "freeze", "--quiet", "--python", python, cwd=tmp_path).lower()
    others = [name for name in PACKAGES if name not in {package.name, KIT} and f"{name} @" in installed]
    assert others == []
    assert ("pymupdf==" in installed) == (package.name == "memento-documents")


@ALL
def test_a_wheel_holds_the_package_its_readme_and_its_licence_and_nothing_else(
    package: Package, wheels: dict[str, Path]
) -> None:
    with zipfile.ZipFile(wheels[package.name]) as wheel:
        names = wheel.namelist()
        metadata = HeaderParser().parsestr(
            wheel.read(next(name for name in names if name.endswith(".dist-info/METADATA"))).decode()
        )
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {package.module}
    assert f"{package.module}/py.typed" in names
    assert metadata["License-Expression"] == package.project["license"]
    assert any(name.endswith("/licenses/LICENSE") for name in names), "the licence asks for its text to come along"
    assert package.read("README.md").strip() in metadata.get_payload()  # pyright: ignore[reportOperatorIssue, reportUnknownMemberType]
