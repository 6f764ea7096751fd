"""Each README has a row for every setting and every tool, and none for what is not there."""

import importlib
import re
from itertools import pairwise
from typing import Any

import pytest

from memento_kit import ServerSettings
from support.repository import PACKAGES, SERVERS, tools_of

OUR_SERVERS = pytest.mark.parametrize("server", SERVERS)


def settings_of(server: str) -> type[ServerSettings]:
    module: Any = importlib.import_module(f"memento_{server}.server")
    assert issubclass(module.Settings, ServerSettings)
    return module.Settings


def table(readme: str, of: str) -> dict[str, list[str]]:
    """Rows of the tables whose first column is headed `of`: what stands between backticks in the first cell → cells.

    A first cell may name several, as `a`, `b`.
    """
    rows: dict[str, list[str]] = {}
    heading = ""
    for before, line in pairwise(["", *readme.splitlines()]):
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        if not line.startswith("|"):
            continue
        if not before.startswith("|"):
            heading = cells[0].lower()
        elif heading == of:
            rows |= dict.fromkeys(re.findall(r"`([^`]+)`", cells[0]), cells)
    assert rows, f"there is no table with the column '{of}'"
    return rows


@OUR_SERVERS
def test_each_setting_has_a_row_and_each_row_a_setting(server: str) -> None:
    settings = settings_of(server)
    rows = table(PACKAGES[f"memento-{server}"].read("README.md"), of="variable")
    variables = [settings.environment_variable(field) for field in settings.model_fields]
    assert sorted(variable for variable in rows if variable.startswith("MEMENTO_")) == sorted(variables)
    assert all(len(cells) == 3 and cells[2] for cells in rows.values()), "variable | default | meaning"


@OUR_SERVERS
def test_a_default_that_the_table_gives_as_a_number_is_the_default(server: str) -> None:
    settings = settings_of(server)
    rows = table(PACKAGES[f"memento-{server}"].read("README.md"), of="variable")
    for name, field in settings.model_fields.items():
        shown = rows[settings.environment_variable(name)][1].strip("`").replace(",", "").replace("_", "")
        if re.fullmatch(r"-?\d+(\.\d+)?", shown):
            assert float(shown) == float(field.get_default(call_default_factory=True)), name


@OUR_SERVERS
def test_each_tool_has_a_row_and_each_row_a_tool(server: str) -> None:
    rows = table(PACKAGES[f"memento-{server}"].read("README.md"), of="tool")
    assert sorted(rows) == sorted(tool["name"] for tool in tools_of(server))


@OUR_SERVERS
def test_each_setting_is_documented_where_it_is_defined(server: str) -> None:
    for name, field in settings_of(server).model_fields.items():
        assert field.description, f"{name} has no docstring"


@OUR_SERVERS
def test_each_readme_says_what_it_does_not_protect_against(server: str) -> None:
    readme = PACKAGES[f"memento-{server}"].read("README.md")
    assert re.search(r"^## What it does not (do or )?protect against$", readme, re.MULTILINE)
    assert '"mcpServers"' in readme
