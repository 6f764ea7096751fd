"""The benches measure what they say: protocol, arithmetic and output, on data made here."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from memento_casebank.bench import app
from memento_casebank.bench.commands import ABLATIONS, SIMULATE_POLICIES, STREAM_POLICIES
from memento_casebank.bench.latency import measure_latency, measure_rebuild
from memento_casebank.bench.leak import check_leak, read_pairs
from memento_casebank.bench.report import draw_curves, estimate
from memento_casebank.bench.simulate import run_simulation
from memento_casebank.bench.stream import name_match, run_stream, vote, worst_window
from memento_casebank.bench.world import PolicySpec, Utterances, calibration_error, read_utterances
from memento_casebank.embedders import HashingEmbedder
from memento_casebank.policies import POLICIES
from memento_casebank.policies.base import Decision, Outcome, Policy

TOPICS = {
    "card_arrival": ["card arrival, when will it be here", "when will it be here"],
    "lost_phone": ["lost phone, somebody must have stolen it", "somebody must have stolen it"],
    "exchange_rate": ["exchange rate, how many euros do they give", "how many euros do they give"],
    "top_up_failed": ["top up failed, nothing shows on the account", "nothing shows on the account"],
}
"""Per topic one question that its name gives away, and one that only a memory of the first can answer."""


@pytest.fixture(scope="module")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "utterances.csv"
    rng = np.random.default_rng(0)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "category"])
        for _ in range(160):
            topic = str(rng.choice(list(TOPICS)))
            question = str(rng.choice(TOPICS[topic]))
            writer.writerow([f"{question} {rng.choice(['please', 'thanks', 'hello', 'again', 'now'])}", topic])
    return path


@pytest.fixture(scope="module")
def data(data_file: Path) -> Utterances:
    return read_utterances(data_file, HashingEmbedder(64))


# -- the stream --------------------------------------------------------------------------------------------------


def test_the_memoryless_agent_knows_only_the_names() -> None:
    """It gets what a name gives away and guesses the rest."""
    names = sorted(TOPICS)
    guess = name_match(["i lost the phone", "the exchange rate today", "arrival of the card"], names)
    assert [names[i] for i in guess] == ["lost_phone", "exchange_rate", "card_arrival"]


def test_the_agent_does_what_most_shown_cases_did() -> None:
    """Ties go to the better ranked."""
    assert vote(["a", "b", "b"]) == "b"
    assert vote(["a", "b"]) == "a"


def test_without_memory_the_stream_is_the_name_match(data: Utterances) -> None:
    """The baseline of every comparison, and the only row with nothing below it."""
    result = run_stream(data, PolicySpec("no_memory"), seed=1, length=100)
    order: list[int] = np.random.default_rng(1).permutation(len(data.texts))[:100].tolist()
    guess = name_match([data.texts[i] for i in order], data.names)
    assert result.cumulative == result.no_memory == pytest.approx(float((guess == data.labels[order]).mean()))
    assert (result.void_share, result.worst_window, result.wrong_in_bank) == (1.0, 0.0, 0.0)


def test_memory_learns_what_the_names_do_not_tell(data: Utterances) -> None:
    """Cases of the easy questions answer the hard ones that resemble them, and only right answers are kept."""
    result = run_stream(data, PolicySpec("similarity:threshold=0.5"), seed=1, length=160)
    assert result.cumulative > result.no_memory + 0.2
    assert result.wrong_in_bank == 0.0


def test_only_false_praise_puts_wrong_answers_in_the_bank(data: Utterances) -> None:
    """With every failure praised, the bank keeps the agent's errors."""
    result = run_stream(data, PolicySpec("no_memory"), seed=1, length=100, false_positive=1.0)
    assert result.wrong_in_bank == pytest.approx(1 - result.cumulative)


@dataclass(frozen=True)
class Spied(PolicySpec):
    """Hands out a policy that keeps what it was taught."""

    taught: list[tuple[Decision, Outcome]]

    def make(self, seed: int, **more: Any) -> Policy[Any]:
        policy = super().make(seed, **more)
        learn = policy.learn

        def noted(decision: Decision, outcome: Outcome) -> None:
            self.taught.append((decision, outcome))
            learn(decision, outcome)

        policy.learn = noted
        return policy


def test_the_cases_that_were_followed_are_cited_and_only_the_answer_given_is_judged(data: Utterances) -> None:
    """One reward per question; the cited cases are those that said what the agent said."""
    spec = Spied("similarity:threshold=0.3", [])
    result = run_stream(data, spec, seed=1, length=160)
    rewards = [outcome.reward for _, outcome in spec.taught if outcome.reward is not None]
    assert result.cumulative == sum(rewards) / 160
    assert len(spec.taught) == 160
    partly = 0
    for decision, outcome in spec.taught:
        said: dict[int, set[str]] = {}
        for case_id, plan in zip(decision.shown.ids, decision.shown.table["plan"].tolist(), strict=True):
            said.setdefault(plan, set()).add(case_id)
        assert outcome.cited in [*said.values(), frozenset()]
        assert bool(outcome.cited) == bool(decision.shown.ids)
        partly += len(said) > 1
    assert partly > 0


def test_a_seed_is_a_shuffle_and_repeats_itself(data: Utterances) -> None:
    """Numbers can be reproduced."""
    spec = PolicySpec("bag")
    assert run_stream(data, spec, seed=3, length=80) == run_stream(data, spec, seed=3, length=80)
    assert run_stream(data, spec, seed=3, length=80).curve != run_stream(data, spec, seed=4, length=80).curve


def test_the_worst_window_is_the_worst() -> None:
    """Wherever it starts; a shorter run is one window."""
    difference = np.concatenate([np.ones(1_234), -np.ones(2_000), np.ones(2_500)])
    assert worst_window(difference, 2_000) == -1.0
    assert worst_window(np.array([0.5, -0.5, 0.3]), 2_000) == pytest.approx(0.1)


# -- the simulation ----------------------------------------------------------------------------------------------


def test_the_simulated_oracle_and_its_absence_bound_a_policy(data: Utterances) -> None:
    """No policy beats the oracle; without cases it is as good as no memory."""
    none = run_simulation(data, PolicySpec("no_memory"), seed=0, length=1_000)
    assert none.last_1k == pytest.approx(none.no_memory, abs=0.05)
    assert (none.void_share, none.lift, none.worst_window) == (1.0, 0.0, 0.0)
    shown = run_simulation(data, PolicySpec("similarity"), seed=0, length=1_000)
    assert shown.no_memory == none.no_memory
    assert shown.no_memory < shown.oracle
    assert shown.last_1k < shown.oracle


def test_where_no_case_helps_the_oracle_is_no_memory(data: Utterances) -> None:
    """The variant that only asks for harmlessness, and similarity does harm there."""
    result = run_simulation(data, PolicySpec("similarity"), seed=0, variant="useless", length=1_000)
    assert result.oracle == result.no_memory
    assert result.lift < -0.05
    assert result.worst_window == pytest.approx(result.lift)  # one window


def test_every_variant_differs_from_the_base(data: Utterances) -> None:
    """A variant that changes nothing would report a goal that was never tested."""
    base = run_simulation(data, PolicySpec("beta_ts"), seed=0, length=1_000)
    for variant in ("poison", "drift", "false_positive", "useless"):
        other = run_simulation(data, PolicySpec("beta_ts"), seed=0, variant=variant, length=1_000)
        assert other.lift != base.lift, variant  # an expectation: the dice cannot make two runs equal by chance
    with pytest.raises(ValueError, match="no variant 'storm'"):
        run_simulation(data, PolicySpec("bag"), seed=0, variant="storm")


def test_calibration_error_is_zero_for_a_forecaster_that_is_right() -> None:
    """And the distance when it is wrong."""
    happened = np.array([1.0] * 7 + [0.0] * 3)
    assert calibration_error(np.full(10, 0.7), happened) == pytest.approx(0.0)
    assert calibration_error(np.full(10, 0.2), happened) == pytest.approx(0.5)


# -- leak --------------------------------------------------------------------------------------------------------


def write_pairs(path: Path, *, constant: bool) -> Path:
    rng = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(60):
            answered = bool(rng.random() < 0.4)
            for case in range(8):
                row: dict[str, Any] = {
                    "query": f"question {number}",
                    "case": f"case {rng.integers(40)}",
                    "case_label": "positive" if case % 2 else "negative",
                    "plan": "{}",
                    "truth_label": answered if constant else bool(rng.random() < 0.4),
                }
                file.write(json.dumps(row) + "\n")
    return path


def test_a_row_split_lets_a_table_of_queries_look_perfect(tmp_path: Path) -> None:
    """Constant labels per query: 1.000 by remembering, one half once queries are held out."""
    report = check_leak(read_pairs(write_pairs(tmp_path / "pairs.jsonl", constant=True)), HashingEmbedder(32))
    assert report.label_constant_per_query
    assert report.lookup_row_split == 1.0
    assert report.lookup_grouped == 0.5
    assert report.text_grouped < 0.7
    assert report.case_label_auc == pytest.approx(0.5)
    assert (report.rows, report.queries) == (480, 60)
    assert "not identified" in report.why


def test_labels_that_vary_within_a_query_do_not_leak(tmp_path: Path) -> None:
    """Nothing to remember: the check does not cry wolf."""
    report = check_leak(read_pairs(write_pairs(tmp_path / "pairs.jsonl", constant=False)), HashingEmbedder(32))
    assert not report.label_constant_per_query
    assert report.lookup_row_split < 0.6
    assert "not identified" not in report.why


def test_a_file_of_another_form_is_named_with_its_line(tmp_path: Path) -> None:
    """The operator gets the place."""
    path = tmp_path / "other.jsonl"
    path.write_text('{"query": "q", "case": "c", "case_label": "positive"}\n')
    with pytest.raises(ValueError, match=r"other\.jsonl, line 1: no field 'truth_label'"):
        read_pairs(path)


# -- latency -----------------------------------------------------------------------------------------------------


def test_latency_is_measured_on_a_real_bank(data: Utterances) -> None:
    """Every number is there and positive, and the bank holds what was asked for."""
    result = measure_latency(data, 300, queries=20, chromadb=False)
    assert result.cases == 300
    assert result.chromadb_p95 is result.chromadb_recall is None
    assert 0 < result.read_p50 <= result.read_p95
    assert 0 < result.write_p50 <= result.write_p95
    assert 0 < result.read_cpu_p95 <= 2 * result.read_p95  # the clocks are not the same
    assert result.write_cpu_p95 > 0
    assert 0 < result.numpy_cpu_p95 < result.read_cpu_p95
    assert result.numpy_p95 > 0
    assert result.read_recall == 1.0


@pytest.mark.slow
def test_chromadb_is_asked_beside_the_bank_and_finds_nearly_what_the_exact_scan_finds(data: Utterances) -> None:
    """A query of an index that holds nothing is quick, too."""
    result = measure_latency(data, 300, queries=5, chromadb=True)
    assert result.chromadb_p95 is not None
    assert result.chromadb_p95 > 0
    assert result.chromadb_recall is not None
    assert 0.9 < result.chromadb_recall <= 1.0


def test_the_rebuild_that_is_timed_learns_every_decision_again(data: Utterances) -> None:
    """The engine refuses a rebuild that differs from what was learned online; here it does not differ."""
    said: list[str] = []
    result = measure_rebuild(data, 120, say=said.append)
    assert result.decisions == 120
    assert result.seconds > 0
    assert said == ["logging 120 decisions", "rebuilding"]


# -- what is printed ---------------------------------------------------------------------------------------------


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.slow
def test_stream_prints_the_json_that_was_agreed(data_file: Path, tmp_path: Path) -> None:
    """`{"results": [{"policy", "seed", "cumulative", "last_2k", …}]}`, and curves can be drawn from it."""
    printed = run(
        "stream", "--data", str(data_file), "--policy", "bag", "--policy", "no_memory", "--seeds", "2",
        "--length", "60", "--json",
    )  # fmt: skip
    report: Mapping[str, Any] = json.loads(printed)
    assert [(row["policy"], row["seed"]) for row in report["results"]] == [
        ("bag", 0), ("bag", 1), ("no_memory", 0), ("no_memory", 1),
    ]  # fmt: skip
    assert {"cumulative", "last_2k", "no_memory", "worst_window", "curve"} <= set(report["results"][0])
    assert report["machine"]["blas_threads"] == "1"
    saved, picture = tmp_path / "stream.json", tmp_path / "docs" / "curves.svg"
    saved.write_text(printed)
    run("curves", str(saved), "--out", str(picture), "--policy", "bag", "--note", "a < b & c")
    texts = [element.text for element in ElementTree.parse(picture).iter("{http://www.w3.org/2000/svg}text")]
    assert "bag" in texts
    assert "no_memory" not in texts
    assert "a < b & c" in texts


@pytest.mark.slow
def test_the_tables_name_seeds_intervals_and_machine(data_file: Path) -> None:
    """A table without them is an anecdote."""
    table = run(
        "simulate", "--data", str(data_file), "--policy", "beta_ts", "--variant", "base", "--seeds", "2",
        "--length", "1000",
    )  # fmt: skip
    assert "| base · beta_ts" in table
    assert "±" in table
    assert "95 % interval over 2 seeds; cpu " in table


@pytest.mark.slow
def test_the_table_of_times_gives_a_recall_as_a_share_and_not_in_milliseconds(data_file: Path) -> None:
    """With two decimals .996 would be read as all."""
    table = run("latency", "--data", str(data_file), "--cases", "300", "--no-chromadb", "--decisions", "0")
    head, _, row, *_ = [[cell.strip() for cell in line.split("|")] for line in table.splitlines()]
    cells = dict(zip(head, row, strict=True))
    assert cells["read recall"] == "1.000"
    assert cells["chromadb recall"] == "-"
    assert float(cells["read p95 ms"]) > 0
    scans = table.split("300 cases: a whole read takes as long as ")[1].split()[0]
    assert float(scans) > 1  # it does much more than scan 300 rows


def test_a_bank_too_small_to_be_timed_is_refused_before_anything_runs(data_file: Path) -> None:
    """The 32 nearest of nothing, after five minutes of rebuilding."""
    result = CliRunner().invoke(app, ["latency", "--data", str(data_file), "--cases", "0"])
    assert result.exit_code == 2
    assert "greater than or equal to 100" in result.output


def test_an_unknown_policy_is_refused_before_anything_runs(data_file: Path) -> None:
    """Not after an hour."""
    for command, policy in (("stream", "bandit"), ("simulate", "bag:tau=1"), ("stream", "bag:explore_share")):
        result = CliRunner().invoke(app, [command, "--data", str(data_file), "--policy", policy])
        assert result.exit_code == 2
        assert "Traceback" not in result.output


@pytest.mark.slow
@pytest.mark.parametrize("command", ["stream", "leak"])
@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b'{"query": "q"}\n', b"\xff\xfe\x00"])
def test_a_file_of_another_form_is_one_line_on_the_command_line(command: str, content: bytes, tmp_path: Path) -> None:
    """The wrong file is the operator's mistake, not a crash."""
    path = tmp_path / "data"
    path.write_bytes(content)
    result = CliRunner().invoke(app, [command, "--data", str(path)])
    assert result.exit_code == 2
    assert "Invalid value for --data" in result.output


def test_curves_of_something_else_are_one_line(tmp_path: Path) -> None:
    """A table instead of --json is an easy mistake."""
    path = tmp_path / "stream.txt"
    path.write_text("| bag | 0.5 |")
    result = CliRunner().invoke(app, ["curves", str(path), "--out", str(tmp_path / "x.svg")])
    assert result.exit_code == 2
    assert "is not the --json output of a bench" in " ".join(result.output.replace("│", "").split())


def test_every_policy_and_every_ablation_can_be_made() -> None:
    """The lists that run by default name only what exists, and no policy is left out of the comparison."""
    for text in (*STREAM_POLICIES, *SIMULATE_POLICIES, *(policy for _, policy, _ in ABLATIONS)):
        PolicySpec(text).make(0)
    for listed in (STREAM_POLICIES, SIMULATE_POLICIES):
        assert set(POLICIES) <= {text.partition(":")[0] for text in listed}


def test_intervals_are_students() -> None:
    """Five seeds: t(4) = 2.776 standard errors."""
    values = [0.50, 0.52, 0.54, 0.56, 0.58]
    assert estimate(values).mean == pytest.approx(0.54)
    assert estimate(values).half_width == pytest.approx(2.776 * np.std(values, ddof=1) / 5**0.5, rel=2e-3)
    assert str(estimate([0.5])) == "0.500"


def test_curves_are_valid_svg_and_names_do_not_cover_each_other() -> None:
    """Two lines that end at the same height still have two readable names."""
    results = [
        {"policy": name, "seed": seed, "curve": [0.4, 0.5 + seed / 100, 0.6]}
        for name in ("bag", "a & b")
        for seed in (0, 1)
    ]
    root = ElementTree.fromstring(draw_curves(results, title="x < y"))
    names = {e.text: float(e.get("y", "0")) for e in root.iter("{http://www.w3.org/2000/svg}text")}
    assert abs(names["bag"] - names["a & b"]) >= 12
