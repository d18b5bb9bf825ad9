"""KH-19, KH-45: each refusal for a limit is counted, each burst is one row of audit, and nothing waits without bound."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from khala_contracts import reason_codes
from khala_service.errors import PeerRefused, Unavailable
from runtime.actors.limit_audit import (
    BURST_S,
    BURSTS_MAX,
    FLUSH_S,
    RETRY_S,
    ROWS_MAX,
    LimitAudit,
    LimitBatch,
    LimitBatchRefused,
)
from runtime.adapters.limit_audit_http import HttpLimitAuditLog
from runtime.core.limits import RuntimeLimits
from runtime.core.principals import Principal, PrincipalKind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

TOO_LARGE = RuntimeLimits().name_limit("append_bytes_max")
TOO_FAST = {"topic_class": "run_events", "limit": "publish_rate_per_s", "max": "240"}


def principal(number: int) -> Principal:
    """Return one of many people."""
    return Principal(
        PrincipalKind.PERSON, f"usr_{number}", f"usr_{number}", {}, frozenset(), (), "dev_1", 0.0
    )


@attrs.define
class Log:
    """Control's log; it may be away."""

    batches: list[LimitBatch] = attrs.field(factory=list)
    is_down: bool = False
    # Reason codes of the rows of which it will never take a batch.
    refuses: tuple[str, ...] = ()

    async def append(self, batch: LimitBatch) -> None:
        """Write a batch; see LimitAuditLog."""
        await trio.lowlevel.checkpoint()
        if self.is_down:
            raise Unavailable("control_unreachable")
        if any(row.reason.name in self.refuses for row in batch.rows):
            raise LimitBatchRefused("invalid_argument")
        self.batches.append(batch)

    @property
    def rows(self) -> list[tuple[str, str, str, str]]:
        """Limit, value, code and principal of each row."""
        rows = [row for batch in self.batches for row in batch.rows]
        return [
            (row.limit, row.value, row.reason.name, row.principal.principal_id if row.principal else "")
            for row in rows
        ]

    @property
    def counted(self) -> int:
        """Refusals that are only counted."""
        return sum(sum(batch.counted.values()) for batch in self.batches)


class Clock:
    """Wall time in step with the run."""

    def now(self) -> float:
        """Return Unix seconds."""
        return 1_700_000_000 + trio.current_time()


@attrs.define
class Ids:
    """Ids 1, 2, 3."""

    last: int = 0

    def new(self, prefix: str) -> str:
        """Return the next one."""
        self.last += 1
        return f"{prefix}_{self.last}"


@asynccontextmanager
async def open_audit() -> AsyncIterator[tuple[LimitAudit, Log]]:
    """Run it."""
    log = Log()
    audit = LimitAudit(log, clock=Clock(), ids=Ids())
    async with trio.open_nursery() as nursery:
        await nursery.start(audit.serve)
        yield audit, log
        nursery.cancel_scope.cancel()


async def test_one_row_for_each_burst(autojump_clock: MockClock) -> None:
    """The first of a limit and a principal is a row with the value in force; the others are counted until it is over."""
    async with open_audit() as (audit, log):
        for _ in range(3):
            audit.note(reason_codes.PAYLOAD_TOO_LARGE, TOO_LARGE, principal=principal(1), request_id="req_1")
        audit.note(reason_codes.RATE_LIMITED, TOO_FAST, principal=principal(1), request_id="req_2")
        audit.note(reason_codes.RATE_LIMITED, TOO_FAST, principal=principal(2), request_id="req_3")
        audit.note(reason_codes.INVALID_ARGUMENT, {"field": "x"}, principal=principal(1), request_id="req_4")
        await trio.sleep(FLUSH_S + 0.01)
        assert log.rows == [
            ("append_bytes_max", "4194304", "payload_too_large", "usr_1"),
            ("publish_rate_per_s", "240", "rate_limited", "usr_1"),
            ("publish_rate_per_s", "240", "rate_limited", "usr_2"),
        ]
        assert log.batches[0].counted == {"payload_too_large": 2}
        assert audit.violations == {"append_bytes_max": 3, "publish_rate_per_s": 2}
        await trio.sleep(BURST_S)
        audit.note(reason_codes.PAYLOAD_TOO_LARGE, TOO_LARGE, principal=None, request_id="req_5")
        audit.note(reason_codes.PAYLOAD_TOO_LARGE, TOO_LARGE, principal=principal(1), request_id="req_6")
        await trio.sleep(FLUSH_S + 0.01)
        assert [row[3] for row in log.rows[3:]] == ["", "usr_1"]


async def test_control_is_away(autojump_clock: MockClock) -> None:
    """Rows wait, at most ROWS_MAX; the rest are counted; both arrive once control is back, and each once."""
    async with open_audit() as (audit, log):
        log.is_down = True
        for number in range(ROWS_MAX + 5):
            audit.note(reason_codes.RATE_LIMITED, TOO_FAST, principal=principal(number), request_id="req")
        await trio.sleep(FLUSH_S + 0.01)
        for number in range(BURSTS_MAX):
            audit.note(
                reason_codes.RATE_LIMITED, TOO_FAST, principal=principal(10_000 + number), request_id="r"
            )
        await wait_all_tasks_blocked()
        log.is_down = False
        await trio.sleep(RETRY_S + FLUSH_S + 0.1)
        assert len(log.batches) == 2
        assert len(log.rows) == 2 * ROWS_MAX
        assert (
            len(log.rows) + log.counted == audit.violations["publish_rate_per_s"] == ROWS_MAX + 5 + BURSTS_MAX
        )


async def test_a_batch_that_control_never_takes(autojump_clock: MockClock) -> None:
    """It is given up, and holds up nothing that comes after it."""
    async with open_audit() as (audit, log):
        log.refuses = ("rate_limited",)
        audit.note(reason_codes.RATE_LIMITED, TOO_FAST, principal=principal(1), request_id="req_1")
        await trio.sleep(FLUSH_S + 0.01)
        audit.note(reason_codes.PAYLOAD_TOO_LARGE, TOO_LARGE, principal=principal(1), request_id="req_2")
        await trio.sleep(FLUSH_S + 0.01)
        assert [row[0] for row in log.rows] == ["append_bytes_max"]


@pytest.mark.parametrize(
    ("status", "raised"),
    [(400, LimitBatchRefused), (413, LimitBatchRefused), (401, Unavailable), (404, Unavailable)],
)
async def test_what_control_says_of_a_batch(status: int, raised: type[Exception]) -> None:
    """A batch that is wrong stays wrong; a credential or a route that is, may come right."""

    class Control:
        async def post(self, *_: object) -> None:
            raise PeerRefused("control", "a_code", status, {})

    log = HttpLimitAuditLog(Control(), "runtime")  # type: ignore[arg-type]
    with pytest.raises(raised):
        await log.append(LimitBatch("bat_1", (), {"rate_limited": 1}, 1))
