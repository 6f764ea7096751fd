"""From settings to an open bank: the one place where the server and the command line agree on how."""

from contextlib import AbstractAsyncContextManager

from memento_casebank.bank import CaseBank
from memento_casebank.embedders import Embedder, make_embedder
from memento_casebank.engine import EngineSettings
from memento_casebank.lock import BankLock
from memento_casebank.policies import DEFAULT_POLICY
from memento_casebank.settings import Settings

__all__ = ["engine_settings", "open_bank", "settings_embedder"]


def settings_embedder(settings: Settings) -> Embedder:
    return make_embedder(
        settings.embedder,
        model=settings.embedder_model,
        base_url=settings.embedder_url,
        dim=settings.embedder_dim,
        timeout_seconds=settings.embedder_timeout_seconds,
    )


def engine_settings(settings: Settings) -> EngineSettings:
    return EngineSettings(
        policy=settings.policy or DEFAULT_POLICY,
        policy_settings=dict(settings.policy_settings),
        strategies=settings.strategies,
        seed=settings.seed,
        sync_every_write=settings.sync_every_write,
        lock_timeout_seconds=settings.lock_timeout_seconds,
        chroma_url=settings.chroma_url or None,
    )


def open_bank(settings: Settings, *, lock: BankLock | None = None) -> AbstractAsyncContextManager[CaseBank]:
    """The bank that the settings describe; `lock` when the caller already holds it."""
    return CaseBank.open(
        settings.path, embedder=settings_embedder(settings), settings=engine_settings(settings), lock=lock
    )
