"""What a result is besides its text: tables of data frames, pictures of figures, HTML, JSON and the like.

This file runs *inside* the sandbox, sent there as text. It imports no library by itself: what it shows comes from
libraries the session's code has imported already. Sizes are bounded here and once more on the host.
"""

from __future__ import annotations

import binascii
import io
import json
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
_FORMS = {
    "html": "text/html", "markdown": "text/markdown", "svg": "image/svg+xml", "latex": "text/latex",
    "json": "application/json", "png": "image/png", "jpeg": "image/jpeg",
}  # fmt: skip
"""What E2B calls a form of a result, and its media type in IPython's `_repr_mimebundle_`."""


def rich(value: Any, max_chars: int) -> dict[str, Any]:
    """The forms in which `value` shows itself besides its text, as parts of E2B's `result`; empty when it has none.

    By the methods that IPython asks for (`_repr_html_`, `_repr_mimebundle_` and so on), a figure and a frame by what
    they are. A form longer than `max_chars`, or a picture too large, is named in `left_out` instead.
    """
    if isinstance(value, type):
        return {}  # a class has the methods that its instances answer
    forms: dict[str, Any] = _table(value) or {}
    left_out: list[str] = []
    bundle: Any = _asked(value, "_repr_mimebundle_", include=None, exclude=None)
    is_bundle = hasattr(bundle, "get")
    for form, media_type in _FORMS.items():
        content: Any = bundle.get(media_type) if is_bundle else None
        if form == "png" and content is None and type(value).__name__ == "Figure" and hasattr(value, "savefig"):
            content = _png_of_figure(value)
        content = _asked(value, f"_repr_{form}_") if content is None else content
        if content is None:
            continue
        shown = _shown(form, content, max_chars)
        if shown is None:
            left_out.append(form)
        else:
            forms[form] = shown
    return {**forms, "left_out": left_out} if left_out else forms


def figures() -> list[dict[str, Any]]:
    """The open figures of matplotlib, which are closed by this: each is shown once, by the run that drew it."""
    pyplot: Any = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return []
    open_figures = [pyplot.figure(number) for number in pyplot.get_fignums()[:_MAX_IMAGES]]
    drawn = [(repr(figure), _shown("png", _png_of_figure(figure), 0)) for figure in open_figures]
    pyplot.close("all")
    return [{"text": text, **({"left_out": ["png"]} if png is None else {"png": png})} for text, png in drawn]


def _asked(value: Any, method: str, **arguments: Any) -> Any:
    """What the method of this name says; None when there is none, or it fails: then the other forms stand."""
    found: Any = getattr(value.__class__, method, None)  # of the class: a mock answers to every name
    if not callable(found):
        return None
    try:
        content: Any = found(value, **arguments)
    except Exception:  # noqa: BLE001  a library's or the session's own code
        return None
    is_pair = content.__class__ is tuple and len(content) == 2  # with metadata
    return content[0] if is_pair else content


def _shown(form: str, content: Any, max_chars: int) -> Any:
    """`content` as JSON can carry it; None when it is of the wrong kind or too large."""
    if form in ("png", "jpeg"):
        if isinstance(content, str):
            return content if len(content) <= _MAX_IMAGE_BYTES * 4 // 3 else None
        is_fine = isinstance(content, bytes) and len(content) <= _MAX_IMAGE_BYTES
        return binascii.b2a_base64(content, newline=False).decode() if is_fine else None
    if form == "json":
        try:
            text = json.dumps(content, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            return None
        return json.loads(text) if len(text) <= max_chars else None
    return content if isinstance(content, str) and len(content) <= max_chars else None


def _png_of_figure(figure: Any) -> bytes:
    width, height = figure.get_size_inches()
    dpi = min(_DPI, math.sqrt(_MAX_PIXELS / max(width * height, 1e-6)))
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi)
    return content.getvalue()


def _table(value: Any) -> dict[str, Any] | None:
    """E2B's `data` of a pandas or polars frame or a pandas series, by columns, and how many rows there are in all.

    Told by their classes, as neither library may be imported here.
    """
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
    named: dict[str, list[Any]] = {}
    for number, name in enumerate(columns):
        unique = f"{name}.{number}" if name in named else name
        named[unique] = [_cell(row[number]) for row in rows]
    return {"data": named, "total_rows": len(value)}


def _cell(cell: Any) -> Any:
    if hasattr(cell, "item") and callable(cell.item):  # a numpy scalar
        cell = cell.item()
    if cell is None or isinstance(cell, bool | int | str):
        return cell[:_MAX_CELL_CHARS] if isinstance(cell, str) else cell
    if isinstance(cell, float):
        return cell if math.isfinite(cell) else None
    text = str(cell)
    return None if text in ("NaT", "<NA>") else text[:_MAX_CELL_CHARS]
