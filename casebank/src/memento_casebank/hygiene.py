"""What keeps a bank healthy: spotting text that gives orders, and cases that have shown they do not help.

Owns the tests, not the consequences: `engine` quarantines and archives, with an edit that can be undone.
"""

import re
from collections.abc import Iterable
from typing import Any

from memento_casebank.records import Case
from memento_kit import strip_invisible

__all__ = ["instruction_like"]

_ORDERS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (what, re.compile(pattern, re.IGNORECASE | re.DOTALL))
    for what, pattern in (
        (
            "tells the reader to drop its instructions",
            r"\b(?:ignore|disregard|forget|override|bypass)\b.{0,40}\b(?:previous|prior|above|earlier|all|any|your|the)\b"
            r".{0,30}\b(?:instruction|prompt|rule|guideline|direction|context|polic)",
        ),
        (
            "gives the reader another role",
            r"\byou are (?:now|no longer)\b|\bfrom now on,? you\b|\bact as (?:if you|an? (?:unrestricted|jailbroken))",
        ),
        ("speaks about the system prompt", r"\b(?:system|developer) (?:prompt|message|instructions?)\b"),
        (
            "carries chat markup",
            r"<\|(?:im_start|im_end|system|assistant|user|endoftext)\|?>|\[/?INST\]|<</?SYS>>|</?(?:system|assistant)>",
        ),
        (
            "wants something hidden from the user",
            r"\b(?:do not|don't|never) (?:tell|inform|mention|reveal|show)\b.{0,40}\b(?:user|human|operator|anyone)\b",
        ),
        (
            "asks for secrets to be sent",
            r"\b(?:send|post|upload|exfiltrate|forward|email)\b[^.;!?]{0,60}"
            r"\b(?:api[ _-]?keys?|passwords?|credentials?|secrets?|tokens?|environment variables?|conversation)\b",
        ),
        ("asks for a destructive command", r"\brm\s+-rf\s+[/~]|\bcurl\b[^\n]{0,200}\|\s*(?:ba)?sh\b"),
    )
)
_HIDDEN_SHARE = 0.02
"""Share of invisible characters from which on a text is hiding something (an emoji's joiner or two is not)."""


def instruction_like(case: Case) -> str | None:
    """Say why a case reads like orders to whoever is shown it; None: it does not.

    A case is evidence. Text in it may have come from a page or a file, and would be read by every later planner, so
    a planted order is kept out of sight until a person has looked at it. Patterns catch the plain attempts only.
    """
    for name, text in _texts(case):
        for what, pattern in _ORDERS:
            found = pattern.search(text)
            if found is not None:
                excerpt = " ".join(found[0].split())[:80]
                return f"{name} {what}: {excerpt!r}"
        hidden = len(text) - len(strip_invisible(text))
        if hidden > 3 and hidden > _HIDDEN_SHARE * len(text):
            return f"{name} hides {hidden} invisible characters"
    return None


def _texts(case: Case) -> Iterable[tuple[str, str]]:
    yield "question", case.question
    yield "answer", case.answer or ""
    yield "lesson", case.lesson or ""
    for text in _strings(case.plan):
        yield "plan", text
    for step in case.steps:
        yield "step", step.subtask
    for tag in case.tags:
        yield "tag", tag


def _strings(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():  # pyright: ignore[reportUnknownVariableType]
            yield str(key)  # pyright: ignore[reportUnknownArgumentType]
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:  # pyright: ignore[reportUnknownVariableType]
            yield from _strings(inner)
