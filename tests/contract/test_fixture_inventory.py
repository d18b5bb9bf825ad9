"""PR-16: fixtures are executed, not decorative, and nothing public is without one."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from khala_contracts import kinds
from khala_contracts.gen.openagents.sync.v1 import fanout_pb2, session_pb2
from tests.contract.fixture_files import FIXTURES_DIR, load, message_classes, messages_inside, rows

if TYPE_CHECKING:
    from google.protobuf.message import Message

TESTS_DIR = FIXTURES_DIR.parents[1] / "tests"


def test_every_fixture_is_named_by_a_test() -> None:
    """A file that nothing reads is removed or tested."""
    sources = [path.read_text(encoding="utf-8") for path in TESTS_DIR.rglob("*.py")]
    names = {path.name for path in FIXTURES_DIR.rglob("*.json")}
    assert {name for name in names if not any(name in source for source in sources)} == set()


def test_every_companion_has_its_fixture() -> None:
    """control-auth-session-v1.md goes with control-auth-session-v1.json."""
    for path in FIXTURES_DIR.glob("*.md"):
        assert path.with_suffix(".json").is_file()


def sampled_messages() -> set[str]:
    """Return the full names of all messages that some fixture holds, alone or inside another."""
    classes = message_classes()
    erased = kinds.KINDS["run_events", "khala.erased"]
    encoded: list[tuple[type[Message], str]] = [
        (classes[row["message"]], row["binary_hex"])
        for name in ("runtime-orchestration-v1.json", "control-auth-session-v1.json")
        for row in rows(load(name), "bodies")
    ]
    encoded += [
        (classes[row["message"]], row["payload_hex"])
        for row in rows(load("runtime-orchestration-v1.json"), "payloads")
    ]
    encoded += [
        (
            session_pb2.ClientMessage if row["from"] == "client" else session_pb2.ServerMessage,
            row["binary_hex"],
        )
        for row in rows(load("session.json"), "transcript")
    ]
    encoded += [
        (erased.message_cls, row["payload_hex"])
        for row in rows(load("frames.json"), "frames")
        if row["kind"] == "khala.erased"
    ]
    encoded += [(fanout_pb2.FanoutRecord, row["sealed_hex"]) for row in rows(load("fanout.json"), "records")]
    found = [message_cls.FromString(bytes.fromhex(text)) for message_cls, text in encoded]
    return {inside.DESCRIPTOR.full_name for message in found for inside in messages_inside(message)}


def test_every_public_message_has_a_fixture() -> None:
    """A new message in proto needs a sample in proto/fixtures."""
    assert message_classes().keys() - sampled_messages() == set()


def test_the_fixtures_are_what_the_contracts_give() -> None:
    """A change of the wire shows as a difference here, and in the committed files."""
    done = subprocess.run(
        [sys.executable, str(FIXTURES_DIR / "generate.py"), "--check"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
