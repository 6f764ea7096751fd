"""memento_kit.settings: what an operator is told when a setting is wrong."""

import pytest
from pydantic import Field

from memento_kit import ServerSettings, StartupError
from support.probe_server import Settings


def test_settings_come_from_prefixed_variables_and_an_empty_one_counts_as_unset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MEMENTO_PROBE_LIMIT", "7")
    monkeypatch.setenv("MEMENTO_PROBE_HIGH", "")
    settings = Settings()
    assert (settings.limit, settings.high) == (7, 1)


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        pytest.param(
            {"LIMIT": "many"},
            "wrong setting: MEMENTO_PROBE_LIMIT: Input should be a valid integer, unable to parse string as an integer"
            " (got 'many')",
            id="not a number",
        ),
        pytest.param(
            {"LIMIT": "0"},
            "wrong setting: MEMENTO_PROBE_LIMIT: Input should be greater than or equal to 1 (got '0')",
            id="out of bounds",
        ),
        pytest.param(
            {"LOW": "5"},
            "wrong setting: MEMENTO_PROBE_LOW must not be above MEMENTO_PROBE_HIGH",
            id="two together",
        ),
        pytest.param(
            {"NUMBERS": "1,2"},
            "wrong setting: MEMENTO_PROBE_NUMBERS: not valid JSON, which this setting needs",
            id="not JSON",
        ),
        pytest.param(
            {"PIN": "hunter2"},
            "wrong setting: MEMENTO_PROBE_PIN: Value should have at least 8 items after validation, not 7",
            id="a secret by its type is not shown",
        ),
        pytest.param(
            {"DATABASE_PASSWORD": "hunter2"},
            "wrong setting: MEMENTO_PROBE_DATABASE_PASSWORD: String should have at most 3 characters",
            id="a secret by its name is not shown",
        ),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], told: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"MEMENTO_PROBE_{name}", value)
    with pytest.raises(StartupError) as caught:
        Settings()
    assert str(caught.value) == told


def test_all_wrong_settings_are_named_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMENTO_PROBE_LIMIT", "x")
    monkeypatch.setenv("MEMENTO_PROBE_NUMBERS", '["y"]')
    with pytest.raises(StartupError, match=r"MEMENTO_PROBE_LIMIT: .*; MEMENTO_PROBE_NUMBERS: "):
        Settings()


def test_a_long_wrong_value_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMENTO_PROBE_LIMIT", "x" * 5000)
    with pytest.raises(StartupError) as caught:
        Settings()
    assert len(str(caught.value)) < 300


def test_a_field_with_an_alias_is_named_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Aliased(ServerSettings, env_prefix="MEMENTO_PROBE_"):
        port: int = Field(default=1, validation_alias="PROBE_PORT")

    monkeypatch.setenv("PROBE_PORT", "x")
    assert Aliased.environment_variable("port") == "PROBE_PORT"
    with pytest.raises(StartupError, match="wrong setting: PROBE_PORT: "):
        Aliased()
