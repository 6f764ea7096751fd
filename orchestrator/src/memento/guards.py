"""Guards against a model that goes in circles: the same call again, nothing new, one error after another.

Owns the judgement, on one subtask's turns. It costs no model call: a turn is *stale* when every call in it failed,
or gave word for word what an earlier call of the subtask had given. Half of what is allowed earns a nudge, all of
it ends the subtask, with a reason that the planner reads and the case keeps.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["CallSeen", "LoopGuard", "Verdict"]


@dataclass(frozen=True)
class CallSeen:
    """One tool call of a turn, and what the model was given for it."""

    tool: str
    arguments: dict[str, Any] | str
    result: str
    is_error: bool

    @property
    def request(self) -> str:
        return f"{self.tool} {json.dumps(self.arguments, sort_keys=True, ensure_ascii=False)}"


@dataclass(frozen=True)
class Verdict:
    """`reason` is a clause without a subject, such as "made the same call again"."""

    action: Literal["go on", "nudge", "stop"]
    reason: str = ""


@dataclass
class LoopGuard:
    """Show it every turn of a subtask. `max_stale_turns` in a row end it."""

    max_stale_turns: int
    _stale_turns: int = 0
    _requests: set[str] = field(default_factory=set[str])
    _results: set[str] = field(default_factory=set[str])

    def turn(self, calls: Sequence[CallSeen]) -> Verdict:
        """Judge a turn's calls; a turn without calls is not shown."""
        problems = [self._problem(call) for call in calls]
        self._requests.update(call.request for call in calls)
        self._results.update(call.result for call in calls)
        if not problems or None in problems:
            self._stale_turns = 0
            return Verdict("go on")
        self._stale_turns += 1
        reason = str(problems[-1])
        if self._stale_turns >= self.max_stale_turns:
            return Verdict("stop", reason)
        if self._stale_turns == max(1, self.max_stale_turns // 2):
            return Verdict("nudge", reason)
        return Verdict("go on")

    def _problem(self, call: CallSeen) -> str | None:
        """Why a call brought nothing new, or `None`. The same call may well give something else the next time."""
        if call.is_error:
            return f"got an error from {call.tool}"
        if call.result not in self._results:
            return None
        if call.request in self._requests:
            return f"made the same call of {call.tool} again, with the same result"
        return f"got nothing new from {call.tool}"
