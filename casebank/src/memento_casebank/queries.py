"""Reading the bank without changing it: search, explanations, figures.

Owns how the engine's state becomes `views`. Nothing here is logged as a decision, so nothing here is learned from.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from memento_casebank.candidates import CandidateSettings
from memento_casebank.decisions import DecisionNumbers, unpack
from memento_casebank.engine import Engine
from memento_casebank.policies.base import Z90, fingerprint
from memento_casebank.records import CaseStatus, DecisionRecord
from memento_casebank.shelf import STATUS_CODES, Shelf
from memento_casebank.views import (
    BankStats,
    CandidateView,
    CaseView,
    DecisionView,
    Estimate,
    NamespaceStats,
    SearchPage,
)

__all__ = ["case_view", "explain", "search", "stats"]

_RECENT = 2_000
_CALIBRATION_BINS = 10


def case_view(engine: Engine, case_id: str, similarity: float | None = None) -> CaseView:
    """A case as it counts now.

    Raises:
        UnknownId: there is none.
    """
    case, status, reason = engine.standing(case_id)
    shelf = engine.shelf(case.namespace)
    facts = shelf.table[shelf.row_of[case_id]]
    outcome = engine.in_force(case_id)
    return CaseView(
        case_id=case.id,
        namespace=case.namespace,
        question=case.question,
        plan=case.plan,
        answer=case.answer,
        lesson=case.lesson,
        reward=outcome.reward,
        outcome_kind=outcome.kind,
        status=status,
        status_reason=reason,
        similarity=None if similarity is None else round(similarity, 4),
        shown=int(facts["shown"]),
        created=case.created,
        kind=case.kind,
        tags=list(case.tags),
        run_id=case.run_id,
        parents=list(case.parents),
        group_size=int(np.count_nonzero(shelf.table["group"] == facts["group"])),
    )


def search(
    engine: Engine,
    text: str,
    vector: NDArray[np.float32] | None,
    *,
    namespace: str,
    status: CaseStatus | None,
    tag: str | None,
    limit: int,
    offset: int,
) -> SearchPage:
    """Cases by meaning and words, best first; without text the newest first. `status=None` means any."""
    shelf = engine.shelf(namespace)
    allowed = np.ones(len(shelf), np.bool_)
    if status is not None:
        allowed &= shelf.table["status"] == STATUS_CODES[status]
    if tag is not None:
        for row, case_id in enumerate(shelf.ids):
            allowed[row] = allowed[row] and tag in engine.standing(case_id).case.tags
    total = int(np.count_nonzero(allowed))
    if vector is None:
        newest: list[int] = np.flatnonzero(allowed)[::-1][offset : offset + limit].tolist()
        views = [case_view(engine, shelf.ids[row]) for row in newest]
    else:
        similarity = shelf.vectors @ vector
        best: list[int] = _ranked(similarity, shelf.words.scores(text), allowed)[offset : offset + limit].tolist()
        views = [case_view(engine, shelf.ids[row], float(similarity[row])) for row in best]
    after = offset + len(views)
    return SearchPage(cases=views, total=total, next_offset=after if views and after < total else None)


def _ranked(similarity: NDArray[np.float32], bm25: NDArray[np.float32], allowed: NDArray[np.bool_]) -> NDArray[np.intp]:
    """All allowed rows, best first, by reciprocal rank fusion as in `candidates`, ties to the newer.

    Over whole rankings, unlike there: cut off at a page's end they would order the rows anew for every page.
    """
    rows = np.flatnonzero(allowed)[::-1]
    words = bm25[rows]
    score = _reciprocal_ranks(similarity[rows]) + np.where(words > 0.0, _reciprocal_ranks(words), 0.0)
    return rows[np.argsort(-score, kind="stable")]


def _reciprocal_ranks(values: NDArray[np.float32]) -> NDArray[np.float64]:
    ranks = np.empty(len(values))
    ranks[np.argsort(-values, kind="stable")] = np.arange(1, len(values) + 1)
    return 1.0 / (CandidateSettings.fusion_constant + ranks)


def explain(engine: Engine, decision_id: str, *, limit: int = 10, offset: int = 0) -> DecisionView:
    """Why each case was or was not chosen in a decision: those shown first, then by score.

    Raises:
        UnknownId: there is no such decision.
    """
    _, record, _, packed = engine.decision(decision_id)
    numbers = unpack(packed, record.candidates)
    shelf = engine.shelf(record.namespace)
    rest = [row for row in np.argsort(-numbers.sampled, kind="stable").tolist() if row not in record.shown]
    order = [*record.shown, *rest]
    outcome = engine.in_force(decision_id)
    after = offset + limit
    return DecisionView(
        decision_id=record.id,
        query=record.query,
        namespace=record.namespace,
        created=record.created,
        policy=record.policy,
        scale=record.scale,
        memory="on" if record.shown else "void",
        void_probability=record.void_probability,
        forced=record.forced,
        success=_estimate(record.success),
        without_memory=_estimate(record.without_memory),
        lift=_estimate(record.lift),
        reward=outcome.reward,
        outcome_kind=outcome.kind,
        candidates=[_candidate(engine, shelf, record, numbers, row) for row in order[offset:after]],
        total_candidates=record.candidates,
        next_offset=after if after < record.candidates else None,
    )


def _candidate(
    engine: Engine, shelf: Shelf, record: DecisionRecord, numbers: DecisionNumbers, row: int
) -> CandidateView:
    case_id = shelf.ids[shelf.row_of_seq[int(numbers.seqs[row])]]
    value, sd = float(numbers.value[row]), float(numbers.value_sd[row])
    features = numbers.table[row]
    reward = float(features["reward"])
    return CandidateView(
        case_id=case_id,
        question=engine.case(case_id).question[:300],
        rank=record.shown.index(row) + 1 if row in record.shown else None,
        similarity=round(float(features["similarity"]), 4),
        bm25=round(float(features["bm25"]), 4),
        value=Estimate(mean=round(value, 4), low=round(value - Z90 * sd, 4), high=round(value + Z90 * sd, 4)),
        exploration=round(float(numbers.sampled[row]) - value, 4),
        propensity=round(float(numbers.inclusion[row]), 4),
        lead_probability=round(float(numbers.lead_probability[row]), 4),
        reward=None if math.isnan(reward) else reward,
        why=_why(record, numbers, row),
    )


def _why(record: DecisionRecord, numbers: DecisionNumbers, row: int) -> str:
    if record.forced == "memory_off":
        return "not shown: this run was made without memory, to measure what memory is worth"
    if record.forced == "experiment":
        return "shown because an experiment said so"
    if record.forced == "probe":
        return "shown to find out whether cases help after all" if row in record.shown else "not drawn"
    if record.forced == "uniform":
        return "drawn at random, to measure what cases are worth" if row in record.shown else "not drawn"
    value, sampled = float(numbers.value[row]), float(numbers.sampled[row])
    if row in record.shown:
        worst_left_out = max(
            (float(s) for i, s in enumerate(numbers.sampled) if i not in record.shown), default=-np.inf
        )
        if value <= worst_left_out < sampled:
            return "shown to find out more about it: its draw beat cases with a higher mean"
        return "shown: among the best of the draw"
    if len(record.shown) < record.k:
        return "not shown: showing nothing more was expected to be better" + (
            " (the draw went against it)" if sampled < value else ""
        )
    return "not shown: others ranked higher"


def stats(engine: Engine) -> BankStats:
    """Figures about the whole bank."""
    log = engine.log
    index = engine.index
    made: dict[str, list[tuple[str, bool]]] = {}
    for decision_id, namespace, seqs in log.shown():
        made.setdefault(namespace, []).append((decision_id, bool(seqs)))
    if index.failure is not None:
        state = f"failed: {index.failure}; `memento-casebank rebuild` restores it"
    else:
        state = "complete" if index.is_clean else "catching up"
    return BankStats(
        path=str(engine.folder),
        bank_id=engine.bank_id,
        policy=engine.settings.policy,
        embedder=engine.embedder_id,
        records=log.counts(),
        log_bytes=log.path.stat().st_size,
        index=state,
        namespaces=[
            _namespace(engine, name, decisions)
            for name in engine.namespaces()
            if (decisions := made.get(name, [])) or len(engine.shelf(name))
        ],
    )


def _namespace(engine: Engine, namespace: str, decisions: Sequence[tuple[str, bool]]) -> NamespaceStats:
    """Figures about one; `decisions` are its decisions' ids, oldest first, and whether they showed anything."""
    shelf = engine.shelf(namespace)
    rewards = shelf.table["reward"]
    shown: list[float] = []
    void: list[float] = []
    recent: list[str] = []
    for decision_id, any_shown in decisions:
        reward = engine.in_force(decision_id).reward
        if reward is not None:
            (shown if any_shown else void).append(reward)
            recent.append(decision_id)
    learner = engine.learner(namespace)
    return NamespaceStats(
        namespace=namespace,
        cases=len(shelf),
        by_status={
            name: count
            for name, code in STATUS_CODES.items()
            if (count := int(np.count_nonzero(shelf.table["status"] == code)))
        },
        groups=len(np.unique(shelf.table["group"])),
        rewards={
            "succeeded": int(np.count_nonzero(rewards >= 0.5)),
            "failed": int(np.count_nonzero(rewards < 0.5)),
            "unknown": int(np.count_nonzero(np.isnan(rewards))),
        },
        decisions=len(decisions),
        learned_from=learner.learned,
        success_with_cases=_mean(shown),
        success_without=_mean(void),
        calibration_error=_calibration_error(engine, recent[-_RECENT:]),
        fingerprint=fingerprint(learner.policy),
    )


def _mean(values: Sequence[float]) -> Estimate | None:
    """Mean of rewards in 0..1 with Wilson's interval (1927): it stays inside 0..1 and is wide for one or two."""
    if not values:
        return None
    mean, z2_n = float(np.mean(values)), Z90 * Z90 / len(values)
    middle = (mean + z2_n / 2) / (1 + z2_n)
    half = math.sqrt(z2_n * (mean * (1 - mean) + z2_n / 4)) / (1 + z2_n)
    return Estimate(mean=mean, low=max(0.0, middle - half), high=min(1.0, middle + half))


def _calibration_error(engine: Engine, decision_ids: Sequence[str]) -> float | None:
    """Expected calibration error of the predictions as they were made; None when none were made."""
    pairs = [
        (record.success[0], engine.in_force(decision_id).reward)
        for decision_id in decision_ids
        if (record := engine.decision(decision_id).record).success is not None
    ]
    if not pairs:
        return None
    table = np.asarray(pairs, np.float64)
    bins = np.minimum((table[:, 0] * _CALIBRATION_BINS).astype(int), _CALIBRATION_BINS - 1)
    gaps = [
        abs(float(table[bins == b, 0].mean() - table[bins == b, 1].mean())) * int(np.count_nonzero(bins == b))
        for b in np.unique(bins)
    ]
    return sum(gaps) / len(table)


def _estimate(triple: tuple[float, float, float] | None) -> Estimate | None:
    return None if triple is None else Estimate(mean=triple[0], low=triple[1], high=triple[2])
