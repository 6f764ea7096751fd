"""A plain question as an FTS5 query.

Owns which words of a question are looked for and how they are quoted, and the extra terms that SQLite's
tokenizer would not make itself. It knows no table.
FTS5 query syntax: https://www.sqlite.org/fts5.html#full_text_query_syntax
"""

import re
from collections.abc import Collection

__all__ = ["extra_terms", "match_query", "plain_words", "terms"]

_ENGLISH_FUNCTION_WORDS = """
a about after all also am an and any are as at be because been before being between both but by can could did do does
doing during each few for from further had has have having he her here hers him his how i if in into is it its itself
just me more most my no nor not of off on once only or other our ours out over own same she should so some such than
that the their theirs them then there these they this those through to too under until up us very was we were what when
where which while who whom whose why will with would you your yours
"""
_WORDS_TO_THE_READER = "find give list name please show tell"

_STOP_WORDS = frozenset(f"{_ENGLISH_FUNCTION_WORDS} {_WORDS_TO_THE_READER}".split())
"""Left out while a question has other words. In other languages the ranking does this: rare words weigh more."""

_QUOTED = re.compile(r'"([^"]+)"|“([^”]+)”')
_WORD = re.compile(r"[^\s\"“”]+")
_CAMEL = re.compile(r"[a-z0-9](?=[A-Z])|[A-Z](?=[A-Z][a-z])")
_UNSPACED = re.compile(
    # Scripts that do not put spaces between words (kana, Han, Thai, Lao, Khmer), and Hangul, whose words carry endings.
    "[\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af\u0e00-\u0eff\u1780-\u17ff\U00020000-\U0003ffff]+"
)


def match_query(question: str, *, telling: Collection[str] = (), left_out: Collection[str] = ()) -> str | None:
    """Return an FTS5 expression that finds what any word of `question` finds, or `None` if it has no word.

    Words in double quotes must stand in the text just so. Everything is quoted, so nothing a person or a model
    types is ever read as query syntax. If some of the `terms` are named as `telling`, one of these must occur;
    the others still count for the ranking, except those `left_out`.
    """
    words, phrases = terms(question)
    words = [word for word in words if word not in left_out]
    if not words and not phrases:
        return None
    anywhere = " OR ".join([*phrases, *words])
    required = [*phrases, f"({' OR '.join(telling)})"] if telling else phrases
    return " AND ".join([*required, f"({anywhere})"]) if required else anywhere


def terms(question: str) -> tuple[list[str], list[str]]:
    """Return the quoted FTS5 strings for the single words of `question` and for its quoted phrases."""
    phrases = [phrase for found in _QUOTED.findall(question) if (phrase := _quoted(found[0] or found[1]))]
    rest = _QUOTED.sub(" ", question)
    words = _WORD.findall(rest)
    telling = [word for word in words if _bare(word) not in _STOP_WORDS] or words
    found: list[str] = []
    for word in telling:
        spaced = _UNSPACED.sub(" ", word)
        found += [quoted for part in spaced.split() if (quoted := _quoted(part))]
        for run in _UNSPACED.findall(word):
            # A lone character is looked for as the first of a pair.
            found += (
                [_quoted(gram) for gram in _bigrams(run)] if len(run) > 1 else [_quoted(run) and f"{_quoted(run)} *"]
            )
    return list(filter(None, dict.fromkeys(found))), list(dict.fromkeys(phrases))


def extra_terms(text: str) -> str:
    """Return what must be indexed besides the words of `text`.

    That is: pairs of unspaced characters, words that stand among such, and the parts of camelCase names. The last
    character of a run stands alone too, so that a one-character question finds it by its prefix.
    """
    grams = [gram for run in _UNSPACED.findall(text) for gram in [*_bigrams(run), run[-1]]]
    parts = {_CAMEL.sub(r"\g<0> ", word) for word in re.findall(r"[A-Za-z0-9]*[a-z0-9][A-Z][A-Za-z0-9]*", text)}
    mixed = [_UNSPACED.sub(" ", word) for word in text.split() if _UNSPACED.search(word)] if grams else []
    return " ".join([*grams, *mixed, *sorted(parts)])


def _bigrams(run: str) -> list[str]:
    return [run[at : at + 2] for at in range(len(run) - 1)]


def _bare(word: str) -> str:
    return word.strip(".,;:!?()[]{}<>'’‘`*_").lower()


def _quoted(text: str) -> str:
    """`text` as an FTS5 string, or nothing if the tokenizer would find no word in it."""
    return '"' + text.replace('"', '""').replace("\x00", "") + '"' if any(c.isalnum() for c in text) else ""


def plain_words(text: str) -> set[str]:
    """The words of `text` to compare with others: lower case, without stop words; pairs of unspaced characters."""
    words = {word for word in re.findall(r"\w+", _UNSPACED.sub(" ", text.lower())) if word not in _STOP_WORDS}
    return words | {gram for run in _UNSPACED.findall(text) for gram in _bigrams(run)}
