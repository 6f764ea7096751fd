"""A person's verdict on a run, turned into the outcome of its case.

Owns the way from `memento feedback` to the case bank: only the memory server is started, no model is needed.
"""

import os

from memento.events import OutcomeRecorded
from memento.journal import Journal
from memento.memory import CaseMemory, MemoryUnavailable
from memento.server_list import load_server_list
from memento.session import ConfigError, check_home, server_environ
from memento.settings import Settings
from memento.toolbox import ToolLimits, open_toolbox

__all__ = ["give_feedback"]


async def give_feedback(settings: Settings, run: str, reward: float) -> str:
    """Record `reward` (0 to 1) as the human outcome of `run`; returns one sentence that says what was done.

    Raises:
        RunNotFound: there is no such run.
        ConfigError: mcp.json has no memory server.
    """
    check_home(settings.home)
    journal = Journal(settings.home)
    run_id = journal.find(run)
    environ = server_environ(settings, os.environ)
    servers = load_server_list(settings.config, environ).servers
    if settings.memory_server not in servers:
        raise ConfigError(f"there is no server {settings.memory_server!r} in mcp.json to keep the verdict.")
    log = journal.reopen(run_id)
    try:
        log.append(OutcomeRecorded(reward=reward, kind="human"))
    finally:
        log.close()
    async with open_toolbox(
        {settings.memory_server: servers[settings.memory_server]},
        limits=ToolLimits(connect_timeout_seconds=settings.connect_timeout_seconds),
        environ=environ,
        log_folder=settings.home / "logs",
    ) as toolbox:
        memory = CaseMemory(
            toolbox=toolbox,
            server=settings.memory_server,
            namespace=settings.namespace,
            outbox=settings.home / "outbox",
        )
        word = "good" if reward >= 0.5 else "bad"
        try:
            await memory.deliver_outbox()
            await memory.record_outcome(run_id=run_id, reward=reward, kind="human", cited=None)
        except MemoryUnavailable as exc:
            return f"Run {run_id} is marked {word} in its record. The case bank could not take it now: {exc}"
    return f"Run {run_id} is marked {word}; its case and the cases shown in it have learned from it."
