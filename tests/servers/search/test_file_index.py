"""memento_search.file_index: what its tables promise, below the server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from memento_search.file_index import FileIndex, ReadFile
from memento_search.folder_scan import FoundFile, Scan
from memento_search.passages import Passage

FOUND = FoundFile("text", 7, 1_000_000_000)


def read_file(path: str, text: str) -> ReadFile:
    return ReadFile(path, FOUND, 9_000_000_000, "0" * 64, [Passage(text, first_line=1, last_line=1)])


def test_a_transaction_that_fails_half_way_leaves_nothing_behind(tmp_path: Path) -> None:
    index = FileIndex(tmp_path)
    index.store([read_file("/lib/a.txt", "before")])

    def files() -> Iterator[ReadFile]:
        yield read_file("/lib/a.txt", "after")
        yield read_file("/lib/b.txt", "after")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        index.store(files())
    assert index.search("after", roots=[Path("/lib")], limit=5).total == 0
    assert index.search("before", roots=[Path("/lib")], limit=5).total == 1


def test_forgetting_what_is_gone_from_one_folder_leaves_its_namesakes_alone(tmp_path: Path) -> None:
    index = FileIndex(tmp_path)
    paths = ["/lib/a.txt", "/lib-private/a.txt", "/lib2/a.txt", "/lib.txt", "/li/a.txt"]
    index.store([read_file(path, "word") for path in paths])
    assert index.outdated(Scan(), [Path("/lib")], reader=None) == {}
    assert [index.overview([Path(path)])[0] for path in paths] == [0, 1, 1, 1, 1]


def test_a_hit_beyond_the_words_of_its_file_is_never_returned_for_another_folder(tmp_path: Path) -> None:
    index = FileIndex(tmp_path)
    index.store([read_file("/lib/a.txt", "word one"), read_file("/lib-private/a.txt", "word two")])
    found = index.search("word", roots=[Path("/lib")], limit=5)
    assert ([hit.path for hit in found.hits], found.total) == (["/lib/a.txt"], 1)


def test_a_replaced_file_leaves_no_word_behind(tmp_path: Path) -> None:
    """FTS5 keeps words of a deleted row unless it is told each old value exactly."""
    index = FileIndex(tmp_path)
    for text in ("gannet tideTable 潮汐", "puffin", "gannet"):
        index.store([read_file("/lib/a.txt", text)])
    roots = [Path("/lib")]
    assert [index.search(word, roots=roots, limit=5).total for word in ("gannet", "puffin", "table", "潮汐")] == [
        1,
        0,
        0,
        0,
    ]


def test_the_more_telling_passage_comes_first(tmp_path: Path) -> None:
    index = FileIndex(tmp_path)
    index.store(
        [
            read_file("/lib/a.txt", "tides and tides and tides, more about tides"),
            read_file("/lib/b.txt", "the range of tides at Burntcoat Head"),
            read_file("/lib/burntcoat.txt", "a place"),
        ]
    )
    found = index.search("range of tides at burntcoat", roots=[Path("/lib")], limit=3)
    assert found.hits[0].path == "/lib/b.txt"


def test_in_a_large_index_a_telling_word_decides_and_common_words_alone_still_find(tmp_path: Path) -> None:
    index = FileIndex(tmp_path)
    index.store(read_file(f"/lib/{number}.txt", "the boat sails in the bay") for number in range(6000))
    index.store([read_file("/lib/x.txt", "a boat with a lateen rig"), read_file("/lib/y.txt", "lateen")])
    found = index.search("boat in the bay with lateen rig", roots=[Path("/lib")], limit=10)
    assert ([hit.path for hit in found.hits], found.total) == (["/lib/x.txt", "/lib/y.txt"], 2)
    assert index.search("boat bay", roots=[Path("/lib")], limit=10).total == 6001
    index.store([read_file("/lib/z.txt", "bay")])
    assert index.search("lateen bay", roots=[Path("/lib")], limit=10).total == 2
    index.store(read_file(f"/lib/lateen {number}.txt", "lateen") for number in range(7000))
    again = index.search("lateen bay rig", roots=[Path("/lib")], limit=10)
    assert (again.hits[0].path, again.total) == ("/lib/x.txt", 1)
    assert index.search("boat sails", roots=[Path("/lib")], limit=10).total == 6000
    inside = index.search("lateen bay", roots=[Path("/lib/x.txt")], limit=10)
    assert [hit.path for hit in inside.hits] == ["/lib/x.txt"]
