"""memento_documents: view_page on images and Office files, through the server."""

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.types import CallToolResult, ImageContent, TextContent
from PIL import Image

from memento_documents.server import Settings, build_server
from support.office_files import docx_bytes

pytestmark = pytest.mark.anyio


async def views(folder: Path, *calls: dict[str, Any]) -> list[CallToolResult]:
    async with Client(build_server(Settings(folders=(folder,), max_megapixels=0.25, soffice=""))) as client:
        return [await client.call_tool("view_page", arguments) for arguments in calls]


def picture(result: CallToolResult) -> Image.Image:
    assert not result.is_error, result.content
    assert isinstance(result.content[1], ImageContent)
    shown = Image.open(io.BytesIO(base64.b64decode(result.content[1].data))).convert("RGB")
    assert result.structured_content is not None
    assert (result.structured_content["width"], result.structured_content["height"]) == shown.size
    return shown


def told(result: CallToolResult) -> str:
    assert result.is_error
    assert isinstance(result.content[0], TextContent)
    return result.content[0].text


async def test_an_image_and_a_region_of_it_are_shown_in_bounded_size(tmp_path: Path) -> None:
    half = Image.new("RGB", (2_000, 1_000), "red")
    half.paste("blue", (1_000, 0, 2_000, 1_000))
    for name in ("wide.png", "wide.jpg"):
        half.save(tmp_path / name)
    Image.new("L", (8, 8), 0).save(tmp_path / "two.tif", save_all=True, append_images=[Image.new("L", (6, 6), 255)])
    (tmp_path / "report.docx").write_bytes(docx_bytes())
    png, jpeg, region, last, beyond, empty, office = await views(
        tmp_path,
        {"source": "wide.png"},
        {"source": "wide.jpg", "region": [0, 0, 0.25, 1]},
        {"source": "wide.png", "region": [0.75, 0, 1, 0.5]},
        {"source": "two.tif", "page": 2},
        {"source": "two.tif", "page": 3},
        {"source": "wide.png", "region": [0.5, 0, 0.5, 1]},
        {"source": "report.docx"},
    )
    whole = picture(png)
    assert 0.2e6 < whole.width * whole.height <= 0.25e6
    red, blue = whole.getpixel((5, 5)), whole.getpixel((whole.width - 5, 5))
    assert red == (254, 0, 0)
    assert blue == (0, 0, 254)
    assert picture(jpeg).getpixel((5, 5)) == (254, 0, 0)
    assert picture(region).size == (500, 500)
    assert picture(region).getpixel((5, 5)) == (0, 0, 254)
    assert picture(last).getpixel((3, 3)) == (255, 255, 255)
    assert last.structured_content is not None
    assert (last.structured_content["page"], last.structured_content["total"]) == (2, 2)
    assert "pages 1-2" in told(beyond)
    assert "[0, 0, 1, 0.5]" in told(empty)
    assert "LibreOffice is not installed" in told(office)


async def test_a_photograph_taken_sideways_is_shown_upright_whole_and_in_part(tmp_path: Path) -> None:
    upright = Image.new("RGB", (100, 200), "red")  # blue below
    upright.paste("blue", (0, 100, 100, 200))
    as_stored = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by a quarter, clockwise
    as_stored.save(tmp_path / "photo.jpg", exif=exif, quality=95)
    as_stored.save(tmp_path / "damaged.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff", quality=95)
    whole, lower, damaged = await views(
        tmp_path,
        {"source": "photo.jpg"},
        {"source": "photo.jpg", "region": [0, 0.6, 1, 1]},
        {"source": "damaged.jpg"},
    )
    shown = picture(whole)
    assert shown.size == (100, 200)
    assert [shown.getpixel((50, y)) for y in (20, 180)] == [(254, 0, 0), (0, 0, 254)]
    part = picture(lower)
    assert part.size == (100, 80)
    assert part.getpixel((50, 40)) == (0, 0, 254)
    assert picture(damaged).size == (200, 100)
