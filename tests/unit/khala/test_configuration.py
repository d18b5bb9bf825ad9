"""Configuration of a node: what is refused, and that failpoints exist in mode dev only."""

from __future__ import annotations

import pytest

from khala.adapters.configuration import SECTION, NodeConfig
from khala_service.config import ConfigRefused, describe_config, load_config

ENVIRON = {
    "KHALA_NODE_DATABASE_DSN": "postgresql://khala_reader:secret@db:5432/khala",
    "KHALA_NODE_CONTROL_URL": "http://control:8471",
    "KHALA_NODE_SERVICE_CREDENTIAL": "khs_" + "a" * 43,
    "KHALA_NODE_FANOUT_KEYS": '{"1": "' + "0f" * 32 + '"}',
}


def load(**changes: str) -> NodeConfig:
    """Return the configuration of an environment."""
    return load_config(NodeConfig, section=SECTION, environ=ENVIRON | changes)


def test_defaults() -> None:
    """Production unless told otherwise, no operators' routes, the ports of SPEC section 4."""
    config = load()
    assert (config.mode, config.failpoints, config.failpoint_file) == ("production", "", None)
    assert config.admin_token is None
    assert (config.port, config.admin_port) == (8473, 8474)


def test_a_shared_port_has_a_number() -> None:
    """Port 0 would give each node one of its own, and the others would never be found."""
    assert load(KHALA_NODE_REUSE_PORT="true").reuse_port
    with pytest.raises(ConfigRefused, match="reuse_port: name the port"):
        load(KHALA_NODE_REUSE_PORT="true", KHALA_NODE_PORT="0")


def test_failpoints_in_mode_dev() -> None:
    """What a drill arms a node with."""
    config = load(
        KHALA_NODE_MODE="dev",
        KHALA_NODE_FAILPOINTS="node.mid_frame=kill@3,node.topic=raise",
        KHALA_NODE_FAILPOINT_FILE="/tmp/hits",
        KHALA_NODE_ADMIN_TOKEN="0123456789abcdef",
    )
    assert config.failpoints == "node.mid_frame=kill@3,node.topic=raise"
    assert str(config.failpoint_file) == "/tmp/hits"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"KHALA_NODE_FAILPOINTS": "node.topic=raise"}, "failpoints: accepted in mode dev only"),
        ({"KHALA_NODE_FAILPOINT_FILE": "/tmp/hits"}, "failpoint_file: accepted in mode dev only"),
        ({"KHALA_NODE_MODE": "production", "KHALA_NODE_FAILPOINTS": "node.topic=kill"}, "failpoints"),
        ({"KHALA_NODE_MODE": "dev", "KHALA_NODE_FAILPOINTS": "node.nowhere=kill"}, "node.nowhere"),
        ({"KHALA_NODE_MODE": "staging"}, "mode"),
        ({"KHALA_NODE_ADMIN_TOKEN": "0123456789abcde"}, "admin_token"),
        ({"KHALA_NODE_CORS_ORIGINS": "https://a.example, https://B.example"}, "'https://B.example'"),
        ({"KHALA_NODE_TRUSTED_PROXIES": "10.0.0.1/8"}, "trusted_proxies: 10.0.0.1/8"),
        ({"KHALA_NODE_ALLOWED_ORIGINS": "https://a.example"}, "ALLOWED_ORIGINS"),
    ],
)
def test_refusals(changes: dict[str, str], named: str) -> None:
    """ARC-14: a failpoint outside mode dev ends the start; each refusal names its key and no secret."""
    with pytest.raises(ConfigRefused) as refused:
        load(**changes)
    assert any(named in error for error in refused.value.errors)
    assert "0123456789abcde" not in str(refused.value)


def test_every_key_is_described() -> None:
    """check-config explains each key of the node itself."""
    own = [field for field in describe_config(NodeConfig, SECTION) if ".limits." not in field.name]
    assert all(field.doc for field in own)


def test_the_websocket_adapter() -> None:
    """One of two libraries; the default is the one that costs less memory."""
    assert load().websocket_adapter == "websockets"
    assert load(KHALA_NODE_WEBSOCKET_ADAPTER="trio_websocket").websocket_adapter == "trio_websocket"
    with pytest.raises(ConfigRefused, match="websocket_adapter"):
        load(KHALA_NODE_WEBSOCKET_ADAPTER="wsproto")
