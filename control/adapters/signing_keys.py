"""The key ring: signs tokens, verifies access tokens, publishes the public half. EdDSA only.

A ring is a file of JSON Web Keys (RFC 8037), private parts included, mode 0600: the first key signs, every
key verifies, so that a new key is put in front and the old one stays until its last token has ended. The
database never holds a private key. Only a ring in dev mode is made here; in production a missing file is a
refused configuration.
"""

import base64
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import attrs
import jwt
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from control.core.access_tokens import AccessClaims, ClaimsRefused, judge_claims_untrusted
from control.core.refusals import token_expired, unauthenticated
from khala_service.config import ConfigRefused

ALGORITHM: Final = "EdDSA"
_CURVE: Final = "Ed25519"
_KEY_BYTES: Final = 32
_KID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
# Active, previous and next; more is a ring that nobody cleans up.
KEYS_MAX: Final = 8
FILE_MAX_BYTES: Final = 64 * 1024
_HEADER_NAMES: Final = frozenset({"alg", "kid", "typ"})


@attrs.frozen
class SigningKey:
    """One key of the ring. The private half is not printable."""

    kid: str
    private: Ed25519PrivateKey = attrs.field(repr=False)

    @property
    def public(self) -> Ed25519PublicKey:
        """Return the half that verifies."""
        return self.private.public_key()


class KeyRing:
    """Implements `ports.TokenSigner` and `ports.AccessTokenVerifier`."""

    def __init__(self, keys: tuple[SigningKey, ...]) -> None:
        self._active = keys[0]
        self._public = {key.kid: key.public for key in keys}

    def sign(self, claims: Mapping[str, object]) -> str:
        """Return a compact JWS by the active key."""
        return jwt.encode(
            dict(claims),
            self._active.private,
            algorithm=ALGORITHM,
            headers={"kid": self._active.kid},
        )

    def verify_untrusted(self, token: str, *, now_s: float) -> AccessClaims:
        """Return the content of a genuine access token; see the port."""
        claims = self._verify_signature_untrusted(token)
        try:
            return judge_claims_untrusted(claims, now_s=now_s)
        except ClaimsRefused as error:
            if error.has_expired:
                raise token_expired("access_expired") from error
            raise unauthenticated(f"access_claim_{error.cause}") from error

    def public_jwks(self) -> dict[str, list[dict[str, str]]]:
        """Return the public keys as a JSON Web Key Set."""
        return {
            "keys": [
                {
                    "kty": "OKP",
                    "crv": _CURVE,
                    "use": "sig",
                    "alg": ALGORITHM,
                    "kid": kid,
                    "x": _encode(public.public_bytes_raw()),
                }
                for kid, public in self._public.items()
            ]
        }

    def _verify_signature_untrusted(self, token: str) -> dict[str, object]:
        # RecursionError: a header of nested brackets; releases of PyJWT before 2.15 let it through.
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise unauthenticated("access_malformed") from error
        # The header chooses among our keys and nothing else: not the algorithm, not a key of its own
        # (jwk, jku, x5c), not an extension (crit, b64, zip).
        if not header.keys() <= _HEADER_NAMES or header.get("alg") != ALGORITHM:
            raise unauthenticated("access_header")
        kid = header.get("kid")
        public = self._public.get(kid) if isinstance(kid, str) else None
        if public is None:
            raise unauthenticated("access_kid")
        try:
            claims: dict[str, object] = jwt.decode(
                token,
                public,
                algorithms=[ALGORITHM],
                # Times, audience and issuer are judged by the one schema in core/access_tokens.py.
                options={
                    "verify_signature": True,
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                    "verify_aud": False,
                    "verify_iss": False,
                    "verify_sub": False,
                    "verify_jti": False,
                },
            )
        except (jwt.PyJWTError, InvalidSignature, ValueError, RecursionError) as error:
            raise unauthenticated("access_signature") from error
        return claims


def load_key_ring(file: Path, *, may_create: bool) -> KeyRing:
    """Return the ring of a file.

    Args:
        file: JSON list of private Ed25519 keys; the first signs.
        may_create: Make a ring of one new key if there is no file; dev mode only.

    Raises:
        ConfigRefused: The file is missing, readable by others, or not a list of private keys.
    """
    if may_create and not file.exists():
        _create(file)
    return KeyRing(_parse_ring(file, _read_document(file)))


def add_signing_key(file: Path, *, keep: int) -> str:
    """Put a new key in front of a ring, or make the ring if there is none; return the key's id.

    Control reads it at its next start, and signs with it from then on.

    Args:
        file: As of `load_key_ring`.
        keep: How many of the keys before it go on verifying; the newest ones.

    Raises:
        ConfigRefused: The file is no ring, or cannot be written.
    """
    old: list[object] = []
    if file.exists():
        document = _read_document(file)
        _parse_ring(file, document)
        assert isinstance(document, list), "parsed as a ring"
        old = document[:keep]
    key = _new_key()
    if len(old) + 1 > KEYS_MAX:
        raise _refused(file, f"more than {KEYS_MAX} keys; keep fewer")
    with _written_beside(file, [key, *old]) as temporary:
        temporary.replace(file)
    return key["kid"]


def _read_document(file: Path) -> object:
    try:
        status = file.stat()
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise _refused(file, "must not be accessible by group or others (chmod 600)")
        if status.st_size > FILE_MAX_BYTES:
            raise _refused(file, f"larger than {FILE_MAX_BYTES} bytes; not a key ring")
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise _refused(file, f"cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise _refused(file, "not JSON") from error


def _parse_ring(file: Path, document: object) -> tuple[SigningKey, ...]:
    if not isinstance(document, list) or not 1 <= len(document) <= KEYS_MAX:
        raise _refused(file, f"expected a list of 1..{KEYS_MAX} JSON Web Keys")
    keys = tuple(_parse_key(file, index, entry) for index, entry in enumerate(document))
    if len({key.kid for key in keys}) < len(keys):
        raise _refused(file, "two keys have one kid")
    return keys


def _parse_key(file: Path, index: int, entry: object) -> SigningKey:
    if not isinstance(entry, dict) or (entry.get("kty"), entry.get("crv")) != ("OKP", _CURVE):
        raise _refused(file, f"[{index}]: expected kty OKP and crv {_CURVE}")
    kid, secret = entry.get("kid"), entry.get("d")
    if not isinstance(kid, str) or _KID.fullmatch(kid) is None:
        raise _refused(file, f"[{index}].kid: expected 1..64 of A-Z a-z 0-9 . _ -")
    raw = _decode(secret) if isinstance(secret, str) else b""
    if len(raw) != _KEY_BYTES:
        raise _refused(file, f"[{index}].d: expected a private key of {_KEY_BYTES} bytes")
    key = SigningKey(kid=kid, private=Ed25519PrivateKey.from_private_bytes(raw))
    if entry.get("x") != _encode(key.public.public_bytes_raw()):
        raise _refused(file, f"[{index}].x: is not the public half of d")
    return key


def _create(file: Path) -> None:
    with _written_beside(file, [_new_key()]) as temporary, suppress(FileExistsError):
        # Links, unlike renames, never replace: of two starts at once one ring wins, whole.
        os.link(temporary, file)


def _new_key() -> dict[str, str]:
    private = Ed25519PrivateKey.generate()
    public = _encode(private.public_key().public_bytes_raw())
    # RFC 7638: the hash of the required members in order of name.
    thumbprint = hashlib.sha256(
        json.dumps({"crv": _CURVE, "kty": "OKP", "x": public}, separators=(",", ":")).encode()
    )
    return {
        "kty": "OKP",
        "crv": _CURVE,
        "use": "sig",
        "alg": ALGORITHM,
        "kid": _encode(thumbprint.digest()),
        "x": public,
        "d": _encode(private.private_bytes_raw()),
    }


@contextmanager
def _written_beside(file: Path, ring: Sequence[object]) -> Iterator[Path]:
    """Yield a file of mode 0600 with the whole ring, in the folder of `file`; removed with the block."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            json.dump(ring, opened, indent=2)
            opened.flush()
            os.fsync(opened.fileno())
        yield temporary
    except OSError as error:
        raise _refused(file, f"cannot be created ({error.strerror})") from error
    finally:
        temporary.unlink(missing_ok=True)


def _refused(file: Path, problem: str) -> ConfigRefused:
    return ConfigRefused((f"control.signing_keys_file: {file}: {problem}",))


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return b""
