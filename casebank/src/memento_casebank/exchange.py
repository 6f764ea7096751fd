"""Banks as JSON lines: export without loss, import of our own format and of the paper's two.

Owns the formats. An export carries every record of the log in order, with vectors and numbers, so that importing it
into an empty bank gives the same learned state bit for bit. Import skips what is there already, so it can be repeated.
"""

import base64
import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, cast

import numpy as np

from memento_casebank.log import Log
from memento_casebank.records import BankError, Case, DecisionRecord, Edit, OutcomeRecord, first_problem

__all__ = ["Imported", "Line", "export_lines", "read_lines"]

FORMAT = 1


@dataclass
class Imported:
    """How many records an import added, by kind, and how many were here already."""

    cases: int = 0
    decisions: int = 0
    outcomes: int = 0
    edits: int = 0
    skipped: int = 0
    quarantined: int = 0
    """Of the cases: kept out of sight, because their text gives orders or because they came quarantined."""


@dataclass(frozen=True)
class Line:
    """One record of an import, with the binary parts it came with."""

    record: Case | DecisionRecord | OutcomeRecord | Edit
    vector: bytes | None = None
    candidate_ids: tuple[str, ...] = ()
    numbers: bytes = b""
    reward: float | None = None
    """For cases of foreign formats, which keep the outcome with the case."""
    embedder: str | None = None


def export_lines(log: Log, *, vectors: bool = True) -> Iterator[str]:
    """Every record of a log as JSON lines, oldest first. Without vectors an import embeds anew."""
    embedder = log.meta("embedder") or ""
    yield _json({"type": "bank", "format": FORMAT, "bank_id": log.meta("bank_id"), "embedder": embedder})
    id_of = log.case_ids()

    def vector_of(seq: int) -> dict[str, str]:
        raw = log.vector(embedder, seq) if vectors else None
        return {} if raw is None else {"vector": _b64(raw)}

    def cases() -> Iterator[tuple[int, str]]:
        for seq, case in log.cases():
            yield seq, _json({"type": "case", "record": _plain(case), **vector_of(seq)})

    def decisions() -> Iterator[tuple[int, str]]:
        for seq, record, _, packed in log.decisions():
            ids = [id_of[s] for s in np.frombuffer(packed, np.int64, record.candidates).tolist()]
            numbers = _b64(packed[8 * record.candidates :])
            line = {"type": "decision", "record": _plain(record), "candidates": ids, "numbers": numbers}
            yield seq, _json(line | vector_of(seq))

    outcomes = ((seq, _json({"type": "outcome", "record": _plain(record)})) for seq, record in log.outcomes())
    edits = ((seq, _json({"type": "edit", "record": _plain(record)})) for seq, record in log.edits())
    for _, line in heapq.merge(cases(), decisions(), outcomes, edits, key=lambda pair: pair[0]):
        yield line


def read_lines(source: IO[str], *, name: str, namespace: str, now: float) -> Iterator[Line]:
    """Read an export, or the paper's `{case, plan, case_label}`, `{question, plan, reward}` or training rows.

    Training rows repeat each case for many queries; a case is read once. Their `truth_label` is not read: it is
    constant per query, so it says nothing about which case helped (spec/memento.md §7.1).

    Raises:
        BankError: a line is not JSON or of no known shape; it names the line.
    """
    embedder: str | None = None
    seen: Counter[str] = Counter()
    for number, text in enumerate(source, 1):
        if not text.strip():
            continue
        where = f"{name}, line {number}"
        try:
            text.encode()
        except UnicodeEncodeError as exc:  # read with `surrogateescape`, so that only this line is lost
            raise BankError(f"{where} is not UTF-8.") from exc
        try:
            row: Any = json.loads(text)
        except (ValueError, RecursionError) as exc:
            raise BankError(f"{where} is not JSON ({exc}).") from exc
        if not isinstance(row, dict):
            raise BankError(f"{where} is not an object.")
        row = cast(dict[str, Any], row)
        try:
            if row.get("type") == "bank":
                embedder = row.get("embedder")
                if row.get("format") != FORMAT:
                    raise BankError(f"{where} has format {row.get('format')!r}; this version reads {FORMAT}.")
            elif "type" in row:
                yield _own(row, embedder)
            else:
                line = _foreign(row, name=name, namespace=namespace, now=now, seen=seen)
                if line is not None:
                    yield line
        except ValueError as exc:
            raise BankError(f"{where} is of no known format: {first_problem(exc)}") from exc
        except (KeyError, TypeError, RecursionError) as exc:
            raise BankError(f"{where} is of no known format: {exc}") from exc


def _own(row: dict[str, Any], embedder: str | None) -> Line:
    record = row["record"]
    vector = base64.b64decode(row["vector"]) if "vector" in row else None
    match row["type"]:
        case "case":
            return Line(Case.model_validate(record), vector=vector, embedder=embedder)
        case "decision":
            return Line(
                DecisionRecord.model_validate(record),
                vector=vector,
                candidate_ids=tuple(map(str, row["candidates"])),
                numbers=base64.b64decode(row["numbers"]),
                embedder=embedder,
            )
        case "outcome":
            return Line(OutcomeRecord.model_validate(record))
        case "edit":
            return Line(Edit.model_validate(record))
        case other:
            raise ValueError(f"unknown type {other!r}")


def _foreign(row: dict[str, Any], *, name: str, namespace: str, now: float, seen: Counter[str]) -> Line | None:
    question = str(row["case"] if "case" in row else row["question"])
    reward = _label(row["case_label"]) if "case_label" in row else row.get("reward")
    if reward is not None and not 0.0 <= float(reward) <= 1.0:
        raise ValueError(f"reward {reward!r} is not between 0 and 1")
    plan = _plan(row["plan"])
    content = json.dumps([namespace, question, plan, reward], sort_keys=True)
    seen[content] += 1
    if "truth_label" in row and seen[content] > 1:
        return None
    # The same file gives the same ids, so that importing it twice adds nothing.
    digest = hashlib.blake2b(f"{content} {seen[content]}".encode(), digest_size=8).hexdigest()
    case = Case(
        id=f"case_{digest}",
        namespace=namespace,
        created=now,
        question=question,
        plan=plan,
        answer=row.get("answer"),
        source=f"import {name}",
    )
    return Line(case, reward=None if reward is None else float(reward))


def _label(label: Any) -> float:
    return {"positive": 1.0, "negative": 0.0}[label]


def _plan(plan: Any) -> dict[str, Any]:
    """The paper stores plans as text, mostly JSON."""
    if isinstance(plan, dict):
        return cast(dict[str, Any], plan)
    try:
        parsed: Any = json.loads(plan)
    except (ValueError, TypeError):
        return {"text": str(plan)}
    return cast(dict[str, Any], parsed) if isinstance(parsed, dict) else {"plan": parsed}


def _plain(record: Case | DecisionRecord | OutcomeRecord | Edit) -> dict[str, Any]:
    return record.model_dump(mode="json", exclude_defaults=True)


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
