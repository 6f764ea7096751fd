"""Tables on a PDF page without tags: from drawn rules, or from words that stand in columns.

The quick recogniser: no model, about a millisecond a page, good where cells are ruled or well apart. It works on
what `pdf_page` read. The layout model that `extract_tables` asks is in `pdf_layout`.
"""

import bisect
import itertools
import re
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from memento_documents.pdf_page import Block, Line, PageContent, Rectangle

__all__ = ["FoundTable", "find_tables", "may_have_tables", "place_tables"]

_THIN = 3.0
"""Points: a drawn rectangle thinner than this is a rule."""
_TOUCH = 3.5
"""Points: rules this close meet; two parallel ones this close are the two sides of one."""
_WORD_GAP = 0.3
"""In font sizes: words this close are of one cell."""
_COLUMN_GAP, _COLUMN_GAP_FEW_ROWS = 0.4, 0.7
"""In font sizes: the strip between two columns is at least this wide; in few rows it may be wide by chance."""
_FEW_ROWS = 6
_MAY_CROSS = 0.12
"""This share of the rows may reach over the strip between two columns: headings that span."""
_MAX_RULES = 4_000
"""A page with more of them is a drawing."""
_NUMERIC = re.compile(r"[-+(]?[$€£]?\s?\d[\d.,\s]*%?\)?|[-–—*n/a.]+", re.I)


@dataclass(slots=True)
class FoundTable:
    """Where a table is, its cells, and the lines that went into it."""

    box: Rectangle
    rows: list[list[str]]
    lines: list[Line]


def may_have_tables(page: PageContent) -> bool:
    """A cheap look: rules enough for a table, or three rows with pieces side by side."""
    lines = _untagged_lines(page)
    if len(lines) >= 4 and len(page.rules) >= 3:
        return True
    return sum(len(row) > 1 for row in _rows_in_order(line for line in lines if not line.monospaced)) >= 3


def _untagged_lines(page: PageContent) -> list[Line]:
    return [line for block in page.blocks if block.kind == "paragraph" and not block.tagged for line in block.lines]


def find_tables(page: PageContent) -> list[FoundTable]:
    """All tables of a page without tags, from top to bottom. `page.words` must be there if it may have any."""
    lines = _untagged_lines(page)
    if len(lines) < 4 or not page.words:
        return []
    found: list[FoundTable] = []
    taken: set[int] = set()
    for table in _ruled(page, lines):
        found.append(table)
        taken.update(map(id, table.lines))
    found += _aligned([line for line in lines if id(line) not in taken], page)
    return sorted(found, key=lambda table: table.box[1])


def place_tables(page: PageContent, tables: list[FoundTable]) -> None:
    """Put each table where its first line was, and take its lines out of the text."""
    owner = {id(line): index for index, table in enumerate(tables) for line in table.lines}
    placed: set[int] = set()
    blocks: list[Block] = []
    for block in page.blocks:
        if block.kind != "paragraph" or block.tagged:
            blocks.append(block)
            continue
        rest: list[Line] = []
        for line in block.lines:
            index = owner.get(id(line))
            if index is None:
                rest.append(line)
            elif index not in placed:
                placed.add(index)
                if rest:
                    blocks.append(Block("paragraph", rest))
                    rest = []
                blocks.append(Block("table", tables[index].lines, rows=tables[index].rows))
        if rest:
            blocks.append(Block("paragraph", rest))
    page.blocks = blocks


# --- Ruled -----------------------------------------------------------------------------------------------------------


def _ruled(page: PageContent, lines: list[Line]) -> list[FoundTable]:
    if not 3 <= len(page.rules) <= _MAX_RULES:
        return []
    horizontal, vertical = _edges(page)
    if len(horizontal) < 2:
        return []
    tables: list[FoundTable] = []
    for across, down in _without_prose(_groups(horizontal, vertical), lines):
        if not across:
            continue
        ys = _levels([y for _, y, _ in across] + [y for _, top, bottom in down for y in (top, bottom)])
        xs = _levels(
            [x for x, _, _ in down] + ([x for left, _, right in across for x in (left, right)] if down else [])
        )
        if len(ys) < 2:
            continue
        left = min(left for left, _, _ in across) - 2
        right = max(right for _, _, right in across) + 2
        if right - left < 40:
            continue
        inside = [
            line
            for line in lines
            if left <= (line.x0 + line.x1) / 2 <= right and ys[0] - 2 <= line.middle <= ys[-1] + 2
        ]
        if len(inside) < 4:
            continue
        table = None
        if len(xs) >= 3:
            table = _grid(inside, xs, ys)
        elif len(ys) >= 3 or not down:
            table = _from_words(page, _with_head(inside, lines), ys)
        if table is not None:
            tables.append(table)
    return tables


def _without_prose(
    groups: list[tuple[list[tuple[float, float, float]], list[tuple[float, float, float]]]], lines: list[Line]
) -> Iterator[tuple[list[tuple[float, float, float]], list[tuple[float, float, float]]]]:
    """Cut groups of mere horizontal rules where text that is no table stands between two of them."""
    for across, down in groups:
        if down:
            yield across, down
            continue
        across = sorted(across, key=lambda edge: edge[1])
        left, right = min(edge[0] for edge in across), max(edge[2] for edge in across)
        current = across[:1]
        for edge in across[1:]:
            between = [
                line for line in lines
                if current[-1][1] < line.middle < edge[1] and left - 3 < line.x0 and line.x1 < right + 3
            ]  # fmt: skip
            if _is_no_row(_rows(between), right - left):
                yield current, []
                current = []
            current.append(edge)
        yield current, []


def _is_no_row(rows: list[list[Line]], width: float) -> bool:
    """What stands between two rules is prose or a heading, not one row of a table."""
    alone = [row[0] for row in rows if len(row) == 1]
    if len(rows) > 1 and len(alone) == len(rows):
        return True
    sizes = [row[0].size for row in rows if len(row) > 1]
    return any(line.x1 - line.x0 > 0.6 * width or (sizes and line.size > 1.1 * sizes[0]) for line in alone)


def _edges(page: PageContent) -> tuple[list[tuple[float, float, float]], list[tuple[float, float, float]]]:
    """Horizontal edges as (x0, y, x1) and vertical ones as (x, y0, y1); a box gives its four sides."""
    horizontal: list[tuple[float, float, float]] = []
    vertical: list[tuple[float, float, float]] = []
    for x0, y0, x1, y1 in page.rules:
        wide, high = x1 - x0, y1 - y0
        if high <= _THIN < wide:
            horizontal.append((x0, (y0 + y1) / 2, x1))
        elif wide <= _THIN < high:
            vertical.append(((x0 + x1) / 2, y0, y1))
        elif wide > 12 and high > 6 and not (wide > 0.9 * page.width and high > 0.5 * page.height):
            horizontal += [(x0, y0, x1), (x0, y1, x1)]
            vertical += [(x0, y0, y1), (x1, y0, y1)]
    return horizontal, vertical


def _groups(
    horizontal: list[tuple[float, float, float]], vertical: list[tuple[float, float, float]]
) -> list[tuple[list[tuple[float, float, float]], list[tuple[float, float, float]]]]:
    """Edges that touch, together; and horizontal rules alone that share their extent."""
    boxes = [(x0, y, x1, y) for x0, y, x1 in horizontal] + [(x, y0, x, y1) for x, y0, y1 in vertical]
    order = sorted(range(len(boxes)), key=lambda index: boxes[index][1])
    parent = list(range(len(boxes)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    active: list[int] = []
    for index in order:
        x0, y0, x1, _ = boxes[index]
        active = [other for other in active if boxes[other][3] + _TOUCH >= y0]
        for other in active:
            if boxes[other][0] - _TOUCH <= x1 and x0 <= boxes[other][2] + _TOUCH:
                parent[root(other)] = root(index)
        active.append(index)
    groups: dict[int, tuple[list[tuple[float, float, float]], list[tuple[float, float, float]]]] = {}
    for index in order:
        across, down = groups.setdefault(root(index), ([], []))
        if index < len(horizontal):
            across.append(horizontal[index])
        else:
            down.append(vertical[index - len(horizontal)])
    alone: dict[tuple[int, int], list[tuple[float, float, float]]] = {}
    closed: list[tuple[list[tuple[float, float, float]], list[tuple[float, float, float]]]] = []
    for across, down in groups.values():
        if down and len(_levels([y for _, y, _ in across])) >= 2:
            closed.append((across, down))
        elif across:
            left, right = min(each[0] for each in across), max(each[2] for each in across)
            if right - left > 60:
                alone.setdefault((round(left / 6), round(right / 6)), []).extend(across)
    return closed + [(across, []) for across in alone.values() if len(_levels([y for _, y, _ in across])) >= 2]


def _levels(values: list[float]) -> list[float]:
    """Distinct positions; those within reach of each other are one."""
    levels: list[float] = []
    for value in sorted(values):
        if not levels or value - levels[-1] > _TOUCH:
            levels.append(value)
    return levels


def _grid(lines: list[Line], xs: list[float], ys: list[float]) -> FoundTable | None:
    cells: list[list[list[str]]] = [[[] for _ in xs[1:]] for _ in ys[1:]]
    inside: list[Line] = []
    for line in sorted(lines, key=lambda line: (round(line.middle), line.x0)):
        row = _interval(ys, line.middle)
        if row is None:
            continue
        for text, x0, x1 in line.pieces:
            column = _interval(xs, min((x0 + x1) / 2, x0 + 12))
            if column is not None:
                cells[row][column].append(text)
        cells[row] = [[*cell, " "] if cell else cell for cell in cells[row]]
        inside.append(line)
    rows = [[" ".join("".join(cell).split()) for cell in row] for row in cells]
    if len(ys) == 2 or len([row for row in rows if any(row)]) < 2:
        return None
    rows = [row for row in rows if any(row)]
    used = [column for column in range(len(xs) - 1) if any(row[column] for row in rows)]
    rows = [[row[column] for column in used] for row in rows]
    if len(rows) < 2 or len(used) < 2 or sum(sum(map(bool, row)) > 1 for row in rows) < 2:
        return None
    if max(len(cell) for row in rows for cell in row) > 1_500:
        return None  # a frame around the page's text
    return FoundTable(_box(inside), rows, inside)


def _interval(levels: list[float], value: float) -> int | None:
    for index in range(len(levels) - 1):
        if levels[index] - 2 <= value <= levels[index + 1] + (2 if index == len(levels) - 2 else 0):
            return index
    return None


# --- Aligned ---------------------------------------------------------------------------------------------------------


def _aligned(lines: list[Line], page: PageContent) -> list[FoundTable]:
    """Runs of rows with two pieces or more, whose pieces leave the same gaps free."""
    rows = _rows_in_order(line for line in lines if not line.monospaced)
    tables: list[FoundTable] = []
    run: list[list[Line]] = []
    for row in [*rows, []]:
        if row and (not run or _near(run[-1], row)):
            if len(row) > 1:
                run.append(row)
                continue
            if run and len(row) == 1 and _fits_a_column(run, row[0]):
                run.append(row)
                continue
        tables += _table_of(run, page)
        run = [row] if len(row) > 1 else []
    return tables


def _near(above: list[Line], row: list[Line]) -> bool:
    height = max(line.y1 - line.y0 for line in row)
    return -height < min(line.y0 for line in row) - max(line.y1 for line in above) < 1.6 * height


def _fits_a_column(run: list[list[Line]], line: Line) -> bool:
    """A cell's second line, or a row with one cell: it must not reach over a gap of the rows before."""
    wide = next((row for row in reversed(run) if len(row) > 1), None)
    if wide is None:
        return False
    return sum(line.x0 < other.x1 and other.x0 < line.x1 for other in wide) <= 1 and len(line.text) < 60


def _table_of(run: list[list[Line]], page: PageContent) -> list[FoundTable]:
    while run and len(run[-1]) == 1:
        run = run[:-1]
    several = [row for row in run if len(row) > 1]
    if len(several) < 3:
        return []
    table = _from_words(page, [line for row in run for line in row], [])
    return [table] if table is not None else []


def _with_head(table_lines: list[Line], lines: list[Line]) -> list[Line]:
    """The row of column heads often stands above the topmost rule."""
    x0, y0, x1, _ = _box(table_lines)
    known = set(map(id, table_lines))
    height = max(line.y1 - line.y0 for line in table_lines)
    above = [
        line for line in lines
        if id(line) not in known and 0 < y0 - line.middle < 1.6 * height and line.x0 > x0 - 30 and line.x1 < x1 + 30
    ]  # fmt: skip
    row = _rows(above)[-1] if above else []
    return [*row, *table_lines] if len(row) > 1 else table_lines


def _from_words(page: PageContent, lines: list[Line], ys: list[float]) -> FoundTable | None:
    """A table from the words under `lines`, by the strips that they leave free. `ys`: rules between rows."""
    x0, y0, x1, y1 = _box(lines)
    words = [word for word in page.words if x0 - 1 < word.x0 and word.x1 < x1 + 1 and y0 < word.middle < y1]
    rows = _rows(words)
    if len(rows) < 2:
        return None
    size = statistics.median(line.size for line in lines)
    columns = _columns(rows, size)
    if len(columns) < 2:
        return None
    table = _fill(rows, columns, ys, size)
    return FoundTable((x0, y0, x1, y1), table, lines) if len(table) > 1 and _is_tabular(table) else None


def _rows(lines: list[Line]) -> list[list[Line]]:
    """Lines by baseline, each row from left to right."""
    rows: list[list[Line]] = []
    for line in sorted(lines, key=lambda line: line.middle):
        if rows and abs(line.middle - rows[-1][0].middle) < 0.35 * max(line.y1 - line.y0, 4):
            rows[-1].append(line)
        else:
            rows.append([line])
    for row in rows:
        row.sort(key=lambda line: line.x0)
    return rows


def _rows_in_order(lines: Iterable[Line]) -> list[list[Line]]:
    """Neighbours in reading order on one baseline: columns of prose come one after the other and give rows of one."""
    rows: list[list[Line]] = []
    for line in lines:
        last = rows[-1][-1] if rows else None
        if (
            last is not None
            and line.x0 >= last.x1
            and abs(line.middle - last.middle) < 0.35 * max(line.y1 - line.y0, 4)
        ):
            rows[-1].append(line)
        else:
            rows.append([line])
    return rows


def _columns(rows: list[list[Line]], size: float) -> list[tuple[float, float]]:
    """The stretches of x between the strips that (nearly) all rows leave free."""
    few = len(rows) < _FEW_ROWS
    events: list[tuple[float, int]] = []
    for row in rows if few else rows[1:]:  # heads are often wider than what is under them
        start, end = row[0].x0, row[0].x1
        for word in row[1:]:
            if word.x0 - end > _WORD_GAP * size:
                events += [(start, 1), (end, -1)]
                start = word.x0
            end = max(end, word.x1)
        events += [(start, 1), (end, -1)]
    events.sort()
    most = 0 if few else max(1, int(_MAY_CROSS * len(rows)))
    gap = (_COLUMN_GAP_FEW_ROWS if few else _COLUMN_GAP) * size
    columns: list[tuple[float, float]] = []
    covered = 0
    start: float | None = None
    for x, step in events:
        before, covered = covered, covered + step
        if before <= most < covered and start is None:
            start = x
        elif covered <= most < before and start is not None:
            columns.append((start, x))
            start = None
    joined: list[tuple[float, float]] = []
    for left, right in columns:
        if joined and left - joined[-1][1] < gap:
            joined[-1] = (joined[-1][0], right)
        else:
            joined.append((left, right))
    return joined


def _is_tabular(table: list[list[str]]) -> bool:
    """Not columns of prose, a list with its marks, or a form's labels."""
    cells = [cell for row in table for cell in row if cell]
    if sum(sum(map(bool, row)) > 1 for row in table) < 2:
        return False
    words = sum(len(cell.split()) for cell in cells) / len(cells)
    numeric = sum(_NUMERIC.fullmatch(cell) is not None for cell in cells) / len(cells)
    if len(table[0]) == 2:
        first = [row[0] for row in table if row[0]]
        if sum(len(text) <= 3 for text in first) > 0.8 * len(first):
            return numeric > 0.7
        return numeric > 0.25 or words <= 4
    return words <= 8 or numeric > 0.3


def _fill(rows: list[list[Line]], columns: list[tuple[float, float]], ys: list[float], size: float) -> list[list[str]]:
    """Cells by column; a row whose first cell is empty and that follows closely belongs to the one above."""
    table: list[list[str]] = []
    bottom = 0.0
    borders = [(left[1] + right[0]) / 2 for left, right in itertools.pairwise(columns)]
    for row in rows:
        cells = [""] * len(columns)
        for word in row:
            column = bisect.bisect(borders, (word.x0 + word.x1) / 2)
            cells[column] = f"{cells[column]} {word.text}" if cells[column] else word.text
        top = min(word.y0 for word in row)
        ruled_off = any(bottom - 3 <= y <= top + 3 for y in ys)
        goes_on = table and not cells[0] and not ruled_off and top - bottom < 0.35 * size
        if goes_on and not any(_NUMERIC.fullmatch(cell) for cell in cells if cell):
            table[-1] = [f"{above} {cell}".strip() for above, cell in zip(table[-1], cells, strict=True)]
        else:
            table.append(cells)
        bottom = max(word.y1 for word in row)
    return table


def _box(lines: list[Line]) -> Rectangle:
    return (
        min(line.x0 for line in lines),
        min(line.y0 for line in lines),
        max(line.x1 for line in lines),
        max(line.y1 for line in lines),
    )
