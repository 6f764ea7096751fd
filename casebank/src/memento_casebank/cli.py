"""The command line of the case bank: `memento-casebank …`, and the same under `memento cases …`."""

from typing import Annotated

import anyio
import typer

from memento_casebank.bank import CaseBank
from memento_casebank.opening import open_bank
from memento_casebank.records import BankError
from memento_casebank.settings import Settings

__all__ = ["app", "main"]

app = typer.Typer(
    help="The case bank: what the agent has experienced, and what it learned from it.", no_args_is_help=True
)


@app.callback()
def bank_options() -> None:
    """The case bank: what the agent has experienced, and what it learned from it."""


@app.command()
def search(
    text: Annotated[str, typer.Argument(help="what to look for")],
    limit: Annotated[int, typer.Option(help="most cases to show")] = 4,
    namespace: Annotated[str, typer.Option(help="whose cases")] = "default",
) -> None:
    """Show the cases that a task would be given."""

    async def go() -> None:
        async with open_bank(Settings()) as bank:
            await _show(bank, text, limit, namespace)

    anyio.run(go)


async def _show(bank: CaseBank, text: str, limit: int, namespace: str) -> None:
    for shown in (await bank.retrieve(text, limit, namespace=namespace)).shown:
        typer.echo(f"{shown.case.id}  {shown.similarity:.2f}  {shown.case.question}")


def main() -> None:
    """Run the command line; what the bank refuses is one line on stderr and exit code 2."""
    try:
        app()
    except BankError as exc:
        typer.echo(f"memento-casebank: {exc}", err=True)
        raise SystemExit(2) from exc
