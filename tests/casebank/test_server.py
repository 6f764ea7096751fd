"""The server through its own protocol: what a model can do with the case bank, on a real folder."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from memento_casebank.server import Settings, build_server

pytestmark = pytest.mark.anyio


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(path=tmp_path / "bank", policy="similarity", lock_timeout_seconds=0.1)


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Client]:
    async with Client(build_server(settings)) as connected:
        yield connected


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    return getattr(result.content[0], "text", "")


async def test_an_empty_bank_answers_with_no_case_and_a_decision_to_judge(client: Client) -> None:
    found = await call(client, "retrieve_cases", query="Sum the sales in report.xlsx")

    assert found["memory"] == "void"
    assert found["cases"] == []
    judged = await call(client, "record_outcome", reward=1, kind="verifier", decision_id=found["decision_id"])
    assert judged["decisions"] == [found["decision_id"]]


async def test_what_was_retained_is_seen_by_the_next_retrieval(client: Client) -> None:
    plan = {"plan": [{"id": 1, "description": "query the table"}]}
    kept = await call(
        client,
        "retain_case",
        question="Sum the sales in report.xlsx",
        plan=plan,
        answer="42",
        reward=1.0,
        reward_kind="verifier",
        tags=["table"],
    )
    await call(client, "retain_case", question="Who wrote the poem?", plan={"plan": []}, reward=0.0)

    found = await call(client, "retrieve_cases", query="Add up the sales in report.xlsx", limit=1)

    (case,) = found["cases"]
    assert case["case_id"] == kept["case_id"]
    assert case["plan"] == plan
    assert (case["reward"], case["outcome_kind"], case["answer"], case["tags"]) == (1.0, "verifier", "42", ["table"])
    assert 0.5 < case["similarity"] < 1.0


async def test_cases_are_kept_across_restarts(settings: Settings) -> None:
    async with Client(build_server(settings)) as first:
        kept = await call(first, "retain_case", question="What is 17 squared?", plan={"steps": ["compute"]})

    async with Client(build_server(settings)) as second:
        found = await call(second, "retrieve_cases", query="What is 17 squared?")

    assert [case["case_id"] for case in found["cases"]] == [kept["case_id"]]
    assert found["cases"][0].get("reward") is None  # unknown, and not 0


async def test_an_outcome_told_by_run_reaches_its_case_and_all_its_decisions(client: Client) -> None:
    first = await call(client, "retrieve_cases", query="Where is the report?", run_id="r1")
    second = await call(client, "retrieve_cases", query="Read the report", run_id="r1")
    kept = await call(client, "retain_case", question="Where is the report?", plan={"a": 1}, run_id="r1")

    told = await call(client, "record_outcome", reward=1, kind="judge", run_id="r1")

    assert told["decisions"] == [first["decision_id"], second["decision_id"]]
    assert told["cases"] == [kept["case_id"]]


async def test_a_person_overrides_the_judge_and_the_judge_cannot_take_it_back(client: Client) -> None:
    kept = await call(client, "retain_case", question="Translate it", plan={"a": 1}, reward=1, reward_kind="judge")
    await call(client, "record_outcome", reward=0, kind="human", case_id=kept["case_id"])
    await call(client, "record_outcome", reward=1, kind="judge", case_id=kept["case_id"])

    found = await call(client, "retrieve_cases", query="Translate it")

    assert (found["cases"][0]["reward"], found["cases"][0]["outcome_kind"]) == (0.0, "human")


async def test_namespaces_do_not_see_each_other(client: Client) -> None:
    await call(client, "retain_case", question="Book a table", plan={"a": 1}, namespace="ann")

    found = await call(client, "retrieve_cases", query="Book a table", namespace="bob")

    assert found["cases"] == []


async def test_in_evaluation_a_question_never_retrieves_itself(client: Client) -> None:
    question = "What is the capital of Columbia County?"
    await call(client, "retain_case", question=question.upper() + " ", plan={"a": 1}, answer="Bloomsburg")
    other = await call(client, "retain_case", question="What is the capital of Orotina Canton?", plan={"a": 2})

    found = await call(client, "retrieve_cases", query=question, exclude_task=True)

    assert [case["case_id"] for case in found["cases"]] == [other["case_id"]]


async def test_an_unknown_id_is_an_error_that_says_which(client: Client) -> None:
    assert "dec_nope" in await refused(client, "record_outcome", reward=1, kind="judge", decision_id="dec_nope")
    assert "case_nope" in await refused(client, "retain_case", question="q", plan={}, parents=["case_nope"])
    assert "run_id" in await refused(client, "record_outcome", reward=1, kind="judge")


async def test_an_outcome_that_is_neither_a_share_nor_unknown_is_refused(client: Client) -> None:
    assert "less than or equal to 1" in await refused(client, "record_outcome", reward=2, kind="judge", run_id="x")


async def test_evaluation_mode_also_excludes_the_original_question_of_a_rephrased_query(client: Client) -> None:
    question = "What is the capital of Columbia County?"
    await call(client, "retain_case", question=question, plan={"a": 1}, answer="Bloomsburg")

    shown = await call(client, "retrieve_cases", query="capital of Columbia County")
    hidden = await call(client, "retrieve_cases", query="capital of Columbia County", exclude_task=question)

    assert len(shown["cases"]) == 1
    assert hidden["cases"] == []


async def test_steps_and_costs_may_carry_more_than_the_bank_knows_about(client: Client) -> None:
    await call(
        client,
        "retain_case",
        question="Read it",
        plan={"a": 1},
        steps=[{"subtask": "open", "tools": ["documents__read"], "status": "done", "seconds": 3}],
        cost={"tokens": 10, "tool_calls": 2},
    )
