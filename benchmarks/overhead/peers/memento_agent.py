"""This project's agent: plan, one subtask, answer; with its record on disk, budgets, guards and fences as always."""

import tempfile
from pathlib import Path

from harness import Measured, measure
from openai import AsyncOpenAI

from memento.agent import Agent
from memento.journal import Journal
from memento.memory import CaseMemory
from memento.model import Model
from memento.server_list import ServerEntry
from memento.settings import Settings
from memento.toolbox import open_toolbox


async def session(base_url: str, steps: int, server: list[str], measured: Measured) -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            home=Path(folder), memory="off", max_turns_per_subtask=steps + 2, max_model_calls=steps + 10,
            max_tool_calls=steps,
        )  # fmt: skip
        async with (
            AsyncOpenAI(api_key="k", base_url=base_url, max_retries=0) as openai,
            open_toolbox({"calc": ServerEntry(command=server[0], args=server[1:])}) as toolbox,
        ):
            model = Model(openai, "scripted")
            memory = CaseMemory(toolbox=toolbox, mode="off")
            agent = Agent(planner=model, executor=model, toolbox=toolbox, memory=memory, settings=settings)

            async def run() -> object:
                log = Journal(settings.home).new_run()
                result = await agent.run("How much is it?", log=log, emit=log.append)
                log.close()
                return result.answer

            await measured.both(run)


measure(session)
