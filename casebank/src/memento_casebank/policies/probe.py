"""The probe: rerun a task with no case, with one, with more, and see what memory was worth.

Outcomes from one set per task cannot tell a helpful case from an easy question. Where a verifier exists and reruns are
affordable, this measures it: tiers of the ranked cases, and the set without each of its members. Source: MemSifter,
arXiv 2603.03379 (tiers and their discounted marginal utility). It runs nothing by itself; the caller brings `attempt`.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

__all__ = ["TIERS", "ProbeReport", "marginal_utility", "probe"]

TIERS = (1, 2, 3, 5)
"""Set sizes compared with none; larger than the ranking are skipped."""

Attempt = Callable[[tuple[str, ...]], Awaitable[float | None]]
"""Does the task with these cases shown and gives its reward 0..1; None: unknown."""


@dataclass(frozen=True)
class ProbeReport:
    rewards: dict[tuple[str, ...], float | None]
    """What each set earned; worth logging as outcomes of decisions of their own."""
    lift: float | None
    """Reward of the whole set minus reward without memory; None when either is unknown."""
    utility: float | None
    """Discounted marginal utility over the tiers, as in the paper."""
    effects: dict[str, float]
    """Per case: reward of the whole set minus reward without that case, where both are known."""


async def probe(
    attempt: Attempt, ranked: Sequence[str], *, tiers: Sequence[int] = TIERS, leave_one_out: bool = False
) -> ProbeReport:
    """Run the task once per tier, and once per case left out when asked to.

    Costs 1 + (tiers that fit) attempts, plus one per case with `leave_one_out`.
    """
    whole = tuple(ranked[: max((tier for tier in tiers if tier <= len(ranked)), default=len(ranked))])
    sets = [(), *(tuple(ranked[:tier]) for tier in tiers if tier <= len(ranked))]
    if leave_one_out:
        sets += [tuple(other for other in whole if other != case) for case in whole]
    rewards: dict[tuple[str, ...], float | None] = {}
    for cases in sets:
        if cases not in rewards:
            rewards[cases] = await attempt(cases)
    with_all, without = rewards.get(whole), rewards[()]
    effects: dict[str, float] = {}
    for case in whole:
        rest = rewards.get(tuple(other for other in whole if other != case))
        if with_all is not None and rest is not None:
            effects[case] = with_all - rest
    return ProbeReport(
        rewards=rewards,
        lift=None if with_all is None or without is None else with_all - without,
        utility=marginal_utility(
            {len(cases): rewards[cases] for cases in sets if cases == tuple(ranked[: len(cases)])}
        ),
        effects=effects,
    )


def marginal_utility(rewards: dict[int, float | None]) -> float | None:
    """Σ [C(k_n) - C(k_{n+1})] s_{k_n} + C(k_last) s_last - C(k_1) s_0, with C(k) = 1/log2(k + 1).

    Gains from few cases weigh more than the same gains from many.

    Args:
        rewards: reward by set size, 0 included. C(1) = 1, so with tiers from 1 the last term is s_0.

    Returns:
        None when no tier, or any reward, is unknown.
    """
    sizes = sorted(size for size in rewards if size > 0)
    scores = [rewards.get(size) for size in (0, *sizes)]
    known = [score for score in scores if score is not None]
    if not sizes or len(known) != len(scores):
        return None
    discount = [1.0 / math.log2(size + 1) for size in sizes] + [0.0]
    gained = sum((here - after) * score for here, after, score in zip(discount, discount[1:], known[1:], strict=False))
    return gained - discount[0] * known[0]
