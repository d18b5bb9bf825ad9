"""Unit tests of khala.cli.up_settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from khala.cli.up_settings import PORT_BASE_MAX, UpSettings, load_up_settings, server_environ
from khala_service.config import ConfigRefused


def load(
    config_file: Path | None = None,
    data_dir: Path | None = None,
    port_base: int | None = None,
    ready_file: Path | None = None,
) -> UpSettings:
    """Load with nothing else given."""
    return load_up_settings(
        config_file=config_file, data_dir=data_dir, port_base=port_base, ready_file=ready_file
    )


def test_option_wins_over_variable_and_that_over_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The usual precedence; the default is the published block."""
    for name in ("KHALA_UP_PORT_BASE", "KHALA_UP_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    assert load().port_base == 8470
    file = tmp_path / "khala.toml"
    file.write_text("[up]\nport_base = 1000\nlogin = 'ada'\n")
    assert (load(file).port_base, load(file).login) == (1000, "ada")
    monkeypatch.setenv("KHALA_UP_PORT_BASE", "2000")
    assert load(file).port_base == 2000
    settings = load(file, Path("/x"), 3000, Path("/r"))
    assert (settings.port_base, settings.data_dir, settings.ready_file) == (3000, Path("/x"), Path("/r"))


def test_the_whole_block_must_exist() -> None:
    """At the limit it does, one beyond it does not."""
    assert load(port_base=PORT_BASE_MAX).port_base == PORT_BASE_MAX
    for port_base in (PORT_BASE_MAX + 1, -1):
        with pytest.raises(ConfigRefused, match=r"up\.port_base"):
            load(port_base=port_base)


def test_a_shell_that_is_set_up_for_clients_can_start_a_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where clients connect is no key of the services; what is meant for them stays."""
    monkeypatch.setenv("KHALA_CONTROL_URL", "http://x")
    monkeypatch.setenv("KHALA_RUNTIME_URL", "http://x")
    monkeypatch.setenv("KHALA_CONTROL_PORT", "1")
    seen = {name for name in server_environ() if name.startswith(("KHALA_CONTROL_", "KHALA_RUNTIME_"))}
    assert seen == {"KHALA_CONTROL_PORT"}
