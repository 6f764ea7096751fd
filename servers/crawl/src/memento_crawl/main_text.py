"""The text a page is about: trafilatura's judgement, and when its second opinion is worth asking.

Owns the one place where that library is called for text, and one shortcut in it. After its own pass it always runs a
second extractor, readability, over the page, and takes that one's text only if it is more than twice as long, or if
its own is empty, has no paragraphs, more tables than paragraphs, or elements that do not belong into text. On most
pages nothing of that can be the case: there the second pass, a third of the time, is left out.
"""

from functools import cache
from importlib import import_module
from typing import Any

from memento_crawl.html_tree import Element

__all__ = ["main_text"]

_LONGER = 2
"""Trafilatura prefers the second text from this many times the length of its own."""


def main_text(tree: Element, *, is_markdown: bool, include_comments: bool = False, is_precise: bool = False) -> str:
    """Return the main text of a page whose links are absolute, as Markdown or plain; `tree` is not changed."""
    found: str | None = _trafilatura().extract(
        tree,  # it works on a copy
        output_format="markdown" if is_markdown else "txt",
        include_links=is_markdown,
        include_formatting=is_markdown,
        include_tables=True,
        include_images=False,
        include_comments=include_comments,
        favor_precision=is_precise,
        with_metadata=False,
    )
    return "\n".join(line.rstrip() for line in (found or "").splitlines())


@cache
def _trafilatura() -> Any:
    """Trafilatura, with the shortcut; a release that is built otherwise works without it."""
    core = import_module("trafilatura.core")
    compare = getattr(core, "compare_extraction", None)
    if compare is not None:
        unfit = import_module("trafilatura.external").SANITIZED_XPATH

        def compare_if_needed(cleaned: Any, page: Any, body: Any, text: str, options: Any) -> Any:
            is_eager = options.focus == "recall"  # then it takes a second text that is shorter than that, too
            if not is_eager and _cannot_lose(page, body, text, options.min_extracted_size) and not body.xpath(unfit):
                return body, text
            return compare(cleaned, page, body, text, options)

        vars(core)["compare_extraction"] = compare_if_needed
    return core


def _cannot_lose(page: Any, body: Any, text: str, min_chars: int) -> bool:
    """Whether readability, which drops what is mostly links, cannot have found more than twice as much."""
    if len(text) < min_chars or not body.xpath("boolean(.//p//text())"):
        return False
    if body.xpath("count(.//table) > count(.//p)"):
        return False
    outside_links = len(_folded(page.xpath("string(//body)"))) - sum(
        len(_folded(link.text_content())) for link in page.iter("a")
    )
    return outside_links <= _LONGER * len(text)


def _folded(text: str) -> str:
    return " ".join(text.split())
