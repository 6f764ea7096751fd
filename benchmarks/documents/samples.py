"""PDFs whose truth is known: READMEs of installed packages, and tables of what Python knows, printed by Chromium.

Nobody on the project wrote the texts or the values, and Chromium, not we, sets the type, in several designs. Each is
kept with Chromium's tags and once more with the tags taken out. The truth is the Markdown's own tokens: headings with
levels, words in order, table cells.
"""

import errno
import html
import importlib.metadata
import json
import mimetypes
import os
import random
import re
import shutil
import statistics
import subprocess
import tempfile
import textwrap
import unicodedata
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Truth", "clean_markdown", "make_samples", "sample_texts"]

_DESIGNS = {
    "plain": "",
    "paper": "@page{size:Letter;margin:18mm} body{font:10pt serif;column-count:2;column-gap:8mm;text-align:justify}"
    "h1{column-span:all;text-align:center;font-size:17pt} h2{font-size:12pt} h3{font-size:10pt;font-style:italic}"
    "pre{font-size:6pt;white-space:pre-wrap} table{font-size:7pt}",
    "report": "@page{size:A4;margin:25mm 20mm;@top-center{content:'Quarterly report on software'}"
    "@bottom-center{content:'Page ' counter(page) ' of ' counter(pages)}} body{font:11pt sans-serif;line-height:1.5}"
    "h1{font-size:22pt;color:#036} h2{font-size:15pt} h3{font-size:12pt} table{border-collapse:collapse}"
    "td,th{border:1px solid #888;padding:3px 8px}",
    "bold": "@page{size:A4;margin:20mm;@bottom-right{content:counter(page)}} body{font:11pt serif}"
    "h1{font-size:14pt} h2,h3,h4{font-size:11pt} table{border-collapse:collapse;border-top:2px solid;"
    "border-bottom:2px solid} th{border-bottom:1px solid} td,th{padding:2px 12px;text-align:left}",
    "numbered": "@page{size:A4;margin:20mm;@top-right{content:'Draft, not for citation'}} body{font:10.5pt sans-serif;"
    "counter-reset:a} h2{counter-increment:a;counter-reset:b;font-size:14pt} h2::before{content:counter(a) '  '}"
    "h3{counter-increment:b;font-size:12pt} h3::before{content:counter(a) '.' counter(b) '  '}"
    "td,th{padding:1px 14px;text-align:left} th{background:#ddd}",
}
_TABLE_DESIGNS = {
    "grid": "table{border-collapse:collapse} td,th{border:1px solid;padding:2px 6px} body{font:10pt sans-serif}",
    "lines": "table{border-collapse:collapse;width:100%} tr{border-bottom:1px solid #999} td,th{padding:2px 6px;"
    "text-align:left} body{font:10pt serif}",
    "booktabs": "table{border-collapse:collapse;border-top:2px solid;border-bottom:2px solid} thead{border-bottom:1px"
    " solid} td,th{padding:1px 8px;text-align:left} body{font:10pt serif}",
    "zebra": "table{border-spacing:0} tr:nth-child(odd) td{background:#eee} td,th{padding:3px 9px;text-align:left}"
    "th{background:#246;color:#fff} body{font:10pt sans-serif}",
    "none": "td,th{padding:1px 10px;text-align:left} body{font:11pt serif}",
    "narrow": "table{width:300px;border-collapse:collapse} td,th{border:1px solid #aaa;padding:2px 4px;font-size:8pt}"
    "body{font:10pt sans-serif}",
    "right": "td{text-align:right} td:first-child,th:first-child{text-align:left} td,th{padding:2px 12px}"
    "thead th{border-bottom:1px solid} table{border-collapse:collapse} body{font:10pt sans-serif}",
    "columns": "@page{size:A4;margin:16mm} body{font:9pt serif;column-count:2;column-gap:8mm;text-align:justify}"
    "table{border-collapse:collapse;font-size:7.5pt} td,th{border-top:1px solid #888;padding:1px 5px;text-align:left}",
}
_CHROMIUM = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-pdf-header-footer", "--host-resolver-rules=MAP * 127.0.0.1:9",
)  # fmt: skip


@dataclass
class Truth:
    """`blocks`: (tag, text) in order, tags h1-h6, li, p, pre; `tables`: rows of cells."""

    blocks: list[tuple[str, str]]
    tables: list[list[list[str]]]

    @property
    def words(self) -> str:
        return " ".join(text for _, text in self.blocks)


def make_samples(folder: Path, count: int = 20) -> dict[str, Truth]:
    """Write tagged and untagged PDFs into `folder`, unless they are there, and return the truth of each by name.

    Raises:
        SystemExit: there is no Chromium to print with.
    """
    manifest = folder / "truth.json"
    if not manifest.is_file():
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        if chromium is None:
            raise SystemExit("The samples are printed by Chromium: install it (apt-get install chromium).")
        folder.mkdir(parents=True, exist_ok=True)
        truths: dict[str, Truth] = {}
        texts = [
            (
                f"{list(_DESIGNS)[index % len(_DESIGNS)]}-{name}.pdf",
                list(_DESIGNS.values())[index % len(_DESIGNS)],
                text,
            )
            for index, (name, text) in enumerate(_readmes()[:count])
        ]
        texts += [
            (f"tables-{design}.pdf", style, _facts(seed)) for seed, (design, style) in enumerate(_TABLE_DESIGNS.items())
        ]
        for made, style, text in texts:
            body, truths[made] = _render(text)
            _print(chromium, body, style, folder / "tagged" / made)
            _strip_tags(folder / "tagged" / made, folder / "untagged" / made)
        manifest.write_text(json.dumps({name: asdict(truth) for name, truth in truths.items()}), encoding="utf-8")
    raw: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
    return {name: Truth([(tag, text) for tag, text in each["blocks"]], each["tables"]) for name, each in raw.items()}


def _readmes() -> list[tuple[str, str]]:
    """Long descriptions in Markdown of at least five headings; those with tables first, then by name."""
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        metadata = distribution.metadata
        name = metadata["Name"].lower()
        text = distribution.read_text("METADATA") or ""
        body = text.partition("\n\n")[2]
        is_markdown = "markdown" in (metadata["Description-Content-Type"] or "")
        if name.startswith("memento") or not is_markdown or not 2_000 < len(body) < 40_000:
            continue
        if len(re.findall(r"^#{1,4} ", body, re.M)) >= 5:
            found[name] = body
    return sorted(
        found.items(), key=lambda item: (not re.search(r"^\|.*\|\s*$\n^\|[\s:|-]+\|", item[1], re.M), item[0])
    )


def _facts(seed: int) -> str:
    """A Markdown text with five tables of facts that the standard library holds, and its docstrings between them."""
    pick = random.Random(seed)
    packages = sorted(importlib.metadata.distributions(), key=lambda each: each.metadata["Name"])
    rows: dict[str, list[list[str]]] = {
        "Errors of the system": [["Name", "Number", "Meaning"]]
        + [[errno.errorcode[code], str(code), os.strerror(code)] for code in pick.sample(sorted(errno.errorcode), 12)],
        "Installed packages": [["Package", "Version", "Summary"]]
        + [
            [each.metadata["Name"], each.version, (each.metadata["Summary"] or "none")[:90]]
            for each in pick.sample(packages, 9)
        ],
        "Kinds of file": [["Ending", "Type"]]
        + [[e, mimetypes.types_map[e]] for e in pick.sample(sorted(mimetypes.types_map), 8)],
        "Squares and roots": [["n", "Square", "Cube", "Root", "Share of all"]]
        + [
            [str(n), f"{n * n:,}", f"{n**3:,}", f"{n**0.5:.3f}", f"{n / 5:.1f}%"]
            for n in sorted(pick.sample(range(2, 400), 10))
        ],
        "Letters": [["Code", "Category", "Name", "UTF-8"]]
        + [
            [f"U+{n:04X}", unicodedata.category(chr(n)), unicodedata.name(chr(n)), chr(n).encode().hex()]
            for n in sorted(pick.sample(range(0xC0, 0x17F), 11))
        ],
    }
    modules = pick.sample([textwrap, random, mimetypes, statistics, shutil, tempfile, html, json], 5)
    parts = ["# Tables of facts"]
    for (name, table), module in zip(rows.items(), modules, strict=True):
        about = " ".join((module.__doc__ or "").split())[:700]
        about = re.sub(r"[<>|*_`\\[\]#~]", "", about)
        cells = [
            [cell.replace("|", "/").replace("<", "").replace("*", "").replace("_", "-") for cell in row]
            for row in table
        ]
        lines = ["| " + " | ".join(row) + " |" for row in cells]
        lines.insert(1, "|" + " --- |" * len(table[0]))
        parts += [f"## {name}", about, "\n".join(lines), f"That was the part about {name.lower()}. " + about[:200]]
    return "\n\n".join(parts)


def _render(text: str) -> tuple[str, Truth]:  # noqa: C901 - one case per kind of token
    """HTML without pictures and raw HTML, and the truth, from one token stream."""
    from markdown_it import MarkdownIt

    parser: Any = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(clean_markdown(text))
    truth = Truth([], [])
    tag, in_item = "p", 0
    for token in tokens:
        match token.type:
            case "heading_open":
                tag = token.tag
            case "heading_close":
                tag = "p"
            case "list_item_open":
                in_item += 1
            case "list_item_close":
                in_item -= 1
            case "table_open":
                truth.tables.append([])
            case "tr_open":
                truth.tables[-1].append([])
            case "th_open" | "td_open":
                tag = "cell"
            case "th_close" | "td_close":
                tag = "p"
            case "fence" | "code_block":
                truth.blocks.append(("pre", token.content.strip()))
            case "inline":
                plain = "".join(
                    " " if child.type in ("softbreak", "hardbreak") else child.content for child in token.children
                ).strip()
                if tag == "cell":
                    truth.tables[-1][-1].append(plain)
                if plain:
                    truth.blocks.append(("li" if tag == "p" and in_item else tag, plain))
            case _:
                pass
    return parser.renderer.render(tokens, parser.options, {}), truth


def clean_markdown(text: str) -> str:
    """Without raw HTML, pictures, and characters that the fonts here lack."""
    text = re.sub(r"<[^>\n]{1,400}>", "", re.sub(r"<!--.*?-->", "", text, flags=re.S))
    text = re.sub(r"\[?!\[[^\]]*\]\([^)]*\)(?:\]\([^)]*\))?", "", text)
    return re.sub(r"[^\x00-\u024f\u2010-\u2027\u2190-\u21ff]", "", text)


def sample_texts(count: int) -> list[tuple[str, str]]:
    """(name, Markdown) of `count` package descriptions, and of two texts full of tables."""
    return [*_readmes()[:count], *((f"facts-{seed}", _facts(seed)) for seed in range(2))]


def _print(chromium: str, body: str, style: str, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        title = html.escape(to.stem)
        page.write_text(
            f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{style}</style>{body}", encoding="utf-8"
        )
        subprocess.run(
            [chromium, *_CHROMIUM, f"--user-data-dir={folder}/profile", f"--print-to-pdf={to}", page.as_uri()],
            check=True, timeout=120, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip


def _strip_tags(tagged: Path, to: Path) -> None:
    from memento_documents.pdf import import_pymupdf

    to.parent.mkdir(parents=True, exist_ok=True)
    document: Any = import_pymupdf().open(tagged)
    for key in ("StructTreeRoot", "MarkInfo"):
        document.xref_set_key(document.pdf_catalog(), key, "null")
    document.save(to, garbage=3)
    document.close()
