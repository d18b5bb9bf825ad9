"""What is read again, and what a refusal costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from khala_service.config import ConfigRefused
from khala_service.live_limits import LimitChange, TakesEffect
from khala_service.reloading import outcomes, reload_all, reloadable, reloadable_config

if TYPE_CHECKING:
    import pytest


def test_all_that_is_held_is_read_again() -> None:
    """Each once per request, and nothing after its block."""
    read: list[str] = []
    with reloadable("a", lambda: read.append("a")):
        with reloadable("b", lambda: read.append("b")):
            assert reload_all()
        assert reload_all()
    assert reload_all()
    assert read == ["a", "b", "a"]


def test_a_refusal_concerns_its_own_part() -> None:
    """The others are read all the same, and the request says that something was refused."""
    read: list[str] = []

    def refuse() -> None:
        raise ConfigRefused(("node.tls_cert: none",))

    before = outcomes().copy()
    with reloadable("bad", refuse), reloadable("good", lambda: read.append("good")):
        assert not reload_all()
    assert read == ["good"]
    assert outcomes() - before == {"applied": 1, "refused": 1}


@attrs.frozen
class Settings:
    """A configuration with one field that is read again."""

    depth_max: int
    port: int = 0


def test_a_configuration_is_read_again(capsys: pytest.CaptureFixture[str]) -> None:
    """CT-15: what may change does and is logged with both values; the rest is named and waits for a restart."""
    wanted = Settings(2, port=1)
    applied: list[Settings] = []

    def apply(config: Settings) -> tuple[LimitChange, ...]:
        applied.append(config)
        return (LimitChange("depth_max", 1, config.depth_max, TakesEffect.AT_ONCE),)

    with reloadable_config("node", Settings(1), lambda: wanted, live=("depth_max",), apply=apply):
        assert reload_all()
    assert applied == [wanted]
    said = capsys.readouterr()
    lines = (said.out + said.err).splitlines()
    assert any("limit_changed" in line and "node.depth_max" in line for line in lines), lines
    assert any("reload_ignored" in line and "node.port" in line for line in lines), lines


def test_what_cannot_be_read_again_changes_nothing() -> None:
    """A file with an error: the whole of it is refused. Without a way to read again nothing is held."""

    def reread() -> Settings:
        raise ConfigRefused(("node.limits.depth_max: expected a number",))

    def apply(_: Settings) -> tuple[LimitChange, ...]:
        raise AssertionError

    with reloadable_config("node", Settings(1), reread, live=("depth_max",), apply=apply):
        assert not reload_all()
    with reloadable_config("node", Settings(1), None, live=("depth_max",), apply=apply):
        assert reload_all()
