"""``khala login``, ``logout``, ``sessions``: real commands against a running system; a test is the browser."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.e2e.system import COMMAND_TIMEOUT_S, System, wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

HTML = {"Accept": "text/html"}


def one(system: System, *arguments: str) -> dict[str, Any]:
    """Return the last JSON line of a command that works."""
    lines = system.run(*arguments, "--json").stdout.splitlines()
    document: dict[str, Any] = json.loads(lines[-1])
    return document


def many(system: System, *arguments: str) -> list[dict[str, Any]]:
    """Return the JSON lines of a command that works."""
    return [json.loads(line) for line in system.run(*arguments, "--json").stdout.splitlines()]


def test_several_people_each_with_a_profile(system: System, tmp_path: Path) -> None:
    """--dev signs in whom it is told; each profile acts as its own user, and keeps its device."""
    signed_in = {
        name: one(system, "login", "--dev", "--user", name, "--profile", str(tmp_path / name))
        for name in ("ada", "bob")
    }
    assert len({document["user_id"] for document in signed_in.values()}) == 2
    for name, document in signed_in.items():
        profile = str(tmp_path / name)
        assert document["login"] == name
        assert [s["is_this"] for s in many(system, "sessions", "list", "--profile", profile)] == [True]
        again = one(system, "login", "--dev", "--user", name, "--profile", profile)
        assert (again["user_id"], again["device_id"]) == (document["user_id"], document["device_id"])
        assert again["session_id"] != document["session_id"]
    system.run("record", "--name", "by-ada", "--profile", str(tmp_path / "ada"), "--", "true")
    assert [run["name"] for run in many(system, "runs", "--profile", str(tmp_path / "ada"))] == ["by-ada"]
    assert many(system, "runs", "--profile", str(tmp_path / "bob")) == []


def test_either_name_of_this_machine_will_do(system: System, tmp_path: Path) -> None:
    """One origin is all that a profile needs: commands find control, runtime and sync behind it."""
    origin = str(system.ready["origin"]).replace("127.0.0.1", "localhost")
    profile = str(tmp_path / "profile")
    one(system, "login", "--dev", "--user", "ivan", "--url", origin, "--profile", profile)
    system.run("record", "--name", "by-ivan", "--profile", profile, "--", "true")
    [run] = many(system, "runs", "--profile", profile)
    tail = system.tail("ivan", str(run["run_id"]), "--from", "beginning", "--profile", profile)
    tail.wait_for(1)
    assert tail.events()[0]["kind"] == "run.started"


def test_sessions_are_listed_and_ended(system: System, tmp_path: Path) -> None:
    """One by its id, those of a device, the others, all; who is ended is told to sign in again."""
    profiles = [str(tmp_path / f"device-{number}") for number in range(4)]
    ids = [one(system, "login", "--dev", "--user", "eve", "--profile", p)["session_id"] for p in profiles]
    listed = many(system, "sessions", "list", "--profile", profiles[0])
    assert [s["session_id"] for s in listed] == ids[::-1]
    assert {s["state"] for s in listed} == {"active"}
    device = listed[1]["device_id"]
    of_device = many(system, "sessions", "list", "--profile", profiles[0], "--device", device)
    assert [s["session_id"] for s in of_device] == [ids[2]]
    revoke = ("sessions", "revoke", "--profile", profiles[0])
    assert one(system, *revoke, ids[3])["session_ids"] == [ids[3]]
    assert one(system, *revoke, "--device", device)["session_ids"] == [ids[2]]
    assert one(system, *revoke, "--others")["session_ids"] == [ids[1]]
    states = {s["session_id"]: s["state"] for s in many(system, "sessions", "list", "--profile", profiles[0])}
    assert states == {ids[0]: "active", **dict.fromkeys(ids[1:], "ended")}
    refused = system.run("runs", "--profile", profiles[1], check=False)
    assert refused.returncode == 1
    assert "khala login" in refused.stderr
    assert one(system, *revoke, "--all")["session_ids"] == [ids[0]]
    assert system.run("sessions", "list", "--profile", profiles[0], check=False).returncode == 1
    assert system.run(*revoke, check=False).returncode == 2
    assert system.run(*revoke, "--all", "--others", check=False).returncode == 2


def test_logout_ends_the_session_at_the_server_too(system: System, tmp_path: Path) -> None:
    """The profile stays, without tokens; the session is ended for whoever has a copy of them."""
    profile, copy = tmp_path / "profile", tmp_path / "copy"
    one(system, "login", "--dev", "--user", "dan", "--profile", str(profile))
    copy.mkdir()
    (copy / "profile.json").write_bytes((profile / "profile.json").read_bytes())
    assert one(system, "logout", "--profile", str(profile))["was_signed_in"] is True
    saved = json.loads((profile / "profile.json").read_text())
    assert (saved["access_token"], saved["refresh_token"]) == ("", "")
    for folder in (profile, copy):
        assert system.run("runs", "--profile", str(folder), check=False).returncode == 1
    assert one(system, "logout", "--profile", str(profile))["was_signed_in"] is False


def read_url(command: subprocess.Popen[bytes]) -> str:
    """Return the address that a waiting login says to open."""
    assert command.stdout is not None
    document = json.loads(command.stdout.readline())
    assert (document["type"], document["opened"]) == ("sign_in", False)
    return str(document["url"])


def test_a_person_signs_in_through_the_browser(system: System, tmp_path: Path) -> None:
    """The browser goes from the printed address to the issuer's form, and from there to the command's port."""
    profile = tmp_path / "profile"
    origin = str(system.ready["control_url"])
    waiting = system.start_command(
        "login", "--url", origin, "--no-browser", "--profile", str(profile), "--json"
    )
    with waiting, httpx.Client(trust_env=False, headers=HTML, follow_redirects=True) as browser:
        try:
            url = read_url(waiting)
            port = httpx.URL(url).params["loopback_port"]
            # A page that guesses the port, and a code: refused, and the wait goes on.
            assert browser.get(f"http://127.0.0.1:{port}/callback?code=invented").status_code == 404
            with pytest.raises(subprocess.TimeoutExpired):
                waiting.wait(1)
            form = browser.get(url)
            assert "Development sign-in" in form.text
            # What the form sends: its hidden fields are the query of its address.
            shown = browser.get(form.url.copy_merge_params({"login_hint": "grace"}))
            assert shown.status_code == 200
            assert "Signed in as grace" in shown.text
            assert str(shown.url).startswith("http://127.0.0.1:")
            assert waiting.wait(COMMAND_TIMEOUT_S) == 0
        finally:
            waiting.kill()
        assert waiting.stdout is not None
        assert json.loads(waiting.stdout.read())["login"] == "grace"
    [session] = many(system, "sessions", "list", "--profile", str(profile))
    assert (session["is_this"], session["surface"]) == (True, "desktop")
    # What lies in the browser's history opens nothing any more.
    spent = {"code": shown.url.params["code"], "code_verifier": "v" * 43}
    assert httpx.post(f"{origin}/api/auth/exchange", json=spent, trust_env=False).status_code == 401


def test_a_login_that_nobody_completes_ends_with_a_sentence(system: System, tmp_path: Path) -> None:
    """After the time that it was given: status 1, no profile."""
    origin = str(system.ready["control_url"])
    profile = tmp_path / "profile"
    command = (
        "login",
        "--url",
        origin,
        "--no-browser",
        "--profile",
        str(profile),
        "--timeout",
        "3",
        "--json",
    )
    waiting = system.start_command(*command)
    with waiting:
        try:
            read_url(waiting)
            assert waiting.wait(COMMAND_TIMEOUT_S) == 1
        finally:
            waiting.kill()
        assert waiting.stderr is not None
        said = waiting.stderr.read().decode()
    assert said == "khala: Nobody signed in within 3 s; run `khala login` again.\n"
    assert not profile.exists()


def test_where_to_sign_in_must_be_known(system: System, tmp_path: Path) -> None:
    """Nothing named: the options are; an address that answers nothing, or is none: one sentence."""
    nowhere = {"HOME": str(tmp_path), "KHALA_PROFILE": ""}
    stranger = System(tmp_path, environment=nowhere)
    unknown = stranger.run("login", check=False)
    assert unknown.returncode == 78
    assert "--url https://" in unknown.stderr
    silent = stranger.run("login", "--url", "http://127.0.0.1:9", "--no-browser", check=False)
    assert (silent.returncode, silent.stderr.count("Traceback")) == (1, 0)
    none = stranger.run("login", "--url", "khala.example", check=False)
    assert none.returncode == 78
    wrong = system.run("login", "--dev", "--user", "no login", "--profile", str(tmp_path / "p"), check=False)
    assert wrong.returncode == 1
    assert not (tmp_path / "p").exists()


def test_without_a_named_profile_a_login_has_a_place_of_its_own(system: System, tmp_path: Path) -> None:
    """`login --url` keeps to ~/.config/khala, and other commands find it there; khala up's stays as it is."""
    before = (system.data_dir / "profile" / "profile.json").read_bytes()
    stranger = System(tmp_path, environment={"HOME": str(tmp_path), "KHALA_PROFILE": ""})
    origin = str(system.ready["control_url"])
    waiting = stranger.start_command("login", "--url", origin, "--no-browser", "--json")
    with waiting, httpx.Client(trust_env=False, headers=HTML, follow_redirects=True) as browser:
        try:
            form = browser.get(read_url(waiting))
            browser.get(form.url.copy_merge_params({"login_hint": "heidi"}))
            assert waiting.wait(COMMAND_TIMEOUT_S) == 0
        finally:
            waiting.kill()
    saved = tmp_path / ".config" / "khala" / "profile" / "profile.json"
    wait_until(saved.exists, timeout_s=5, what="the profile")
    # One origin is what --url names; this system's services listen apart from it, control answers anyway.
    [session] = many(stranger, "sessions", "list")
    assert session["is_this"] is True
    assert (system.data_dir / "profile" / "profile.json").read_bytes() == before
