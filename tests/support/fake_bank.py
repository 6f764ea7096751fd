"""The outermost wire of memory: an MCP server with the case bank's tools, for tests of the agent."""

from collections.abc import Sequence
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel

__all__ = ["FakeBank"]


class Row(BaseModel):
    model_config = {"extra": "allow"}


class FakeBank:
    """Returns what the test set, and holds what it was told."""

    def __init__(self, cases: list[dict[str, Any]], *, broken: bool = False, evidence: Sequence[str] = ()) -> None:
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.outcomes: list[tuple[float | None, str, float]] = []
        self.server: MCPServer[Any] = MCPServer("casebank")

        @self.server.tool()
        def retrieve_cases(query: str, limit: int, namespace: str, run_id: str) -> Row:
            """Cases."""
            self.seen.append(("retrieve", {"query": query, "limit": limit, "run_id": run_id}))
            if broken:
                raise ToolError("the bank is closed")
            found: dict[str, Any] = {"decision_id": "d1", "memory": "on", "cases": cases, "evidence": evidence}
            return Row.model_validate(found)

        @self.server.tool()
        def retain_case(
            question: str,
            plan: dict[str, Any],
            run_id: str,
            model: str,
            steps: list[Any],
            cost: dict[str, Any],
            parents: list[str],
            namespace: str,
            answer: str | None = None,
            decision_id: str | None = None,
            lesson: str | None = None,
        ) -> Row:
            """Keep."""
            if broken:
                raise ToolError("the bank is closed")
            row = {"question": question, "plan": plan, "answer": answer, "parents": parents, "decision_id": decision_id}
            row["lesson"] = lesson
            self.seen.append(("retain", row))
            return Row.model_validate({"case_id": "new"})

        @self.server.tool()
        def record_outcome(
            run_id: str, reward: float | None, kind: str, confidence: float, cited_case_ids: list[str] | None = None
        ) -> Row:
            """Outcome."""
            self.outcomes.append((reward, kind, confidence))
            return Row.model_validate({"updated": 1})
