"""What a result is besides its text: tables of data frames, pictures of figures.

This file runs *inside* the sandbox, sent there as text. It imports no library by itself: what it shows comes from
libraries the session's code has imported already. Sizes are bounded here and once more on the host.
"""

from __future__ import annotations

import binascii
import io
import math
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` would take a tenth of a session's start
    from typing import Any

__all__ = ["figures", "rich"]

_MAX_IMAGES = 10
_MAX_IMAGE_BYTES = 2 << 20
_MAX_PIXELS = 2_000_000
_DPI = 100
_MAX_TABLE_ROWS = 50
_MAX_TABLE_COLUMNS = 40
_MAX_CELL_CHARS = 200


def rich(value: Any) -> dict[str, Any]:
    """The table or the picture that `value` is, as parts of an answer; empty when it is neither."""
    table = _table(value)
    if table is not None:
        return {"tables": [table]}
    if type(value).__name__ == "Figure" and hasattr(value, "savefig"):
        return {"images": _bounded([_png_of_figure(value)])}
    make_png = getattr(value, "_repr_png_", None)
    content: object = make_png() if callable(make_png) else None
    return {"images": _bounded([content])} if isinstance(content, bytes) else {}


def figures() -> dict[str, Any]:
    """The open figures of matplotlib, which are closed by this: each is shown once, by the run that drew it."""
    pyplot: Any = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return {}
    drawn = [_png_of_figure(pyplot.figure(number)) for number in pyplot.get_fignums()[:_MAX_IMAGES]]
    pyplot.close("all")
    return {"images": _bounded(drawn)} if drawn else {}


def _png_of_figure(figure: Any) -> bytes:
    width, height = figure.get_size_inches()
    dpi = min(_DPI, math.sqrt(_MAX_PIXELS / max(width * height, 1e-6)))
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi)
    return content.getvalue()


def _bounded(images: list[bytes]) -> list[str]:
    return [
        binascii.b2a_base64(image, newline=False).decode()
        for image in images[:_MAX_IMAGES]
        if len(image) <= _MAX_IMAGE_BYTES
    ]


def _table(value: Any) -> dict[str, Any] | None:
    """A pandas or polars data frame, or a pandas series; told by their classes, as neither may be imported here."""
    library, kind = type(value).__module__.partition(".")[0], type(value).__name__
    if library == "pandas" and kind == "Series":
        value = value.to_frame()
        kind = "DataFrame"
    if kind != "DataFrame" or library not in ("pandas", "polars"):
        return None
    columns = [str(name) for name in value.columns][:_MAX_TABLE_COLUMNS]
    head = value.head(_MAX_TABLE_ROWS)
    if library == "pandas":
        rows = [list(row)[:_MAX_TABLE_COLUMNS] for row in head.itertuples(index=False, name=None)]
        index = [str(label) for label in head.index]
        if index != [str(number) for number in range(len(index))]:
            columns = [str(value.index.name or ""), *columns]
            rows = [[label, *row] for label, row in zip(index, rows, strict=True)]
    else:
        rows = [list(row)[:_MAX_TABLE_COLUMNS] for row in head.rows()]
    return {"columns": columns, "rows": [[_cell(cell) for cell in row] for row in rows], "total_rows": len(value)}


def _cell(cell: Any) -> Any:
    if hasattr(cell, "item") and callable(cell.item):  # a numpy scalar
        cell = cell.item()
    if cell is None or isinstance(cell, bool | int | str):
        return cell[:_MAX_CELL_CHARS] if isinstance(cell, str) else cell
    if isinstance(cell, float):
        return cell if math.isfinite(cell) else None
    text = str(cell)
    return None if text in ("NaT", "<NA>") else text[:_MAX_CELL_CHARS]
