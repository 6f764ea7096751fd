"""What an agent costs per tool step: this one beside its peers, all beside the two SDK clients alone.

    .venv/bin/python -m benchmarks.overhead [--steps 100] [--rounds 5] [--peers FOLDER] [--json]

Every agent is a process of its own that talks to the same scripted endpoint over real HTTP and to a real stdio server
of its own, and does the same steps: one call of one tool in each turn, then the answer. The floor is the openai client
and the MCP client in a loop, its requests in wire form; the plain loop gives them as arguments. A process warms up with
one run and measures the next: wall time, its own processor time and peak memory. Rounds take turns; reported are
medians over rounds, and what each adds to the floor per step.

`--peers` names a folder with a virtual environment per peer: `openai-agents` (pip install openai-agents), `pydantic-ai`
(pydantic-ai-slim[openai,mcp]), `mcp-agent` (mcp-agent openai "mcp<2"). What is not there is left out and said.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from memento.loopback import serve_on_loopback

SCRIPTS = Path(__file__).parent / "peers"
PEERS = {
    "openai-agents": "openai_agents.py",
    "pydantic-ai": "pydantic_ai_agent.py",
    "mcp-agent": "mcp_agent_app.py",
}
RUN_SECONDS = 300

SERVER = '''
from mcp.server import MCPServer
mcp = MCPServer("calc", log_level="ERROR")
@mcp.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b
mcp.run()
'''


@asynccontextmanager
async def scripted_endpoint(steps: int) -> AsyncGenerator[str]:
    """A model that plans one subtask, calls the tool `steps` times in it, and answers."""

    async def complete(request: Request) -> JSONResponse:
        body = await request.json()
        messages = body["messages"]
        calls = sum(message["role"] == "tool" for message in messages)
        if not body.get("tools"):
            done = len(messages) > 3
            content = {"final_answer": "all added"} if done else {"plan": [{"id": "1", "description": "add"}]}
            return completion({"content": json.dumps(content)})
        if calls == steps:
            return completion({"content": "all added"})
        name = body["tools"][0]["function"]["name"]
        function = {"name": name, "arguments": json.dumps({"a": calls, "b": 1})}
        return completion({"tool_calls": [{"id": f"c{calls}", "type": "function", "function": function}]})

    app = Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"])])
    async with serve_on_loopback(app) as origin:
        yield f"{origin}/v1"


def completion(message: dict[str, Any]) -> JSONResponse:
    reason = "tool_calls" if "tool_calls" in message else "stop"
    choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": None} | message}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    body = {"id": "c", "object": "chat.completion", "created": 0, "model": "scripted", "choices": [choice]}
    return JSONResponse(body | {"usage": usage})


def run_script(python: str, script: str, base_url: str, steps: int) -> dict[str, float]:
    """One process of an agent. Its server runs under this interpreter: the same server for all."""
    done = subprocess.run(
        [python, str(SCRIPTS / script), base_url, str(steps), sys.executable, "-c", SERVER],
        env={**os.environ, "PYTHONPATH": "", "OPENAI_API_KEY": "k"},
        capture_output=True,
        encoding="utf-8",
        timeout=RUN_SECONDS,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{script} failed: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.splitlines()[-1])


async def measure(steps: int, rounds: int, peers: Path | None) -> dict[str, Any]:
    agents = {
        "floor": (sys.executable, "floor.py"),
        "plain loop": (sys.executable, "plain_loop.py"),
        "memento": (sys.executable, "memento_agent.py"),
    }
    missing: list[str] = []
    for name, script in PEERS.items():
        python = peers / name / "bin" / "python" if peers else None
        if python is not None and python.exists():
            agents[name] = (str(python), script)
        else:
            missing.append(name)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in agents}
    async with scripted_endpoint(steps) as base_url:
        for number in range(1, rounds + 1):
            for name, (python, script) in agents.items():
                run = await anyio.to_thread.run_sync(run_script, python, script, base_url, steps)
                found[name].append(run)
                sys.stderr.write(f"round {number} of {rounds}: {name} {run['wall_ms']:.2f} ms a step\n")
    return {
        "steps": steps,
        "rounds": rounds,
        "agents": {name: summary(runs, found["floor"]) for name, runs in found.items()},
        "missing": missing,
        "machine": f"{platform.machine()}, Python {platform.python_version()}, {platform.system()}",
    }


def summary(runs: list[dict[str, float]], floor: list[dict[str, float]]) -> dict[str, float]:
    """Medians over the rounds; what is added is taken round by round."""
    added = [mine["wall_ms"] - theirs["wall_ms"] for mine, theirs in zip(runs, floor, strict=True)]
    ratio = [mine["wall_ms"] / theirs["wall_ms"] for mine, theirs in zip(runs, floor, strict=True)]
    medians = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    return {key: round(value, 2) for key, value in medians.items()} | {
        "added_ms": round(statistics.median(added), 2),
        "ratio": round(statistics.median(ratio), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.overhead", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=100, help="tool steps in one run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", type=Path, help="folder with a virtual environment per peer")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    result = anyio.run(measure, options.steps, options.rounds, options.peers)
    if options.json:
        print(json.dumps(result))
        return
    print(f"{result['steps']} tool steps a run, medians of {result['rounds']} rounds ({result['machine']})")
    print(f"{'':15} {'wall/step':>10} {'added':>9} {'ratio':>7} {'cpu/step':>10} {'peak':>8}")
    for name, row in result["agents"].items():
        print(f"{name:15} {row['wall_ms']:7.2f} ms {row['added_ms']:6.2f} ms {row['ratio']:7.2f} "
              f"{row['cpu_ms']:7.2f} ms {row['peak_mb']:5.0f} MB")  # fmt: skip
    for name in result["missing"]:
        print(f"{name:15} not measured: no environment of it was given")


if __name__ == "__main__":
    main()
