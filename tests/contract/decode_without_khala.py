"""Decodes the golden frames and chains with the standard library alone: `python -I FILE FIXTURES_DIR`."""

import hashlib
import json
import pathlib
import struct
import sys


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a protobuf varint and where it ends."""
    value = shift = 0
    while data[at] & 128:
        value, shift, at = value | (data[at] & 127) << shift, shift + 7, at + 1
    return value | data[at] << shift, at + 1


def decode(data: bytes) -> tuple[dict[int, int], dict[int, bytes]]:
    """Return the numbers and the byte strings of a protobuf message, by field number."""
    at, numbers, strings = 0, {}, {}
    while at < len(data):
        tag, at = varint(data, at)
        value, at = varint(data, at)
        if tag & 7 == 2:
            strings[tag >> 3], at = data[at : at + value], at + value
        else:
            numbers[tag >> 3] = value
    return numbers, strings


directory = pathlib.Path(sys.argv[1])
frames = json.loads((directory / "frames.json").read_text())["frames"]
for row in frames:
    numbers, strings = decode(decode(bytes.fromhex(row["entry_hex"]))[1][1])
    texts = (strings[1].decode(), strings[3].decode(), strings.get(4, b"").hex())
    assert texts == (row["topic"], row["kind"], row["payload_hex"])
    assert (numbers[2], numbers[5]) == (int(row["seq"]), row["schema_version"])
links = 0
for history in json.loads((directory / "chain.json").read_text())["histories"]:
    chain = hashlib.sha256(b"khala.chain.v1\0" + history["topic"].encode()).digest()
    for row in history["links"]:
        payload, kind, version = (
            bytes.fromhex(row["payload_hex"]),
            row["kind"].encode(),
            row["schema_version"],
        )
        digest = hashlib.sha256(payload).digest()
        if kind == b"khala.erased":
            numbers, strings = decode(payload)
            kind, digest, version = strings[1], strings[2], numbers[4]
        head = struct.pack(">QII", int(row["seq"]), version, len(kind))
        chain = hashlib.sha256(chain + head + kind + digest).digest()
        assert chain.hex() == row["chain_hex"]
        links += 1
sys.stdout.write(f"{len(frames)} frames, {links} links\n")
