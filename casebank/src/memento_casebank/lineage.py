"""Which case was made from which: the graph that quarantine spreads along and credit flows back on.

Owns the graph only; what follows from it is `engine`'s.
"""

from collections.abc import Iterable, Sequence

from memento_casebank.records import Case

__all__ = ["Lineage"]

MAX_ANCESTOR_DEPTH = 3
"""With MemQ's decay of 0.5 the fourth generation would get 6 % of the credit, spread over up to 256 cases."""


class Lineage:
    """Parents of a case are the cases that were shown when it was made; a case is added after its parents."""

    def __init__(self) -> None:
        self._parents: dict[str, tuple[str, ...]] = {}
        self._children: dict[str, list[str]] = {}

    def add(self, case: Case) -> None:
        if case.parents:
            self._parents[case.id] = case.parents
        for parent in case.parents:
            self._children.setdefault(parent, []).append(case.id)

    def parents(self, case_id: str) -> tuple[str, ...]:
        return self._parents.get(case_id, ())

    def descendants(self, case_id: str) -> list[str]:
        """Everything made from a case, directly or not, in the order it was made."""
        found: dict[str, None] = {}
        open_ids = [case_id]
        while open_ids:
            for child in self._children.get(open_ids.pop(0), ()):
                if child not in found and child != case_id:
                    found[child] = None
                    open_ids.append(child)
        return list(found)

    def ancestors(self, case_ids: Sequence[str]) -> Iterable[tuple[str, int]]:
        """(case id, depth) of what the cases were made from, nearest first (MemQ's provenance graph).

        A case that is reached by several ways comes once per depth; the first is the nearest.
        """
        generation = list(case_ids)
        for depth in range(1, MAX_ANCESTOR_DEPTH + 1):
            generation = list(dict.fromkeys(p for case_id in generation for p in self._parents.get(case_id, ())))
            for parent in generation:
                yield parent, depth
