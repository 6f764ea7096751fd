"""A real searx (Debian's python3-searx) whose own engines ask a server on loopback.

scripts/setup --for-tests offers it. Without it `NEEDS_SEARX` skips a test, and says why.
"""

import os
import signal
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import httpx2
import pytest

__all__ = ["NEEDS_SEARX", "searx"]

PYTHON = "/usr/bin/python3"  # Debian's package is for Debian's Python
WEBAPP = Path("/usr/lib/python3/dist-packages/searx/webapp.py")
NEEDS_SEARX = pytest.mark.skipif(not WEBAPP.exists(), reason="searx is not installed: apt-get install python3-searx")


def _settings(upstream: str, port: int) -> str:
    return f"""
general: {{debug: false, instance_name: test}}
search: {{safe_search: 0, autocomplete: "", default_lang: "", ban_time_on_fail: 5, max_ban_time_on_fail: 9}}
server: {{port: {port}, bind_address: 127.0.0.1, secret_key: {"0" * 32}, base_url: false, image_proxy: false,
  http_protocol_version: "1.0", method: GET}}
ui: {{static_path: /usr/share/python3-searx/static, templates_path: /usr/share/python3-searx/templates,
  default_theme: simple, default_locale: en, theme_args: {{oscar_style: logicodev}}}}
outgoing: {{request_timeout: 3.0, useragent_suffix: ""}}
engines:
  - {{name: good, engine: json_engine, shortcut: g, categories: general, enable_http: true,
     search_url: "{upstream}/good?q={{query}}", results_query: results, url_query: url,
     title_query: title, content_query: content}}
  - {{name: gazette, engine: json_engine, shortcut: n, categories: news, enable_http: true,
     search_url: "{upstream}/gazette?q={{query}}", results_query: results, url_query: url,
     title_query: title, content_query: content}}
  - {{name: dead, engine: json_engine, shortcut: d, categories: general, enable_http: true,
     search_url: "http://127.0.0.1:9/?q={{query}}", results_query: results, url_query: url,
     title_query: title, content_query: content}}
locales: {{en: English}}
default_doi_resolver: none
doi_resolvers: {{none: "https://doi.test/"}}
"""


@asynccontextmanager
async def searx(tmp_path: Path, upstream: str) -> AsyncGenerator[str]:
    """Run one for as long as the block lasts; gives its address. Its web engine asks `upstream`/good, its news engine
    /gazette, and a third one is dead.
    """
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as free:
        port = free.extra(anyio.abc.SocketAttribute.local_port)
    file = tmp_path / "settings.yml"
    file.write_text(_settings(upstream, port), encoding="utf-8")
    with (tmp_path / "searx.log").open("wb") as log:
        process = await anyio.open_process(
            [PYTHON, "-m", "searx.webapp"],
            env={**os.environ, "SEARX_SETTINGS_PATH": str(file)},
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )
    try:
        base = f"http://127.0.0.1:{port}"
        with anyio.fail_after(60):
            async with httpx2.AsyncClient() as http:
                while True:
                    try:
                        await http.get(f"{base}/healthz")
                    except httpx2.TransportError:
                        assert process.returncode is None, (tmp_path / "searx.log").read_text(encoding="utf-8")
                        await anyio.sleep(0.1)
                    else:
                        break
        yield base
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.aclose()
