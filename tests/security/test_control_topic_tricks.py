"""Names that look like a topic of one's own: forty tricks, none of which is granted at mint."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import pytest

from khala_contracts.topics import TOPIC_CLASSES
from tests.integration.control.rig import DEVICE, ControlRig, make_config, running_control
from tests.postgres_cluster import Database

# From a genuine user id, org id and run topic of the caller to what it asks for.
Trick = Callable[[str, str, str], str]

TRICKS: Final[dict[str, Trick]] = {
    # a longer or shorter id that begins like one's own
    "id with a character more": lambda u, o, r: f"user:{u}0:runs",
    "id with a character less": lambda u, o, r: f"user:{u[:-1]}:runs",
    "id that begins alike": lambda u, o, r: f"user:{u[:-1]}{'0' if u[-1] != '0' else '1'}:runs",
    "org id that begins alike": lambda u, o, r: f"org:{o[:-1]}{'0' if o[-1] != '0' else '1'}:runs",
    "run id that begins alike": lambda u, o, r: r.replace(":events", "0:events"),
    "id in upper case": lambda u, o, r: f"user:{u.upper()}:runs",
    "id with look-alikes of base32": lambda u, o, r: (
        f"user:{u.replace('0', 'o', 1).replace('1', 'l', 1)}x:runs"
    ),
    "prefix of another kind": lambda u, o, r: f"user:{u.replace('usr', 'org')}:runs",
    "org id where a user belongs": lambda u, o, r: f"user:{o}:runs",
    "user id where an org belongs": lambda u, o, r: f"org:{u}:runs",
    # more or fewer segments
    "segment after": lambda u, o, r: f"{r}:x",
    "segment before": lambda u, o, r: f"x:{r}",
    "two topics in one": lambda u, o, r: f"{r}:{r}",
    "empty last segment": lambda u, o, r: f"{r}:",
    "empty first segment": lambda u, o, r: f":{r}",
    "empty id": lambda u, o, r: "user::runs",
    "no id": lambda u, o, r: "user:runs",
    "class only": lambda u, o, r: "run",
    "last segment missing": lambda u, o, r: f"user:{u}",
    "last segment cut": lambda u, o, r: f"user:{u}:run",
    "last segment longer": lambda u, o, r: f"user:{u}:runsx",
    "last segment of another class": lambda u, o, r: f"user:{u}:events",
    "class name cut": lambda u, o, r: f"use:{u}:runs",
    "class name longer": lambda u, o, r: f"users:{u}:runs",
    "class in upper case": lambda u, o, r: f"USER:{u}:runs",
    # wildcards and separators of brokers and paths
    "star": lambda u, o, r: "user:*:runs",
    "star for all": lambda u, o, r: "*",
    "greater-than": lambda u, o, r: "user:>",
    "dots": lambda u, o, r: f"user.{u}.runs",
    "slash": lambda u, o, r: f"user:{u}/../usr_x:runs",
    "percent-encoded colon": lambda u, o, r: f"user%3A{u}%3Aruns",
    "list of two": lambda u, o, r: f"user:{u}:runs,{r}",
    "query": lambda u, o, r: f"user:{u}:runs?x=1",
    # bytes that are not seen
    "space before": lambda u, o, r: f" user:{u}:runs",
    "space after": lambda u, o, r: f"user:{u}:runs ",
    "line break after": lambda u, o, r: f"user:{u}:runs\n",
    "NUL after": lambda u, o, r: f"user:{u}:runs\x00",
    "NUL inside": lambda u, o, r: f"user:{u}\x00x:runs",
    "tab inside": lambda u, o, r: f"user:\t{u}:runs",
    "zero-width space": lambda u, o, r: f"user:{u}\u200b:runs",
    "byte order mark": lambda u, o, r: f"\ufeffuser:{u}:runs",
    "right-to-left mark": lambda u, o, r: f"user:{u}:runs\u200f",
    # letters that look alike
    "Cyrillic e": lambda u, o, r: f"us\u0435r:{u}:runs",
    "full-width colon": lambda u, o, r: f"user\uff1a{u}\uff1aruns",
    "full-width digits": lambda u, o, r: f"user:usr_\uff10{u[5:]}:runs",
    "combining accent": lambda u, o, r: f"user:{u}:run\u0301s",
    "decomposed letter": lambda u, o, r: f"app:{o}:cafe\u0301",
    # the names of an app's own topics
    "app name that begins with a dash": lambda u, o, r: f"app:{o}:-x",
    "app name with a dot": lambda u, o, r: f"app:{o}:a.b",
    "app name in upper case": lambda u, o, r: f"app:{o}:Builds",
    "app name of 64": lambda u, o, r: f"app:{o}:{'a' * 64}",
    "app name of 10 KiB": lambda u, o, r: f"app:{o}:{'a' * 10_240}",
    "device longer than one's own": lambda u, o, r: f"device:{DEVICE}0:inbox",
    "device shorter than one's own": lambda u, o, r: f"device:{DEVICE[:-1]}:inbox",
}


@pytest.fixture
async def control(control_database: Database, tmp_path: Path) -> AsyncIterator[ControlRig]:
    """A service of its own per test."""
    async with running_control(make_config(control_database, tmp_path), control_database) as rig:
        yield rig


async def test_no_trick_is_granted(control: ControlRig) -> None:
    """Alone or after a topic of one's own: topic_invalid or forbidden, and no token."""
    assert len(TRICKS) >= 40
    person = await control.sign_in()
    own_run = control.runtime.add_run(person.user_id)
    own = f"user:{person.user_id}:runs"
    granted = {}
    for name, make in TRICKS.items():
        topic = make(person.user_id, person.org_id, own_run)
        for topics in ([topic], [own, own_run, topic]):
            answer = await control.mint(person.access_token, *topics)
            code = answer.json().get("code")
            if (answer.status_code, code) not in {(400, "topic_invalid"), (403, "forbidden")}:
                granted[name] = (answer.status_code, answer.json())
    assert granted == {}
    assert (await control.mint(person.access_token, own, own_run)).status_code == 200


async def test_no_trick_is_granted_to_a_key(control: ControlRig) -> None:
    """A key whose patterns name one's own topics is as exact as a person."""
    person = await control.sign_in()
    own_run = control.runtime.add_run(person.user_id, person.org_id)
    patterns = [own_run, f"app:{person.org_id}:*", f"org:{person.org_id}:runs"]
    _, secret = await control.create_key(person, "read", topics=patterns)
    for name, make in TRICKS.items():
        topic = make(person.user_id, person.org_id, own_run)
        answer = await control.mint(secret, topic, device_id=DEVICE)
        assert answer.status_code in (400, 403), name
    ok = await control.mint(secret, own_run, f"app:{person.org_id}:x", device_id=DEVICE)
    assert ok.status_code == 200


async def test_no_trick_is_stored_as_a_pattern_for_more(control: ControlRig) -> None:
    """A pattern is of the grammar with whole ids replaced: no part of an id can be open."""
    person = await control.sign_in()
    body = {"name": "x", "org_id": person.org_id, "rights": ["read"]}
    prefixes = {row.pattern.partition(":")[0] for row in TOPIC_CLASSES.values()}
    for prefix in sorted(prefixes):
        for text in (
            f"{prefix}:*",
            f"{prefix}:**:events",
            f"{prefix}:*:*:*",
            f"{prefix}:a*:events",
            f"{prefix}*",
        ):
            answer = await control.post("/api/keys", {**body, "topics": [text]}, person.access_token)
            assert answer.status_code == 400, text
            assert answer.json()["code"] == "topic_invalid"
