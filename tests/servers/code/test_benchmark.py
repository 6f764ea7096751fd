"""benchmarks.code: a peer that is not there is named with the reason, and takes nothing from the others."""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[3]


async def test_a_missing_or_failing_peer_is_named_and_the_others_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    peers: Any = importlib.import_module("benchmarks.code.peers")
    missing = peers.Peers(Path("/no/such/python"), "/bin/true")
    assert list(await missing.measure()) == ["sandbox-runtime: python -c pass"]
    assert set(missing.missing) == {"ipykernel", "monty", "sandlock"}
    assert missing.missing["monty"] == "/no/such/python could not be started (No such file or directory)"

    failing = peers.Peers(None, "/bin/false")
    assert await failing.measure() == {}
    assert failing.missing["ipykernel"] == "not asked for: --peers names no Python"
    assert failing.missing["sandbox-runtime"] == "exit code 1: it said nothing"
