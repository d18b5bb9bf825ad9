"""up_sign_in.py: the walk through the development issuer, when control is restarted on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import httpx
import pytest

from khala.cli.up_record import own_record
from khala.cli.up_sign_in import TRIES, sign_in_profile
from khala_client.errors import ReauthRequired
from khala_client.http_calls import PROTOBUF
from khala_client.profiles import ProfileDirectory
from khala_contracts import http_messages as m

if TYPE_CHECKING:
    from pathlib import Path

ORIGIN = "http://127.0.0.1:8470"


class Control:
    """The three stations of a sign-in; the first callbacks are refused as a restarted issuer refuses them."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.callbacks = 0

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        path = request.url.path
        if path == "/api/auth/start":
            return httpx.Response(303, headers={"Location": f"{ORIGIN}/dev/issuer/authorize"})
        if path == "/dev/issuer/authorize":
            return httpx.Response(303, headers={"Location": f"{ORIGIN}/api/auth/callback"})
        self.callbacks += 1
        if self.callbacks <= self.refusals:
            return _body(m.Error(code="unauthenticated"), 401)
        session = m.Session(session_id="ses_1", user_id="usr_1", login="dev")
        return _body(m.SessionTokens(access_token="a", refresh_token="r", session=session), 200)


def _body(message: m.Error | m.SessionTokens, status: int) -> httpx.Response:
    return httpx.Response(status, content=message.SerializeToString(), headers={"Content-Type": PROTOBUF})


async def _sign_in(folder: Path, control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "khala.cli.up_sign_in.open_http",
        lambda: httpx.AsyncClient(transport=httpx.MockTransport(control.answer)),
    )
    record = attrs.evolve(
        own_record(version="0", now_s=0.0),
        control_url=ORIGIN,
        runtime_url=ORIGIN,
        sync_url="ws://127.0.0.1:8470/sync/v1/ws",
    )
    await sign_in_profile(folder, record, login="dev")


async def test_a_code_that_a_restart_lost_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One refusal less than the tries: signed in, and saved."""
    control = Control(TRIES - 1)
    await _sign_in(tmp_path, control, monkeypatch)
    assert ProfileDirectory(tmp_path).load().session_id == "ses_1"
    assert control.callbacks == TRIES


async def test_a_refusal_that_lasts_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many refusals as tries: nobody is signed in, and it is not tried for ever."""
    control = Control(TRIES)
    with pytest.raises(ReauthRequired):
        await _sign_in(tmp_path, control, monkeypatch)
    assert control.callbacks == TRIES
    assert not ProfileDirectory(tmp_path).load().is_signed_in
