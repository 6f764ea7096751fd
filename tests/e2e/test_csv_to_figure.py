"""An agent analyses a CSV, draws a figure and hands it over: `memento ask` with the real code server.

The model is scripted, behind an OpenAI-compatible endpoint on loopback; the command, the server, its sandbox and the
picture are real. The code draws with the standard library, as the tests' environment has no plotting library.
"""

import json
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from support.command import Memento

pytestmark = pytest.mark.slow

CODE = """
import csv, struct, zlib
totals = {}
for row in csv.DictReader(open("sales.csv")):
    totals[row["city"]] = totals.get(row["city"], 0) + int(row["units"])
def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
width, bars = 40, sorted(totals.values())
rows = b"".join(b"\\0" + b"".join(b"\\x20\\x40\\xc0" if x < bar * 2 else b"\\xff\\xff\\xff" for x in range(width))
                for bar in bars for _ in range(8))
picture = (b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, 8 * len(bars), 8, 2, 0, 0, 0))
           + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
open("bars.png", "wb").write(picture)
class Figure:
    def _repr_png_(self): return picture
    def __repr__(self): return f"the best is {max(totals, key=totals.get)} with {max(totals.values())}"
Figure()
"""


class Scripted(BaseHTTPRequestHandler):
    sent: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.sent.append(body)
        message = self.reply(body)
        reason = "tool_calls" if message.get("tool_calls") else "stop"
        choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": None, **message}}
        reply = {"id": "c", "object": "chat.completion", "created": 0, "model": "scripted", "choices": [choice]}
        data = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def reply(self, body: dict[str, Any]) -> dict[str, Any]:
        messages = body["messages"]
        if not body.get("tools"):  # the planner
            found = re.search(r"the best is (\w+) with (\d+)", json.dumps(messages))
            if found is None:
                plan = [{"id": "1", "description": "Total the units per city of sales.csv and draw them"}]
                return {"content": json.dumps({"plan": plan})}
            return {"content": json.dumps({"final_answer": f"{found[1]} sold most: {found[2]}"})}
        done = [message for message in messages if message["role"] == "tool"]
        if not done:
            return calls("code__add_file", path="sales.csv")
        if len(done) == 1:
            return calls("code__run_python", code=CODE)
        said = re.search(r"the best is \w+ with \d+", str(done[-1]["content"]))
        assert said is not None, done
        return {"content": said[0]}

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def calls(name: str, **arguments: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"tool_calls": [{"id": f"call_{name}", "type": "function", "function": function}]}


@contextmanager
def model() -> Generator[tuple[str, list[dict[str, Any]]]]:
    sent: list[dict[str, Any]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Model", (Scripted,), {"sent": sent}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", sent
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_csv_is_analysed_drawn_and_the_figure_handed_over(tmp_path: Path) -> None:
    memento = Memento(tmp_path / "home", tmp_path)
    (tmp_path / "sales.csv").write_text("city,units\nOslo,10\nBergen,3\nOslo,5\n", encoding="utf-8")
    code = {"command": "memento-code", "env": {"MEMENTO_CODE_FOLDERS": "${MEMENTO_FOLDERS:-.}"}}
    (tmp_path / "servers.json").write_text(json.dumps({"mcpServers": {"code": code}}), encoding="utf-8")
    with model() as (url, sent):
        done = memento.run(
            *("ask", "--model", "scripted", "--config", "servers.json", "--memory", "off", "--file", "sales.csv"),
            *("--json", "Which city sold most? Draw it."),
            environ={"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": url},
        )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["answer"] == "Oslo sold most: 15", sent
    figures = [path for path in (tmp_path / "home").rglob("*.png") if path.read_bytes().startswith(b"\x89PNG")]
    assert len(figures) == 1, "the run keeps the figure as a file"
    assert b"IHDR" in figures[0].read_bytes()[:20]
