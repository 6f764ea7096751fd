"""Write the demo's library: true facts, in our own words, as real PDF, XLSX, CSV, Markdown and HTML files.

Run `uv run python scripts/make_demo_library.py` after changing a fact; the files are committed. It needs pymupdf
and openpyxl, which the documents server brings; the demo itself only reads the files.
"""

import csv
from pathlib import Path

import openpyxl
import pymupdf

PACKAGE = Path(__file__).resolve().parents[1] / "orchestrator/src/memento/demo"
LIBRARY = PACKAGE / "library"
PAGES = PACKAGE / "pages"

BRIDGES = [
    (
        "Széchenyi Chain Bridge",
        "The Széchenyi Chain Bridge in Budapest crosses the Danube and joins Buda with Pest. It was designed by "
        "William Tierney Clark, and Adam Clark led the building of it. The Széchenyi Chain Bridge was opened in 1849. "
        "Its main span measures 202 metres. Stone lions by János Marschalkó guard both ends.",
    ),
    (
        "Forth Bridge",
        "The Forth Bridge carries the railway across the Firth of Forth, west of Edinburgh. It was designed by John "
        "Fowler and Benjamin Baker as a cantilever bridge of steel. The Forth Bridge was opened in 1890. Its two main "
        "spans measure 521 metres each. It became a World Heritage Site in 2015.",
    ),
    (
        "Brooklyn Bridge",
        "The Brooklyn Bridge crosses the East River in New York. It was designed by John Augustus Roebling; after his "
        "death the work was led by his son Washington and by Emily Warren Roebling. The Brooklyn Bridge was opened in "
        "1883. Its main span measures 486 metres, the longest in the world at the time.",
    ),
    (
        "Charles Bridge",
        "The Charles Bridge in Prague crosses the Vltava on sixteen arches. Its foundation stone was laid in 1357, and "
        "the plans are ascribed to Peter Parler. Thirty statues and groups of statues stand on its parapets. The "
        "Charles Bridge has been closed to motor traffic since 1965.",
    ),
    (
        "Sydney Harbour Bridge",
        "The Sydney Harbour Bridge is an arch bridge of steel, built by Dorman Long of Middlesbrough under the "
        "direction of John Bradfield. The Sydney Harbour Bridge was opened in 1932. Its main span measures 503 metres, "
        "and the top of the arch stands 134 metres above the water.",
    ),
    (
        "Stari Most",
        "The Stari Most in Mostar crosses the Neretva in a single arch of stone. It was designed by Mimar Hayruddin, a "
        "pupil of Sinan. The Stari Most was completed in 1566. It was destroyed in 1993 during the war, rebuilt with "
        "local stone, and opened again in 2004.",
    ),
    (
        "Pont Neuf",
        "The Pont Neuf, in spite of its name, is the oldest standing bridge of Paris. It crosses the Seine at the tip "
        "of the Île de la Cité. The Pont Neuf was completed in 1607, in the reign of Henri IV, whose statue on "
        "horseback stands on it.",
    ),
    (
        "Alcántara Bridge",
        "The Alcántara Bridge in Extremadura crosses the Tagus on six arches of granite. It was designed by Caius "
        "Julius Lacer in the reign of Trajan. The Alcántara Bridge was completed in 106. An inscription says that it "
        "will last as long as the world.",
    ),
]

RIVERS = """\
# Rivers of Europe

## Danube

The Danube is 2850 km long. It rises in the Black Forest, passes four capitals and flows into the Black Sea.

## Rhine

The Rhine is 1233 km long. It comes from the Swiss Alps and flows into the North Sea.

## Vltava

The Vltava is 430 km long. It is the longest river within the Czech Republic and flows into the Elbe at Mělník.

## Seine

The Seine is 777 km long. It rises near Dijon and flows into the English Channel at Le Havre.

## Tagus

The Tagus is 1007 km long. It is the longest river of the Iberian Peninsula and flows into the Atlantic Ocean.

## Neretva

The Neretva is 230 km long. It rises in the Dinaric Alps and flows into the Adriatic Sea.

## Po

The Po is 652 km long. It crosses the north of Italy and flows into the Adriatic Sea.
"""

LAKES = [
    ("Lake", "Continent", "Area km2", "Depth m"),
    ("Superior", "North America", 82100, 406),
    ("Huron", "North America", 59600, 229),
    ("Michigan", "North America", 58000, 281),
    ("Victoria", "Africa", 68800, 81),
    ("Tanganyika", "Africa", 32900, 1470),
    ("Malawi", "Africa", 29500, 706),
    ("Baikal", "Asia", 31500, 1642),
    ("Balkhash", "Asia", 16400, 26),
    ("Ladoga", "Europe", 17700, 230),
    ("Onega", "Europe", 9700, 127),
]

PEAKS = [
    ("peak", "range", "country", "height_m", "first_ascent"),
    ("Mont Blanc", "Alps", "France", 4806, 1786),
    ("Matterhorn", "Alps", "Switzerland", 4478, 1865),
    ("Eiger", "Alps", "Switzerland", 3967, 1858),
    ("Grossglockner", "Alps", "Austria", 3798, 1800),
    ("Aconcagua", "Andes", "Argentina", 6961, 1897),
    ("Chimborazo", "Andes", "Ecuador", 6263, 1880),
    ("Everest", "Himalaya", "Nepal", 8849, 1953),
    ("Annapurna", "Himalaya", "Nepal", 8091, 1950),
]

PAGE = """\
<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title></head>
<body>
<nav><a href="moons.html">Moons</a> <a href="inventions.html">Inventions</a> <a href="elements.html">Elements</a></nav>
<article>
<h1>{title}</h1>
{body}
</article>
<footer>A page of the Memento demo, served on this machine.</footer>
</body>
</html>
"""

WEB = {
    "moons": (
        "Moons and those who found them",
        [
            (
                "Titan",
                "Titan is the largest moon of Saturn and has a thick atmosphere. Titan was discovered by Christiaan "
                "Huygens in 1655, with a telescope that he and his brother had made.",
            ),
            (
                "Triton",
                "Triton goes round Neptune against the planet's own rotation. Triton was discovered by William Lassell "
                "in 1846, seventeen days after the planet itself.",
            ),
            (
                "Charon",
                "Charon is half as wide as Pluto, its companion. Charon was discovered by James Christy in 1978 on "
                "photographic plates that seemed to show a bump.",
            ),
            (
                "Phobos",
                "Phobos is the larger of the two moons of Mars. Phobos was discovered by Asaph Hall in 1877 in "
                "Washington, encouraged by his wife Angeline Stickney.",
            ),
        ],
    ),
    "inventions": (
        "A few inventions",
        [
            (
                "The stethoscope",
                "The stethoscope was invented by René Laennec in 1816. The first one was a tube of rolled paper, later "
                "of wood.",
            ),
            (
                "The mercury barometer",
                "The mercury barometer was invented by Evangelista Torricelli in 1643. He showed with it that air has "
                "weight.",
            ),
            (
                "The electric battery",
                "The electric battery was invented by Alessandro Volta in 1800. It was a pile of copper and zinc discs "
                "with wet cloth between them.",
            ),
        ],
    ),
    "elements": (
        "Elements and their discoverers",
        [
            (
                "Oxygen",
                "Oxygen was named by Antoine Lavoisier. Priestley and Scheele had each made it before him.",
            ),
            (
                "Radium",
                "Radium was discovered by Marie and Pierre Curie in 1898 in pitchblende from Joachimsthal.",
            ),
            (
                "Phosphorus",
                "Phosphorus was discovered by Hennig Brand in 1669 in Hamburg, in the search for gold.",
            ),
        ],
    ),
}


def write_bridges(path: Path) -> None:
    """One bridge a page, with a heading, as a PDF with real text and an outline."""
    document = pymupdf.open()
    for title, text in BRIDGES:
        page = document.new_page(width=420, height=595)
        page.insert_htmlbox(
            pymupdf.Rect(50, 60, 370, 540),
            f"<h1>{title}</h1><p>{text}</p>",
            css="* {font-family: serif; font-size: 13px; line-height: 1.4} h1 {font-size: 20px}",
        )
    document.set_toc([[1, title, number] for number, (title, _) in enumerate(BRIDGES, 1)])
    document.set_metadata({"title": "Eight bridges", "author": "The Memento developers"})
    document.subset_fonts()
    document.save(path, garbage=4, deflate=True, no_new_id=True)


def write_lakes(path: Path) -> None:
    """A workbook with a heading row, as Excel writes them."""
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "Lakes"
    for row in LAKES:
        sheet.append(row)
    book.save(path)


def main() -> None:
    LIBRARY.mkdir(parents=True, exist_ok=True)
    PAGES.mkdir(parents=True, exist_ok=True)
    write_bridges(LIBRARY / "bridges.pdf")
    (LIBRARY / "rivers.md").write_text(RIVERS, encoding="utf-8")
    write_lakes(LIBRARY / "lakes.xlsx")
    with (LIBRARY / "peaks.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(PEAKS)
    for name, (title, sections) in WEB.items():
        body = "\n".join(f"<h2>{heading}</h2>\n<p>{text}</p>" for heading, text in sections)
        (PAGES / f"{name}.html").write_text(PAGE.format(title=title, body=body), encoding="utf-8")
    for file in sorted([*LIBRARY.iterdir(), *PAGES.iterdir()]):
        print(f"{file.relative_to(PACKAGE)}: {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
