"""Long results: what the model is given, what is kept, and every way to read on."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.server import MCPServer
from mcp.types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from memento.events import ToolReturned
from memento.outcomes import FilePart, ToolOutcome, read_result
from memento.results import READ_RESULT, ResultStore
from memento.synopsis import as_json, as_table, synopsis
from memento.tokens import count_tokens
from support.scripted_model import answers, calls, plans, says, scene

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
ROWS = [{"id": number, "name": f"item {number}", "tags": ["a", "b"]} for number in range(50_000)]


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    return ResultStore(tmp_path, 4_000)


def read(store: ResultStore, **arguments: Any) -> ToolOutcome:
    return store.read(arguments)


def give(store: ResultStore, text: str, **more: Any) -> Any:
    return store.give(ToolOutcome(text, **more), source="web__read", name="1.1.1.0-web__read")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param(
            json.dumps({"items": ROWS[:20], "next": None}),
            "JSON: {items: list of 20 × {id: number, name: text, tags: list of 2 × text}, next: null}",
            id="json",
        ),
        pytest.param("\n".join(json.dumps(row) for row in ROWS[:5]), "JSON: list of 5 × {id: number", id="json lines"),
        pytest.param("a;b\n1;2\n3;4\n5;6", "table: 3 rows, columns a, b", id="csv with semicolons"),
        pytest.param(
            'name,place\n"Po, river",Italy\nSeine,France', "table: 2 rows, columns name, place", id="quoted csv"
        ),
        pytest.param("| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |", "table: 2 rows, columns a, b", id="markdown table"),
        pytest.param("# One\ntext\n## Two\ntext", "text: 4 lines, 2 headings: # One; ## Two", id="headings"),
        pytest.param("Dear all,\nno table here, only words.", "text: 2 lines", id="prose with commas"),
        pytest.param("{not json", "text: 1 lines", id="broken json"),
    ],
)
def test_a_synopsis_says_what_a_text_is(text: str, told: str) -> None:
    assert synopsis(text).startswith(told)


@given(st.text() | st.from_regex(r"(\{\"a\":)*[\[\]{},:\"a1]*", fullmatch=True) | st.just("[" * 100_000))
def test_a_synopsis_is_short_and_never_fails(text: str) -> None:
    assert len(synopsis(text)) <= 900


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n\x00"), min_size=1), min_size=2, max_size=5)
)
def test_a_table_that_was_written_as_csv_is_read_back(cells: list[str]) -> None:
    import csv
    import io

    out = io.StringIO()
    header = [f"c{number}" for number in range(len(cells))]
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows([header, cells, cells])
    table = as_table(out.getvalue())
    assert table is not None
    assert (table.columns, table.rows) == (header, [cells, cells])


def test_a_short_result_is_given_whole_and_nothing_is_stored(store: ResultStore, tmp_path: Path) -> None:
    given_ = give(store, "short")
    assert "short" in given_.text
    assert (given_.stored_as, given_.files, list(tmp_path.iterdir())) == (None, (), [])


def test_a_stored_result_is_read_by_range_to_its_end(store: ResultStore) -> None:
    text = "".join(f"line {number}\n" for number in range(2_000))
    stored = give(store, text).stored_as
    found, offset = "", 0
    while True:
        page = read(store, result=stored, offset=offset).text
        note, _, rest = page.partition("\n")
        found += rest.split("\n", 1)[1].rsplit("\n</outside-text", 1)[0]
        if "this is the end" in note:
            break
        offset = int(note.split("continue with offset=")[1].rstrip("]"))
    assert found == text


def test_a_table_is_read_by_rows_and_columns(store: ResultStore) -> None:
    text = "name\tcountry\tkm\n" + "".join(f"river {n}\tland {n}\t{n}\n" for n in range(1_000))
    stored = give(store, text).stored_as
    assert "rows 40 to 42 of 1000\nname\tkm\nriver 40\t40\nriver 41\t41\n" in (
        read(store, result=stored, rows="40:42", columns=["name", "km"]).text
    )
    wrong = read(store, result=stored, columns=["length"])
    assert (wrong.is_error, wrong.text) == (True, "There is no column 'length'. There are: name, country, km.")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"result": "none.txt"}, "There is no stored result 'none.txt'. Stored: results/1.1.1.0-web__read.txt."),
        ({"result": "../events.jsonl"}, "There is no stored result '../events.jsonl'."),
        ({}, "Invalid arguments for run__read_result: result: Field required"),
        ({"offset": -1, "result": "x"}, "Invalid arguments for run__read_result: offset:"),
        ({"pattern": "(", "result": "r"}, "The pattern is no regular expression"),
        ({"json_path": "$.a", "result": "r"}, "This result is not JSON; read it by offset or pattern."),
        ({"rows": "0:5", "result": "r"}, "This result is not one table; read it by offset or pattern."),
        ({"rows": "first", "result": "r"}, "Invalid arguments for run__read_result: rows:"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_told_in_one_line_with_what_to_do(
    store: ResultStore, arguments: dict[str, Any], told: str
) -> None:
    stored = give(store, "x y " * 2_000).stored_as
    asked = {key: stored if value == "r" else value for key, value in arguments.items()}
    outcome = store.read(asked)
    assert outcome.is_error
    assert outcome.text.startswith(told)
    assert "\n" not in outcome.text


def test_a_pattern_that_backtracks_for_ever_is_given_up(store: ResultStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memento.results._PATTERN_SECONDS", 0.05)
    stored = give(store, "a" * 5_000 + "b").stored_as
    outcome = read(store, result=stored, pattern="(a|aa)+$")
    assert (outcome.is_error, outcome.text) == (True, "The pattern searched for over 0.05 s; use a simpler one.")


def test_what_a_json_path_or_a_pattern_finds_is_bounded(store: ResultStore) -> None:
    stored = give(store, json.dumps(ROWS)).stored_as
    assert len(read(store, result=stored, json_path="$..*").text) < 5_000
    assert len(read(store, result=stored, pattern=".").text) < 5_000
    assert read(store, result=stored, json_path="$[").is_error


def test_json_that_is_nested_too_deep_is_told_and_not_a_crash(store: ResultStore) -> None:
    stored = give(store, "[" * 900 + "1" + "]" * 900 + " " * 5_000).stored_as
    assert read(store, result=stored, json_path="$..*").is_error


def test_all_parts_of_a_result_are_kept() -> None:
    result = CallToolResult(
        content=[
            TextContent(text="one"),
            ImageContent(data=base64.b64encode(PIXEL).decode(), mime_type="image/png"),
            AudioContent(data=base64.b64encode(b"RIFF").decode(), mime_type="audio/wav"),
            ResourceLink(uri="https://a.test/x", name="x", description="the rest"),
            EmbeddedResource(resource=TextResourceContents(uri="a:1", text="two")),
            EmbeddedResource(resource=BlobResourceContents(uri="a:2", blob=base64.b64encode(b"\0\1").decode())),
        ],
        structured_content={"n": 1},
    )
    outcome = read_result(result)
    assert outcome.text == "one\n[resource: https://a.test/x the rest]\ntwo"
    assert outcome.structured == {"n": 1}
    assert outcome.files == (
        FilePart("image/png", PIXEL), FilePart("audio/wav", b"RIFF"), FilePart("application/octet-stream", b"\0\1"),
    )  # fmt: skip


def test_images_are_stored_as_files_and_named_to_the_model(store: ResultStore, tmp_path: Path) -> None:
    told = give(store, "a chart", files=(FilePart("image/png", PIXEL), FilePart("x/y", b"1")))
    first, second = told.files
    assert (first.name, second.name) == ("results/1.1.1.0-web__read-1.png", "results/1.1.1.0-web__read-2.bin")
    assert (tmp_path / first.name).read_bytes() == PIXEL
    assert f"[image/png, {len(PIXEL)} bytes, stored as {first.name}]" in told.text
    assert store.data_url(first) == f"data:image/png;base64,{base64.b64encode(PIXEL).decode()}"
    binary = read(store, result=first.name)
    assert (binary.is_error, "is no text" in binary.text) == (True, True)


def test_structured_content_that_says_more_than_the_text_is_kept_beside_it(store: ResultStore, tmp_path: Path) -> None:
    told = give(store, "words " * 2_000, structured={"rows": [1, 2]})
    (shape,) = told.files
    assert json.loads((tmp_path / shape.name).read_text(encoding="utf-8")) == {"rows": [1, 2]}
    assert f"[the same as JSON, for json_path: {shape.name}]" in told.text
    assert "2" in read(store, result=shape.name, json_path="$.rows[1]").text
    assert give(store, '{"rows": [1]}', structured={"rows": [1]}).files == ()
    assert give(store, "5", structured={"result": 5}).files == ()


def test_a_result_that_was_put_away_is_read_from_where_it_lies(store: ResultStore) -> None:
    whole = "short enough " * 50
    stands = store.put_away(give(store, whole).text)
    stored = stands.split("result='")[1].split("'")[0]
    assert whole.strip() in read(store, result=stored).text
    cut = give(store, "long " * 5_000)
    assert f"result={cut.stored_as!r}" in store.put_away(cut.text), "it is stored already"
    assert as_json(whole) is None


@pytest.mark.anyio
async def test_images_reach_a_model_that_takes_them_after_the_results_of_their_turn(tmp_path: Path) -> None:
    server: MCPServer[Any] = MCPServer("draw")

    @server.tool()
    def chart() -> CallToolResult:
        """Draw."""
        image = ImageContent(data=base64.b64encode(PIXEL).decode(), mime_type="image/png")
        return CallToolResult(content=[TextContent(text="drawn"), image])

    script = [plans("x"), calls(("draw__chart", {}), ("draw__chart", {})), says("r"), answers("a")]
    async with scene(tmp_path, [*script, *script], servers={"draw": server}, executor_images=True) as play:
        await play.run()
        tools, shown = play.model.sent[2]["messages"][-3:-1], play.model.sent[2]["messages"][-1]
        assert [message["role"] for message in tools] == ["tool", "tool"]
        assert shown["role"] == "user"
        assert [part["type"] for part in shown["content"]] == ["text", "image_url"] * 2
        assert shown["content"][1]["image_url"]["url"].startswith("data:image/png;base64,iVBOR")
    files = [file for event in play.of(ToolReturned) for file in event.files]
    assert {(file.name, file.mime_type, file.size_bytes) for file in files} == {
        (f"results/1.1.1.{at}-draw__chart-1.png", "image/png", len(PIXEL)) for at in (0, 1)
    }
    async with scene(tmp_path, script, servers={"draw": server}) as play:
        await play.run()
    assert play.model.sent[2]["messages"][-1]["role"] == "tool"
    assert "stored as results/" in play.model.sent[2]["messages"][-1]["content"]
    assert READ_RESULT in str(play.model.sent[2]["tools"])


@pytest.mark.anyio
async def test_images_that_a_provider_would_refuse_are_named_and_not_shown(tmp_path: Path) -> None:
    server: MCPServer[Any] = MCPServer("draw")

    @server.tool()
    def charts(count: int, size_bytes: int) -> CallToolResult:
        """Draw."""
        image = ImageContent(data=base64.b64encode(PIXEL.ljust(size_bytes, b"\0")).decode(), mime_type="image/png")
        return CallToolResult(content=[image] * count)

    asked = [{"count": 1, "size_bytes": 3_500_001}, {"count": 9, "size_bytes": 99}]
    batch = calls(*[("draw__charts", arguments) for arguments in asked])
    script = [plans("x"), batch, says("r"), answers("a")]
    async with scene(tmp_path, script, servers={"draw": server}, executor_images=True) as play:
        await play.run()
    large, _, shown = play.model.sent[2]["messages"][-3:]
    assert "3,500,001 bytes, stored as results/1.1.1.0-draw__charts-1.png" in large["content"]
    names = [part["text"] for part in shown["content"] if part["type"] == "text"]
    assert names == [f"results/1.1.1.1-draw__charts-{number}.png:" for number in range(1, 9)]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        ("prose", {"pattern": "planted fact"}),
        ("json", {"json_path": "$.items[?@.id == 77777].fact"}),
        ("csv", {"rows": "77777:77778", "columns": ["fact"]}),
        ("prose", {"offset": 5_000_000}),
    ],
    ids=["pattern", "JSON path", "rows", "range"],
)
async def test_a_result_of_ten_megabytes_costs_less_than_two_thousand_tokens_and_the_fact_in_it_is_found(
    tmp_path: Path, kind: str, asked: dict[str, Any]
) -> None:
    fact = "the planted fact is 1847"
    server: MCPServer[Any] = MCPServer("big")

    @server.tool()
    def fetch(kind: str) -> str:
        """Fetch."""
        if kind == "prose":
            filler = "some filler words " * 277_800
            return f"{filler[:5_000_100]} {fact}. {filler}"
        rows = [
            {"id": n, "fact": fact if n == 77777 else "-", "more": "some filler words in a row " * 2}
            for n in range(110_000)
        ]
        if kind == "json":
            return json.dumps({"items": rows})
        return "id,fact,more\n" + "\n".join(
            f"{row['id']},{row['fact']},{'some filler words in a row ' * 3}" for row in rows
        )

    def reads(body: dict[str, Any]) -> dict[str, Any]:
        stored = str(body["messages"][-1]["content"]).split("[stored as ")[1].split("]")[0].split(",")[0]
        return calls((READ_RESULT, {"result": stored, **asked}))

    script = [plans("x"), calls(("big__fetch", {"kind": kind})), reads, says("r"), answers("a")]
    async with scene(tmp_path, script, servers={"big": server}) as play:
        await play.run()
    whole, found = play.of(ToolReturned)

    assert whole.stored_as is not None
    path = play.journal.run_folder(play.journal.runs()[0].run_id) / whole.stored_as
    assert path.stat().st_size > 9_000_000
    assert fact in found.text, found.text
    told = [whole.text] if "offset" in asked else [whole.text, found.text]
    assert count_tokens("".join(told)) < 2_000, told
    assert len("".join(told).encode()) / 2.5 < 2_000, (
        "no common tokenizer needs more than a token for 2.5 bytes of this"
    )


@pytest.mark.anyio
async def test_a_resource_that_a_tool_linked_to_is_read_like_a_result(tmp_path: Path) -> None:
    server: MCPServer[Any] = MCPServer("site")
    fetched: list[str] = []

    @server.resource("page://{name}", mime_type="text/markdown")
    def page(name: str) -> str:
        fetched.append(name)
        return "filler\n" * 5_000 + f"The planted fact of {name} is 1847.\n"

    @server.resource("picture://{name}", mime_type="image/png")
    def picture(name: str) -> bytes:
        return PIXEL

    @server.tool()
    def crawl() -> CallToolResult:
        """Crawl."""
        uris = ["page://one", "picture://p", "page://gone/away"]
        links = [ResourceLink(uri=uri, name=uri.partition("://")[2]) for uri in uris]
        return CallToolResult(content=[TextContent(text="3 pages"), *links])

    reads = [
        {"result": "page://one", "pattern": "planted"},
        {"result": "page://one", "offset": 30_000},
        {"result": "picture://p"},
        {"result": "page://gone/away"},
        {"result": "page://two"},
    ]
    script = [plans("x"), calls(("site__crawl", {}))]
    script += [calls((READ_RESULT, asked)) for asked in reads]
    async with scene(
        tmp_path, [*script, says("r"), answers("a")], servers={"site": server}, executor_images=True
    ) as play:
        await play.run()
    crawled, found, paged, drawn, gone, unlinked = play.of(ToolReturned)

    assert "[resource: page://one one]" in crawled.text
    assert "The planted fact of one is 1847." in found.text
    assert len(found.text) < 1_000
    assert "characters 30000 to " in paged.text
    assert fetched == ["one"], "it is fetched once and then read from the run's folder"
    assert [(file.mime_type, file.size_bytes) for file in drawn.files] == [("image/png", len(PIXEL))]
    assert play.model.sent[5]["messages"][-1]["content"][1]["type"] == "image_url"
    assert gone.is_error
    assert gone.text.startswith("page://gone/away could not be read: ")
    assert (unlinked.is_error, unlinked.text) == (True, "No tool of this run has linked to page://two.")


def test_the_tool_to_read_on_is_made_once_a_run(tmp_path: Path) -> None:
    store = ResultStore(tmp_path, max_chars=1_000)
    assert store.tool is store.tool
