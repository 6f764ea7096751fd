"""What `memento demo` shows: a live count while it runs, then tables, a plot in the terminal and one in a file.

Owns the drawing of a trial. Its numbers come from `trial`.
"""

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from memento.demo.plot import learning_svg
from memento.demo.questions import Question
from memento.demo.trial import Attempt, Memory, Round, TrialResult, open_demo, run_trial
from memento.session import check_home

__all__ = ["show_demo"]

_BAR_CHARS = 40


async def show_demo(home: Path, rounds: int, out: Path | None, as_json: bool) -> int:
    """Run the demo and show it; exit code 0 when it ran, 1 when a server was missing."""
    check_home(home)
    console = Console(stderr=as_json)
    folder = Path(tempfile.mkdtemp(prefix="memento-demo-"))
    try:
        if not as_json:
            console.print("Starting the five servers …", style="dim")
        async with open_demo(folder) as (session, questions):
            for server, problem in session.toolbox.problems.items():
                console.print(Text(f"The {server} server is not available: {problem}", style="bold red"))
            if session.toolbox.problems:
                return 1
            progress = _Progress(console, questions, rounds, quiet=as_json)
            with progress:
                result = await run_trial(session, questions, rounds=rounds, watch=progress.attempted)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    picture = (out or home / "demo" / "learning.svg").resolve()
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_text(learning_svg(result.rounds), encoding="utf-8")
    if as_json:
        typer.echo(json.dumps({**result.as_json(), "picture": str(picture)}))
    else:
        _print_tables(console, result)
        console.print(Text(f"Picture: {picture}"), soft_wrap=True)
    return 0


class _Progress:
    """The lanes side by side, a mark per question: live on a terminal, one line per finished round elsewhere."""

    def __init__(self, console: Console, questions: Sequence[Question], rounds: int, *, quiet: bool) -> None:
        self._console = console
        self._questions = len(questions)
        self._rounds = rounds
        self._quiet = quiet
        self._marks: dict[tuple[int, Memory], list[bool]] = {}
        self._live = Live(get_renderable=self._draw, console=console, refresh_per_second=8)

    def __enter__(self) -> "_Progress":
        if self._console.is_terminal and not self._quiet:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live.is_started:
            self._live.stop()

    def attempted(self, attempt: Attempt) -> None:
        marks = self._marks.setdefault((attempt.round, attempt.memory), [])
        marks.append(attempt.is_correct)
        if len(marks) == self._questions and not self._console.is_terminal and not self._quiet:
            right = sum(marks)
            self._console.print(f"round {attempt.round}, memory {attempt.memory}: {right} of {len(marks)} right")

    def _draw(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for number in range(1, self._rounds + 1):
            for memory in ("off", "on"):
                marks = self._marks.get((number, memory), [])
                dots = Text()
                for mark in marks:
                    dots.append("●" if mark else "○", style="green" if mark else "red")
                dots.append("·" * (self._questions - len(marks)), style="dim")
                table.add_row(f"round {number}", f"memory {memory}", dots, f"{sum(marks)}/{self._questions}")
        return table


def _print_tables(console: Console, result: TrialResult) -> None:
    by_key = {(one.round, one.memory): one for one in result.rounds}
    last = max(one.round for one in result.rounds)
    table = Table(
        "round", "memory off", "memory on", "gain", "tool calls off", "on", "saved", title="Accuracy per round"
    )
    for number in range(1, last + 1):
        off, on = by_key[number, "off"], by_key[number, "on"]
        table.add_row(
            str(number),
            f"{off.accuracy:.0%}",
            f"{on.accuracy:.0%}",
            f"{100 * (on.accuracy - off.accuracy):+.0f} points",
            str(off.tool_calls),
            str(on.tool_calls),
            str(off.tool_calls - on.tool_calls),
        )
    console.print(table)
    kinds = Table("kind of question", "memory off", "memory on", title=f"Right answers in round {last}")
    for kind in dict.fromkeys(attempt.question.kind for attempt in by_key[last, "on"].attempts):
        kinds.add_row(kind, *(_right(by_key[last, memory], kind) for memory in ("off", "on")))
    console.print(kinds)
    for one in result.rounds:
        full = round(one.accuracy * _BAR_CHARS)
        style = "green" if one.memory == "on" else "bright_black"
        bar = Text("█" * full, style=style) + Text("░" * (_BAR_CHARS - full), style="dim")
        console.print(Text(f"round {one.round} {one.memory:<3} ") + bar + Text(f" {one.accuracy:.0%}"))
    console.print(
        f"With memory on, the last round has {100 * result.gain_last_round:+.0f} points. The model is a fixed set of "
        "rules and did not change: what it was shown did."
    )


def _right(one: Round, kind: str) -> str:
    marks = [attempt.is_correct for attempt in one.attempts if attempt.question.kind == kind]
    return f"{sum(marks)} of {len(marks)}"
