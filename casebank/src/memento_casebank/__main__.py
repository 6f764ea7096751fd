"""The command `memento-casebank`: an MCP server when started without a subcommand, else the command line.

Kept apart from `cli` so that a server start does not import typer.
"""

import os
import sys

__all__ = ["main"]

_COMMAND_LINE_OPTIONS = {"--bank", "--help", "--install-completion", "--show-completion"}
"""Options that stand before a subcommand; all others, such as --transport, are the server's."""


def main() -> None:
    # One BLAS thread per query: more only wait for each other on a small matrix (guides/casebank.md §0.8).
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    first = sys.argv[1] if len(sys.argv) > 1 else ""
    if first == "" or (first.startswith("--") and first.partition("=")[0] not in _COMMAND_LINE_OPTIONS):
        from memento_casebank.server import main as serve

        serve()
    else:
        from memento_casebank.cli import main as run

        run()


if __name__ == "__main__":
    main()
