"""What a namespace's policy has learned, kept equal to the log at all times.

Owns the order of learning: decisions in the order of their first known outcome, each with the outcome now in force.
A new outcome is learned at once. An amended one changes the past: the policy goes back to the last checkpoint before
it and learns the rest again, so the state is always what a rebuild from the log would give, bit for bit.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from memento_casebank.policies.base import Decision, Outcome, Policy

__all__ = ["Learner"]

_CHECKPOINT_EVERY = 256

Load = Callable[[str], tuple[Decision, Outcome | None]]
Checkpoint = tuple[int, dict[str, Any]]
"""How many decisions of the order were learned, and the policy's state then."""


class Learner:
    """A policy and the fold over the log that made it."""

    def __init__(self, make: Callable[[], Policy[Any]], load: Load) -> None:
        """`load` gives a decision with the outcome in force now, None while that is unknown."""
        self._make = make
        self._load = load
        self.policy = make()
        self._order: list[str] = []
        self._place: dict[str, int] = {}
        self._checkpoints: list[Checkpoint] = []
        self.unsaved = False
        """Whether anything was learned since it was made or restored, or since whoever saves set this back."""

    @property
    def learned(self) -> int:
        """How many decisions have an outcome that was ever known."""
        return len(self._order)

    def place(self, decision_id: str) -> int | None:
        """Where in the order of learning a decision stands; None: nothing was ever learned from it."""
        return self._place.get(decision_id)

    def outcomes_changed(self, decision_ids: Iterable[str]) -> None:
        """Take in that the outcomes of some decisions are new, or others now; new ones are learned in this order."""
        new: list[str] = []
        places: list[int] = []
        for decision_id in decision_ids:
            place = self._place.get(decision_id)
            if place is None:
                new.append(decision_id)
            else:
                places.append(place)
        if places:
            self._replay_from(min(places))
        for decision_id in new:
            decision, outcome = self._load(decision_id)
            if outcome is not None:
                self._enter(decision_id)
                self.policy.learn(decision, outcome)
                self.unsaved = True
                self._maybe_checkpoint(len(self._order))

    def restore(self, order: Iterable[str], checkpoints: Iterable[Checkpoint] = ()) -> None:
        """Start over with these decisions in order, from the last of `checkpoints`, which come oldest first."""
        self._order = []
        self._place = {}
        self._checkpoints = list(checkpoints)
        for decision_id in order:
            self._enter(decision_id)
        self.unsaved = False
        self._replay_from(len(self._order))

    def checkpoints(self, most_bytes: int) -> list[Checkpoint]:
        """What `restore` can go on from, oldest first: the state now, and of earlier ones what takes `most_bytes`."""
        kept: list[Checkpoint] = [(len(self._order), self.policy.state_dict())]
        for place, state in reversed(self._checkpoints):
            most_bytes -= _bytes(state)
            if most_bytes < 0:
                break
            if place < len(self._order):
                kept.append((place, state))
        return kept[::-1]

    def rebuild(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Forget the checkpoints and learn the whole order again, telling (done, total) now and then."""
        self._checkpoints = []
        self._replay_from(0, progress)

    def _enter(self, decision_id: str) -> None:
        self._place[decision_id] = len(self._order)
        self._order.append(decision_id)

    def _replay_from(self, place: int, progress: Callable[[int, int], None] | None = None) -> None:
        self._checkpoints = [entry for entry in self._checkpoints if entry[0] <= place]
        start, state = self._checkpoints[-1] if self._checkpoints else (0, None)
        self.policy = self._make()
        if state is not None:
            self.policy.load_state_dict(state)
        self.unsaved = self.unsaved or start < len(self._order)
        for done, decision_id in enumerate(self._order[start:], start + 1):
            decision, outcome = self._load(decision_id)
            if outcome is not None:
                self.policy.learn(decision, outcome)
            self._maybe_checkpoint(done)
            if progress is not None and done % 1000 == 0:
                progress(done, len(self._order))

    def _maybe_checkpoint(self, done: int) -> None:
        """Keep the state every 256 decisions, and of older ones fewer and fewer.

        A place is kept while it is at most twice its largest power of two away: going back by n decisions learns at
        most some 4n again, and the number of states grows with the logarithm of the decisions.
        """
        if done % _CHECKPOINT_EVERY == 0:
            kept = [(place, state) for place, state in self._checkpoints if done - place <= 2 * (place & -place)]
            self._checkpoints = [*kept, (done, self.policy.state_dict())]


def _bytes(state: object) -> int:
    """About how much a state takes: that of its arrays."""
    if isinstance(state, np.ndarray):
        return cast(NDArray[Any], state).nbytes
    if isinstance(state, Mapping):
        return sum(map(_bytes, cast(Mapping[object, object], state).values()))
    if isinstance(state, list | tuple):
        return sum(map(_bytes, cast(Sequence[object], state)))
    return 8
