"""Reading mcp.json: what is accepted, how variables expand, and the one clear line for each mistake."""

import json
from pathlib import Path
from typing import Any

import pytest

from memento.server_list import ServerListError, load_server_list

ROOT = Path(__file__).resolve().parents[2]


def write(folder: Path, document: Any) -> Path:
    path = folder / "mcp.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return path


def test_the_list_in_the_package_is_the_one_at_the_root() -> None:
    shipped = ROOT / "orchestrator/src/memento/mcp.json"
    assert shipped.read_text(encoding="utf-8") == (ROOT / "mcp.json").read_text(encoding="utf-8")


def test_the_list_at_the_root_names_the_five_servers() -> None:
    assert list(load_server_list(ROOT / "mcp.json", {}).servers) == ["search", "crawl", "documents", "code", "casebank"]


def test_variables_expand_everywhere_and_an_empty_one_counts_as_unset(tmp_path: Path) -> None:
    entry = {"command": "${BIN:-python}", "args": ["${A}", "x-${B:-b}-${C:-}"], "env": {"K": "${EMPTY:-none}"}}
    path = write(tmp_path, {"mcpServers": {"one": entry}})
    server = load_server_list(path, {"A": "1", "EMPTY": ""}).servers["one"]
    assert Path(server.command).name.startswith("python")
    assert (server.args, server.env) == (["1", "x-b-"], {"K": "none"})


def test_http_and_sse_entries_expand_url_and_headers(tmp_path: Path) -> None:
    document = {
        "servers": {
            "web": {"url": "https://${HOST}/mcp", "headers": {"Authorization": "Bearer ${T}"}},
            "old": {"type": "sse", "url": "http://localhost:1/sse"},
            "vs": {"type": "streamable-http", "url": "http://localhost:2/mcp"},
        }
    }
    servers = load_server_list(write(tmp_path, document), {"HOST": "h.test", "T": "t"}).servers
    assert (servers["web"].type, servers["web"].url) == ("http", "https://h.test/mcp")
    assert servers["web"].headers == {"Authorization": "Bearer t"}
    assert [servers[name].type for name in ("old", "vs")] == ["sse", "http"]


@pytest.mark.parametrize(
    ("document", "told"),
    [
        pytest.param("{", "is not JSON: ", id="not json"),
        pytest.param("[]", 'needs an object "mcpServers"', id="a list"),
        pytest.param({"mcpServers": []}, 'needs an object "mcpServers"', id="no object"),
        pytest.param({"mcpServers": {"a": {}}}, 'server \'a\' needs a "command" (or a "url")', id="empty entry"),
        pytest.param({"mcpServers": {"a": []}}, "server 'a' must be an object", id="not an object"),
        pytest.param({"mcpServers": {"a b": {"command": "x"}}}, "server name 'a b'", id="bad name"),
        pytest.param(
            {"mcpServers": {"a": {"command": "x", "args": "y"}}}, "args: Input should be a valid list", id="args"
        ),
        pytest.param(
            {"mcpServers": {"a": {"type": "tcp", "command": "x"}}}, "type: Input should be", id="unknown type"
        ),
        pytest.param({"mcpServers": {"a": {"type": ["x"], "command": "x"}}}, "type: Input should be", id="odd type"),
        pytest.param({"mcpServers": {"a": {"url": "ftp://x"}}}, 'needs a "url" that starts with http', id="bad url"),
        pytest.param(
            {"mcpServers": {"a": {"command": "${NOWHERE}"}}},
            "NOWHERE is not set. Set it, or write ${NOWHERE:-default}",
            id="unset variable",
        ),
    ],
)
def test_each_mistake_is_one_line_that_names_the_file_and_the_place(tmp_path: Path, document: Any, told: str) -> None:
    path = write(tmp_path, document)
    with pytest.raises(ServerListError) as refused:
        load_server_list(path, {})
    assert told in str(refused.value)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_file_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(ServerListError, match="--config"):
        load_server_list(tmp_path / "none.json", {})


def test_a_disabled_server_needs_no_variable(tmp_path: Path) -> None:
    path = write(tmp_path, {"mcpServers": {"a": {"command": "${UNSET}", "disabled": True}}})
    assert load_server_list(path, {}).servers["a"].disabled


def test_a_relative_command_counts_from_the_folder_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, {"mcpServers": {"a": {"command": "./run.sh"}}})
    assert load_server_list(path, {}).servers["a"].command == str(tmp_path / "run.sh")


def test_tools_can_be_allowed_and_denied_by_pattern_and_deny_wins(tmp_path: Path) -> None:
    entry = {"command": "x", "allowTools": ["read_*", "list"], "denyTools": ["read_secret"]}
    server = load_server_list(write(tmp_path, {"mcpServers": {"a": entry}}), {}).servers["a"]
    assert [server.offers(tool) for tool in ("read_page", "list", "write", "read_secret")] == [True, True, False, False]
