"""memento_documents: the README's table of licences names every package that is installed with it, and its licence."""

import importlib.metadata
import re

from packaging.requirements import Requirement

from support.repository import ROOT

EMPTY_METADATA = {"pymupdf4llm": "AGPL", "pymupdf-layout": "AGPL"}
"""Their code is in pymupdf's wheel; their own metadata says nothing."""


def installed() -> dict[str, importlib.metadata.Distribution]:
    """The package's requirements with their requirements, as far as they apply here; with both extras."""
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = [("memento-documents", "media"), ("memento-documents", "xls")]
    while waiting:
        name, extra = waiting.pop()
        if name in found and not extra:
            continue
        found[name] = importlib.metadata.distribution(name)
        for text in found[name].requires or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                waiting.append((re.sub(r"[-_.]+", "-", requirement.name).lower(), ""))
    del found["memento-documents"]
    return found


def licence_of(name: str, distribution: importlib.metadata.Distribution) -> str:
    metadata = distribution.metadata
    said = metadata["License-Expression"] or metadata["License"] or ""
    return EMPTY_METADATA.get(name, said)


def words(licence: str) -> set[str]:
    """`MIT License` and `MIT` are one; `3-Clause BSD License` and `BSD-3-Clause` too."""
    licence = licence.replace("GNU AFFERO GPL", "AGPL").replace("BSD License", "BSD")
    return set(re.findall(r"agpl|apache|bsd|mit-cmu|mit|psf|0bsd|zlib|cc0", licence.lower()))


def test_each_installed_package_stands_in_the_table_under_its_own_licence() -> None:
    readme = (ROOT / "servers/documents/README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", readme.partition("### Licences of what it installs")[2], re.M)
    listed = {
        name: licence
        for licence, names in rows
        for name in re.findall(r"[a-z][a-z0-9-]+", re.sub(r"\([^)]*\)", "", names))
    }
    packages = installed()
    assert {"pymupdf", "av", "xlrd"} <= packages.keys()
    for name, distribution in packages.items():
        said = licence_of(name, distribution)
        assert words(said) & words(listed.get(name, "")), (name, said, listed.get(name))


def test_what_the_readme_says_of_the_ffmpeg_in_pyavs_wheel_is_so() -> None:
    """It calls itself LGPL and is linked with two libraries under the GPL."""
    import av
    from av import _core  # pyright: ignore[reportMissingModuleSource]

    assert _core.library_meta["libavcodec"]["license"] == "LGPL version 3 or later"
    assert {"libx264", "libx265"} <= av.codecs_available
