"""Unit tests of khala.cli.up_secrets."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from khala.cli.up_secrets import UpSecrets
from khala_service.service_auth import SERVICE_CREDENTIAL_PREFIX

if TYPE_CHECKING:
    from pathlib import Path


def test_secrets_are_made_once_and_differ(tmp_path: Path) -> None:
    """The next life has the same ones, each in a 0600 file, none of them printable."""
    (tmp_path / "secrets").mkdir()
    made = UpSecrets.read_or_make(tmp_path)
    assert UpSecrets.read_or_make(tmp_path) == made
    values = [
        secret.reveal()
        for secret in (made.fanout_key, made.control, made.runtime, made.node, made.admin_token)
    ]
    assert len(set(values)) == 5
    assert not any(value in repr(made) for value in values)
    assert len(bytes.fromhex(made.fanout_key.reveal())) == 32
    assert all(value.startswith(SERVICE_CREDENTIAL_PREFIX) for value in values[1:4])
    files = sorted(path.name for path in (tmp_path / "secrets").iterdir())
    assert files == ["admin_token", "fanout_key", "service_control", "service_node", "service_runtime"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "secrets").iterdir()} == {0o600}
