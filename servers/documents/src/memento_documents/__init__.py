"""Read documents: PDF, spreadsheets, text. The MCP server is `memento_documents.server`.

Nothing is imported here, so that `memento_documents.reading` can be used without the MCP SDK.
"""
