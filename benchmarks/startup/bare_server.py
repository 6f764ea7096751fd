"""The yardstick: the least that mcp 2.3 needs to serve one tool over stdio."""

from mcp.server import MCPServer

server = MCPServer("bare")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


if __name__ == "__main__":
    server.run("stdio")
