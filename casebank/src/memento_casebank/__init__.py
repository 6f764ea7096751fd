"""Experience memory for agents: cases that are kept, retrieved and learned from.

    async with CaseBank.open("bank") as bank:
        found = await bank.retrieve("Sum the sales in report.xlsx")

The names below are loaded when first used, so that starting the MCP server imports neither numpy nor chromadb.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memento_casebank.bank import CaseBank
    from memento_casebank.candidates import CandidateSettings
    from memento_casebank.embedders import Embedder, HashingEmbedder, make_embedder
    from memento_casebank.engine import EngineSettings, Retrieved, ShownCase
    from memento_casebank.records import BankError, BankLocked, Case, EmbedderError, Step, UnknownId
    from memento_casebank.reembedding import reembed
    from memento_casebank.sync import SyncCaseBank

__all__ = [
    "BankError",
    "BankLocked",
    "CandidateSettings",
    "Case",
    "CaseBank",
    "Embedder",
    "EmbedderError",
    "EngineSettings",
    "HashingEmbedder",
    "Retrieved",
    "ShownCase",
    "Step",
    "SyncCaseBank",
    "UnknownId",
    "make_embedder",
    "reembed",
]

_HOME = {
    "CaseBank": "bank",
    "CandidateSettings": "candidates",
    "Embedder": "embedders",
    "HashingEmbedder": "embedders",
    "make_embedder": "embedders",
    "EngineSettings": "engine",
    "Retrieved": "engine",
    "ShownCase": "engine",
    "BankError": "records",
    "BankLocked": "records",
    "Case": "records",
    "EmbedderError": "records",
    "Step": "records",
    "UnknownId": "records",
    "reembed": "reembedding",
    "SyncCaseBank": "sync",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
