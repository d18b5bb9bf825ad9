"""Sign-ins between start and callback, in PostgreSQL. Implements `ports.PendingSignIns`."""

from control.adapters.postgres import statements
from control.adapters.postgres.rows import to_ms, to_time
from control.core.oidc import PendingSignIn
from khala_service.adapters.postgres import PostgresPool


class PostgresPendingSignIns:
    """Each is put once and taken at most once."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def put(self, state_hash: bytes, pending: PendingSignIn) -> None:
        """Remember a sign-in; see the port."""
        await self._pool.execute(
            statements.INSERT_PENDING_SIGN_IN,
            state_hash,
            pending.binding_hash,
            pending.nonce,
            pending.verifier,
            pending.device_id,
            pending.surface,
            pending.return_to,
            to_time(pending.expires_at_ms),
        )

    async def take(self, state_hash: bytes) -> PendingSignIn | None:
        """Return and forget a sign-in; see the port."""
        row = await self._pool.fetchrow(statements.TAKE_PENDING_SIGN_IN, state_hash)
        if row is None:
            return None
        return PendingSignIn(
            nonce=row["nonce"],
            verifier=row["verifier"],
            binding_hash=row["binding_hash"],
            device_id=row["device_id"],
            surface=row["surface"],
            return_to=row["return_to"],
            expires_at_ms=to_ms(row["expires_at"]),
        )

    async def sweep(self, *, now_ms: int, batch: int) -> int:
        """Remove those that have expired; see the port."""
        tag = await self._pool.execute(statements.SWEEP_PENDING_SIGN_INS, to_time(now_ms), batch)
        return int(tag.rpartition(" ")[2])
