"""memento_documents: cells with colours, pictures and speech put to a model, addresses, and the cache on disk."""

import base64
import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.types import CallToolResult, ImageContent, TextContent

from memento_documents.cell_details import read_cells, resolve_color
from memento_documents.isolation import Isolation
from memento_documents.media import pictures, sound
from memento_documents.server import Settings, build_server
from memento_kit import StartupError
from support.document_files import make_xlsx
from support.office_files import ROWS, gif_bytes, make_folder, png_bytes, video_bytes, wav_bytes, xls_bytes

pytestmark = pytest.mark.anyio

MODELS = {
    "vision_base_url": "http://models.example/v1",
    "vision_model": "eyes",
    "vision_api_key": "k1",
    "transcription_base_url": "http://models.example/v1/",
    "transcription_model": "ears",
}


def answering(seen: list[httpx2.Request], *answers: httpx2.Response) -> httpx2.MockTransport:
    waiting = list(answers)

    def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return waiting.pop(0)

    return httpx2.MockTransport(handle)


async def call(
    folder: Path,
    tool: str,
    arguments: dict[str, Any],
    *,
    settings: dict[str, Any] | None = None,
    transport: httpx2.AsyncBaseTransport | None = None,
    model_transport: httpx2.AsyncBaseTransport | None = None,
) -> CallToolResult:
    server = build_server(
        Settings(folders=(folder,), **(settings or {})), transport=transport, model_transport=model_transport
    )
    async with Client(server) as client:
        return await client.call_tool(tool, arguments)


def structured(result: CallToolResult) -> dict[str, Any]:
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


def said(result: CallToolResult) -> str:
    assert isinstance(result.content[0], TextContent)
    return result.content[0].text


def colored_workbook() -> bytes:
    import openpyxl
    from openpyxl.styles import Color, Font, PatternFill

    book: Any = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Map"
    sheet["A1"] = "Blue"
    sheet["A1"].fill = PatternFill("solid", fgColor="FF0000FF")
    sheet["A1"].font = Font(bold=True, color="FFFFFFFF")
    sheet["B1"].fill = PatternFill("solid", fgColor=Color(theme=4, tint=0.5999938962981048))
    sheet["C1"].fill = PatternFill("solid", fgColor=Color(indexed=10))
    sheet["A2"] = "=1/3"
    sheet["B2"] = 0.125
    sheet["B2"].number_format = "0%"
    sheet["A4"] = "wide"
    sheet.merge_cells("A4:C5")
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


def test_cells_come_with_what_is_shown_formula_colours_and_merged_ranges() -> None:
    answer = read_cells(io.BytesIO(colored_workbook()), "x", None, "A1:D6")
    cells = {
        cell.cell: {name: value for name, value in dataclasses.asdict(cell).items() if value not in (None, "", False)}
        for cell in answer.cells
    }
    assert answer.sheet == "Map"
    assert cells == {
        "A1": {"cell": "A1", "shown": "Blue", "fill": "0000FF", "font_color": "FFFFFF", "bold": True},
        "B1": {
            "cell": "B1",
            "fill": "B8CCE4",
        },  # accent 1, 4F81BD in openpyxl's theme, 60 % lighter
        "C1": {"cell": "C1", "fill": "FF0000"},
        "A2": {"cell": "A2", "formula": "=1/3"},  # openpyxl stored no result
        "B2": {"cell": "B2", "shown": "13%", "value": 0.125},
        "A4": {"cell": "A4", "shown": "wide", "merged": "A4:C5"},
    }


@pytest.mark.parametrize(
    ("base", "tint", "shown"),
    [
        ("4472C4", 0.7999816888943144, "D9E1F2"),
        ("4472C4", -0.249977111117893, "305496"),
        ("4472C4", -0.499984740745262, "203764"),
        ("ED7D31", 0.5999938962981048, "F8CBAD"),
        ("FFC000", 0.3999755851924192, "FFD966"),
        ("FFFFFF", -0.249977111117893, "BFBFBF"),
        ("000000", 0.499984740745262, "808080"),
    ],
)
def test_a_tint_gives_the_colour_of_excels_own_palette(base: str, tint: float, shown: str) -> None:
    from openpyxl.styles import Color

    color = resolve_color(Color(rgb=f"FF{base}", tint=tint), [], [])
    assert color is not None
    for at in (0, 2, 4):
        assert abs(int(color[at : at + 2], 16) - int(shown[at : at + 2], 16)) <= 2


async def test_read_cells_reads_on_and_says_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_bytes(colored_workbook())
    (tmp_path / "b.xls").write_bytes(xls_bytes(ROWS))
    first = structured(await call(tmp_path, "read_cells", {"source": "a.xlsx", "range": "A1:D6", "limit": 2}))
    assert ([cell["cell"] for cell in first["cells"]], first["total"]) == (["A1", "B1"], 6)
    rest = {"source": "a.xlsx", "range": "A1:D6", "cursor": first["next_cursor"]}
    assert [cell["cell"] for cell in structured(await call(tmp_path, "read_cells", rest))["cells"]] == [
        "C1", "A2", "B2", "A4",
    ]  # fmt: skip
    old = structured(await call(tmp_path, "read_cells", {"source": "b.xls", "range": "A1:B2"}))
    assert [cell["shown"] for cell in old["cells"]] == ["Port", "Ships", "Turku", "12"]
    assert "conditional formatting" in old["notes"][0]
    wrong = await call(tmp_path, "read_cells", {"source": "a.xlsx", "range": "A1", "sheet": "Nope"})
    assert wrong.is_error
    assert "the workbook has: 'Map'" in said(wrong)


async def test_a_large_workbook_answers_with_its_first_rows_and_is_searched_whole(tmp_path: Path) -> None:
    rows: list[list[object]] = [["number", "name"], *([at, f"row {at}"] for at in range(40_000))]
    rows[35_000][1] = "the needle"
    make_xlsx(tmp_path / "big.xlsx", {"Data": rows})
    first = structured(await call(tmp_path, "read_document", {"source": "big.xlsx", "max_chars": 20_000}))
    assert "| 98 | row 98 |" in first["text"]
    assert "| 99 |" not in first["text"]
    assert "Sheet 'Data' has 40001 rows; the first 100 are shown." in first["notes"][0]
    found = structured(await call(tmp_path, "search_document", {"source": "big.xlsx", "query": "needle"}))
    (hit,) = found["passages"]
    low, high = map(int, hit["range"].split(":"))
    assert low <= 35_001 <= high
    part = structured(
        await call(tmp_path, "read_document", {"source": "big.xlsx", "sheet": hit["sheet"], "range": hit["range"]})
    )
    assert "the needle" in part["text"]
    sql = "SELECT count(*), max(number) FROM data"
    assert structured(await call(tmp_path, "query_table", {"source": "big.xlsx", "sql": sql}))["rows"] == [
        [40_000, 39_999]
    ]


async def test_a_large_csv_answers_with_its_first_rows_is_read_by_range_and_searched_whole(tmp_path: Path) -> None:
    lines = ["number;name", *(f'{at};"row\n{at}"' for at in range(21_000))]
    lines[20_000] = "19999;the needle"
    (tmp_path / "big.csv").write_bytes("\r\n".join(lines).encode("utf-16"))
    first = structured(await call(tmp_path, "read_document", {"source": "big.csv", "max_chars": 20_000}))
    assert "| 98 | row 98 |" in first["text"]
    assert "| 99 |" not in first["text"]
    assert first["notes"][-1].startswith("The table has 42000 lines; rows 1-100 are shown.")
    part = {"source": "big.csv", "range": "20000:20002"}
    assert "| 19999 | the needle |" in structured(await call(tmp_path, "read_document", part))["text"]
    found = structured(await call(tmp_path, "search_document", {"source": "big.csv", "query": "needle"}))
    low, high = map(int, found["passages"][0]["range"].split(":"))
    assert low <= 20_001 <= high


async def test_a_picture_is_put_to_the_operators_model_with_the_question(tmp_path: Path) -> None:
    (tmp_path / "photo.PNG").write_bytes(png_bytes((4_000, 3_000)))
    seen: list[httpx2.Request] = []
    answer = httpx2.Response(200, json={"choices": [{"message": {"content": "Two boats."}}]})
    result = structured(
        await call(
            tmp_path,
            "describe_media",
            {"source": "photo.PNG", "question": "How many boats?"},
            settings=MODELS,
            model_transport=answering(seen, answer),
        )
    )
    assert (result["answer"], result["model"]) == ("Two boats.", "eyes")
    (request,) = seen
    assert str(request.url) == "http://models.example/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer k1"
    body = json.loads(request.content)
    text, picture = body["messages"][0]["content"]
    assert text["text"].startswith("How many boats?\n")
    assert "The harbour of Bergen in winter" in text["text"]
    from PIL import Image

    data = picture["image_url"]["url"].removeprefix("data:image/jpeg;base64,")
    with Image.open(io.BytesIO(base64.b64decode(data))) as sent:
        assert sent.format == "JPEG"
        assert 1_400_000 < sent.width * sent.height <= 1_500_000


async def test_without_a_model_the_pictures_themselves_come_and_what_is_missing_is_said(tmp_path: Path) -> None:
    make_folder(tmp_path)
    result = await call(tmp_path, "describe_media", {"source": "ferry.mkv", "question": "What?", "frames": 3})
    answer = structured(result)
    assert "MEMENTO_DOCUMENTS_VISION_BASE_URL" in answer["missing"]
    assert "answer" not in answer
    assert "Title: Ferry" in answer["facts"]
    assert len(answer["frame_seconds"]) == 3
    assert sum(isinstance(part, ImageContent) for part in result.content) == 3
    heard = structured(await call(tmp_path, "transcribe_audio", {"source": "tone.wav"}))
    assert "MEMENTO_DOCUMENTS_TRANSCRIPTION_BASE_URL" in heard["missing"]
    assert (heard["text"], heard["total"]) == ("", 2.0)
    wrong = await call(tmp_path, "describe_media", {"source": "ports.csv", "question": "What?"})
    assert wrong.is_error
    assert "not an image or a video" in said(wrong)


def test_frames_are_evenly_spaced_and_an_animation_has_frames_too() -> None:
    from PIL import Image

    def greys(taken: dict[str, Any]) -> list[int]:
        found: list[int] = []
        for each in taken["pictures"]:
            with Image.open(io.BytesIO(base64.b64decode(each["jpeg"]))) as picture:
                found.append(int(picture.convert("L").getpixel((4, 4))))  # type: ignore[arg-type]
        return found

    video = pictures(io.BytesIO(video_bytes(4)), "video", 4, 0.0, None, 500_000)
    assert [round(each["seconds"]) for each in video["pictures"]] == [0, 2, 2, 4]
    assert greys(video) == pytest.approx([0, 60, 120, 180], abs=12)
    late = pictures(io.BytesIO(video_bytes(4)), "video", 1, 3.0, 4.0, 500_000)
    assert greys(late) == pytest.approx([180], abs=12)
    assert greys(pictures(io.BytesIO(gif_bytes(4)), "image", 2, 0.0, None, 500_000)) == pytest.approx([0, 127], abs=6)


async def test_speech_is_sent_as_small_opus_and_comes_back_with_times(tmp_path: Path) -> None:
    (tmp_path / "talk.mp3").write_bytes(wav_bytes(3))
    seen: list[httpx2.Request] = []
    result = structured(
        await call(
            tmp_path,
            "transcribe_audio",
            {"source": "talk.mp3", "language": "no"},
            settings=MODELS,
            model_transport=answering(seen, httpx2.Response(200, json={"text": " God dag. "})),
        )
    )
    assert (result["text"], result["model"], result["end_seconds"]) == ("[0:00:00] God dag.", "ears", 3.0)
    assert "next_cursor" not in result
    (request,) = seen
    assert str(request.url) == "http://models.example/v1/audio/transcriptions"
    assert b'name="model"\r\n\r\nears' in request.content
    assert b'name="language"\r\n\r\nno' in request.content
    assert b"OggS" in request.content
    assert len(request.content) < 30_000  # 3 s of it are 48 KB as they came


def test_sound_is_cut_by_time() -> None:
    cut = sound(io.BytesIO(wav_bytes(4)), 1.0, 2.0)
    assert (cut["total_seconds"], cut["start_seconds"]) == (4.0, 1.0)
    assert cut["end_seconds"] == pytest.approx(3.0, abs=0.2)
    assert base64.b64decode(cut["ogg"]).startswith(b"OggS")
    assert sound(io.BytesIO(wav_bytes(1)), 5.0, 2.0)["ogg"] == ""


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (httpx2.Response(500, text="oh\nno"), "refused with HTTP 500: oh no"),
        (httpx2.Response(200, text="<html>"), "answered with something that is no JSON"),
        (httpx2.Response(200, json={"choices": []}), "gave no text"),
    ],
)
async def test_a_model_that_fails_is_named_and_the_facts_come_all_the_same(
    tmp_path: Path, answer: httpx2.Response, reason: str
) -> None:
    (tmp_path / "photo.png").write_bytes(png_bytes())
    result = await call(
        tmp_path,
        "describe_media",
        {"source": "photo.png", "question": "What?"},
        settings=MODELS,
        model_transport=answering([], answer),
    )
    assert result.is_error
    assert reason in said(result)
    assert "The harbour of Bergen in winter" in said(result)


def test_half_an_endpoint_is_refused_at_start_and_names_both_variables() -> None:
    with pytest.raises(StartupError, match="MEMENTO_DOCUMENTS_VISION_BASE_URL and MEMENTO_DOCUMENTS_VISION_MODEL"):
        Settings(vision_model="eyes")


async def test_a_document_at_an_address_is_fetched_once_and_read_like_a_file(tmp_path: Path) -> None:
    seen: list[httpx2.Request] = []
    transport = answering(seen, httpx2.Response(200, content=xls_bytes(ROWS)))
    async with Client(build_server(Settings(folders=(tmp_path,)), transport=transport)) as client:
        source = "https://example.org/files/ports.xls"
        document = structured(await client.call_tool("read_document", {"source": source}))
        rows = structured(
            await client.call_tool("query_table", {"source": source, "sql": "SELECT sum(ships) FROM old"})
        )
    assert (document["kind"], rows["rows"]) == ("xls", [[42]])
    assert [str(request.url) for request in seen] == [source]


@pytest.mark.parametrize("url", ["http://127.0.0.1/x", "http://169.254.169.254/latest", "https://10.0.0.1/a!/b"])
async def test_an_address_in_a_private_network_is_refused(tmp_path: Path, url: str) -> None:
    result = await call(tmp_path, "read_document", {"source": url})
    assert result.is_error
    assert "private" in said(result) or "not allowed" in said(result) or "address" in said(result)


async def test_another_server_reads_from_the_cache_on_disk_without_a_child(
    tmp_path: Path, memento_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.csv").write_bytes(b"x,y\n1,2\n")
    first = structured(await call(tmp_path, "read_document", {"source": "a.csv"}))
    (kept,) = (memento_home / "cache" / "documents").iterdir()
    assert kept.stat().st_mode & 0o077 == 0

    real_run: Callable[..., Any] = Isolation.run
    jobs: list[str] = []

    async def counted(self: Isolation, function: str, *rest: Any, **named: Any) -> Any:
        jobs.append(function)
        return await real_run(self, function, *rest, **named)

    monkeypatch.setattr(Isolation, "run", counted)
    assert structured(await call(tmp_path, "read_document", {"source": "a.csv"})) == first
    assert jobs == []
    kept.write_bytes(b"damaged")
    assert structured(await call(tmp_path, "read_document", {"source": "a.csv"})) == first
    await call(tmp_path, "read_document", {"source": "a.csv"}, settings={"cache_megabytes": 0})
    assert len(jobs) == 2


def test_the_cache_forgets_the_longest_unused_first(tmp_path: Path) -> None:
    import os

    from memento_documents.cache import DocumentCache

    cache = DocumentCache(tmp_path / "c", max_bytes=2_000)
    for at, key in enumerate(("a", "b", "c")):
        cache.put((key,), base64.b64encode(os.urandom(750)).decode())
        for path in (tmp_path / "c").iterdir():
            os.utime(path, (at, at)) if path.stat().st_mtime > 10 else None
    assert cache.get(("a",)) is None
    assert cache.get(("b",)) is not None
    assert cache.get(("c",)) is not None
