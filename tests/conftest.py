"""What all tests share: one async backend, a MEMENTO_HOME of their own, live tests off unless asked for."""

import os
import signal
from pathlib import Path

import hypothesis
import pytest

# No time limit per example: the machine may be busy. In CI always the same examples: a red run can be repeated.
hypothesis.settings.register_profile(
    "memento",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("memento")

# A shell starts what it puts in the background with Ctrl-C ignored, and every child would inherit that: the tests that
# interrupt a command mean one in the foreground.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--live", action="store_true", help="also run the tests that talk to public or paid services")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--live"):
        return
    skip = pytest.mark.skip(reason="talks to a public or paid service; run with --live")
    for item in items:
        if item.get_closest_marker("live"):
            item.add_marker(skip)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def memento_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test may touch the user's data, nor see the user's settings."""
    for name in list(os.environ):
        if name.startswith("MEMENTO_") or name == "OPENAI_API_KEY":
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("memento-home")
    monkeypatch.setenv("MEMENTO_HOME", str(home))
    return home
