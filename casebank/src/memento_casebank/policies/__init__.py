"""Policies by name: rules for choosing which cases to show, behind one interface (`policies.base`).

| name | rule | source |
|---|---|---|
| `similarity` | K nearest, no learning | Memento, eq. 13 |
| `q` | top K of a learned Q(s, c) | Memento, eq. 15 and 16 |
| `soft_q` | sampling from softmax(Q/α) | Memento, eq. 7; Memento 2 |
| `kernel` | episodic control, then softmax | Memento, eq. 9 to 11 |
| `memrl` | similarity and utility half and half | MemRL, arXiv 2601.03192 |
| `beta_ts` | Thompson sampling, one Beta per case | Thompson 1933 |
| `cascade` | logistic UCB, one case | CASCADE, arXiv 2605.06702 |
| `advantage` | shrunk advantage per case, void case, tempered Thompson | guides/casebank.md, L1 |
| `bag` | Bayesian model of the whole set, void case, tempered Thompson; the default | guides/casebank.md, L2 |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

from memento_casebank.policies.advantage import AdvantagePolicy, AdvantageSettings
from memento_casebank.policies.bag import BagPolicy, BagSettings
from memento_casebank.policies.base import Policy, PolicySettings
from memento_casebank.policies.beta_ts import BetaTSPolicy, BetaTSSettings
from memento_casebank.policies.cascade import CascadePolicy, CascadeSettings
from memento_casebank.policies.kernel import KernelPolicy, KernelSettings
from memento_casebank.policies.memrl import MemRLPolicy, MemRLSettings
from memento_casebank.policies.q import QPolicy, QSettings, SoftQPolicy, SoftQSettings
from memento_casebank.policies.similarity import SimilarityPolicy, SimilaritySettings

__all__ = ["DEFAULT_POLICY", "POLICIES", "make_policy"]

POLICIES: Mapping[str, tuple[type[Policy[Any]], type[PolicySettings]]] = {
    "similarity": (SimilarityPolicy, SimilaritySettings),
    "q": (QPolicy, QSettings),
    "soft_q": (SoftQPolicy, SoftQSettings),
    "kernel": (KernelPolicy, KernelSettings),
    "memrl": (MemRLPolicy, MemRLSettings),
    "beta_ts": (BetaTSPolicy, BetaTSSettings),
    "cascade": (CascadePolicy, CascadeSettings),
    "advantage": (AdvantagePolicy, AdvantageSettings),
    "bag": (BagPolicy, BagSettings),
}
"""Every policy by name, with its settings class."""

DEFAULT_POLICY = "bag"


def make_policy(name: str, **settings: Any) -> Policy[Any]:
    """A fresh policy that has learned nothing.

    Raises:
        ValueError: there is no such policy or setting (the message names what exists), or a value cannot be one.
    """
    if name not in POLICIES:
        raise ValueError(f"There is no policy named {name!r}. Policies: {', '.join(POLICIES)}.")
    policy, settings_class = POLICIES[name]
    known = {field.name for field in fields(settings_class)}
    if unknown := sorted(set(settings) - known):
        raise ValueError(f"Policy {name!r} has no setting {unknown[0]!r}. Settings: {', '.join(sorted(known))}.")
    for field in fields(settings_class):
        if field.name in settings:
            _check(name, field.name, settings[field.name], type(cast(object, field.default)))
    return policy(settings_class(**settings))


_MAY_BE_NEGATIVE = {
    "case_mean", "gate_high", "gate_low", "prior_advantage", "prior_value", "threshold", "void_similarity",
}  # fmt: skip
_ABOVE_ZERO = {
    "alpha", "bandwidth", "cited_weight", "half_life_days", "prior_failures", "prior_kernel", "prior_successes",
    "ridge", "uncited_weight",
}  # fmt: skip
_MAY_BE_INFINITE = {"bandwidth", "half_life_days", "threshold", "void_similarity"}


def _check(policy: str, setting: str, value: object, kind: type) -> None:
    """A number of the kind its default is, within the range its name tells: `…_share` is one, counts start at 1."""
    is_kind = isinstance(value, int | float if kind is float else kind) and (
        kind is bool or not isinstance(value, bool)
    )
    wanted = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
    if kind is int and setting != "seed":
        wanted += " of at least 1"
        is_kind = is_kind and cast(int, value) >= 1
    if kind is float and setting.endswith("_share"):
        wanted += " from 0 to 1"
        is_kind = is_kind and 0.0 <= cast(float, value) <= 1.0
    elif kind is float and setting in _ABOVE_ZERO:
        wanted += " above 0"
        is_kind = is_kind and cast(float, value) > 0.0
    elif kind is float and setting not in _MAY_BE_NEGATIVE:
        wanted += ", 0 or more"
        is_kind = is_kind and cast(float, value) >= 0.0
    if is_kind and not math.isfinite(cast(float, value)):
        is_kind = setting in _MAY_BE_INFINITE and not math.isnan(cast(float, value))
        wanted = f"finite, {wanted}"
    if not is_kind:
        raise ValueError(f"{setting} of policy {policy!r} has to be {wanted}, not {value!r}.")
