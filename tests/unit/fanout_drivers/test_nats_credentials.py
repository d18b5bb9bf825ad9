"""NKeys and credentials files: what is read, what is refused, and that nothing is quoted."""

from __future__ import annotations

import base64

import pytest

from fanout_drivers.nats_credentials import NatsKey
from khala_service.secret import Secret

# Made by nsc, as the documentation of NATS shows it; nobody's key.
SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
PUBLIC = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
CREDENTIALS = f"""-----BEGIN NATS USER JWT-----
header.payload.signature
------END NATS USER JWT------

************************* IMPORTANT *************************
NKEY Seed printed below can be used to sign and prove identity.

-----BEGIN USER NKEY SEED-----
{SEED}
------END USER NKEY SEED------
"""


def test_a_seed() -> None:
    """Golden: the public key is the one that the server's operator wrote down; a line break after it is none."""
    key = NatsKey.parse(Secret(f"{SEED}\n"))
    assert (key.public, key.jwt) == (PUBLIC, None)
    assert len(base64.b64decode(key.sign("nonce"))) == 64
    assert key.sign("nonce") != key.sign("another")


@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
def test_a_credentials_file(line_break: str) -> None:
    """The JWT is passed on as it is, the seed signs."""
    key = NatsKey.parse(Secret(CREDENTIALS.replace("\n", line_break)))
    assert (key.public, key.jwt) == (PUBLIC, "header.payload.signature")


@pytest.mark.parametrize(
    "text",
    [
        "hunter2-hunter2",
        SEED[:-1],
        SEED + "A",
        SEED[:30] + ("A" if SEED[30] != "A" else "B") + SEED[31:],
        "SA" + SEED[2:],
        SEED.lower(),
        CREDENTIALS.replace("NATS USER JWT", "ANYTHING"),
        CREDENTIALS.replace("USER NKEY SEED", "ANYTHING"),
        CREDENTIALS.replace(SEED, "hunter2-hunter2"),
        CREDENTIALS.replace(SEED, ""),
    ],
)
def test_what_is_none(text: str) -> None:
    """Too short, too long, damaged, of an account, in parts: refused, and not quoted."""
    with pytest.raises(ValueError, match=r"NKey|NKEY") as refused:
        NatsKey.parse(Secret(text))
    assert "hunter2" not in str(refused.value)
    assert SEED[5:20] not in str(refused.value)


def test_nothing_of_it_is_shown() -> None:
    """A key in a log line or an exception stays a secret."""
    key = NatsKey.parse(Secret(CREDENTIALS))
    for word in (SEED, "signature"):
        assert word not in repr(key)
