"""`q` and `soft_q`: the paper's parametric memory. A small network scores (question, case): will this case help?

Q(s, c; θ) = σ(w2 · relu(x W1 + b1) + b2) with x = [s ∘ c, |s - c|] of frozen embeddings, trained online at every
write by cross-entropy on a replay buffer with Adam (Memento, arXiv 2508.16153, eq. 15, 16, 26; an episode is one
step, so the target is the reward itself). `q` reads the top K; `soft_q` samples without replacement from eq. 7.
The void case is the case whose vector is zero, so the same network learns what showing nothing is worth.

In the general form: `q` is μ0 uniform, α → 0; `soft_q` is a Parzen prior with the void case (Memento 2), α > 0.
The paper exactly: `q` as it stands; `soft_q` with bandwidth=inf, void_similarity=-inf.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from memento_casebank.policies.base import (
    Candidates,
    Choice,
    Decision,
    Floats,
    Outcome,
    Policy,
    PolicySettings,
    Query,
    Vectors,
)
from memento_casebank.policies.selection import boltzmann, general_form, gumbel_scores, parzen_prior, select

__all__ = ["QNetwork", "QPolicy", "QSettings", "SoftQPolicy", "SoftQSettings", "pair_features"]


@dataclass(frozen=True, kw_only=True)
class QSettings(PolicySettings):
    hidden: int = 32
    learning_rate: float = 0.003
    weight_decay: float = 1e-4
    batch: int = 16
    """Replayed pairs per outcome."""
    buffer: int = 1024
    """Newest pairs kept for replay."""
    uncited_weight: float = 1.0
    """Weight of a pair whose case was shown and not cited. The paper: 1, every case gets the whole outcome."""
    use_void: bool = False
    """Show only cases whose Q beats the void case's. The paper always shows K."""


class QNetwork:
    """The two-layer network, with its gradients and Adam state, for inputs (B, 2D)."""

    def __init__(self, inputs: int, hidden: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.parameters: dict[str, Floats] = {
            "w1": rng.normal(0.0, np.sqrt(2.0 / inputs), (inputs, hidden)),  # He: for the relu
            "b1": np.zeros(hidden),
            "w2": np.zeros(hidden),  # an untrained Q is one half everywhere
            "b2": np.zeros(1),
        }
        self._first = {name: np.zeros_like(value) for name, value in self.parameters.items()}
        self._second = {name: np.zeros_like(value) for name, value in self.parameters.items()}
        self._steps = 0

    def logit(self, x: Floats) -> Floats:
        """Log-odds (B,) for inputs (B, 2D)."""
        p = self.parameters
        return np.maximum(x @ p["w1"] + p["b1"], 0.0) @ p["w2"] + p["b2"][0]

    def loss_and_gradients(self, x: Floats, reward: Floats, weight: Floats) -> tuple[float, dict[str, Floats]]:
        """Weighted mean cross-entropy of x (B, 2D) against rewards (B,) in [0, 1], and its gradients."""
        p = self.parameters
        before = x @ p["w1"] + p["b1"]  # (B, H)
        active = np.maximum(before, 0.0)
        z = active @ p["w2"] + p["b2"][0]
        share = weight / weight.sum()
        loss = float(share @ (np.logaddexp(0.0, z) - reward * z))  # on the logit: no log(0)
        dz = share * (_sigmoid(z) - reward)  # eq. 26 once sigmoid and cross-entropy cancel
        dbefore = np.outer(dz, p["w2"]) * (before > 0)
        return loss, {
            "w1": x.T @ dbefore,
            "b1": dbefore.sum(axis=0),
            "w2": active.T @ dz,
            "b2": dz.sum(keepdims=True),
        }

    def step(self, gradients: Mapping[str, Floats], learning_rate: float, weight_decay: float) -> None:
        """One step of AdamW (Loshchilov & Hutter 2019); biases do not decay."""
        self._steps += 1
        correct_first = 1.0 - 0.9**self._steps
        correct_second = 1.0 - 0.999**self._steps
        for name, gradient in gradients.items():
            first, second, value = self._first[name], self._second[name], self.parameters[name]
            first += 0.1 * (gradient - first)
            second += 0.001 * (gradient * gradient - second)
            decay = weight_decay * value if value.ndim == 2 else 0.0
            value -= learning_rate * (first / correct_first / (np.sqrt(second / correct_second) + 1e-8) + decay)

    def state_dict(self) -> dict[str, Any]:
        return {
            "steps": self._steps,
            **{
                part: {name: value.copy() for name, value in values.items()}
                for part, values in (
                    ("parameters", self.parameters),
                    ("first", self._first),
                    ("second", self._second),
                )
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._steps = int(state["steps"])
        self.parameters = {name: np.array(value) for name, value in state["parameters"].items()}
        self._first = {name: np.array(value) for name, value in state["first"].items()}
        self._second = {name: np.array(value) for name, value in state["second"].items()}


QSettingsT = TypeVar("QSettingsT", bound=QSettings)


class _NetworkPolicy(Policy[QSettingsT]):
    """What `q` and `soft_q` share: the network, its replay buffer and the online update."""

    def __init__(self, settings: QSettingsT) -> None:
        super().__init__(settings)
        self._network: QNetwork | None = None  # made at the first outcome, when the dimension is known
        self._pairs: Vectors = np.zeros((0, 0), np.float32)  # ring of inputs (buffer, 2D)
        self._targets: Floats = np.zeros((0, 2))  # reward and weight of each
        self._seen = 0  # pairs ever written; the ring's write position is this modulo its length

    def _values(self, query: Query, candidates: Candidates) -> tuple[Floats, float]:
        """Q of each candidate (N,) and of the void case, 0..1."""
        void = np.zeros((1, len(query.vector)), np.float32)
        vectors = np.concatenate([candidates.vectors, void]) if len(candidates) else void
        if self._network is None:
            return np.full(len(candidates), 0.5), 0.5
        value = _sigmoid(self._network.logit(pair_features(query.vector, vectors).astype(np.float64)))
        return value[:-1], float(value[-1])

    def learn(self, decision: Decision, outcome: Outcome) -> None:
        if outcome.reward is None:
            return
        settings, query, shown = self.settings, decision.query, decision.shown
        if self._network is None:
            self._network = QNetwork(2 * len(query.vector), settings.hidden, settings.seed)
            self._pairs = np.zeros((settings.buffer, 2 * len(query.vector)), np.float32)
            self._targets = np.zeros((settings.buffer, 2))
        vectors = shown.vectors if len(shown) else np.zeros((1, len(query.vector)), np.float32)
        cited = outcome.cited
        for index, pair in enumerate(pair_features(query.vector, vectors)):
            used = cited is None or not len(shown) or shown.ids[index] in cited
            place = self._seen % settings.buffer
            self._pairs[place] = pair
            self._targets[place] = outcome.reward, outcome.confidence * (1.0 if used else settings.uncited_weight)
            self._seen += 1
        filled = min(self._seen, settings.buffer)
        rng = np.random.default_rng([settings.seed, self._seen])  # replay is a function of the log, too
        batch = rng.integers(0, filled, settings.batch)
        batch[0] = (self._seen - 1) % settings.buffer  # the newest always takes part
        weight = self._targets[batch, 1]
        if weight.sum() <= 0.0:
            return
        _, gradients = self._network.loss_and_gradients(
            self._pairs[batch].astype(np.float64), self._targets[batch, 0], weight
        )
        self._network.step(gradients, settings.learning_rate, settings.weight_decay)

    def state_dict(self) -> dict[str, Any]:
        filled = min(self._seen, self.settings.buffer)
        return {
            "network": None if self._network is None else self._network.state_dict(),
            "pairs": self._pairs[:filled].copy(),
            "targets": self._targets[:filled].copy(),
            "seen": self._seen,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state["network"] is None:
            return
        pairs: Vectors = state["pairs"]
        settings = self.settings
        self._network = QNetwork(pairs.shape[1], settings.hidden, settings.seed)
        self._network.load_state_dict(state["network"])
        self._pairs = np.zeros((settings.buffer, pairs.shape[1]), np.float32)
        self._targets = np.zeros((settings.buffer, 2))
        self._pairs[: len(pairs)] = pairs
        self._targets[: len(pairs)] = state["targets"]
        self._seen = int(state["seen"])


class QPolicy(_NetworkPolicy[QSettings]):
    name: ClassVar[str] = "q"

    def choose(self, query: Query, candidates: Candidates, k: int, rng: np.random.Generator) -> Choice:
        value, void = self._values(query, candidates)
        # An untrained Q is the same for all: similarity breaks the tie, as in the non-parametric memory.
        score = value + 1e-9 * candidates.table["similarity"]
        floor = void if self.settings.use_void else -np.inf
        return select(np.append(score, floor)[None, :], k, rng, self.settings, value=value)


@dataclass(frozen=True, kw_only=True)
class SoftQSettings(QSettings):
    alpha: float = 0.1
    """Temperature of eq. 7, in units of P(success). The paper gives no value."""
    bandwidth: float = 0.1
    """h of the Parzen prior exp(similarity/h); inf: a uniform prior, as in the paper."""
    void_similarity: float = 0.4
    """Cosine at which a case and the void case weigh the same; -inf: no void case, as in the paper."""


class SoftQPolicy(_NetworkPolicy[SoftQSettings]):
    name: ClassVar[str] = "soft_q"

    def choose(self, query: Query, candidates: Candidates, k: int, rng: np.random.Generator) -> Choice:
        settings = self.settings
        value, void = self._values(query, candidates)
        similarity = candidates.table["similarity"].astype(np.float64)
        if not len(candidates):
            return select(np.zeros((1, 1)), k, rng, settings, value=value)
        log_prior = parzen_prior(similarity, settings.bandwidth, settings.void_similarity)
        arms = np.append(value, void)
        lead = boltzmann(log_prior, arms, settings.alpha)
        draws = gumbel_scores(general_form(log_prior, arms, settings.alpha), rng)
        return select(draws, k, rng, settings, value=value, lead=lead)


def pair_features(state: Vectors, cases: Vectors) -> Vectors:
    """Inputs (N, 2D) of the network for one question (D,) and N cases (N, D), scaled to about unit variance."""
    scale = np.float32(np.sqrt(cases.shape[1]))
    return np.concatenate([scale * state * cases, np.abs(state - cases)], axis=1)


def _sigmoid(z: NDArray[np.float64]) -> Floats:
    return 0.5 * (1.0 + np.tanh(0.5 * z))
