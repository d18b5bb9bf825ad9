"""What is read again, and what a refusal costs."""

from __future__ import annotations

from khala_service.config import ConfigRefused
from khala_service.reloading import reload_all, reloadable


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

    with reloadable("bad", refuse), reloadable("good", lambda: read.append("good")):
        assert not reload_all()
    assert read == ["good"]
