"""Unit tests of khala.cli.up_values."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import attrs
import pytest

from khala.cli.toml_text import toml_document
from khala.cli.up_ports import UpPorts
from khala.cli.up_secrets import UpSecrets
from khala.cli.up_values import UpValues, UserConfig, child_environ, child_sections

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def values(tmp_path: Path) -> UpValues:
    """Values of a system with two nodes and a broker."""
    return UpValues(UpPorts(8470, nodes=2, has_nats=True), UpSecrets.read_or_make(tmp_path, has_nats=True))


def test_no_value_is_a_secret_and_each_file_is_there(values: UpValues) -> None:
    """Children are told where secrets are, never what they are."""
    roles = ("control", "runtime", "node")
    sections = {
        "control": values.control(), "runtime": values.runtime(), "node": values.node(2),
        **{f"fanout of {role}": values.fanout("nats", role) for role in roles},
    }  # fmt: skip
    text = toml_document(sections)
    files = [path for path in values.parts.folder.iterdir() if path.suffix != ".json"]
    assert len(files) == 8
    for file in files:
        assert file.read_text().strip() not in text
        assert str(file) in text
    assert tomllib.loads(text)["node"]["fanout_keys"] == {
        "up-1_file": str(values.parts.folder / "fanout_key")
    }


def test_services_are_told_where_the_others_are(values: UpValues) -> None:
    """By one block of ports; only nodes differ from each other."""
    assert values.control()["runtime_url"] == f"http://127.0.0.1:{values.runtime()['port']}"
    assert values.runtime()["control_url"] == f"http://127.0.0.1:{values.control()['port']}"
    first, second = values.node(1), values.node(2)
    differing = {name for name in first if first[name] != second[name]}
    assert differing == {"node_id", "port", "admin_port"}
    assert (
        len({str(values.fanout("nats", role)["nats_user"]) for role in ("control", "runtime", "node")}) == 3
    )
    assert values.fanout("nats", "node")["nats_servers"] == ["nats://127.0.0.1:8477"]
    assert UpValues(UpPorts(1), values.parts).fanout("postgres", "node") == {"driver": "postgres"}


def test_services_are_told_the_one_origin_by_both_of_its_names_and_nothing_is_taken_from_the_user(
    values: UpValues,
) -> None:
    """Lists of the file and of variables come after ours; a key that holds no list stays wrong."""
    assert values.control()["public_url"] == "http://127.0.0.1:8470"
    own = ["http://127.0.0.1:8470", "http://localhost:8470"]
    document = {
        "control": {"cors_origins": ["https://a.example"]},
        "runtime": {"cors_origins": "https://a.example"},
    }
    user = UserConfig(document, {"KHALA_NODE_TRUSTED_PROXIES": "10.0.0.1, 10.0.0.2"})
    with_user = attrs.evolve(values, user=user)
    assert with_user.control()["cors_origins"] == [*own, "https://a.example"]
    assert with_user.runtime()["cors_origins"] == "https://a.example"
    assert with_user.node()["cors_origins"] == own
    assert with_user.node()["trusted_proxies"] == ["127.0.0.1", "10.0.0.1", "10.0.0.2"]
    assert with_user.runtime()["trusted_proxies"] == ["127.0.0.1"]


def test_what_the_user_sets_reaches_the_children_below_what_holds_the_system_together(tmp_path: Path) -> None:
    """His limits and flags, not his ports; a secret of ours replaces both forms of his."""
    file = tmp_path / "khala.toml"
    file.write_text(
        "[node]\nport = 1\nfailpoints = 'x'\nadmin_token = 'his'\n"
        "[node.limits]\ndrain_timeout_s = 9\nheartbeat_interval_s = 3\n[control]\nport = 2\n"
    )
    user = UserConfig.read(file, {"KHALA_NODE_MODE": "production"})
    ours: dict[str, object] = {"port": 8473, "admin_token_file": "/f", "limits.drain_timeout_s": 1.5}
    assert child_sections(user, {"node": ours, "fanout": {}}) == {
        "node": {
            "port": 8473, "failpoints": "x", "admin_token_file": "/f",
            "limits": {"drain_timeout_s": 1.5, "heartbeat_interval_s": 3},
        },
        "fanout": {},
    }  # fmt: skip
    assert (user.find("node", "port"), user.find("node", "mode")) == (1, "production")
    assert user.find("nothing", "at_all") is None


def test_variables_reach_the_children_that_they_are_for() -> None:
    """Not those of other sections, of clients, or that would win over our values; all others do."""
    environ = {
        "PATH": "/bin", "KHALA_NODE_LIMITS_HEARTBEAT_INTERVAL_S": "3", "KHALA_NODE_PORT": "1",
        "KHALA_NODE_ADMIN_TOKEN": "his", "KHALA_NODE_ADMIN_TOKEN_FILE": "his",
        "KHALA_NODE_LIMITS_DRAIN_TIMEOUT_S": "9", "KHALA_CONTROL_PORT": "1", "KHALA_UP_SPLIT": "1",
        "KHALA_KEY": "khk_x", "KHALA_PROFILE": "/p", "KHALA_CONFIG": "/c",
    }  # fmt: skip
    ours = {"node": {"port": 1, "admin_token_file": "/f", "limits.drain_timeout_s": 1.5}}
    assert child_environ(UserConfig({}, environ), ours) == {
        "PATH": "/bin",
        "KHALA_NODE_LIMITS_HEARTBEAT_INTERVAL_S": "3",
    }


@pytest.mark.parametrize("text", ["[", "\x00"])
def test_a_file_that_cannot_be_read_says_nothing(tmp_path: Path, text: str) -> None:
    """The service that reads it reports the error."""
    file = tmp_path / "khala.toml"
    file.write_text(text)
    assert UserConfig.read(file, {}).document == {}
    assert UserConfig.read(tmp_path / "none", {}).document == {}
    assert UserConfig({"node": 3}, {}).table("node") == {}
