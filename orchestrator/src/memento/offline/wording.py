"""What a rule can see in a question without understanding it: its frame, its names, its numbers, its addresses.

Owns the splitting of text into words, sentences and names for the stand-in's rules. No language model, no index.
"""

import re
from collections.abc import Iterable

__all__ = [
    "AGGREGATES",
    "LARGEST",
    "SMALLEST",
    "asks_aggregate",
    "content_words",
    "expression_in",
    "file_named_in",
    "frame_similarity",
    "is_table",
    "names_in",
    "numbers_in",
    "sentences_of",
    "url_in",
]

_WORD = re.compile(r"[^\W_]+(?:[’'-][^\W_]+)*")
_URL = re.compile(r"https?://[^\s<>\"')\]]+[^\s<>\"')\].,;:!?]")
_FILE = re.compile(r"[\w.-]+\.(?:pdf|xlsx|csv|tsv|html?|md|txt|docx|pptx|json)\b", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w.,])-?\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\w])|(?<![\w.,])-?\d+(?:\.\d+)?(?![\w])")
_EXPRESSION = re.compile(r"[\d(][\d\s.+\-*/^()%]*(?:mod[\d\s.+\-*/^()%]+)*[\d)]", re.IGNORECASE)
_NAME = re.compile(r"(?:[A-ZÀ-ÖØ-ÞŠŽ][^\W\d_]*)(?:(?:[ -]|\sof\s|\sde\s|\sthe\s)[A-ZÀ-ÖØ-ÞŠŽ][^\W\d_]*)*")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-ZÀ-Þ\"“(])|\n{2,}")
_STOP_WORDS = """
    a an and are as at be by did do does for from has have how in into is it its many much of on or that the their
    then there these this to under was were what when where which who whose will with according listed given page
    document library year
"""
AGGREGATES = {"total": "SUM", "sum": "SUM", "average": "AVG", "mean": "AVG"}
"""Words that ask a table for one number, with SQL's function for it."""
LARGEST = ("largest", "highest", "deepest", "longest", "tallest", "greatest")
SMALLEST = ("smallest", "lowest", "shallowest", "shortest")
_STOP = frozenset(_STOP_WORDS.split())


def content_words(text: str) -> list[str]:
    """Words that carry meaning, cut to a stem of six letters, without repeats."""
    words = [word.lower() for word in _WORD.findall(_URL.sub(" ", _FILE.sub(" ", text)))]
    return list(dict.fromkeys(word[:6] for word in words if word not in _STOP))


def frame_similarity(first: str, second: str) -> float:
    """How alike two questions are in how they ask, from 0 to 1: names, numbers, files, addresses are all one.

    The share of common words among all words (Jaccard), over what is left when the particulars are masked.
    """
    a, b = _frame(first), _frame(second)
    return len(a & b) / len(a | b) if a | b else 0.0


def names_in(text: str) -> list[str]:
    """Capitalised names, several words together, without a sentence's plain first word."""
    found: list[str] = []
    for match in _NAME.finditer(text):
        name = match[0].removeprefix("The ")
        begins = match.start() == 0 or text[: match.start()].rstrip().endswith((".", "?", "!", "\n", ":"))
        if begins and " " not in name and name.lower() in _STOP | _COMMON_FIRST_WORDS:
            continue
        if begins:
            head, _, rest = name.partition(" ")
            name = rest if head.lower() in _STOP | _COMMON_FIRST_WORDS and rest else name
        found.append(name)
    return list(dict.fromkeys(found))


_COMMON_FIRST_WORDS = frozenset(["after", "before", "compute", "find", "its", "name", "since", "until", "work"])


def numbers_in(text: str) -> list[str]:
    """Numbers as they are written as answers: without thousands separators."""
    return [number.replace(",", "") for number in _NUMBER.findall(text)]


def sentences_of(text: str) -> list[str]:
    """Sentences, with line breaks inside them taken as spaces."""
    return [" ".join(part.split()) for part in _SENTENCE_END.split(text) if part.strip()]


def url_in(text: str) -> str | None:
    """The first web address."""
    match = _URL.search(text)
    return match[0] if match else None


def file_named_in(text: str) -> str | None:
    """The first file name, not counting the last part of a web address."""
    match = _FILE.search(_URL.sub(" ", text))
    return match[0] if match else None


def asks_aggregate(question: str) -> bool:
    """Whether a question asks for a sum, a mean, or the extreme of something, as one asks a table."""
    return not {*AGGREGATES, *LARGEST, *SMALLEST}.isdisjoint(word.lower() for word in _WORD.findall(question))


def is_table(file: str) -> bool:
    """Whether a file's name says that it holds a table."""
    return file.lower().endswith((".xlsx", ".csv", ".tsv"))


def expression_in(text: str) -> str | None:
    """The longest arithmetic expression with at least one operator, as Python would write it."""
    found = [match[0].strip() for match in _EXPRESSION.finditer(_URL.sub(" ", text))]
    found = [part for part in found if re.search(r"\d\s*(?:[+*/^%-]|mod)\s*[\d(]|\)\s*(?:[+*/^%-]|mod)", part)]
    if not found:
        return None
    longest = max(found, key=len)
    return re.sub(r"\bmod\b", "%", longest.replace("^", "**"), flags=re.IGNORECASE)


def _frame(question: str) -> set[str]:
    text = _URL.sub(" xaddressx ", question)
    text = _FILE.sub(" xfilex ", text)
    expression = expression_in(text)
    if expression is not None:
        text = _EXPRESSION.sub(" xexpressionx ", text)
    for name in sorted(names_in(text), key=len, reverse=True):
        text = text.replace(name, " xnamex ")
    return set(_lower(_WORD.findall(_NUMBER.sub(" xnumberx ", text))))


def _lower(words: Iterable[str]) -> list[str]:
    return [word.lower() for word in words]
