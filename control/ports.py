"""What control needs from outside, as narrow protocols; adapters implement them.

Every awaitable may raise `khala_service.errors.Unavailable`; then nothing was changed, or, if its
``outcome_unknown`` is set, the change may have been made. Stores write the audit row of a change in
the transaction of the change. Cancellation: safe everywhere; a cancelled change is done or not done.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import attrs

from control.core.access_tokens import AccessClaims
from control.core.audit import Action, AuditEntry
from control.core.loopback_sign_in import SignInCode
from control.core.node_audit import AuditQuery, AuditRecord, NodeRow
from control.core.oidc import AssertedIdentity, FlowSecrets, PendingSignIn
from control.core.principals import KeyPrincipal, OrgRole, PersonPrincipal, SessionInfo
from control.core.redemptions import RedeemOutcome, Redemption
from control.core.revocations import RevocationPage, SessionSelection
from control.core.rights import TopicOwner
from control.core.service_keys import KeyInfo, KeyRotation, NewKey, RetiredSecret, RotationRefusal
from control.core.sessions import NewSession, RefreshRefusal
from khala_contracts.sync_claims import Surface
from khala_contracts.topics import TopicName


class Clock(Protocol):
    """Wall time."""

    def now(self) -> float:
        """Return Unix time, seconds."""


class Rng(Protocol):
    """Unpredictable bytes."""

    def token_bytes(self, count: int) -> bytes:
        """Return `count` bytes fit for secrets."""


class Ids(Protocol):
    """Server-made identifiers."""

    def new(self, prefix: str) -> str:
        """Return a new identifier, for example ``ses_01...`` for the prefix ``ses``."""


class TokenSigner(Protocol):
    """Signs with the active key of the ring (EdDSA)."""

    def sign(self, claims: Mapping[str, object]) -> str:
        """Return a compact JWS whose header names the key."""


class AccessTokenVerifier(Protocol):
    """Judges access tokens against the ring."""

    def verify_untrusted(self, token: str, *, now_s: float) -> AccessClaims:
        """Return the content of a genuine token that is valid now.

        Raises:
            Refused: unauthenticated for every forgery; token_expired if only its age is wrong.
        """


class RuntimeOwners(Protocol):
    """Owners of runs and workers, known to the runtime alone."""

    async def owners_of(self, topics: Sequence[TopicName]) -> Mapping[TopicName, TopicOwner]:
        """Return the owners of the topics that exist; asked anew each time."""


class Meters(Protocol):
    """Counters; every label comes from a closed set."""

    def count_done(self, action: Action) -> None:
        """Count one thing that was done."""

    def count_refusal(self, action: Action, code: str) -> None:
        """Count one refusal, by its public code."""

    def count_suppressed(self) -> None:
        """Count one refusal that got no row of its own in the audit log."""

    def count_node_audit(self, actions: Sequence[Action]) -> None:
        """Count rows that a node's batch has made."""

    def count_redemptions(self, outcomes: Sequence[RedeemOutcome]) -> None:
        """Count the outcomes of one batch."""

    def count_swept(self, rows: int) -> None:
        """Count rows that were removed."""


@attrs.frozen
class SignIn:
    """An identity as its issuer has asserted it, and the ids to use where rows are new."""

    issuer: str
    subject: str
    login: str
    new_user_id: str
    new_org_id: str
    session: NewSession


@attrs.frozen
class RefreshOrder:
    """A refresh token as it was presented, and the successor that it gets if it is good.

    Attributes:
        sealed_successor: The successor, readable with the presented token only.
        grace_ms: How long the same device may have the same successor again; 0: not at all.
    """

    presented_hash: bytes
    device_id: str
    successor_hash: bytes
    sealed_successor: bytes
    grace_ms: int


@attrs.frozen
class Reissued:
    """A rotation that had happened, again for its own device: the successor, sealed."""

    session: SessionInfo
    refresh_expires_at_ms: int
    sealed_successor: bytes


@attrs.frozen
class Rotated:
    """A refresh that succeeded: the session whose token was rotated."""

    session: SessionInfo
    refresh_expires_at_ms: int


@attrs.frozen
class RefreshDenied:
    """A refresh that was refused, with whom it concerned as far as the token was known."""

    refusal: RefreshRefusal
    session_id: str | None


@attrs.frozen
class KeySessionOrder:
    """The service or derived session that a key's mint stands on."""

    new_session_id: str
    key_id: str
    key_user_id: str
    org_id: str
    # A user of the org's own application; None: the key itself, acting as `key_user_id`.
    external_user_id: str | None
    new_user_id: str
    device_id: str
    surface: Surface
    now_ms: int
    expires_at_ms: int


@attrs.frozen
class KeySession:
    """A session that a key's mint stands on, made now or earlier."""

    session_id: str
    user_id: str


@attrs.frozen
class KeyState:
    """A key as it is stored, for the decision whether its bearer is who it says."""

    principal: KeyPrincipal
    secret_hash: bytes
    revoked_at_ms: int | None
    last_used_at_ms: int | None
    # What the key had before, also what has ended lately.
    retired: tuple[RetiredSecret, ...] = ()


class SessionStore(Protocol):
    """Users, devices, sessions and refresh tokens."""

    async def sign_in(self, order: SignIn, *, request_id: str) -> PersonPrincipal:
        """Open a session, making user, personal org and device where they are new.

        Racing first sign-ins of one identity make one user.
        """

    async def find_person(self, session_id: str) -> PersonPrincipal | None:
        """Return session, memberships and device as they are now, in one statement."""

    async def rotate_refresh(
        self, order: RefreshOrder, *, now_ms: int, request_id: str
    ) -> Rotated | Reissued | RefreshDenied:
        """Decide and carry out a refresh under the lock of the presented token's row.

        The reuse of a spent token ends its session, with audit row and revocation, in the same transaction.
        """

    async def revoke_sessions(
        self, selection: SessionSelection, *, cause: str, now_ms: int, audit: AuditEntry
    ) -> tuple[str, ...]:
        """End the live sessions of a selection and return their ids, sorted.

        Audit row and revocations are written in the same transaction; if nothing lived, nothing is.
        """

    async def find_subject(self, org_id: str, external_user_id: str) -> str | None:
        """Return the user id of an application's own user, None if the org never named it."""

    async def has_device(self, user_id: str, device_id: str) -> bool:
        """Return whether the user was ever seen on the device."""

    async def list_sessions(
        self, user_id: str, *, device_id: str | None, limit: int
    ) -> tuple[SessionInfo, ...]:
        """Return a user's own sessions, newest first, ended ones included; of one device if it is named."""

    async def forget_successors(self, *, spent_before_ms: int, batch: int) -> int:
        """Forget at most `batch` sealed successors of tokens that were spent before; return how many."""

    async def open_key_session(self, order: KeySessionOrder) -> KeySession:
        """Return the live session of (key, user, device), made or extended to `expires_at_ms`."""

    async def sweep(self, *, now_ms: int, batch: int) -> int:
        """Remove at most `batch` sessions long ended and their refresh tokens; return how many."""


class KeyStore(Protocol):
    """Service keys."""

    async def create_key(self, key: NewKey, *, per_org_max: int, audit: AuditEntry) -> bool:
        """Store a key; False, and nothing stored, if the org has `per_org_max` already."""

    async def find_key(self, key_id: str) -> KeyState | None:
        """Return a key with its org, also one that has ended."""

    async def list_keys(self, org_ids: Sequence[str]) -> tuple[KeyInfo, ...]:
        """Return every key of the orgs by time of creation."""

    async def revoke_key(
        self, key_id: str, *, org_ids: Sequence[str], revoked_by: str, now_ms: int, audit: AuditEntry
    ) -> KeyInfo | None:
        """End a key of one of the orgs; None if there is none. Ending it again changes nothing."""

    async def rotate_key(
        self, rotation: KeyRotation, *, org_ids: Sequence[str], retired_max: int, audit: AuditEntry
    ) -> KeyInfo | RotationRefusal:
        """Give a live key of one of the orgs a new secret; those before it end with their overlap."""

    async def note_use(self, key_id: str, *, now_ms: int) -> None:
        """Record a use, unless one was recorded within the last minute."""


@attrs.frozen
class OrgMember:
    """One member of an org."""

    user_id: str
    login: str
    role: OrgRole
    joined_at_ms: int


class OrgStore(Protocol):
    """Orgs and their members."""

    async def create_org(
        self, org_id: str, name: str, *, user_id: str, now_ms: int, audit: AuditEntry
    ) -> None:
        """Make an org whose first owner is the user."""

    async def list_members(self, org_id: str) -> tuple[OrgMember, ...]:
        """Return the members of an org, oldest first; none if it does not exist."""

    async def find_member(self, org_id: str, user_id: str) -> OrgMember | None:
        """Return one member of an org; None if it is none, or one of them does not exist."""

    async def change_member(
        self,
        org_id: str,
        user_id: str,
        new_role: OrgRole | None,
        *,
        actor_user_id: str,
        now_ms: int,
        audit: AuditEntry,
    ) -> OrgMember | None:
        """Add a member, give it another role, or remove it (None), as `core.org_policy` decides.

        Two changes of one org at once are decided one after the other. Whoever may do less afterwards is
        in the log of revocations when this returns.

        Raises:
            Refused: as `check_change`; not_found for a user that does not exist.
        """


class IdentityProvider(Protocol):
    """Says who somebody is. Raises `Unavailable` with ``identity_unavailable`` where it does not answer."""

    async def authorization_url(self, secrets: FlowSecrets, *, redirect_uri: str, login_hint: str) -> str:
        """Return the URL to which the browser goes to sign in.

        Args:
            secrets: Of this sign-in; state, nonce and challenge enter the URL, verifier and binding do not.
            redirect_uri: Where the provider sends the browser afterwards.
            login_hint: Who is likely to sign in; may be empty.
        """

    async def exchange(self, code: str, *, verifier: str, nonce: str, redirect_uri: str) -> AssertedIdentity:
        """Spend the code of a callback and return who signed in.

        Raises:
            IdentityRefused: The provider refuses the code, or its assertion is not for this sign-in.
        """


class PendingSignIns(Protocol):
    """Sign-ins between their start and their session."""

    async def put(self, state_hash: bytes, pending: PendingSignIn) -> None:
        """Remember a sign-in by the hash of its state."""

    async def take(self, state_hash: bytes) -> PendingSignIn | None:
        """Return and forget a sign-in: of many that ask at once, one gets it."""

    async def put_code(self, code_hash: bytes, code: SignInCode) -> None:
        """Remember what a command's code is worth, by the hash of the code."""

    async def take_code(self, code_hash: bytes) -> SignInCode | None:
        """Return and forget what a code is worth: of many that ask at once, one gets it."""

    async def sweep(self, *, now_ms: int, batch: int) -> int:
        """Remove at most `batch` that nobody completed in time; return how many."""


class RevocationLog(Protocol):
    """What has been revoked, in commit order; written by the stores whose changes revoke something."""

    async def read_after(self, seq: int, *, limit: int) -> RevocationPage:
        """Return at most `limit` rows after `seq`, and where the log stands, as one statement saw it."""

    async def sweep(self, *, now_ms: int, batch: int) -> int:
        """Remove at most `batch` rows that concern no token any more; return how many."""


class RedemptionStore(Protocol):
    """First uses of sync tokens."""

    async def redeem(self, batch: Sequence[Redemption], *, now_ms: int) -> tuple[RedeemOutcome, ...]:
        """Answer every redemption, in order, by one statement that also checks revocation."""

    async def sweep(self, *, now_ms: int, batch: int) -> int:
        """Remove at most `batch` records whose token nobody accepts any more; return how many."""


class AuditStore(Protocol):
    """The append-only log: rows without a change of their own, batches of nodes, and what is in it."""

    async def append_batch(self, node_id: str, batch_id: str, rows: Sequence[NodeRow]) -> int:
        """Append the rows of a node's batch in one statement; 0 if the batch is there already."""

    async def list_audit(self, query: AuditQuery) -> Sequence[AuditRecord]:
        """Return the rows that a query means, by id, one more than its limit if there is more."""

    async def append(self, entry: AuditEntry) -> None:
        """Append one row."""
