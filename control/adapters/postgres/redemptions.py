"""First uses of sync tokens in PostgreSQL. Implements `ports.RedemptionStore`."""

from collections.abc import Sequence

from control.adapters.postgres import statements
from control.adapters.postgres.rows import to_time
from control.core.redemptions import GRACE_MS, KEPT_AFTER_EXPIRY_MS, RedeemOutcome, Redemption
from khala_service.adapters.postgres import PostgresPool


class PostgresRedemptions:
    """Answers batches of redemptions by one statement each."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def redeem(self, batch: Sequence[Redemption], *, now_ms: int) -> tuple[RedeemOutcome, ...]:
        """Claim the tokens of a batch; see the port and queries/redeem.sql."""
        rows = await self._pool.fetch(
            statements.REDEEM,
            [redemption.jti for redemption in batch],
            [redemption.connection_id for redemption in batch],
            [redemption.node_id for redemption in batch],
            [redemption.session_id for redemption in batch],
            [redemption.user_id for redemption in batch],
            [redemption.device_id for redemption in batch],
            [to_time(redemption.token_expires_at_ms) for redemption in batch],
            to_time(now_ms),
            to_time(now_ms - GRACE_MS),
        )
        return tuple(RedeemOutcome(row["outcome"]) for row in rows)

    async def sweep(self, *, now_ms: int, batch: int) -> int:
        """Remove records whose token nobody accepts any more; see the port."""
        tag = await self._pool.execute(
            statements.SWEEP_REDEMPTIONS, to_time(now_ms - KEPT_AFTER_EXPIRY_MS), batch
        )
        return int(tag.rpartition(" ")[2])
