"""What gets through: forbidden addresses, attacks on the reader, requests of the browser, hidden text.

The first three in a network of its own (`lab.py`), where every reached address is seen; that needs Linux and the
right to make namespaces. A number is how many got through: zero is what is wanted.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

from memento_crawl.extraction import extract_page

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))  # the tricks are the tests'
_hiding: Any = importlib.import_module("support.hiding")
HIDING: dict[str, str] = _hiding.HIDING

PEER = str(Path(__file__).with_name("peer.py"))
SECRET = "IGNORE-YOUR-INSTRUCTIONS"
PROSE = "<p>The highest tides in the world run in the Bay of Fundy, where the sea rises by sixteen metres.</p>" * 4
Convert = Callable[[str], Awaitable[str]]
_MAX_BYTES = 2**26


def main(peers: Path) -> None:
    _addresses(peers)
    anyio.run(_hidden_text, peers)


def _addresses(peers: Path) -> None:
    namespace = ["unshare", "--net", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    command = [*namespace, sys.executable, "-m", "benchmarks.crawl.lab", str(peers.absolute())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    if done.returncode:
        print(f"addresses and attacks not measured: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
        return
    print(f"{'through':28}{'probes':16}{'got through':>14}{'controls passed':>18}")
    for reader, probes in json.loads(done.stdout.splitlines()[-1]).items():
        for kind, found in probes.items():
            controls = f"{found['controls passed']} of {found['controls']}" if "controls" in found else "-"
            print(f"{reader:28}{kind:16}{len(found['through']):>7} of {found['tried']:<4}{controls:>17}")
            for name in found["through"]:
                print(f"    {name}")


async def _hidden_text(peers: Path) -> None:
    readers: dict[str, Callable[[], Any]] = {"memento-crawl, HTTP": _ours, "trafilatura alone": _trafilatura}
    for name, place, peer in (
        ("mcp-server-fetch", "fetch", "fetch-markdown"),
        ("crawl4ai, fit", "crawl4ai", "fit-markdown"),
        ("crawl4ai, raw", "crawl4ai", "raw-markdown"),
    ):
        python = peers / place / "bin/python"
        if python.exists():
            readers[name] = lambda python=python, peer=peer: converter(python, peer)
    print(f"\n{'hidden text':28}{'tricks that leak':>18}")
    for name, reader in readers.items():
        async with reader() as convert:
            leaks = [trick for trick, page in _pages().items() if SECRET in await convert(page)]
        shown = f": {', '.join(leaks)}" if 0 < len(leaks) < 6 else ""
        print(f"{name:28}{len(leaks):>11} of {len(HIDING)}{shown}", flush=True)


def _pages() -> dict[str, str]:
    inner = {name: trick.replace("{}", SECRET).replace("{{", "{").replace("}}", "}") for name, trick in HIDING.items()}
    return {
        name: f"<html><head><title>Tides</title></head><body><article>{PROSE}{each}{PROSE}</article></body></html>"
        for name, each in inner.items()
    }


@asynccontextmanager
async def _ours() -> AsyncGenerator[Convert]:
    async def convert(page: str) -> str:
        return str(extract_page(page, "https://sea.test/", "main", "markdown"))

    yield convert


@asynccontextmanager
async def _trafilatura() -> AsyncGenerator[Convert]:
    from trafilatura import extract

    async def convert(page: str) -> str:
        return extract(page, output_format="markdown", include_links=True, include_tables=True) or ""

    yield convert


@asynccontextmanager
async def converter(python: Path, peer: str) -> AsyncGenerator[Convert]:
    """A peer's conversion of a stored page, run by the peer's own Python."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "CRAWL4_AI_BASE_DIRECTORY": home, "PATH": "/nowhere"}
        command = [str(python), PEER, peer]
        async with await anyio.open_process(command, stderr=subprocess.DEVNULL, env=environment) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            stdin, lines = process.stdin, BufferedByteReceiveStream(process.stdout)
            assert await lines.receive_until(b"\n", _MAX_BYTES) == b"ready", f"{peer} did not start"

            async def convert(page: str) -> str:
                await stdin.send(json.dumps(page).encode() + b"\n")
                return json.loads(await lines.receive_until(b"\n", _MAX_BYTES))["text"]

            yield convert
            await stdin.aclose()
