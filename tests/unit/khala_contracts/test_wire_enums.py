"""Words for the enums of the wire."""

from enum import Enum

import pytest

from khala_contracts.errors import WireError
from khala_contracts.gen.openagents.sync.v1 import session_pb2
from khala_contracts.topics import Tier
from khala_contracts.wire_enums import EnumMap, EnumWords, enum_prefix

DESCRIPTOR = session_pb2.QosTier.DESCRIPTOR


@pytest.mark.parametrize(
    ("name", "prefix"), [("RunState", "RUN_STATE_"), ("QosTier", "QOS_TIER_"), ("Advice", "ADVICE_")]
)
def test_prefixes_follow_from_the_name(name: str, prefix: str) -> None:
    """As buf's STANDARD has it."""
    assert enum_prefix(name) == prefix


def test_words_go_both_ways() -> None:
    """Every value but the zero one has a word."""
    words = EnumWords(DESCRIPTOR)
    assert words.words == {1: "hot", 2: "warm", 3: "cold"}
    assert [words.word(number) for number in (1, 2, 3)] == ["hot", "warm", "cold"]
    assert [words.number(word) for word in ("hot", "warm", "cold")] == [1, 2, 3]
    with pytest.raises(KeyError):
        words.number("tepid")


def test_members_go_both_ways() -> None:
    """A domain enum and its names on the wire."""
    tiers = EnumMap(Tier, DESCRIPTOR)
    assert [tiers.to_wire(tier) for tier in Tier] == ["QOS_TIER_HOT", "QOS_TIER_WARM", "QOS_TIER_COLD"]
    assert [tiers.from_wire_untrusted(number, "tier") for number in (1, 2, 3)] == list(Tier)


@pytest.mark.parametrize("number", [0, 4, -1])
def test_unspecified_and_unknown_numbers_are_refused(number: int) -> None:
    """With the field."""
    with pytest.raises(WireError) as caught:
        EnumMap(Tier, DESCRIPTOR).from_wire_untrusted(number, "subscribed.tier")
    assert caught.value.field == "subscribed.tier"
    with pytest.raises(WireError):
        EnumWords(DESCRIPTOR).word(number)


class Warmer(Enum):
    """Another enum with a member too many."""

    HOT = "hot"
    WARM = "warm"
    COLD = "cold"
    TEPID = "tepid"


class Colder(Enum):
    """Another enum with a member too few."""

    HOT = "hot"
    WARM = "warm"


@pytest.mark.parametrize("domain", [Warmer, Colder])
def test_enums_that_differ_are_found_at_import(domain: type[Enum]) -> None:
    """A member too many or too few is our mistake."""
    with pytest.raises(ValueError, match=r"differ|is not a valid"):
        EnumMap(domain, DESCRIPTOR)
