"""memento_kit.paths: what a model may and may not reach by naming a path."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memento_kit import AllowedPaths, PathNotAllowed, memento_home


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """`open/` is allowed, `secret/` beside it is not; links lead from one into the other."""
    (tmp_path / "open" / "deep").mkdir(parents=True)
    (tmp_path / "open" / "report.pdf").write_text("report")
    (tmp_path / "open" / "deep" / "notes.txt").write_text("notes")
    (tmp_path / "opener").mkdir()
    (tmp_path / "opener" / "other.txt").write_text("a name that starts like an allowed one")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key.txt").write_text("key")
    (tmp_path / "open" / "link-out").symlink_to(tmp_path / "secret")
    (tmp_path / "open" / "key-link").symlink_to("../secret/key.txt")
    (tmp_path / "open" / "link-in").symlink_to("deep/notes.txt")
    (tmp_path / "open" / "loop").symlink_to("loop")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "real"),
    [
        ("report.pdf", "open/report.pdf"),
        ("deep/notes.txt", "open/deep/notes.txt"),
        ("deep/../report.pdf", "open/report.pdf"),
        ("./deep", "open/deep"),
        (".", "open"),
        ("link-in", "open/deep/notes.txt"),
        ("../open/report.pdf", "open/report.pdf"),
    ],
)
def test_a_path_inside_is_found_however_it_is_spelled(house: Path, path: str, real: str) -> None:
    allowed = AllowedPaths([house / "open"])
    assert allowed.resolve(path) == house / real
    assert allowed.resolve(str(house / "open" / path)) == house / real


@pytest.mark.parametrize(
    "path",
    [
        "../secret/key.txt",
        "deep/../../secret/key.txt",
        "link-out/key.txt",
        "link-out",
        "key-link",
        "../opener/other.txt",
        "..",
        "/etc/passwd",
        "~/.ssh/id_rsa",
        "//etc/passwd",
    ],
)
def test_a_path_outside_is_refused_whether_or_not_it_is_there(house: Path, path: str) -> None:
    with pytest.raises(PathNotAllowed, match="outside the allowed folders"):
        AllowedPaths([house / "open"]).resolve(path)


@pytest.mark.parametrize(
    "path",
    ["report.pdf\x00.txt", "\x00", "x" * 5000, "deep/" * 3000, "\ud800", "~nobody-of-that-name/x", "loop", "loop/x"],
)
def test_a_path_that_cannot_be_is_refused_and_not_a_crash(house: Path, path: str) -> None:
    with pytest.raises(PathNotAllowed):
        AllowedPaths([house / "open"]).resolve(path)


@given(path=st.text(alphabet=st.one_of(st.characters(codec=None), st.sampled_from("./~\x00")), max_size=60))
def test_any_text_is_a_path_inside_or_a_refusal(tmp_path_factory: pytest.TempPathFactory, path: str) -> None:
    root = tmp_path_factory.getbasetemp()
    try:
        found = AllowedPaths([root]).resolve(path)
    except PathNotAllowed:
        return
    assert found == root or root in found.parents


def test_a_missing_file_inside_is_told_apart_from_one_outside(house: Path) -> None:
    with pytest.raises(PathNotAllowed, match=r"There is no file or folder 'deep/gone\.txt'\. Allowed: .*open\."):
        AllowedPaths([house / "open"]).resolve("deep/gone.txt")


def test_folders_are_tried_in_order_until_the_path_exists(house: Path) -> None:
    allowed = AllowedPaths([house / "open", house / "opener"])
    assert allowed.resolve("other.txt") == house / "opener" / "other.txt"


def test_a_single_file_can_be_allowed_and_named_by_its_end_without_opening_its_folder(house: Path) -> None:
    allowed = AllowedPaths([house / "open" / "deep" / "notes.txt"])
    assert allowed.resolve("notes.txt") == allowed.resolve("deep/notes.txt") == house / "open" / "deep" / "notes.txt"
    for path in ("report.pdf", "../report.pdf", str(house / "open" / "deep"), "otes.txt"):
        with pytest.raises(PathNotAllowed):
            allowed.resolve(path)


def test_a_root_that_is_itself_a_link_opens_what_it_leads_to(house: Path) -> None:
    (house / "alias").symlink_to("open")
    allowed = AllowedPaths([house / "alias"])
    assert allowed.resolve("report.pdf") == house / "open" / "report.pdf"
    with pytest.raises(PathNotAllowed):
        allowed.resolve("../secret/key.txt")


def test_nothing_is_allowed_until_the_operator_allows_it(house: Path) -> None:
    with pytest.raises(PathNotAllowed, match="No folder is allowed here"):
        AllowedPaths([]).resolve(house / "open" / "report.pdf")


def test_memento_home_is_absolute_so_a_child_in_another_folder_finds_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEMENTO_HOME", "mine")
    assert memento_home() == tmp_path / "mine"
    monkeypatch.delenv("MEMENTO_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    if os.name == "posix" and os.uname().sysname == "Linux":
        assert memento_home() == tmp_path / "data" / "memento"
    assert not (tmp_path / "data").exists()
