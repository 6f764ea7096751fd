"""How good a Markdown is, beside a known truth: word order, headings, tables. Plain definitions, no library's own."""

import re
from difflib import SequenceMatcher

from benchmarks.documents.samples import Truth

__all__ = ["headings", "plain", "table_relations", "tables_in", "word_order"]

_Relation = tuple[str, str, str]


def word_order(markdown: str, truth: Truth) -> float:
    """Words in the same order in both, as a share of all words: 2 m / (a + b)."""
    ours = _words(plain(markdown))
    theirs = _words(truth.words)
    return SequenceMatcher(None, ours, theirs, autojunk=False).ratio()


def headings(markdown: str, truth: Truth) -> float:
    """How like the two lists of headings are, levels and texts: 1 - edit distance / longer list.

    A heading costs nothing when level and text agree, half plus half the difference of the texts when only the level
    is wrong, and 1 when it is missing or too many. Levels count from the topmost there is.
    After MHS of opendataloader-bench, on headings alone.
    """
    found = [
        (len(match[1]), _bare(match[2])) for match in re.finditer(r"^(#{1,6}) +(.*)$", _without_code(markdown), re.M)
    ]
    wanted = [(int(tag[1]), _bare(text)) for tag, text in truth.blocks if re.fullmatch("h[1-6]", tag)]
    found, wanted = _from_one(found), _from_one(wanted)
    if not wanted:
        return float(not found)
    row = [float(index) for index in range(len(found) + 1)]
    for i, want in enumerate(wanted, start=1):
        above, row = row, [float(i)]
        for j, have in enumerate(found, start=1):
            unlike = 1 - SequenceMatcher(None, want[1], have[1], autojunk=False).ratio() if want[1] != have[1] else 0.0
            cost = unlike if want[0] == have[0] else 0.5 + unlike / 2
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + cost))
    return 1 - row[-1] / max(len(wanted), len(found))


def table_relations(tables: list[list[list[str]]]) -> list[_Relation]:
    """Each filled cell with its next filled neighbour to the right and below: the measure of ICDAR 2013."""
    relations: list[_Relation] = []
    for rows in tables:
        cells = [[_bare(cell) for cell in row] for row in rows]
        for y, row in enumerate(cells):
            for x, cell in enumerate(row):
                if not cell:
                    continue
                right = next((other for other in row[x + 1 :] if other), None)
                below = next((other[x] for other in cells[y + 1 :] if x < len(other) and other[x]), None)
                if right is not None:
                    relations.append((cell, right, "right"))
                if below is not None:
                    relations.append((cell, below, "below"))
    return relations


def tables_in(markdown: str) -> list[list[list[str]]]:
    """The pipe tables and HTML tables of a Markdown text."""
    tables: list[list[list[str]]] = []
    rows: list[list[str]] = []
    for line in [*_without_code(markdown).splitlines(), ""]:
        if line.lstrip().startswith("|"):
            cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
            if not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
                rows.append(cells)
        elif rows:
            tables.append(rows)
            rows = []
    for table in re.findall(r"<table.*?</table>", markdown, re.S):
        rows = [
            [re.sub(r"<[^>]+>", " ", cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.S)]
            for row in re.findall(r"<tr.*?</tr>", table, re.S)
        ]
        tables.append(rows)
    return tables


def _from_one(levels: list[tuple[int, str]]) -> list[tuple[int, str]]:
    top = min((level for level, _ in levels), default=1)
    return [(level - top + 1, text) for level, text in levels]


def _without_code(markdown: str) -> str:
    return re.sub(r"^```.*?^```", "", markdown, flags=re.M | re.S)


def plain(markdown: str) -> str:
    """A Markdown text without its marks, link targets and tags."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", markdown)
    text = re.sub(r"<[^>]{1,200}>", " ", text)
    return re.sub(r"^\s*(?:#+|[-*+]|\d+\.|>|```\w*)\s|^\s*\|?[\s:|-]+\|?\s*$", " ", text, flags=re.M)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _bare(text: str) -> str:
    return re.sub(r"[\W_]+", "", re.sub(r"^\W*\d+(?:\.\d+)*\W+(?=\w)", "", text)).casefold()
