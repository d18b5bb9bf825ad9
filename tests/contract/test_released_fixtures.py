"""proto/fixtures/<version>: what a release put on the wire, every later version reads."""

from pathlib import Path

import pytest

from khala_contracts import chain as chains
from khala_contracts import codec
from khala_contracts.frames import Frame
from khala_contracts.topics import TopicName
from tests.contract.fixture_files import FIXTURES_DIR, load, rows

RELEASES = sorted(path for path in FIXTURES_DIR.iterdir() if path.is_dir() and path.name[0].isdigit())


def test_there_is_a_release() -> None:
    """0.1 is the first."""
    assert "0.1" in [path.name for path in RELEASES]


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_released_frames_decode_and_encode_to_the_same_bytes(release: Path) -> None:
    """frames.json of the release."""
    for row in rows(load("frames.json", release), "frames"):
        payload = bytes.fromhex(row["payload_hex"])
        frame = Frame(
            TopicName(row["topic"]), int(row["seq"]), row["kind"], payload, int(row["schema_version"])
        )
        assert codec.decode_entries(bytes.fromhex(row["entry_hex"])) == [frame]
        assert codec.encode_entry(frame).hex() == row["entry_hex"]


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_released_chains_still_verify(release: Path) -> None:
    """chain.json of the release."""
    histories = load("chain.json", release)["histories"]
    assert isinstance(histories, list)
    for history in histories:
        topic = TopicName(history["topic"])
        link = chains.chain_start(topic)
        for row in history["links"]:
            payload = bytes.fromhex(row["payload_hex"])
            link = chains.chain_after(
                link, Frame(topic, int(row["seq"]), row["kind"], payload, row["schema_version"])
            )
            assert link.hex() == row["chain_hex"]


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_released_messages_are_understood(release: Path) -> None:
    """session.json of the release: an older peer's messages mean the same to us in both subprotocols."""
    for row in rows(load("session.json", release), "transcript"):
        binary = bytes.fromhex(row["binary_hex"])
        if row["from"] == "client":
            said = codec.decode_client_message_untrusted(binary)
            assert codec.decode_client_message_json_untrusted(row["json"]) == said
        else:
            answer = codec.decode_server_message_untrusted(binary)
            assert codec.decode_server_message_json_untrusted(row["json"]) == answer
