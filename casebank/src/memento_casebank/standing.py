"""Where a case stands now: the fold over the edits made to it.

Owns what edits mean together. Nothing is overwritten: a case's text as retained stays in the log, an edit adds to
it, and undoing an edit is an edit too (which can itself be undone).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError

from memento_casebank.hygiene import instruction_like
from memento_casebank.records import BankError, Case, CaseStatus, Edit, first_problem

__all__ = ["REVISABLE", "Standing", "check_changes", "quarantine_reasons", "standing", "undo_target"]

REVISABLE = frozenset({"plan", "answer", "lesson", "tags", "valid_until"})
"""Fields that may be revised. The question may not: it is what the case is found by; retain a new case instead."""


class Standing(NamedTuple):
    """A case as it counts now."""

    case: Case
    """With revisions applied."""
    status: CaseStatus
    reason: str
    """Why it is not active; empty when it is."""


def standing(case: Case, edits: Sequence[Edit]) -> Standing:
    """Fold a case's edits, oldest first."""
    flags: dict[str, str] = {"quarantined": case.quarantine} if case.quarantine else {}
    changes: dict[str, Any] = {}
    for edit in in_effect(edits):
        match edit.action:
            case "quarantine":
                flags["quarantined"] = edit.reason
            case "release":
                flags.pop("quarantined", None)
            case "disable":
                flags["disabled"] = edit.reason
            case "enable":
                flags.pop("disabled", None)
            case "archive":
                flags["archived"] = edit.reason
            case "restore":
                flags.pop("archived", None)
            case "revise":
                changes |= edit.changes
            case "undo":
                pass
    revised = Case.model_validate(case.model_dump() | changes) if changes else case
    for status in ("quarantined", "disabled", "archived"):
        if status in flags:
            return Standing(revised, status, flags[status])
    return Standing(revised, "active", "")


def quarantine_reasons(case: Case, edits: Sequence[Edit]) -> set[str]:
    """Every reason for which a case is quarantined now: `standing` tells the last of them."""
    reasons = {case.quarantine} if case.quarantine else set[str]()
    for edit in in_effect(edits):
        if edit.action == "quarantine":
            reasons.add(edit.reason)
        elif edit.action == "release":
            reasons.clear()
    return reasons


def in_effect(edits: Sequence[Edit]) -> list[Edit]:
    """The edits that no later undo took back, oldest first."""
    undone: set[str | None] = set()
    kept: list[Edit] = []
    for edit in reversed(edits):
        if edit.id in undone:
            continue
        if edit.action == "undo":
            undone.add(edit.undoes)
        kept.append(edit)
    return kept[::-1]


def check_changes(case: Case, changes: dict[str, Any]) -> None:
    """Check that a revision changes what may be changed, to what fits, and gives no orders.

    Raises:
        BankError: it does not.
    """
    fields = ", ".join(sorted(REVISABLE))
    if not changes or not changes.keys() <= REVISABLE:
        raise BankError(f"A revision changes one or more of: {fields}. Retain a new case for another question.")
    try:
        revised = Case.model_validate(case.model_dump() | changes)
        orders = instruction_like(revised)
    except ValidationError as exc:
        raise BankError(first_problem(exc)) from exc
    except RecursionError as exc:
        raise BankError("The revision is nested too deeply to be kept as JSON.") from exc
    if orders is not None and instruction_like(case) is None:
        raise BankError(f"The revised {orders}; cases are evidence and may not give orders.")


def undo_target(edit: Edit, edits: Sequence[Edit]) -> Edit:
    """Check that `edit` is in effect, so that undoing it means something.

    Raises:
        BankError: it was undone already.
    """
    if edit not in in_effect(edits):
        raise BankError(f"Edit {edit.id!r} was undone already.")
    return edit
