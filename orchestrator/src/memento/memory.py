"""Case memory as the agent uses it: three calls to a server that keeps cases (spec/memento.md §2.2, §2.5).

Owns the translation between a run and the case bank's tools `retrieve_cases`, `retain_case`, `record_outcome`,
and the outbox for cases that could not be delivered. It learns nothing itself, and never hides that memory
was not there: a run "with memory" that had none says so.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from mcp import MCPError
from pydantic import BaseModel, ValidationError

from memento.events import CaseShown, CasesRead, ModelUse
from memento.outcomes import read_models, result_text
from memento.toolbox import ServerUnavailable, ToolBox

__all__ = ["CaseMemory", "MemoryUnavailable", "OutcomeKind"]

OutcomeKind = Literal["verifier", "judge", "human", "self"]


class MemoryUnavailable(Exception):
    """The case bank did not do what was asked. The message says why; the run goes on without it."""


class _Refused(MemoryUnavailable):
    """The bank is there and said no: the same message will be refused again."""


class _Waiting(BaseModel):
    """A message in the outbox."""

    tool: str
    arguments: dict[str, Any]


class _Retrieved(BaseModel):
    decision_id: str
    memory: Literal["on", "void"] = "on"
    cases: list[CaseShown] = []
    evidence: list[str] = []


@dataclass(frozen=True, kw_only=True)
class CaseMemory:
    """`mode` is the operator's: `off` does neither, `read-only` shows cases and keeps none."""

    toolbox: ToolBox
    mode: Literal["on", "read-only", "off"] = "on"
    server: str = "casebank"
    namespace: str = "default"
    limit: int = 4
    outbox: Path | None = None
    """Folder that keeps what the bank could not take, until a later run delivers it."""

    async def read(
        self, question: str, *, cycle: int, run_id: str, exclude_task: bool = False, subtask_id: str | None = None
    ) -> CasesRead:
        """Ask for cases. A bank that cannot answer gives the state `unavailable`, which is not an empty memory."""
        if self.mode == "off":
            return CasesRead(cycle=cycle, subtask_id=subtask_id, state="off")
        arguments: dict[str, Any] = {
            "query": question,
            "limit": self.limit,
            "namespace": self.namespace,
            "run_id": run_id,
        }
        if exclude_task:
            arguments["exclude_task"] = True
        models: list[ModelUse] = []
        try:
            found = _Retrieved.model_validate(await self._call("retrieve_cases", arguments, models))
        except (MemoryUnavailable, ValidationError) as exc:
            return CasesRead(cycle=cycle, subtask_id=subtask_id, state="unavailable", detail=str(exc), models=models)
        return CasesRead(
            cycle=cycle,
            subtask_id=subtask_id,
            state=found.memory,
            decision_id=found.decision_id,
            cases=found.cases,
            evidence=found.evidence,
            models=models,
        )

    async def retain(
        self, case: dict[str, Any], *, instead_of: str | None = None, models: list[ModelUse] | None = None
    ) -> str | None:
        """Keep a case; returns its id, or `None` when memory is not written to.

        Args:
            instead_of: the case of an earlier sitting of the same run: this one says what really came of it.
            models: gets the models that the bank says it used.

        Raises:
            MemoryUnavailable: the bank did not take it; it lies in the outbox, if there is one.
        """
        if self.mode != "on":
            return None
        models = [] if models is None else models
        await self.deliver_outbox(models)
        case_id = str((await self._deliver("retain_case", {**case, "namespace": self.namespace}, models))["case_id"])
        if instead_of is not None and instead_of != case_id:
            reason = f"the run went on, and is now case {case_id}"
            await self._deliver("update_case", {"action": "archive", "case_id": instead_of, "reason": reason}, models)
        return case_id

    async def record_outcome(
        self,
        *,
        run_id: str,
        reward: float | None,
        kind: OutcomeKind,
        confidence: float = 1.0,
        cited: list[str] | None = None,
    ) -> None:
        """Tell the bank how a run ended. An unknown reward is told as unknown.

        Raises:
            MemoryUnavailable: the bank did not take it; it lies in the outbox, if there is one.
        """
        if self.mode == "off":
            return
        arguments = {
            "run_id": run_id,
            "reward": reward,
            "kind": kind,
            "confidence": confidence,
            "namespace": self.namespace,
        }
        await self._deliver("record_outcome", {**arguments, **({"cited_case_ids": cited} if cited else {})}, [])

    async def deliver_outbox(self, models: list[ModelUse] | None = None) -> int:
        """Hand the bank what earlier runs could not; returns how many were taken.

        What the bank refuses now that it is there is set aside as `*.refused`: it must not hold up the others.

        Raises:
            MemoryUnavailable: the bank cannot be reached now either.
        """
        taken = 0
        # A name ends in .json only once the file is whole (`_deliver`).
        waiting = sorted(self.outbox.glob("*.json")) if self.outbox is not None and self.outbox.is_dir() else []
        for path in waiting:
            try:
                message = _Waiting.model_validate_json(path.read_text(encoding="utf-8"))
                await self._call(message.tool, message.arguments, [] if models is None else models)
            except FileNotFoundError:
                continue  # another process delivered it
            except (_Refused, ValidationError):
                path.replace(path.with_suffix(".refused"))
                continue
            path.unlink(missing_ok=True)
            taken += 1
        return taken

    async def _deliver(self, tool: str, arguments: dict[str, Any], models: list[ModelUse]) -> dict[str, Any]:
        try:
            return await self._call(tool, arguments, models)
        except MemoryUnavailable as exc:
            if self.outbox is None or self.server not in self.toolbox.servers:
                raise
            self.outbox.mkdir(parents=True, exist_ok=True)
            name = f"{arguments.get('run_id', tool)}-{secrets.token_hex(4)}"
            part = self.outbox / f"{name}.part"
            part.write_text(_Waiting(tool=tool, arguments=arguments).model_dump_json(), encoding="utf-8")
            part.replace(part.with_suffix(".json"))
            raise MemoryUnavailable(f"{exc} (it waits in the outbox for a later run)") from exc

    async def _call(self, tool: str, arguments: dict[str, Any], models: list[ModelUse]) -> dict[str, Any]:
        try:
            result = await self.toolbox.call_server(self.server, tool, arguments)
        except (ServerUnavailable, MCPError) as exc:
            raise MemoryUnavailable(str(exc)) from exc
        models += read_models(result)
        if result.is_error:
            raise _Refused(result_text(result))
        if result.structured_content is None:
            raise MemoryUnavailable(f"{self.server} answered {tool} without structured content")
        return cast(dict[str, Any], result.structured_content)
