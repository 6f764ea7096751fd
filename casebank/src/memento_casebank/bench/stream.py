"""`bench stream`: does memory help an agent that learns from its own outcomes, on real text, with no language model?

Protocol (guides/casebank.md §0.5, §5f). Utterances arrive in one order (a seed is a shuffle of the file). The agent
answers each with a category. Without memory it answers with the category whose *name* looks most like the utterance
(TF-IDF over the characters of the names; nothing is fitted to utterances). With cases it does what most of the shown
cases did, ties going to the better ranked; those cases are the cited ones. It is told only whether that answer was
right (with `false_positive` > 0, a wrong answer is praised that often). A case is utterance + answer, and only
praised ones are kept. So the bank sees what the agent got right, errors it was praised for included, and nothing else.

No threshold is tuned on the stream: a policy runs with its shipped defaults unless the command line says otherwise.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memento_casebank.bench.world import SECONDS_PER_TASK, BenchShelf, PolicySpec, Utterances, calibration_error
from memento_casebank.candidates import CandidateSettings
from memento_casebank.policies.base import CANDIDATE_DTYPE, Candidates, Decision, Outcome, Query

__all__ = ["StreamResult", "name_match", "run_stream", "vote"]

WINDOW = 2_000
"""Length of the windows in which a policy is compared with no memory."""
BLOCK = 500
"""Points of the learning curve are means over this many utterances."""


@dataclass(frozen=True)
class StreamResult:
    policy: str
    seed: int
    length: int
    false_positive: float
    cumulative: float
    """Share of right answers."""
    last_2k: float
    no_memory: float
    """Share of right answers of the same agent on the same stream without memory."""
    worst_window: float
    """Least difference to no memory over all 2,000-utterance windows, wherever they start."""
    void_share: float
    """Share of decisions in which no case was shown."""
    wrong_in_bank: float
    """Share of kept cases whose answer is wrong."""
    calibration_error: float | None
    """Of the predicted P(praise) against praise received; None when the policy predicts none."""
    curve: list[float]
    """Share of right answers per 500 utterances."""


def run_stream(
    data: Utterances,
    spec: PolicySpec,
    *,
    seed: int,
    length: int = 9_000,
    k: int = 4,
    false_positive: float = 0.0,
    candidates: CandidateSettings | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> StreamResult:
    """Run one policy over one shuffle of the data."""
    order = np.random.default_rng(seed).permutation(len(data.texts))[:length]
    praise_noise = np.random.default_rng([seed, 1]).random(len(order))
    rng = np.random.default_rng([seed, 2])
    indices: list[int] = order.tolist()
    guess = name_match([data.texts[i] for i in indices], data.names)
    shelf = BenchShelf(data.vectors.shape[1], candidates or CandidateSettings())
    policy = spec.make(seed)
    right, void = np.zeros(len(order)), np.zeros(len(order))
    predicted, praised = np.full(len(order), np.nan), np.zeros(len(order))
    kept_wrong = 0
    for step, index in enumerate(indices):
        now = step * SECONDS_PER_TASK
        query = Query(data.vectors[index], now)
        shown = _nothing(data.vectors.shape[1])
        if spec.uses_memory:
            offered = shelf.candidates(data.texts[index], query.vector, now)
            choice = policy.choose(query, offered, k, rng)
            shown = offered.take(choice.rows)
            shelf.count_shown(shown.ids)
            if choice.success is not None:
                predicted[step] = choice.success.mean
        votes = [shelf.answer(case_id) for case_id in shown.ids]
        answer = vote(votes) if votes else data.names[int(guess[step])]
        cited = frozenset(i for i, said in zip(shown.ids, votes, strict=True) if said == answer)
        void[step] = not votes
        right[step] = answer == data.names[int(data.labels[index])]
        praised[step] = right[step] or praise_noise[step] < false_positive
        policy.learn(Decision(query, shown), Outcome(float(praised[step]), cited=cited, time=now))
        if praised[step]:
            shelf.add(data.texts[index], query.vector, answer, now)
            kept_wrong += int(not right[step])
        if step % 100 == 99:
            progress(100)
    progress(len(order) % 100)
    without = (guess == data.labels[order]).astype(np.float64)
    known = ~np.isnan(predicted)
    return StreamResult(
        policy=spec.text,
        seed=seed,
        length=len(order),
        false_positive=false_positive,
        cumulative=float(right.mean()),
        last_2k=float(right[-WINDOW:].mean()),
        no_memory=float(without.mean()),
        worst_window=worst_window(right - without, WINDOW),
        void_share=float(void.mean()),
        wrong_in_bank=kept_wrong / max(len(shelf), 1),
        calibration_error=calibration_error(predicted[known], praised[known]) if known.any() else None,
        curve=[float(right[at : at + BLOCK].mean()) for at in range(0, len(order), BLOCK)],
    )


def worst_window(difference: NDArray[np.float64], window: int) -> float:
    """Least mean of `difference` over all windows of this length (over all of it when it is shorter)."""
    window = min(window, len(difference))
    sums = np.concatenate([[0.0], np.cumsum(difference)])
    return float((sums[window:] - sums[:-window]).min() / window)


def vote(answers: Sequence[str]) -> str:
    """What most of the shown cases did; ties go to the better ranked."""
    counts = Counter(answers)
    most = max(counts.values())
    return next(answer for answer in answers if counts[answer] == most)


def name_match(texts: Sequence[str], names: Sequence[str]) -> NDArray[np.int64]:
    """Index of the name most like each text (len(texts),): cosine of character 2- to 5-gram TF-IDF, fitted to names."""
    grams_of_names = [_grams(name.replace("_", " ")) for name in names]
    seen = Counter(gram for grams in grams_of_names for gram in grams)
    place = {gram: column for column, gram in enumerate(seen)}

    def idf(gram: str) -> float:
        return math.log((1 + len(names)) / (1 + seen[gram])) + 1.0

    def matrix(bags: Sequence[Counter[str]]) -> NDArray[np.float32]:
        rows = np.zeros((len(bags), len(place)), np.float32)
        for row, bag in enumerate(bags):
            weights = {gram: count * idf(gram) for gram, count in bag.items()}
            norm = math.sqrt(sum(weight * weight for weight in weights.values())) or 1.0
            for gram, weight in weights.items():
                if gram in place:
                    rows[row, place[gram]] = weight / norm
        return rows

    target = matrix(grams_of_names).T
    best = [np.argmax(matrix([_grams(text)]) @ target) for text in texts]
    return np.asarray(best, np.int64)


def _grams(text: str) -> Counter[str]:
    grams: Counter[str] = Counter()
    for word in re.findall(r"[a-z0-9]+", text.lower()):
        padded = f" {word} "
        for size in range(2, 6):
            if size >= len(padded):
                grams[padded] += 1
                break
            grams.update(padded[at : at + size] for at in range(len(padded) - size + 1))
    return grams


def _nothing(dim: int) -> Candidates:
    return Candidates((), np.zeros(0, CANDIDATE_DTYPE), np.zeros((0, dim), np.float32))
