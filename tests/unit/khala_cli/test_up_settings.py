"""Unit tests of khala.cli.up_settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


import pytest

from khala.cli.up_settings import NODES_MAX, PORT_BASE_MAX, SECTION, UpSettings
from khala_service.config import ConfigRefused, load_config


def load(file: Path | None = None, environ: dict[str, str] | None = None, **options: Any) -> UpSettings:
    """Load with nothing else given."""
    return load_config(UpSettings, section=SECTION, file=file, environ=environ, overrides=options)


def test_option_wins_over_variable_and_that_over_file(tmp_path: Path) -> None:
    """The usual precedence; the default is one process on the published block."""
    default = load()
    assert (default.port_base, default.split, default.nodes, default.nats) == (8470, False, 1, False)
    file = tmp_path / "khala.toml"
    file.write_text("[up]\nport_base = 1000\nlogin = 'ada'\nsplit = true\nnodes = 3\n")
    from_file = load(file)
    assert (from_file.port_base, from_file.login, from_file.split, from_file.nodes) == (1000, "ada", True, 3)
    environ = {"KHALA_UP_PORT_BASE": "2000", "KHALA_UP_NODES": "2", "KHALA_UP_NATS": "true"}
    by_variable = load(file, environ)
    assert (by_variable.port_base, by_variable.nodes, by_variable.nats) == (2000, 2, True)
    assert load(file, environ, port_base=3000, nodes=1).port_base == 3000


def test_the_whole_block_must_exist() -> None:
    """At the limit it does, one beyond it does not."""
    assert load(port_base=PORT_BASE_MAX).port_base == PORT_BASE_MAX
    for port_base in (PORT_BASE_MAX + 1, -1):
        with pytest.raises(ConfigRefused, match=r"up\.port_base"):
            load(port_base=port_base)


def test_nodes_are_bounded() -> None:
    """At the limits, and one beyond."""
    assert load(split=True, nodes=NODES_MAX).nodes == NODES_MAX
    for nodes in (0, NODES_MAX + 1):
        with pytest.raises(ConfigRefused, match=r"up\.nodes"):
            load(split=True, nodes=nodes)


def test_one_process_has_one_node_and_no_broker() -> None:
    """Both need child processes; the error names the key."""
    options: list[tuple[str, Any]] = [("nodes", 2), ("nats", True)]
    for name, value in options:
        with pytest.raises(ConfigRefused, match=f"{name}: needs split"):
            load(**{name: value})
        assert load(split=True, **{name: value}).split
