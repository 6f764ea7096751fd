"""The demo's questions with their gold answers, in seven kinds of four.

Owns the questions. The kind is for the table at the end; the agent never sees it. All golds but the computed
ones stand in the files that `scripts/make_demo_library.py` writes.
"""

from dataclasses import dataclass

__all__ = ["NOT_IN_LIBRARY", "QUESTIONS", "Question", "with_pages_at"]

NOT_IN_LIBRARY = "not in the library"


@dataclass(frozen=True)
class Question:
    kind: str
    text: str
    """May hold `{pages}`, the origin of the demo's own web pages."""
    gold: str


_KINDS: dict[str, list[tuple[str, str]]] = {
    "fact in a PDF": [
        ("In which year was the Forth Bridge opened?", "1890"),
        ("In which year was the Brooklyn Bridge opened?", "1883"),
        ("In which year was the Pont Neuf completed?", "1607"),
        ("In which year was the Stari Most completed?", "1566"),
    ],
    "page of a document": [
        ("Which bridge does page 4 of bridges.pdf describe?", "Charles Bridge"),
        ("Which bridge does page 7 of bridges.pdf describe?", "Pont Neuf"),
        ("Which bridge does page 5 of bridges.pdf describe?", "Sydney Harbour Bridge"),
        ("Which bridge does page 2 of bridges.pdf describe?", "Forth Bridge"),
    ],
    "sum over a table": [
        ("What is the total area in km2 of the lakes in Africa?", str(68800 + 32900 + 29500)),
        ("What is the total area in km2 of the lakes in Europe?", str(17700 + 9700)),
        ("What is the average height in m of the peaks in Switzerland?", str((4478 + 3967) / 2)),
        ("What is the average height in m of the peaks in Nepal?", str((8849 + 8091) / 2)),
    ],
    "two documents joined": [
        ("How long in km is the river under the Széchenyi Chain Bridge?", "2850"),
        ("How long in km is the river under the Charles Bridge?", "430"),
        ("How long in km is the river under the Pont Neuf?", "777"),
        ("How long in km is the river under the Alcántara Bridge?", "1007"),
    ],
    "web page": [
        ("According to {pages}/moons.html, who discovered Titan?", "Christiaan Huygens"),
        ("According to {pages}/moons.html, who discovered Triton?", "William Lassell"),
        ("According to {pages}/inventions.html, who invented the stethoscope?", "René Laennec"),
        ("According to {pages}/elements.html, who discovered Phosphorus?", "Hennig Brand"),
    ],
    "computation": [
        ("What is (37^5 + 1234) mod 1009?", str((37**5 + 1234) % 1009)),
        ("What is (12^7 - 98) mod 613?", str((12**7 - 98) % 613)),
        ("What is (2^61 + 17) mod 97?", str((2**61 + 17) % 97)),
        ("What is 7^9 * 13 mod 1013?", str(7**9 * 13 % 1013)),
    ],
    "not answerable": [
        ("Who designed the Golden Gate Bridge?", NOT_IN_LIBRARY),
        ("Who designed the Rialto Bridge?", NOT_IN_LIBRARY),
        ("Who designed the Øresund Bridge?", NOT_IN_LIBRARY),
        ("Who designed the Tsing Ma Bridge?", NOT_IN_LIBRARY),
    ],
}

QUESTIONS = [
    Question(kind, *_KINDS[kind][row])
    for row in range(4)
    for kind in _KINDS  # the kinds take turns
]


def with_pages_at(origin: str) -> list[Question]:
    """The questions with the address of the demo's pages filled in."""
    return [Question(q.kind, q.text.replace("{pages}", origin), q.gold) for q in QUESTIONS]
