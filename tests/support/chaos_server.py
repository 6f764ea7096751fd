"""An MCP server that misbehaves on demand, as a process: `python chaos_server.py [stdio | http PORT]`.

Each kind of trouble is a tool. What reached a tool is noted in the file `CHAOS_LOG`, if set, before it goes wrong.
"""

import os
import sys
import time

import anyio
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.types import ToolAnnotations

if os.environ.get("CHAOS_SLOW_LIST"):
    time.sleep(float(os.environ["CHAOS_SLOW_LIST"]))

READ_ONLY = ToolAnnotations(read_only_hint=True)
mcp = MCPServer("chaos", log_level="CRITICAL")


def note(what: str) -> None:
    if log := os.environ.get("CHAOS_LOG"):
        with open(log, "a", encoding="utf-8") as file:
            file.write(what + "\n")


@mcp.tool(annotations=READ_ONLY)
async def echo(n: int) -> str:
    """Answer."""
    note(f"echo {n}")
    return f"echo {n}"


@mcp.tool()
async def act(n: int, delay_seconds: float = 0.0) -> str:
    """Do something that must not be done twice."""
    note(f"act {n}")
    await anyio.sleep(delay_seconds)
    return f"done {n}"


@mcp.tool(annotations=READ_ONLY)
async def slow(n: int, delay_seconds: float) -> str:
    """Answer later."""
    note(f"slow {n}")
    await anyio.sleep(delay_seconds)
    return f"slow {n}"


@mcp.tool()
async def crash(n: int) -> str:
    """Die at once."""
    note(f"crash {n}")
    os._exit(3)


@mcp.tool(annotations=READ_ONLY)
async def crash_once(flag: str) -> str:
    """Die the first time, which the file `flag` remembers."""
    note("crash_once")
    if not os.path.exists(flag):
        with open(flag, "w", encoding="utf-8"):  # noqa: ASYNC230
            pass
        os._exit(3)
    return "alive"


@mcp.tool(annotations=READ_ONLY)
async def hang() -> str:
    """Never answer."""
    await anyio.sleep_forever()
    return ""


@mcp.tool(annotations=READ_ONLY)
async def freeze() -> str:
    """Keep the whole server from answering anything."""
    note("freeze")
    time.sleep(600)  # noqa: ASYNC251 - that is the point
    return ""


@mcp.tool(annotations=READ_ONLY)
async def big(megabytes: int) -> str:
    """Answer too much."""
    return "0123456789" * (megabytes * 100_000)


@mcp.tool(annotations=READ_ONLY)
async def garbage() -> str:
    """Write what is no message to the standard output, past everything that guards it."""
    os.write(int(os.environ.get("CHAOS_RAW_STDOUT", "1")), b"\xff\xfe not a message {]\n" * 3)
    return "after garbage"


@mcp.tool()
async def grow(ctx: Context) -> str:
    """Offer one more tool from now on."""
    mcp.add_tool(later, name="later")
    await ctx.notify_tools_changed()
    await ctx.session.send_tool_list_changed()
    return "grown"


async def later() -> str:
    """A tool that was not there at first."""
    return "here now"


if __name__ == "__main__":
    if sys.argv[1:2] == ["http"]:
        mcp.run("streamable-http", host="127.0.0.1", port=int(sys.argv[2]))
    else:
        os.environ["CHAOS_RAW_STDOUT"] = str(os.dup(1))
        mcp.run()
