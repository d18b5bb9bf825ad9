"""Sign-ins between start and session, in PostgreSQL. Implements `ports.PendingSignIns`."""

from control.adapters.postgres import statements
from control.adapters.postgres.rows import to_ms, to_time
from control.core.loopback_sign_in import SignInCode
from control.core.oidc import AssertedIdentity, PendingSignIn
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
            pending.loopback_port,
            pending.loopback_challenge,
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
            loopback_port=row["loopback_port"],
            loopback_challenge=row["loopback_challenge"],
        )

    async def put_code(self, code_hash: bytes, code: SignInCode) -> None:
        """Remember what a code is worth; see the port."""
        await self._pool.execute(
            statements.INSERT_SIGN_IN_CODE,
            code_hash,
            code.challenge,
            code.identity.issuer,
            code.identity.subject,
            code.identity.login,
            code.device_id,
            code.surface,
            to_time(code.expires_at_ms),
        )

    async def take_code(self, code_hash: bytes) -> SignInCode | None:
        """Return and forget what a code is worth; see the port."""
        row = await self._pool.fetchrow(statements.TAKE_SIGN_IN_CODE, code_hash)
        if row is None:
            return None
        return SignInCode(
            challenge=row["challenge"],
            identity=AssertedIdentity(row["issuer"], row["subject"], row["login"]),
            device_id=row["device_id"],
            surface=row["surface"],
            expires_at_ms=to_ms(row["expires_at"]),
        )

    async def sweep(self, *, now_ms: int, batch: int) -> int:
        """Remove those that have expired; see the port."""
        removed = 0
        for statement in (statements.SWEEP_PENDING_SIGN_INS, statements.SWEEP_SIGN_IN_CODES):
            # One batch for both: more than it would look to the sweeper like less than a full one.
            tag = await self._pool.execute(statement, to_time(now_ms), batch - removed)
            removed += int(tag.rpartition(" ")[2])
        return removed
