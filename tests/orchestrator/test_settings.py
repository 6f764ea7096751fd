"""The agent's settings: documented, read from the environment, refused with the variable's name; and the models."""

import re
from pathlib import Path

import anyio
import pytest

from memento.memory import CaseMemory
from memento.offline import StandIn
from memento.server_list import ServerEntry, ServerList, find_command
from memento.session import ConfigError, choose_models, open_session
from memento.settings import Settings
from memento.toolbox import open_toolbox
from memento_kit import StartupError
from support.fake_bank import FakeBank

README = Path(__file__).resolve().parents[2] / "orchestrator/README.md"


def test_each_setting_has_a_row_in_the_readme_with_its_default_and_each_row_a_setting() -> None:
    section = README.read_text(encoding="utf-8").split("\n## Settings\n")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(MEMENTO_\w+)` \| ([^|]*) \| [^|]+ \|$", section, re.MULTILINE))
    fields = {Settings.environment_variable(name): field for name, field in Settings.model_fields.items()}
    assert sorted(rows) == sorted(fields)
    for variable, field in fields.items():
        default = field.get_default(call_default_factory=False)
        if variable != "MEMENTO_HOME":
            assert rows[variable].strip("`") == ("–" if default is None else f"{default}"), variable
        assert field.description, variable


def test_an_argument_wins_over_the_environment_and_an_empty_variable_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMENTO_MODEL", "from-environment")
    monkeypatch.setenv("MEMENTO_PLANNER_MODEL", "")
    assert Settings().model == "from-environment"
    assert Settings(model="given").model == "given"
    assert Settings().planner_model is None


def test_openais_own_variables_are_read_and_ours_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "theirs")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://theirs.test/v1")
    assert (Settings().api_key, Settings().base_url) == ("theirs", "http://theirs.test/v1")
    monkeypatch.setenv("MEMENTO_API_KEY", "ours")
    assert Settings().api_key == "ours"


def test_a_wrong_value_names_the_variable_and_never_shows_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMENTO_MAX_SECONDS", "-1")
    with pytest.raises(StartupError, match=r"MEMENTO_MAX_SECONDS: .*\(got '-1'\)"):
        Settings()
    monkeypatch.delenv("MEMENTO_MAX_SECONDS")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    assert "sk-secret" not in repr(Settings())


def test_roles_take_the_common_model_unless_they_have_one_of_their_own() -> None:
    choice = choose_models(Settings(model="m", executor_model="e", judge_model="j", api_key="k"))
    assert (choice.planner, choice.executor, choice.judge) == ("m", "e", "j")
    assert choice.base_url == "https://api.openai.com/v1"
    alone = choose_models(Settings(planner_model="p", api_key="k"))
    assert (alone.planner, alone.executor, alone.judge) == ("p", "p", None)


def test_a_local_server_needs_no_key() -> None:
    choice = choose_models(Settings(model="qwen3", base_url="http://localhost:11434/v1"))
    assert (choice.base_url, choice.api_key) == ("http://localhost:11434/v1", "not-needed")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "There are three ways to go on"),
        ({"model": "gpt-4.1"}, "OPENAI_API_KEY is not set"),
        ({"api_key": "k"}, "no model is named"),
        ({"model": "m", "base_url": "localhost:11434"}, "must start with http://"),
        ({"model": "offline", "executor_model": "x"}, "every role or none"),
        ({"model": "offline", "judge_model": "x"}, "cannot judge"),
    ],
)
def test_what_cannot_work_is_said_at_the_start(given: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        choose_models(Settings(**given))  # pyright: ignore[reportArgumentType]


@pytest.mark.anyio
async def test_each_roles_settings_are_in_its_requests_and_k_in_those_to_the_bank(tmp_path: Path) -> None:
    file = tmp_path / "rivers.md"
    file.write_text("# Rivers\n\nThe Po is 652 km long.\n", encoding="utf-8")
    chosen = Settings(
        home=tmp_path / "home",
        model="offline",
        memory="off",
        temperature=0.5,
        reasoning_effort="medium",
        planner_temperature=0.0,
        planner_reasoning_effort="high",
        max_output_tokens=321,
        cases_shown=7,
    )
    stand_in = StandIn(keep_requests=True)
    documents = ServerEntry(command=find_command("memento-documents"), env={"MEMENTO_DOCUMENTS_FOLDERS": str(tmp_path)})
    with anyio.fail_after(90):
        async with open_session(
            chosen, files=[file], server_list=ServerList(None, {"documents": documents}), stand_in=stand_in, seed=11
        ) as session:
            await session.ask("How long in km is the Po, says rivers.md?")
    sent = [
        ("tools" in body, body["temperature"], body["reasoning_effort"], body["max_completion_tokens"], body["seed"])
        for body in stand_in.requests
    ]
    assert {row for row in sent if not row[0]} == {(False, 0.0, "high", 321, 11)}, "the planner's"
    assert {row for row in sent if row[0]} == {(True, 0.5, "medium", 321, 11)}, "the executor's"

    bank = FakeBank([])
    async with open_toolbox({"casebank": bank.server}) as toolbox:
        await CaseMemory(toolbox=toolbox, limit=session.memory.limit).read("Q?", cycle=1, run_id="r")
    assert bank.seen[0][1]["limit"] == 7
