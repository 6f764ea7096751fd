"""The stand-in as executor: one rule per way of working, each calling tools and reading their results.

Owns the rules. A rule is a generator: it yields a tool call and is sent the result's text, and returns the
report. The conversation carries the state: the rule is run again from the start on every request, over the
results that the messages hold, so the server itself remembers nothing.
"""

import json
import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from memento.offline.answers import Found, Passage, find_answer, mentions_all_names
from memento.offline.wording import (
    AGGREGATES,
    LARGEST,
    SMALLEST,
    content_words,
    expression_in,
    file_named_in,
    is_table,
    names_in,
    url_in,
)
from memento_kit import unfence

__all__ = ["ToolCallWanted", "as_tool_calls", "executor_reply"]

_MAX_PIECES = 6
"""How many pieces of one long document are read before it is given up."""
_MAX_HEADING_CHARS = 60
_MAX_MEMBERS = 6
"""How many members of an archive, or attachments of a mail, are read."""
_MEMBER_MARK = "!/"
_MEMBER = re.compile(r"^- (.+) \((?:[^()\n]*, )?\d+ bytes\)$", re.M)
_HIT = re.compile(r"^\d+\. (?P<path>.+?) \((?P<place>page (?P<page>\d+)|[^)]*)\)\n(?:\[(?P<heading>.*)\]\n)?", re.M)
_NEXT_CURSOR = re.compile(r"cursor=(\S+)")
_PAGE_MARK = re.compile(r"^\[page (\d+)\]$", re.M)


@dataclass(frozen=True)
class ToolCallWanted:
    """The next tool call; `tool` is the tool's name without its server."""

    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class _Task:
    question: str
    files: list[str]
    known: str


@dataclass(frozen=True)
class _Result:
    text: str
    is_error: bool


_Rule = Generator[ToolCallWanted, _Result, str]


def executor_reply(messages: Sequence[dict[str, Any]], tools: Sequence[str]) -> ToolCallWanted | str:
    """The next tool call, with the full name of the tool that is on offer, or the report."""
    first = str(next(m.get("content") or "" for m in messages if m.get("role") == "user"))
    subtask = first.rpartition("Your subtask: ")[2].strip()
    for prefix, rule in _RULES.items():
        if subtask.startswith(prefix):
            task = _Task(subtask.removeprefix(prefix).lstrip(": "), _files(first), _known(first))
            return _step(rule(task), _results(messages), tools)
    return "Nothing found: the offline stand-in has no rule for this subtask."


def _step(rule: _Rule, results: Sequence[_Result], tools: Sequence[str]) -> ToolCallWanted | str:
    try:
        wanted = next(rule)
        for result in results:
            wanted = rule.send(result)
    except StopIteration as end:
        return cast(str, end.value)
    full_name = next((name for name in tools if name.endswith(f"__{wanted.tool}")), None)
    if full_name is None:
        return f"Nothing found: there is no tool {wanted.tool!r} here."
    return ToolCallWanted(full_name, wanted.arguments)


def _results(messages: Sequence[dict[str, Any]]) -> list[_Result]:
    texts = [str(message.get("content") or "") for message in messages if message.get("role") == "tool"]
    return [_Result(unfence(text), text.startswith(("Error:", "Not executed:"))) for text in texts]


def _files(task: str) -> list[str]:
    match = re.search(r"^Attached files: (.*)$", task, re.M)
    return match[1].split(", ") if match else []


def _known(task: str) -> str:
    match = re.search(r"^Known so far:\n(.*?)\n\nYour subtask: ", task, re.M | re.S)
    return match[1] if match else ""


# --- the rules -----------------------------------------------------------------------------------------------


def _search(task: _Task) -> _Rule:
    found = yield ToolCallWanted("search_files", {"query": task.question, "limit": 5})
    passages, hits = _hits(found)
    if not hits:
        return "Nothing found: the search has no hits."
    path, page, _ = hits[0]
    read = yield ToolCallWanted("read_document", {"source": path, **({"pages": page} if page else {})})
    near = _passages_of(read.text, path) if not read.is_error else []
    return _report(find_answer(task.question, [*near, *passages]))


def _read(task: _Task) -> _Rule:
    source = task.files[0] if task.files else file_named_in(task.question)
    if source is None or url_in(task.question):
        return "Nothing found: no document is attached or named."
    page = re.search(r"\bpage (\d+)\b", task.question)
    if page:
        piece = yield ToolCallWanted("read_document", {"source": source, "pages": page[1]})
        heading = _first_line(piece.text)
        return _report(Found(heading, heading, source) if heading and not piece.is_error else None)
    text = yield from _whole_text(source)
    if text.is_error:
        return f"Nothing found: {text.text}"
    found = find_answer(task.question, _passages_of(text.text, source))
    if found is None:
        found = yield from _inside(task.question, source, text.text)
    return _report(found)


def _whole_text(source: str) -> Generator[ToolCallWanted, _Result, _Result]:
    """A document's first pieces as one text, each after the server's own line about it."""
    pieces: list[str] = []
    following: dict[str, str] = {}
    for _ in range(_MAX_PIECES):
        piece = yield ToolCallWanted("read_document", {"source": source, **following})
        if piece.is_error:
            return piece
        pieces.append(piece.text)
        cursor = _NEXT_CURSOR.search(piece.text.partition("\n")[0])
        if cursor is None:
            break
        following = {"cursor": cursor[1]}
    return _Result("\n".join(pieces), is_error=False)


def _inside(question: str, source: str, text: str) -> Generator[ToolCallWanted, _Result, Found | None]:
    """The answer from what the text says there is besides: members to read, speech to hear, pictures to look at."""
    note = text.partition("\n")[0]
    members = _MEMBER.findall(text)[:_MAX_MEMBERS] if f"SOURCE{_MEMBER_MARK}" in note else []
    for member in members:
        inner = yield from _whole_text(f"{source}{_MEMBER_MARK}{member}")
        found = None if inner.is_error else find_answer(question, _passages_of(inner.text, f"{source}, {member}"))
        if found is not None:
            return found
    for tool, arguments in (("transcribe_audio", {}), ("describe_media", {"question": question})):
        if tool in note:
            told = yield ToolCallWanted(tool, {"source": source, **arguments})
            found = None if told.is_error else find_answer(question, _passages_of(told.text, source))
            if found is not None:
                return found
    return None


def _page(task: _Task) -> _Rule:
    url = url_in(task.question)
    if url is None:
        return "Nothing found: no address is given."
    page = yield ToolCallWanted("read_page", {"url": url})
    if page.is_error:
        return f"Nothing found: {page.text}"
    return _report(find_answer(task.question, _passages_of(page.text, url)))


def _compute(task: _Task) -> _Rule:
    expression = expression_in(task.question)
    if expression is None:
        return "Nothing found: there is nothing to compute."
    done = yield ToolCallWanted("run_python", {"code": f"print({expression})"})
    printed = re.search(r"^-?\d+(?:\.\d+)?$", done.text, re.M)
    return _report(Found(printed[0], expression, "computed") if printed and not done.is_error else None)


def _name_it(task: _Task) -> _Rule:
    found = yield ToolCallWanted("search_files", {"query": " ".join(names_in(task.question)), "limit": 5})
    passages, _ = _hits(found)
    asked = set(names_in(task.question))
    for passage in passages:
        if not mentions_all_names(task.question, f"{passage.heading} {passage.text}"):
            continue
        for sentence in re.split(r"(?<=[.!?])\s+", " ".join(passage.text.split())):
            match = re.search(r"\b(?:over|across|crosses|spans) (?:the )?(?:River )?([A-ZÀ-Þ][\w-]*)", sentence)
            if match and match[1] not in asked:
                return f"Found: {match[1]} (source: {passage.place})"
    return "Nothing found: no passage names the thing described."


def _look_up(task: _Task) -> _Rule:
    named = re.search(r"Found: (.*?) \(source: (.*?)\)", task.known)
    if named is None:
        return "Nothing found: the thing was not named."
    question = task.question
    for name in names_in(task.question):
        question = question.replace(name, named[1])
    found = yield ToolCallWanted("search_files", {"query": question, "limit": 5})
    passages, _ = _hits(found)
    about = [passage for passage in passages if named[1] in passage.text]
    return _report(find_answer(question, about), also=named[2])


def _check(task: _Task) -> _Rule:
    names = names_in(task.question)
    if not names:
        return "Nothing found: no name to check."
    found = yield ToolCallWanted("search_files", {"query": " ".join(names), "limit": 8})
    if any(mentions_all_names(task.question, f"{passage.heading} {passage.text}") for passage in _hits(found)[0]):
        return "Nothing found: the files mention it, so this was not the way to answer."
    return "Found: not in the library"


def _table(task: _Task) -> _Rule:
    source = task.files[0] if task.files else file_named_in(task.question)
    if source is None or not (task.files or is_table(source)):
        found = yield ToolCallWanted("search_files", {"query": task.question, "limit": 1, "kinds": ["table"]})
        _, hits = _hits(found)
        if not hits:
            return "Nothing found: no table fits."
        source = hits[0][0]
    schema = yield ToolCallWanted("query_table", {"source": source, "sql": "SELECT name FROM sqlite_schema"})
    tables = [line for line in schema.text.splitlines()[2:] if line] if not schema.is_error else []
    for table in tables:
        rows = yield ToolCallWanted("query_table", {"source": source, "sql": f'SELECT * FROM "{table}"'})
        sql = None if rows.is_error else _aggregate(task.question, table, rows.text)
        if sql is None:
            continue
        value = yield ToolCallWanted("query_table", {"source": source, "sql": sql})
        lines = value.text.splitlines()
        if not value.is_error and len(lines) >= 3 and lines[2].strip():
            return _report(Found(_plain_number(lines[2].strip()), sql, source))
    return "Nothing found: no column of the table fits."


_RULES: dict[str, Callable[[_Task], _Rule]] = {
    "Search the files, read the best hit and answer": _search,
    "Read the document that is attached or named and answer": _read,
    "Query the table that fits and answer": _table,
    "Fetch the page at the given address and answer": _page,
    "Compute with code": _compute,
    "Search the files for the thing described and name it": _name_it,
    "Look up the named thing and answer": _look_up,
    "Check whether the files mention what is asked at all": _check,
}


# --- reading results -----------------------------------------------------------------------------------------


def _report(found: Found | None, *, also: str = "") -> str:
    if found is None:
        return "Nothing found: no passage answers this."
    places = ", ".join(dict.fromkeys(place for place in (found.place, also) if place))
    return f"Found: {found.answer} (source: {places})"


def _hits(found: _Result) -> tuple[list[Passage], list[tuple[str, str | None, str]]]:
    """Passages of a search result, and (path, page, heading) of each hit."""
    if found.is_error:
        return [], []
    marks = list(_HIT.finditer(found.text))
    passages: list[Passage] = []
    hits: list[tuple[str, str | None, str]] = []
    ends = [following.start() for following in marks[1:]] + [len(found.text)]
    for mark, end in zip(marks, ends, strict=False):
        body = found.text[mark.end() : end].strip()
        hits.append((mark["path"], mark["page"], mark["heading"] or ""))
        passages.append(Passage(body.replace("…", " "), f"{mark['path']} {mark['place']}", mark["heading"] or ""))
    return passages, hits


def _passages_of(text: str, place: str) -> list[Passage]:
    """The pages of a document, or its paragraphs with the heading each stands under."""
    pages = _PAGE_MARK.split(text)
    if len(pages) > 1:
        numbered = zip(pages[1::2], pages[2::2], strict=True)
        return [
            Passage(_without_heading(body), f"{place} page {number}", _first_line(body)) for number, body in numbered
        ]
    passages: list[Passage] = []
    heading = ""
    for block in re.split(r"\n\s*\n", text):
        if block.lstrip().startswith("#"):
            title, _, rest = block.lstrip("# \n").partition("\n")
            heading = title.strip()
            block = title if heading.endswith(".") and not rest else rest  # a sentence is none: a comment in code
        if block.strip():
            passages.append(Passage(block, place, heading))
    return passages


def _first_line(text: str) -> str:
    body = _PAGE_MARK.split(text)[-1]
    return next((line.strip(" #*") for line in body.splitlines() if line.strip(" #*")), "")


def _without_heading(page: str) -> str:
    """The page without its first line, when that is a heading: short, and no sentence."""
    first, _, rest = page.strip().partition("\n")
    return rest if rest and len(first) < _MAX_HEADING_CHARS and not first.rstrip().endswith((".", ",", ";")) else page


def _aggregate(question: str, table: str, rows_text: str) -> str | None:
    """One SELECT that answers an aggregate question, from the table's rows as text; `None` when none fits."""
    _, header, *rows = rows_text.splitlines()
    columns = header.split(" | ")
    cells = [row.split(" | ") for row in rows if row.count(" | ") == len(columns) - 1]
    if not cells:
        return None
    numeric = [i for i in range(len(columns)) if all(re.fullmatch(r"-?[\d.]*", row[i]) for row in cells)]
    wanted = set(content_words(question.replace("high", "height").replace("deep", "depth")))
    fits = {i: len(wanted & set(content_words(columns[i].replace("_", " ")))) for i in numeric}
    column = max(fits, key=lambda i: fits[i], default=None)
    if column is None or fits[column] == 0:
        return None
    where = [
        f"\"{columns[i]}\" = '{value}'"
        for i in range(len(columns))
        if i not in numeric
        for value in dict.fromkeys(row[i] for row in cells)
        if value and re.search(rf"\b{re.escape(value)}\b", question)
    ]
    condition = f" WHERE {' AND '.join(where)}" if where else ""
    asked = question.lower()
    for word, function in AGGREGATES.items():
        if re.search(rf"\b{word}\b", asked):
            return f'SELECT {function}("{columns[column]}") FROM "{table}"{condition}'
    for words, order in ((LARGEST, "DESC"), (SMALLEST, "ASC")):
        if any(re.search(rf"\b{word}\b", asked) for word in words):
            label = next((i for i in range(len(columns)) if i not in numeric), 0)
            return f'SELECT "{columns[label]}" FROM "{table}"{condition} ORDER BY "{columns[column]}" {order} LIMIT 1'
    return None


def _plain_number(text: str) -> str:
    try:
        value = float(text)
    except ValueError:
        return text
    return str(int(value)) if value.is_integer() else f"{value:.6g}"


def as_tool_calls(wanted: ToolCallWanted, call_id: str) -> list[dict[str, Any]]:
    """The call in the shape of a chat completion's message."""
    function = {"name": wanted.tool, "arguments": json.dumps(wanted.arguments, ensure_ascii=False)}
    return [{"id": call_id, "type": "function", "function": function}]
