"""Run Python in a sandbox. The MCP server is `memento_code.server`."""
