"""What the bank answers when asked about itself: cases, decisions and figures, ready to print or send.

Owns the shapes only; `queries` fills them. No numpy, so the server can name them before it opens the bank.
"""

from typing import Any, Literal

from pydantic import BaseModel, Field

from memento_casebank.records import CaseStatus, OutcomeKind

__all__ = [
    "BankStats",
    "CandidateView",
    "CaseView",
    "DecisionView",
    "EditView",
    "Estimate",
    "IndexCheck",
    "NamespaceStats",
    "SearchPage",
    "explanation_text",
]


class Estimate(BaseModel):
    """A figure with its 90 % interval."""

    mean: float
    low: float
    high: float


class CaseView(BaseModel):
    """A case as it counts now."""

    case_id: str
    namespace: str
    question: str
    plan: dict[str, Any]
    answer: str | None = None
    lesson: str | None = None
    reward: float | None = Field(default=None, description="0..1; absent: unknown")
    outcome_kind: OutcomeKind | None = None
    status: CaseStatus
    status_reason: str = ""
    similarity: float | None = Field(default=None, description="Cosine to the text searched for")
    shown: int = Field(description="How often it was shown")
    created: float = Field(description="Seconds since 1970")
    kind: Literal["episode", "strategy"] = "episode"
    tags: list[str] = []
    run_id: str | None = None
    parents: list[str] = []
    group_size: int = Field(default=1, description="Cases in its near-duplicate group")


class SearchPage(BaseModel):
    cases: list[CaseView]
    total: int = Field(description="How many cases match")
    next_offset: int | None = Field(default=None, description="Pass as `offset` for the next page; absent at the end")


class CandidateView(BaseModel):
    """One case that could have been shown, and why it was or was not."""

    case_id: str
    question: str
    rank: int | None = Field(default=None, description="1 is best; absent: not shown")
    similarity: float
    bm25: float = Field(description="Words shared, relative to the best candidate, 0..1")
    value: Estimate = Field(description="Worth according to the policy")
    exploration: float = Field(description="What the draw added to the value when it was ranked")
    propensity: float = Field(description="Probability that it was shown at any rank")
    lead_probability: float = Field(description="Probability that it was shown first")
    reward: float | None = Field(default=None, description="The case's own outcome at that time")
    why: str


class DecisionView(BaseModel):
    """One retrieval, explained."""

    decision_id: str
    query: str
    namespace: str
    created: float
    policy: str
    scale: Literal["lift", "score"] = Field(description="lift: values are changes of P(success) over showing nothing")
    memory: Literal["on", "void"]
    void_probability: float
    forced: str = Field(default="", description="Set when exploration overrode the policy")
    success: Estimate | None = Field(default=None, description="P(success) with the cases shown")
    without_memory: Estimate | None = Field(default=None, description="P(success) with none")
    lift: Estimate | None = None
    reward: float | None = Field(default=None, description="How it turned out; absent: unknown")
    outcome_kind: OutcomeKind | None = None
    candidates: list[CandidateView]
    total_candidates: int
    next_offset: int | None = None


class NamespaceStats(BaseModel):
    namespace: str
    cases: int
    by_status: dict[str, int]
    groups: int = Field(description="Near-duplicate groups; cases minus groups are copies")
    rewards: dict[str, int] = Field(description="Cases that succeeded (≥ 0.5), failed, or are unknown")
    decisions: int
    learned_from: int = Field(description="Decisions with a known outcome")
    success_with_cases: Estimate | None = Field(default=None, description="Mean reward where cases were shown")
    success_without: Estimate | None = Field(default=None, description="Mean reward where none was shown")
    calibration_error: float | None = Field(
        default=None, description="Mean gap between predicted and seen success over ten bins, of recent decisions"
    )
    fingerprint: str = Field(description="Of everything learned; equal states have equal fingerprints")


class BankStats(BaseModel):
    path: str
    bank_id: str
    policy: str
    embedder: str
    records: dict[str, int]
    log_bytes: int
    index: str = Field(description="State of the chromadb index")
    namespaces: list[NamespaceStats]


class IndexCheck(BaseModel):
    """The chromadb index beside the log."""

    cases: int = Field(description="Cases in the log")
    indexed: int = Field(description="Rows in the index")
    missing: int = Field(description="Cases that the index does not hold")


class EditView(BaseModel):
    """Edits that one call made."""

    edits: list[dict[str, str]] = Field(description="edit_id, case_id and action of each")
    undo_with: str = Field(description="Pass as edit_id with action undo to take all of them back")


def explanation_text(view: DecisionView) -> str:
    """A decision for people and models to read."""
    lines = [
        f"Question: {view.query}",
        f"Policy {view.policy}: {'showed cases' if view.memory == 'on' else 'showed no case'} "
        f"(P(no case) = {view.void_probability:.2f}){_forced(view.forced)}",
    ]
    for name, estimate in (
        ("P(success) with these cases", view.success),
        ("P(success) with none", view.without_memory),
        ("Lift", view.lift),
    ):
        if estimate is not None:
            lines.append(f"{name}: {_interval(estimate)}")
    outcome = "unknown" if view.reward is None else f"{view.reward:g} ({view.outcome_kind})"
    lines.append(f"Outcome: {outcome}")
    for candidate in view.candidates:
        place = f"#{candidate.rank}" if candidate.rank is not None else "  -"
        lines.append(
            f"{place} {candidate.case_id} cosine {candidate.similarity:.2f}, value {_interval(candidate.value)}, "
            f"exploration {candidate.exploration:+.2f}, P(shown) {candidate.propensity:.2f}: {candidate.why}"
        )
        lines.append(f"     {candidate.question}")
    if view.next_offset is not None:
        lines.append(f"{view.total_candidates - view.next_offset} more candidates: offset={view.next_offset}")
    return "\n".join(lines)


def _forced(forced: str) -> str:
    return {
        "memory_off": "; this run was made without memory to measure what memory is worth",
        "experiment": "; an experiment said so",
        "probe": "; shown to find out whether cases help after all",
        "uniform": "; drawn at random to measure what cases are worth",
    }.get(forced, "")


def _interval(estimate: Estimate) -> str:
    return f"{estimate.mean:+.2f} [90 % {estimate.low:+.2f} .. {estimate.high:+.2f}]"
