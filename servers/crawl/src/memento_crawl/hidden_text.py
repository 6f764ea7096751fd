"""Text that a page carries and a reader never sees: taken out before anything else reads the page.

Owns what counts as hidden, judged without a browser: attributes, inline style and the page's own simple style
rules. What only a browser can know (computed styles, scripts) stays; the server's README says so.
Runs in the worker process. Why it matters: of 35 ways to hide text, 13 to 26 reach the model through the usual
converters (guides/web.md §5.5).
"""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from memento_crawl.html_tree import Element

__all__ = ["remove_hidden"]

_NO_TEXT = ("script", "style", "template", "noscript", "svg", "math", "canvas", "iframe", "object", "embed", "audio")
_NO_TEXT_MORE = ("video", "map", "datalist", "link", "meta", "base", "title")
_SEEN_ONLY_BY_MACHINES = frozenset({*_NO_TEXT, *_NO_TEXT_MORE})
"""Elements whose content is never shown as text; taken out, and not counted as hidden."""

_LENGTH = r"-?\d*\.?\d+"
_HIDING = re.compile(
    r"""
    (?:^|;)\s*(?:
        display\s*:\s*none
      | visibility\s*:\s*(?:hidden|collapse)
      | content-visibility\s*:\s*hidden
      | opacity\s*:\s*(?:0*\.0\d*|0+)%?\s*(?:!|;|$)
      | filter\s*:[^;]*opacity\(\s*0
      | font-size\s*:\s*(?:(?:0+(?:\.0*)?|\.0+)[a-z%]*|0*[01](?:\.\d+)?px|0?\.[012]\d*r?em|[0-9](?:\.\d+)?%)\s*(?:!|;|$)
      | (?:max-)?(?:height|width)\s*:\s*0(?:px|r?em|%)?\s*(?:!|;|$)
      | line-height\s*:\s*0(?:px|r?em|%)?\s*(?:!|;|$)
      | (?:left|right|top|bottom|text-indent|margin(?:-left|-top)?)\s*:\s*-\d{3,}(?:\.\d+)?(?:px|r?em|v[wh]|%)?
      | (?:left|top)\s*:\s*\d{4,}px
      | (?:left|top|text-indent)\s*:\s*1?\d{2,}(?:vw|vh|%)
      | transform\s*:[^;]*(?:scale[xy3d]*\(\s*0\s*[,)]|translate[xy3d]*\([^)]*-\d{3,})
      | clip\s*:\s*rect\(\s*(?:0|1px)[^)]*\)
      | clip-path\s*:\s*(?:inset\(\s*(?:[5-9]\d|100)%|circle\(\s*0|polygon\(\s*0[^,)]*,\s*0)
      | (?:-webkit-text-fill-)?color\s*:\s*(?:transparent|(?:rgb|hsl)a?\([^)]*[,/]\s*0*\.?0*%?\s*\))
    )
    """,
    re.IGNORECASE | re.VERBOSE,
)
_SMALL_BOX = re.compile(r"(?:^|;)\s*(?:height|width)\s*:\s*1px", re.IGNORECASE)
_CUT_OFF = re.compile(r"(?:^|;)\s*overflow(?:-[xy])?\s*:\s*(?:hidden|clip)", re.IGNORECASE)
_COLOR = re.compile(r"(?:^|;)\s*color\s*:\s*([^;!]+)", re.IGNORECASE)
_BACKGROUND = re.compile(r"(?:^|;)\s*background(?:-color)?\s*:\s*([^;!]+)", re.IGNORECASE)
_NAMED = {
    "white": "ffffff",
    "black": "000000",
    "red": "ff0000",
    "green": "008000",
    "blue": "0000ff",
    "yellow": "ffff00",
}

_CSS_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")
_SIMPLE_SELECTOR = re.compile(r"([a-z][a-z0-9]*)?((?:[.#][\w-]+)+|)$", re.IGNORECASE)
_MAX_CSS_CHARS = 300_000
_MAX_RULES = 500


def remove_hidden(tree: Element) -> int:
    """Take hidden elements, comments and machine-only elements out of `tree`; return how many characters were hidden.

    Whitespace does not count. The text that follows a removed element stays.
    """
    rules = _Rules(_hiding_rules(tree))
    without_attributes = {"dialog", "input", *rules.tags}
    removed = 0
    # From the end, so that what is hidden inside something hidden is gone when that is counted.
    for element in reversed(list(tree.iter())):
        if element is tree or element.getparent() is None:
            continue
        if not isinstance(element.tag, str):  # a comment or processing instruction
            removed += _chars(element.text or "")
            element.drop_tree()
        elif element.tag in _SEEN_ONLY_BY_MACHINES:
            if not _is_in_head(element):
                element.drop_tree()
        elif (element.keys() or element.tag in without_attributes) and _is_hidden(element, rules):
            removed += _chars(element.text_content())
            element.drop_tree()
    return removed


def _is_in_head(element: Element) -> bool:
    """Titles, metadata and JSON-LD in the head are read later, for the page's title, author and date."""
    return element.tag in ("title", "meta", "link", "base") or (
        element.tag == "script" and (element.get("type") or "").lower() == "application/ld+json"
    )


def _is_hidden(element: Element, rules: "_Rules") -> bool:
    tag = element.tag
    if tag in ("html", "body", "head"):
        return False
    if element.get("hidden") is not None or (element.get("aria-hidden") or "").strip().lower() == "true":
        return True
    if tag == "input" or (tag == "dialog" and element.get("open") is None):
        return True
    style = _CSS_COMMENT.sub("", element.get("style") or "")
    if style and (_hides(style) or _has_color_of_its_ground(element, style)):
        return True
    return bool(rules) and rules.match(tag, element.get("class") or "", element.get("id") or "")


def _hides(declarations: str) -> bool:
    return bool(_HIDING.search(declarations) or (_SMALL_BOX.search(declarations) and _CUT_OFF.search(declarations)))


def _has_color_of_its_ground(element: Element, style: str) -> bool:
    """Text in the colour of the nearest ground that is given beside it; a ground given elsewhere is not known here."""
    color = _COLOR.search(style)
    if color is None:
        return False
    node: Element | None = element
    while node is not None:
        ground = _BACKGROUND.search(node.get("style") or "") or (re.match("(.+)", node.get("bgcolor") or ""))
        if ground:
            return _rgb(color[1]) == _rgb(ground[1]) is not None
        if node.get("class") or node.get("id"):
            return False  # its ground may come from a style sheet
        node = node.getparent()
    return _rgb(color[1]) == "ffffff"


def _rgb(color: str) -> str | None:
    value = color.strip().lower().split()[0] if color.strip() else ""
    value = _NAMED.get(value, value.removeprefix("#"))
    if re.fullmatch("[0-9a-f]{3}", value):
        return "".join(digit * 2 for digit in value)
    if re.fullmatch("[0-9a-f]{6}", value):
        return value
    parts = re.findall(r"\d+", color)
    return (
        "".join(f"{int(part):02x}" for part in parts[:3])
        if color.strip().startswith("rgb") and len(parts) >= 3
        else None
    )


class _Rule(NamedTuple):
    """A simple selector: a tag, or none, with classes and ids that it must all have."""

    tag: str
    classes: frozenset[str]
    ids: frozenset[str]

    def hides(self, tag: str, classes: frozenset[str], identity: str) -> bool:
        return (not self.tag or self.tag == tag) and self.classes <= classes and self.ids <= {identity}


class _Rules:
    """Rules under one part each that what they match must have, so that few are tried on an element, and once."""

    def __init__(self, rules: Iterator[_Rule]) -> None:
        self._by_part: dict[str, list[_Rule]] = {}
        self._known: dict[tuple[str, str, str], bool] = {}
        for rule in rules:
            part = f"#{min(rule.ids)}" if rule.ids else f".{min(rule.classes)}" if rule.classes else rule.tag
            self._by_part.setdefault(part, []).append(rule)

    def __bool__(self) -> bool:
        return bool(self._by_part)

    @property
    def tags(self) -> Iterable[str]:
        """Some of the parts are tags."""
        return self._by_part.keys()

    def match(self, tag: str, classes: str, identity: str) -> bool:
        """Whether a rule hides elements of this tag, with these classes (as they are written) and this id."""
        key = (tag, classes, identity)
        known = self._known.get(key)
        if known is None:
            names = frozenset(classes.split())
            known = self._known[key] = any(
                rule.hides(tag, names, identity)
                for part in (tag, f"#{identity}", *(f".{name}" for name in names))
                for rule in self._by_part.get(part, ())
            )
        return known


def _hiding_rules(tree: Element) -> Iterator[_Rule]:
    """The simple selectors (`p.note`, `#ad`) of the page's own rules that hide what they match."""
    found = 0
    for sheet in tree.iter("style"):
        if (sheet.get("media") or "all").strip().lower() not in ("all", "screen"):
            continue
        css = _CSS_COMMENT.sub("", (sheet.text or "")[:_MAX_CSS_CHARS])
        for selectors, declarations in _RULE.findall(_without_at_rules(css)):
            if not _hides(declarations):
                continue
            for selector in selectors.split(","):
                simple = _SIMPLE_SELECTOR.match(selector.strip())
                tag = (simple[1] or "").lower() if simple else ""
                if simple and simple[0].lower() not in ("", "html", "body") and found < _MAX_RULES:
                    found += 1
                    yield _Rule(
                        tag,
                        frozenset(re.findall(r"\.([\w-]+)", simple[2])),
                        frozenset(re.findall(r"#([\w-]+)", simple[2])),
                    )


def _without_at_rules(css: str) -> str:
    """Leave out `@media print {…}` and the like: they say what holds sometimes. `@media screen` holds here."""
    out: list[str] = []
    at = 0
    while (start := css.find("@", at)) >= 0:
        out.append(css[at:start])
        brace, semicolon = css.find("{", start), css.find(";", start)
        if brace < 0 or 0 <= semicolon < brace:
            at = semicolon + 1 if semicolon >= 0 else len(css)
            continue
        end = _closing(css, brace)
        if re.fullmatch(r"@media\s+(?:all|screen|only screen)\s*", css[start:brace], re.IGNORECASE):
            out.append(css[brace + 1 : end])
        at = end + 1
    return "".join([*out, css[at:]])


def _closing(css: str, brace: int) -> int:
    depth = 0
    for found in re.compile("[{}]").finditer(css, brace):
        depth += 1 if found[0] == "{" else -1
        if depth == 0:
            return found.start()
    return len(css)


def _chars(text: str) -> int:
    return len("".join(text.split()))
