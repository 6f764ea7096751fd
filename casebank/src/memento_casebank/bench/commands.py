"""The commands `memento-casebank bench …`: options, jobs in child processes, tables and JSON.

Owns no measurement. Jobs run in fresh processes with one BLAS thread each, because numpy fixes its number of threads
when it is first imported, and many threads on small matrices are slower and noisier (guides/casebank.md §0.8).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from memento_casebank.bench.world import Utterances

__all__ = ["app"]

app = typer.Typer(help="Measure the case bank: learning, harm, leaks, speed. Each prints a table, or --json.")

STREAM_POLICIES = (
    "no_memory",
    "similarity",
    "similarity:threshold=0.5",
    "q",
    "q:use_void=true",
    "soft_q",
    "kernel",
    "memrl",
    "memrl:threshold=0.6",
    "beta_ts",
    "beta_ts:threshold=0.6",
    "cascade",
    "advantage",
    "bag",
)
"""Every policy with its defaults; where a policy has no void case also with a similarity threshold to fall back on."""

SIMULATE_POLICIES = (
    "no_memory",
    "similarity",
    "q",
    "soft_q",
    "kernel",
    "memrl",
    "beta_ts",
    "cascade",
    "advantage",
    "bag",
)

ABLATIONS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("bag (as shipped)", "bag", {}),
    ("- void", "bag:use_void=false,memory_off_share=0", {}),
    ("- gate", "bag:use_gate=false", {}),
    ("- baseline", "bag:use_difficulty=false", {}),
    ("- case effect", "bag:use_case_effect=false", {}),
    ("- exploration share", "bag:explore_share=0", {}),
    ("- memory-off share", "bag:memory_off_share=0", {}),
    ("tau 0 (greedy)", "bag:case_temperature=0,shared_temperature=0", {}),
    ("tau 0.15", "bag:case_temperature=0.15,shared_temperature=0.15", {}),
    ("tau 0.3", "bag:case_temperature=0.3,shared_temperature=0.3", {}),
    ("tau 1 (plain Thompson)", "bag:case_temperature=1,shared_temperature=1", {}),
    ("K 1", "bag", {"k": 1}),
    ("K 2", "bag", {"k": 2}),
    ("K 8", "bag", {"k": 8}),
    ("- BM25", "bag:use_bm25=false", {"lexical": 0}),
    ("hashing 64", "bag", {"dim": 64}),
    ("hashing 1024", "bag", {"dim": 1024}),
)
"""Label, policy, and what else differs."""

DataOption = Annotated[Path, typer.Option(help="CSV with the columns text,category", exists=True, dir_okay=False)]
SeedsOption = Annotated[int, typer.Option(min=1, help="how many shuffles")]
FirstSeedOption = Annotated[int, typer.Option(min=0, help="first seed (settings were chosen on seeds from 100 on)")]
JsonOption = Annotated[bool, typer.Option("--json", help="one JSON object instead of a table")]
WorkersOption = Annotated[int, typer.Option(min=1, help="runs at the same time")]
EmbedderOption = Annotated[str, typer.Option(help="hashing, minilm, openai or sentence-transformers")]
EmbedderModelOption = Annotated[str, typer.Option(help="its model: a name, or for sentence-transformers a folder")]

T = TypeVar("T")
J = TypeVar("J")


@dataclass(frozen=True)
class Job:
    """One run of one policy, as it is sent to a child process."""

    data: Path
    policy: str
    seed: int
    label: str = ""
    length: int = 9_000
    k: int = 4
    false_positive: float = 0.0
    variant: str = "base"
    embedder: str = "hashing"
    embedder_model: str = ""
    dim: int | None = None
    lexical: int = 32


@app.command()
def stream(
    data: DataOption,
    policy: Annotated[list[str] | None, typer.Option(help="NAME or NAME:setting=value,…; repeatable")] = None,
    seeds: SeedsOption = 5,
    false_positive: Annotated[float, typer.Option(min=0, max=1, help="share of wrong answers that are praised")] = 0.0,
    length: Annotated[int, typer.Option(min=1, help="utterances per run")] = 9_000,
    k: Annotated[int, typer.Option(min=1, help="most cases shown")] = 4,
    first_seed: FirstSeedOption = 0,
    embedder: EmbedderOption = "hashing",
    embedder_model: EmbedderModelOption = "",
    workers: WorkersOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Learn from one's own outcomes on a stream of real utterances, with no language model."""
    jobs = [
        Job(
            data,
            name,
            seed,
            length=length,
            k=k,
            false_positive=false_positive,
            embedder=embedder,
            embedder_model=embedder_model,
        )
        for name in _checked(policy or STREAM_POLICIES)
        for seed in range(first_seed, first_seed + seeds)
    ]
    _tell(
        list(_run(_stream_job, jobs, workers)),
        {
            "cumulative": "right answers",
            "last_2k": "last 2,000",
            "worst_window": "worst 2k window vs no memory",
            "void_share": "shown none",
            "wrong_in_bank": "wrong in bank",
            "calibration_error": "ECE",
        },
        as_json,
    )


@app.command()
def simulate(
    data: DataOption,
    policy: Annotated[list[str] | None, typer.Option(help="NAME or NAME:setting=value,…; repeatable")] = None,
    variant: Annotated[
        list[str] | None, typer.Option(help="base, poison, drift, false_positive, useless; default all")
    ] = None,
    seeds: SeedsOption = 5,
    length: Annotated[int, typer.Option(min=1_000, help="questions per run")] = 12_000,
    k: Annotated[int, typer.Option(min=1, help="most cases shown")] = 4,
    first_seed: FirstSeedOption = 0,
    embedder: EmbedderOption = "hashing",
    embedder_model: EmbedderModelOption = "",
    workers: WorkersOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Find out which cases are good when the truth is known, and do no harm when none is (S1 and its variants)."""
    from memento_casebank.bench.simulate import VARIANTS

    chosen = variant or list(VARIANTS)
    if unknown := [name for name in chosen if name not in VARIANTS]:
        raise typer.BadParameter(f"There is no variant {unknown[0]!r}. Variants: {', '.join(VARIANTS)}.")
    jobs = [
        Job(
            data,
            name,
            seed,
            f"{which} · {name}",
            length=length,
            k=k,
            variant=which,
            embedder=embedder,
            embedder_model=embedder_model,
        )
        for which in chosen
        for name in _checked(policy or SIMULATE_POLICIES)
        for seed in range(first_seed, first_seed + seeds)
    ]
    _tell(
        list(_run(_simulate_job, jobs, workers)),
        {
            "last_1k": "last 1,000",
            "no_memory": "no cases",
            "oracle": "oracle",
            "lift": "mean vs no cases",
            "worst_window": "worst 1k window",
            "calibration_error": "ECE",
            "brier": "Brier",
            "recovery": "recovery",
        },
        as_json,
    )


@app.command()
def ablations(
    data: DataOption,
    seeds: SeedsOption = 5,
    length: Annotated[int, typer.Option(min=1_000, help="utterances of the stream")] = 9_000,
    simulated_length: Annotated[int, typer.Option(min=1_000, help="questions of the simulation")] = 4_000,
    first_seed: FirstSeedOption = 0,
    workers: WorkersOption = 1,
    as_json: JsonOption = False,
) -> None:
    """What each part of the default policy is worth, on the stream and in the simulation."""
    rows = [
        (label, name, more, seed) for label, name, more in ABLATIONS for seed in range(first_seed, first_seed + seeds)
    ]
    streamed = [Job(data, name, seed, label, length=length, **more) for label, name, more, seed in rows]
    simulated = [Job(data, name, seed, label, length=simulated_length, **more) for label, name, more, seed in rows]
    both = [
        {**stream_result, "simulated_last_1k": simulate_result["last_1k"]}
        for stream_result, simulate_result in zip(
            _run(_stream_job, streamed, workers), _run(_simulate_job, simulated, workers), strict=True
        )
    ]
    _tell(
        both,
        {
            "cumulative": "stream",
            "last_2k": "stream, last 2,000",
            "worst_window": "worst 2k window",
            "simulated_last_1k": "simulated, last 1,000",
        },
        as_json,
    )


@app.command()
def leak(
    data: Annotated[Path, typer.Option(help="the paper's training_data.jsonl", exists=True, dir_okay=False)],
    as_json: JsonOption = False,
) -> None:
    """Show what the paper's released training data cannot teach, and how a split by row hides it."""
    (report,) = _run(_leak_job, [data], 1)
    if as_json:
        typer.echo(json.dumps({"machine": _machine(), "results": [report]}, indent=1))
        return
    for name, value in report.items():
        if name != "why":
            typer.echo(
                f"{name.replace('_', ' '):28s} {value:.3f}"
                if isinstance(value, float)
                else f"{name.replace('_', ' '):28s} {value}"
            )
    typer.echo(f"\n{report['why']}")


@app.command()
def latency(
    data: DataOption,
    cases: Annotated[list[int] | None, typer.Option(min=100, help="bank sizes; default 10000 and 100000")] = None,
    decisions: Annotated[int, typer.Option(min=0, help="decisions to rebuild from; 0 leaves it out")] = 100_000,
    policy: Annotated[str, typer.Option(help="the policy that learns")] = "bag",
    chromadb: Annotated[bool, typer.Option(help="compare with chromadb's own query")] = True,
    as_json: JsonOption = False,
) -> None:
    """Time reads, writes and rebuilds of a real bank, beside chromadb and an exact numpy scan."""
    jobs = [(data, size, policy, chromadb) for size in cases or [10_000, 100_000]]
    results = list(_run(_latency_job, jobs, 1))
    rebuilds = list(_run(_rebuild_job, [(data, decisions, policy)], 1)) if decisions else []
    if as_json:
        typer.echo(json.dumps({"machine": _machine(), "results": results, "rebuild": rebuilds}, indent=1))
        return
    columns = [name for name in results[0] if name != "cases"]
    _table(
        ["cases", *(name.replace("_", " ") + ("" if _is_recall(name) else " ms") for name in columns)],
        [
            [f"{row['cases']:,}", *("-" if row[name] is None else _number(name, row[name]) for name in columns)]
            for row in results
        ],
    )
    for row in results:
        scans = row["read_p95"] / row["numpy_p95"]
        typer.echo(f"{row['cases']:,} cases: a whole read takes as long as {scans:.1f} exact scans (95th percentile)")
    for row in rebuilds:
        typer.echo(f"rebuild of {row['decisions']:,} decisions: {row['seconds']:.1f} s")
    typer.echo(_machine_line())


@app.command()
def curves(
    results: Annotated[list[Path], typer.Argument(help="outputs of `bench stream --json`", exists=True)],
    out: Annotated[Path, typer.Option(help="the SVG to write")],
    policy: Annotated[list[str] | None, typer.Option(help="only these; repeatable")] = None,
    title: Annotated[str, typer.Option(help="headline")] = "Right answers while learning from one's own outcomes",
    note: Annotated[str, typer.Option(help="small print")] = "",
) -> None:
    """Draw learning curves from stream results."""
    from memento_casebank.bench.report import draw_curves, read_results
    from memento_casebank.bench.world import DataError

    try:
        rows = read_results(results)
    except DataError as exc:
        raise typer.BadParameter(str(exc), param_hint="results") from exc
    known = {row["policy"] for row in rows}
    if missing := [name for name in policy or [] if name not in known]:
        raise typer.BadParameter(f"No result for {missing[0]!r}. There are: {', '.join(sorted(known))}.")
    chosen = [
        row
        for name in (policy or dict.fromkeys(row["policy"] for row in rows))
        for row in rows
        if row["policy"] == name
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(draw_curves(chosen, title=title, note=note), encoding="utf-8")
    typer.echo(f"wrote {out}", err=True)


# -- jobs, each in a child process -----------------------------------------------------------------------------


def _stream_job(job: Job) -> dict[str, Any]:
    from memento_casebank.bench.stream import run_stream
    from memento_casebank.bench.world import PolicySpec
    from memento_casebank.candidates import CandidateSettings

    result = run_stream(
        _data(job.data, job.embedder, job.embedder_model, job.dim),
        PolicySpec(job.policy),
        seed=job.seed,
        length=job.length,
        k=job.k,
        false_positive=job.false_positive,
        candidates=CandidateSettings(lexical=job.lexical),
    )
    return asdict(result) | ({"policy": job.label} if job.label else {})


def _simulate_job(job: Job) -> dict[str, Any]:
    from memento_casebank.bench.simulate import run_simulation
    from memento_casebank.bench.world import PolicySpec
    from memento_casebank.candidates import CandidateSettings

    result = run_simulation(
        _data(job.data, job.embedder, job.embedder_model, job.dim),
        PolicySpec(job.policy),
        seed=job.seed,
        variant=job.variant,
        length=job.length,
        k=job.k,
        candidates=CandidateSettings(lexical=job.lexical),
    )
    return asdict(result) | ({"label": job.label} if job.label else {})


def _leak_job(path: Path) -> dict[str, Any]:
    from memento_casebank.bench.leak import check_leak, read_pairs
    from memento_casebank.embedders import make_embedder

    return asdict(check_leak(read_pairs(path), make_embedder("hashing")))


def _latency_job(job: tuple[Path, int, str, bool]) -> dict[str, Any]:
    from memento_casebank.bench.latency import measure_latency

    data, cases, policy, chromadb = job
    return asdict(measure_latency(_data(data, "hashing", "", None), cases, policy=policy, chromadb=chromadb, say=_say))


def _rebuild_job(job: tuple[Path, int, str]) -> dict[str, Any]:
    from memento_casebank.bench.latency import measure_rebuild

    data, decisions, policy = job
    return asdict(measure_rebuild(_data(data, "hashing", "", None), decisions, policy=policy, say=_say))


@lru_cache(maxsize=3)
def _data(path: Path, embedder: str, model: str, dim: int | None) -> Utterances:
    from memento_casebank.bench.world import read_utterances
    from memento_casebank.embedders import make_embedder

    return read_utterances(path, make_embedder(embedder, model=model, dim=dim))


def _run(work: Callable[[J], T], jobs: Sequence[J], workers: int) -> Iterator[T]:
    """Results in the order of the jobs, each job in a fresh process with one BLAS thread; progress on stderr."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    from rich.console import Console
    from rich.progress import Progress

    from memento_casebank.bench.world import DataError
    from memento_casebank.embedders import EmbedderError

    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # inherited by the children, which import numpy afresh
    context = multiprocessing.get_context("spawn")
    with (
        Progress(console=Console(stderr=True), transient=True) as progress,
        ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool,
    ):
        task = progress.add_task(work.__name__.strip("_").replace("_job", ""), total=len(jobs))
        try:
            for result in pool.map(work, jobs):
                progress.advance(task)
                yield result
        except DataError as exc:
            raise typer.BadParameter(str(exc), param_hint="--data") from exc
        except EmbedderError as exc:
            raise typer.BadParameter(str(exc), param_hint="--embedder") from exc


def _checked(policies: Sequence[str]) -> Sequence[str]:
    """Refuse an unknown policy or setting before an hour of running."""
    from memento_casebank.bench.world import PolicySpec

    for text in policies:
        try:
            PolicySpec(text).make(0)
        except ValueError as exc:
            raise typer.BadParameter(str(exc)) from exc
    return policies


# -- telling -----------------------------------------------------------------------------------------------------


def _is_recall(column: str) -> bool:
    return column.endswith("_recall")


def _number(column: str, value: float) -> str:
    return f"{value:.3f}" if _is_recall(column) else f"{value:.2f}"


def _tell(results: list[dict[str, Any]], columns: Mapping[str, str], as_json: bool) -> None:
    from memento_casebank.bench.report import by_policy, estimate

    if as_json:
        typer.echo(json.dumps({"machine": _machine(), "results": results}, indent=1))
        return
    groups = by_policy([{**result, "policy": result.get("label", result["policy"])} for result in results])
    rows: list[list[str]] = []
    for name, runs in groups.items():
        cells = [[float(run[column]) for run in runs if run[column] is not None] for column in columns]
        rows.append([name, *(str(estimate(values)) if values else "-" for values in cells)])
    _table(["policy", *columns.values()], rows)
    typer.echo(f"mean ± 95 % interval over {len(next(iter(groups.values())))} seeds; {_machine_line()}")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, ["-" * width for width in widths], *rows]:
        typer.echo("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")


def _machine() -> dict[str, Any]:
    from memento_casebank.bench.report import machine

    return machine()


def _machine_line() -> str:
    return ", ".join(f"{name} {value}" for name, value in _machine().items())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - progress of a child process
