"""Unit tests of khala.cli.explain: whom it asks, and what it prints. A real system: tests/e2e/test_explain.py."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import attrs
import click
import pytest

from khala.cli.explain import Sources, find_sources
from khala.cli.failures import CommandFailed
from khala.cli.main import main
from khala.cli.up_record import own_record, write_record

if TYPE_CHECKING:
    from pathlib import Path


def test_the_system_of_the_data_directory(tmp_path: Path) -> None:
    """Its runtime and all its nodes; not before it is ready."""
    record = attrs.evolve(
        own_record(version="1", now_s=0.0),
        runtime_url="http://runtime",
        admin_url="http://admin",
        admin_token_file="/secrets/admin",
    )
    nobody = {"runtime_url": None, "node_urls": (), "admin_token_file": None}
    write_record(tmp_path, record)
    with pytest.raises(CommandFailed, match="nothing runs"):
        find_sources(tmp_path, **nobody)  # type: ignore[arg-type]
    write_record(tmp_path, attrs.evolve(record, is_ready=True))
    found = find_sources(tmp_path, **nobody)  # type: ignore[arg-type]
    assert (found.runtime_url, found.node_urls) == ("http://runtime", ("http://admin",))
    nodes: list[dict[str, str | int]] = [{"name": f"node-{n}", "admin_url": f"http://{n}"} for n in (1, 2)]
    write_record(tmp_path, attrs.evolve(record, is_ready=True, nodes=nodes))
    assert find_sources(tmp_path, **nobody).node_urls == ("http://1", "http://2")  # type: ignore[arg-type]


def test_a_deployment_is_named_whole(tmp_path: Path) -> None:
    """All three options, or none."""
    token = tmp_path / "token"
    whole = find_sources(tmp_path, runtime_url="http://r", node_urls=("http://n",), admin_token_file=token)
    assert whole == Sources("http://r", ("http://n",), token)
    with pytest.raises(click.UsageError, match="together"):
        find_sources(tmp_path, runtime_url="http://r", node_urls=(), admin_token_file=token)


def test_what_does_not_answer_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 1, and which URL it was."""
    token = tmp_path / "token"
    token.write_text("a-token-of-sixteen-bytes\n")
    url = "http://127.0.0.1:1"
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "explain", f"run_{1:026d}", "1", "--json", "--runtime-url", url, "--node-url", url + "/n",
                "--admin-token-file", str(token),
            ]
        )  # fmt: skip
    assert ended.value.code == 1
    document = json.loads(capsys.readouterr().out)
    assert set(document["failures"]) == {url, url + "/n"}
    assert document["timeline"] == []


@pytest.mark.parametrize("seq", ["0", "-1", "x", str(1 << 63)])
def test_a_seq_is_a_seq(seq: str, capsys: pytest.CaptureFixture[str]) -> None:
    """1 to 2**63 - 1; anything else is wrong usage."""
    with pytest.raises(SystemExit) as ended:
        main(["explain", f"run_{1:026d}", "--", seq])
    assert ended.value.code == 2
    assert "SEQ" in capsys.readouterr().err
