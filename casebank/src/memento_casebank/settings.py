"""What the environment can change about the server and the command line."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from memento_kit import ServerSettings, memento_home

__all__ = ["Settings"]


class Settings(ServerSettings):
    """Each field is one row of the README's table."""

    model_config = SettingsConfigDict(env_prefix="MEMENTO_CASEBANK_")

    path: Path = Field(default_factory=lambda: memento_home() / "casebank")
    """Folder of the bank: its log, its index and its lock."""

    policy: str = ""
    """Rule that chooses cases; empty: the default policy."""

    policy_settings: dict[str, float | int | bool] = Field(default_factory=dict)
    """Settings of the policy as a JSON object, such as `{"memory_off_share": 0.02}`."""

    strategies: bool = False
    """Let induced strategies compete with cases."""

    seed: int | None = None
    """Makes exploration repeatable (demos, tests); unset: a fresh seed for every decision."""

    embedder: Literal["hashing", "openai", "minilm", "sentence-transformers"] = "hashing"
    """Who turns texts into vectors. Stored with the bank; changing it needs `memento-casebank reembed`."""

    embedder_model: str = ""
    """Model name for `openai` and `sentence-transformers`; empty: the embedder's default."""

    embedder_url: str = ""
    """Base URL of an OpenAI-compatible embeddings endpoint; empty: OpenAI's."""

    embedder_dim: int | None = Field(default=None, ge=8, le=8192)
    """Length of the vectors (`hashing`, `openai`); unset: the embedder's default."""

    embedder_timeout_seconds: float = Field(default=30.0, gt=0)
    """Longest wait for the embeddings endpoint."""

    chroma_url: str = ""
    """URL of a `chroma run` server that holds the index; empty: an embedded index in the bank's folder."""

    sync_every_write: bool = False
    """Wait for the disk at every case, outcome and edit; off: a power cut can lose the last half second."""

    lock_timeout_seconds: float = Field(default=3.0, ge=0)
    """How long to wait for another process to leave the bank before refusing."""

    max_result_chars: int = Field(default=40_000, ge=2_000)
    """Most characters of case text in one answer."""
