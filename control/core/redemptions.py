"""What a batch of redemptions may hold, and how long their records are kept. Pure.

A sync token opens one connection: the first connection that redeems its jti gets ``ok``, for ever, and
every other one ``replayed``. The record of that must outlive every moment at which a node could
accept the token, which is its expiry plus the leeway of a node's clock.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Final

import attrs

from control.core.refusals import invalid_argument

BATCH_MAX: Final = 256
ID_MAX_BYTES: Final = 128
# SPEC section 2: a node judges token times with 30 s leeway. A token presented later than this after
# its expiry is answered `replayed`, because its record may be gone.
GRACE_MS: Final = 60_000
# Must exceed GRACE_MS: between the two a token is refused by age although its record still exists.
# Were it less, a token whose record was swept could be redeemed again.
KEPT_AFTER_EXPIRY_MS: Final = 120_000
# No token lives longer than 15 minutes; the rest is for skewed clocks. Without a bound a faulty node
# could make rows that are never swept.
EXPIRY_AHEAD_MAX_MS: Final = 3_600_000


_IDS: Final = ("jti", "connection_id", "node_id", "session_id", "user_id", "device_id")


class RedeemOutcome(Enum):
    """Answer to one redemption."""

    OK = "ok"
    REPLAYED = "replayed"
    REVOKED = "revoked"


@attrs.frozen
class Redemption:
    """One presented token, as a node has verified it. Times are Unix milliseconds."""

    jti: str
    connection_id: str
    node_id: str
    session_id: str
    principal_id: str
    user_id: str
    device_id: str
    token_expires_at_ms: int
    token_issued_at_ms: int


def check_batch(batch: Sequence[Redemption], *, now_ms: int) -> None:
    """Check a batch before it reaches the database.

    Raises:
        Refused: invalid_argument with the field; nothing of the batch was redeemed.
    """
    if not 1 <= len(batch) <= BATCH_MAX:
        raise invalid_argument("redemptions", f"1..{BATCH_MAX}")
    for index, redemption in enumerate(batch):
        for name in _IDS:
            value: str = getattr(redemption, name)
            if not (1 <= len(value) <= ID_MAX_BYTES and value.isascii() and value.isprintable()):
                raise invalid_argument(
                    f"redemptions[{index}].{name}", f"1..{ID_MAX_BYTES} printable ASCII characters"
                )
        if not 0 < redemption.token_expires_at_ms <= now_ms + EXPIRY_AHEAD_MAX_MS:
            raise invalid_argument(f"redemptions[{index}].token_expires_at", "at most an hour from now")
