"""Creating, listing, rotating and revoking service keys; for owners and admins of the key's org.

A secret exists in the response that made it and nowhere else. A rotation gives the key another one: id, rights,
sessions and whatever else stands on the key stay, and its revocation ends every secret. An org that the caller does not
administer looks the same as one that does not exist.
"""

from collections.abc import Sequence

import attrs

from control.actors.audit_trail import AuditTrail
from control.actors.authentication import Authentication
from control.core.audit import Action, AuditEntry, actor_of
from control.core.credentials import SECRET_BYTES, format_key_secret, hash_secret
from control.core.principals import PersonPrincipal
from control.core.refusals import Refused, forbidden, invalid_argument
from control.core.service_keys import (
    KEYS_PER_ORG_MAX,
    RETIRED_SECRETS_MAX,
    KeyInfo,
    KeyRotation,
    NewKey,
    RotationRefusal,
    check_order,
    check_rotation,
)
from control.core.sessions import MS_PER_S
from control.ports import Clock, Ids, KeyStore, Meters, Rng
from khala_contracts import reason_codes
from khala_contracts.ids import is_id


@attrs.frozen(repr=False)
class CreatedKey:
    """A new key with its secret. Not printable."""

    key: KeyInfo
    secret: str


class KeyCommands:
    """Service keys of the orgs that a person administers."""

    def __init__(
        self,
        *,
        store: KeyStore,
        authentication: Authentication,
        trail: AuditTrail,
        clock: Clock,
        ids: Ids,
        rng: Rng,
        meters: Meters,
        per_org_max: int = KEYS_PER_ORG_MAX,
    ) -> None:
        self._store = store
        self._authentication = authentication
        self._trail = trail
        self._clock = clock
        self._ids = ids
        self._rng = rng
        self._meters = meters
        self.per_org_max = per_org_max

    async def create(
        self,
        credential: str | None,
        *,
        org_id: str,
        name: str,
        rights: Sequence[str],
        topics: Sequence[str],
        ttl_s: int,
        request_id: str,
    ) -> CreatedKey:
        """Create a key of an org that the caller administers; if it is only one, it need not be named.

        Raises:
            Refused: unauthenticated, reauth_required, forbidden; invalid_argument or
                topic_invalid with the field; limit_exceeded above 500 keys in the org.
        """
        async with self._trail.watching(Action.KEY_CREATE, request_id=request_id) as watch:
            person = await self._authentication.authenticate_person_untrusted(credential)
            watch.actor = actor_of(person)
            org_id = _choose_org(person, org_id)
            order = check_order(org_id=org_id, name=name, rights=rights, topics=topics, ttl_s=ttl_s)
            now_ms = self._now_ms()
            key_id = self._ids.new("key")
            secret = format_key_secret(key_id, self._rng.token_bytes(SECRET_BYTES))
            key = NewKey(
                key_id=key_id,
                order=order,
                secret_hash=hash_secret(secret),
                created_by=person.session.user_id,
                created_at_ms=now_ms,
                expires_at_ms=now_ms + order.ttl_s * MS_PER_S if order.ttl_s else None,
            )
            entry = AuditEntry(
                action=Action.KEY_CREATE,
                request_id=request_id,
                actor=attrs.evolve(watch.actor, key_id=key_id, org_id=org_id),
                detail={
                    "name": order.name,
                    "rights": [right.value for right in order.rights],
                    "patterns": [pattern.text for pattern in order.patterns],
                },
            )
            if not await self._store.create_key(key, per_org_max=self.per_org_max, audit=entry):
                raise Refused(
                    reason_codes.LIMIT_EXCEEDED,
                    "keys_per_org",
                    details={"limit": str(self.per_org_max)},
                )
        self._meters.count_done(Action.KEY_CREATE)
        return CreatedKey(key=_info(key), secret=secret)

    async def list_keys(self, credential: str | None, *, org_id: str, request_id: str) -> tuple[KeyInfo, ...]:
        """Return the keys of one org, or of all that the caller administers if none is named.

        Raises:
            Refused: unauthenticated, reauth_required; forbidden for an org not administered.
        """
        async with self._trail.watching(Action.KEY_LIST, request_id=request_id) as watch:
            person = await self._authentication.authenticate_person_untrusted(credential)
            watch.actor = actor_of(person)
            administered = person.administered_org_ids
            if org_id and org_id not in administered:
                raise forbidden("not_an_admin_of_the_org")
        return await self._store.list_keys([org_id] if org_id else administered)

    async def revoke(self, credential: str | None, *, key_id: str, request_id: str) -> KeyInfo:
        """End a key; ending it again returns the same.

        Raises:
            Refused: unauthenticated, reauth_required; not_found for unknown and foreign keys alike.
        """
        async with self._trail.watching(Action.KEY_REVOKE, request_id=request_id) as watch:
            person = await self._authentication.authenticate_person_untrusted(credential)
            watch.actor = actor_of(person)
            if not is_id("key", key_id):
                raise invalid_argument("key_id", "key_ and 26 characters of base32")
            entry = AuditEntry(
                action=Action.KEY_REVOKE,
                request_id=request_id,
                actor=attrs.evolve(watch.actor, key_id=key_id),
            )
            revoked = await self._store.revoke_key(
                key_id,
                org_ids=person.administered_org_ids,
                revoked_by=person.session.user_id,
                now_ms=self._now_ms(),
                audit=entry,
            )
            if revoked is None:
                raise Refused(reason_codes.NOT_FOUND, "key_unknown_or_foreign")
        self._meters.count_done(Action.KEY_REVOKE)
        return revoked

    async def rotate(
        self, credential: str | None, *, key_id: str, overlap_s: int | None, ttl_s: int, request_id: str
    ) -> CreatedKey:
        """Give a key a new secret; the old one works until the overlap ends.

        Args:
            credential: Of an administrator of the key's org.
            key_id: The key.
            overlap_s: How long the old secret works; None: an hour; 0: not at all, nor does an earlier one.
            ttl_s: New lifetime of the key from now; 0: its expiry stays.
            request_id: For the log.

        Raises:
            Refused: unauthenticated, reauth_required; not_found for unknown and foreign keys alike;
                invalid_argument, also for a key that has ended; limit_exceeded while too many old secrets
                work.
        """
        async with self._trail.watching(Action.KEY_ROTATE, request_id=request_id) as watch:
            person = await self._authentication.authenticate_person_untrusted(credential)
            watch.actor = actor_of(person)
            if not is_id("key", key_id):
                raise invalid_argument("key_id", "key_ and 26 characters of base32")
            overlap_s, lifetime_s = check_rotation(overlap_s=overlap_s, ttl_s=ttl_s)
            now_ms = self._now_ms()
            secret = format_key_secret(key_id, self._rng.token_bytes(SECRET_BYTES))
            rotated = await self._store.rotate_key(
                KeyRotation(
                    key_id=key_id,
                    secret_hash=hash_secret(secret),
                    now_ms=now_ms,
                    old_ends_at_ms=now_ms + overlap_s * MS_PER_S,
                    expires_at_ms=now_ms + lifetime_s * MS_PER_S if lifetime_s else None,
                ),
                org_ids=person.administered_org_ids,
                retired_max=RETIRED_SECRETS_MAX,
                audit=AuditEntry(
                    action=Action.KEY_ROTATE,
                    request_id=request_id,
                    actor=attrs.evolve(watch.actor, key_id=key_id),
                    detail={"overlap_s": overlap_s},
                ),
            )
            if isinstance(rotated, RotationRefusal):
                raise _rotation_refused(rotated)
        self._meters.count_done(Action.KEY_ROTATE)
        return CreatedKey(key=rotated, secret=secret)

    def _now_ms(self) -> int:
        return int(self._clock.now() * MS_PER_S)


def _choose_org(person: PersonPrincipal, org_id: str) -> str:
    administered = person.administered_org_ids
    if not org_id and len(administered) != 1:
        raise invalid_argument("org_id", "required: you administer none or several")
    if org_id and org_id not in administered:
        raise forbidden("not_an_admin_of_the_org")
    return org_id or administered[0]


def _info(key: NewKey) -> KeyInfo:
    return KeyInfo(
        key_id=key.key_id,
        name=key.order.name,
        org_id=key.order.org_id,
        rights=tuple(right.value for right in key.order.rights),
        topics=tuple(pattern.text for pattern in key.order.patterns),
        created_at_ms=key.created_at_ms,
        expires_at_ms=key.expires_at_ms,
        last_used_at_ms=None,
        revoked_at_ms=None,
    )


def _rotation_refused(refusal: RotationRefusal) -> Refused:
    match refusal:
        case RotationRefusal.UNKNOWN:
            return Refused(reason_codes.NOT_FOUND, refusal.value)
        case RotationRefusal.ENDED:
            return invalid_argument("key_id", "a key that has not ended")
        case RotationRefusal.TOO_MANY:
            return Refused(
                reason_codes.LIMIT_EXCEEDED, refusal.value, details={"limit": str(RETIRED_SECRETS_MAX)}
            )
