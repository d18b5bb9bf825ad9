"""The registry of refusals and endings."""

from collections import defaultdict

import pytest

from khala_contracts import reason_codes
from khala_contracts.gen.openagents.sync.v1 import errors_pb2
from khala_contracts.reason_codes import REGISTRY, UNKNOWN, Advice, ReasonCode, by_number

# The numbers of 0.1, which no later version may change or reuse.
RELEASED_NUMBERS = {
    "draining": 1, "slow_consumer": 2, "heartbeat_timeout": 3, "rate_limited": 4, "unavailable": 5,
    "token_expired": 6, "internal": 7, "hello_timeout": 8, "protocol_error": 20, "malformed_message": 21,
    "authority_write_forbidden": 22, "reauth_required": 23, "token_invalid": 24, "token_replayed": 25,
    "forbidden": 26, "upgrade_required": 27, "limit_exceeded": 28, "message_too_large": 29,
    "framing_error": 30, "invalid_text": 31, "stale_cursor.retention_expired": 40,
    "stale_cursor.compaction_boundary": 41, "stale_cursor.replay_budget_exceeded": 42,
    "stale_cursor.lineage_mismatch": 43, "topic_invalid": 60, "not_found": 62, "invalid_argument": 63,
    "payload_too_large": 64, "kind_unknown": 65, "idempotency_conflict": 66, "seq_conflict": 67,
    "invalid_transition": 68, "run_finished": 69, "unauthenticated": 70, "method_not_allowed": 71,
    "unsupported_media_type": 72, "not_acceptable": 73, "origin_forbidden": 74, "name_taken": 75,
    "superseded": 76,
}  # fmt: skip
# SPEC section 3.
CLOSE_CODES = {
    4000: {"draining"}, 4001: {"slow_consumer"}, 4002: {"heartbeat_timeout"}, 4003: {"rate_limited"},
    4004: {"unavailable"}, 4005: {"token_expired"}, 4006: {"internal"}, 4007: {"hello_timeout"},
    4500: {"protocol_error", "malformed_message", "authority_write_forbidden"}, 4501: {"reauth_required"},
    4502: {"token_invalid", "token_replayed"}, 4503: {"forbidden"}, 4504: {"upgrade_required"},
    4505: {"limit_exceeded"}, 1009: {"message_too_large"}, 1002: {"framing_error"}, 1007: {"invalid_text"},
}  # fmt: skip

HTTP_STATUSES = {
    400: {"malformed_message", "topic_invalid", "invalid_argument", "kind_unknown"},
    401: {"token_expired", "reauth_required", "token_invalid", "token_replayed", "unauthenticated"},
    403: {"forbidden", "limit_exceeded", "origin_forbidden"},
    404: {"not_found"}, 405: {"method_not_allowed"}, 406: {"not_acceptable"},
    409: {"idempotency_conflict", "seq_conflict", "invalid_transition", "run_finished", "name_taken"},
    410: {name for name in RELEASED_NUMBERS if name.startswith("stale_cursor.")},
    413: {"payload_too_large"}, 415: {"unsupported_media_type"}, 426: {"upgrade_required"},
    429: {"rate_limited"}, 500: {"internal"}, 503: {"draining", "unavailable", "superseded"},
}  # fmt: skip


def test_numbers_are_never_changed_or_reused() -> None:
    """Every released row keeps its number; new rows have new ones."""
    numbers = {row.name: row.number for row in REGISTRY.values()}
    assert RELEASED_NUMBERS.items() <= numbers.items()
    assert len(set(numbers.values())) == len(numbers)


def test_the_registry_equals_the_enum_on_the_wire() -> None:
    """Row by row: REASON_CODE_STALE_X stands for stale_cursor.x, every other for its own name."""
    on_wire = {
        value.name.removeprefix("REASON_CODE_").lower(): value.number
        for value in errors_pb2.ReasonCode.DESCRIPTOR.values
        if value.number != 0
    }
    ours = {row.name.replace("stale_cursor.", "stale_"): row.number for row in REGISTRY.values()}
    assert ours == on_wire


def test_module_constants_are_the_rows() -> None:
    """Code names rows as reason_codes.UNAVAILABLE."""
    constants = {
        value.name: name for name, value in vars(reason_codes).items() if isinstance(value, ReasonCode)
    }
    del constants["internal"]  # also the name of UNKNOWN
    assert constants == {
        name: name.replace("stale_cursor.", "stale_").upper() for name in REGISTRY if name != "internal"
    }
    assert reason_codes.INTERNAL is REGISTRY["internal"]


def test_close_codes_are_those_of_the_protocol() -> None:
    """SPEC section 3, including the names that share a code."""
    found: defaultdict[int, set[str]] = defaultdict(set)
    for row in REGISTRY.values():
        if row.close_code is not None:
            found[row.close_code].add(row.name)
    assert found == CLOSE_CODES


@pytest.mark.parametrize("row", REGISTRY.values(), ids=lambda row: row.name)
def test_each_row_is_consistent(row: ReasonCode) -> None:
    """The range carries the advice; every code can be answered somewhere; texts are for people."""
    if row.close_code is not None and row.close_code >= 4000:
        comes_back = (
            row.advice in {Advice.RETRY_NOW, Advice.RETRY_BACKOFF} or row is reason_codes.TOKEN_EXPIRED
        )
        assert comes_back == (row.close_code < 4500)
    assert row.retryable == (row.advice in {Advice.RETRY_NOW, Advice.RETRY_BACKOFF})
    is_ending = row.close_code is not None or row.name.startswith("stale_cursor.")
    assert is_ending or row.http_status is not None
    assert row.http_status is None or 400 <= row.http_status < 600
    assert row.http_status not in {429, 503} or row.retryable
    assert row.text.endswith(".")
    assert row.runbook
    assert row.docs == f"/docs/codes/{row.name}"


def test_statuses_are_those_of_http() -> None:
    """SPEC section 4: what is a refusal of the caller, of the credential, of the moment."""
    found: defaultdict[int, set[str]] = defaultdict(set)
    for row in REGISTRY.values():
        if row.http_status is not None:
            found[row.http_status].add(row.name)
    assert found == HTTP_STATUSES


def test_by_number_finds_each_row() -> None:
    """Both keys of the registry lead to the same row."""
    assert [by_number(row.number) for row in REGISTRY.values()] == list(REGISTRY.values())


@pytest.mark.parametrize("number", [0, 61, 99, -1, 2**31 - 1])
def test_an_unknown_number_is_internal_and_not_retried(number: int) -> None:
    """PR-04: an old client meets a code of a newer server."""
    row = by_number(number)
    assert row is UNKNOWN
    assert (row.name, row.retryable, row.advice) == ("internal", False, Advice.GIVE_UP)


def test_the_table_has_an_anchor_for_each_code() -> None:
    """The docs link of every row leads to its line."""
    lines = reason_codes.markdown_table().splitlines()
    assert len(lines) == 2 + len(REGISTRY)
    for row, line in zip(REGISTRY.values(), lines[2:], strict=True):
        link = f"[`{row.name}`](codes/{row.name}.md)"
        assert line.startswith(f'| <a id="{row.name}"></a>{link} | {row.close_code or "-"} |')
        assert line.count("|") == 7
