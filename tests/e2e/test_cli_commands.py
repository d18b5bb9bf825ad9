"""The commands against one running system, as a person and as a script use them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.system import KHALA

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.system import System

pytestmark = pytest.mark.slow

STEPS = 12
TRAJECTORY = {
    "environment": "little",
    "history": [{"role": "system", "content": "be good"}, {"role": "user", "content": "fix it"}],
    "trajectory": [
        {
            "thought": f"think {n}",
            "action": f"ls {n}",
            "observation": f"file {n}\nmore",
            "execution_time": 0.1,
        }
        for n in range(STEPS)
    ],
    "info": {"exit_status": "submitted", "submission": "+a\n"},
}


def records(system: System, *arguments: str) -> list[dict[str, Any]]:
    """Return the JSON lines of a command that must succeed."""
    return [json.loads(line) for line in system.run(*arguments, "--json").stdout.splitlines()]


def pipe(system: System, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command with something on standard input."""
    env = {**os.environ, "KHALA_PROFILE": system.ready["profile"]}
    return subprocess.run(
        [*KHALA, *arguments], env=env, input=text, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture(scope="module")
def run_id(system: System, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run that was imported, and has finished."""
    path = tmp_path_factory.mktemp("import") / "little.traj"
    path.write_text(json.dumps(TRAJECTORY))
    done = system.run("import", str(path))
    assert "✓ little.traj" in done.stderr
    return done.stdout.strip()


def test_import_prints_the_id_alone_and_repeating_it_changes_nothing(
    system: System, run_id: str, tmp_path: Path
) -> None:
    """RUN=$(khala import FILE) works; the same file is the same run; another name is another one."""
    path = tmp_path / "little.traj"
    path.write_text(json.dumps(TRAJECTORY))
    [again] = records(system, "import", str(path))
    assert (again["run_id"], again["state"], again["already_there"]) == (run_id, "succeeded", again["events"])
    [other] = records(system, "import", str(path), "--name", "another")
    assert other["run_id"] != run_id
    assert (other["name"], other["head_seq"]) == ("another", again["head_seq"])


def test_one_broken_file_of_several_stops_all_before_anything_is_made(system: System, tmp_path: Path) -> None:
    """The good file before it is not imported either: a repetition would not know how far it came."""
    good, broken = tmp_path / "good.jsonl", tmp_path / "broken.jsonl"
    good.write_text('{"kind": "thought", "data": {"text": "never imported"}}\n')
    broken.write_text('{"kind": "thought", "data": {"text": "a"}}\nnot json\n')
    before = records(system, "runs")
    refused = system.run("import", str(good), str(broken), check=False)
    assert refused.returncode == 1
    assert f"{broken}: line 2: not JSON" in refused.stderr
    assert records(system, "runs") == before


def test_an_import_can_go_to_a_run_that_exists(system: System, tmp_path: Path) -> None:
    """--run appends, and leaves the run open; repeating it repeats nothing."""
    path = tmp_path / "more.jsonl"
    path.write_text(
        '{"kind": "thought", "data": {"text": "one"}}\n{"kind": "thought", "data": {"text": "two"}}\n'
    )
    with system.start_command("record", "--json", "--", "sleep", "60") as recording:
        try:
            assert recording.stdout is not None
            run_id = json.loads(recording.stdout.readline())["run_id"]
            for _ in range(2):
                [imported] = records(system, "import", str(path), "--run", run_id)
                assert (imported["state"], imported["head_seq"]) == ("running", "3")
        finally:
            recording.terminate()


def test_tail_for_people_is_plain_in_a_file_and_says_that_the_chain_is_verified(
    system: System, run_id: str
) -> None:
    """No escape sequence where nobody looks at colours; every text is whole."""
    done = system.run("tail", run_id, "--verify", "--until-finished")
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stdout.splitlines()[0].split() == [
        "1",
        "run.started",
        "little-" + done.stdout.split("little-")[1][:8],
        "(swe-agent,",
        "swe-agent)",
    ]
    assert "file 11" in done.stdout
    assert "✓ chain verified" in done.stderr


def test_tail_starts_where_it_is_told(system: System, run_id: str) -> None:
    """After a position, from the head, and not beyond it."""
    whole = records(system, "tail", run_id, "--until-finished")
    after = records(system, "tail", run_id, "--after", "10", "--until-finished", "--verify")
    assert after[0] == whole[10]
    assert after[-1]["verified"] is True
    now = records(system, "tail", run_id, "--from", "now", "--until-finished")
    assert [line["type"] for line in now] == ["live", "end"]
    beyond = system.run("tail", run_id, "--after", "100000", "--json", check=False)
    assert beyond.returncode == 1
    end = json.loads(beyond.stdout.splitlines()[-1])
    assert (end["reason"], end["code"], end["advice"]) == (
        "refused",
        "stale_cursor.lineage_mismatch",
        "rebootstrap",
    )
    assert "--from earliest" in beyond.stderr


def test_tail_of_what_is_not_there_ends_with_reason_and_advice(system: System, run_id: str) -> None:
    """A run that does not exist is forbidden, as a foreign one; no topic at all is said so."""
    missing = run_id[:-1] + ("0" if run_id[-1] != "0" else "1")
    refused = system.run("tail", missing, check=False)
    assert refused.returncode == 1
    assert "forbidden" in refused.stderr
    assert system.run("tail", "run:x:events", check=False).returncode == 1
    assert system.run("tail", run_id, "--after", "1", "--from", "now", check=False).returncode == 2


def test_tail_into_a_pipe_that_closes_ends_quietly(system: System, run_id: str) -> None:
    """Khala tail RUN | head -1."""
    with system.start_command("tail", run_id, "--json") as tail:
        assert tail.stdout is not None
        assert b"run.started" in tail.stdout.readline()
        tail.stdout.close()
        assert tail.wait(30) == 0
        assert tail.stderr is not None
        assert b"Traceback" not in tail.stderr.read()


def test_record_is_transparent(system: System) -> None:
    """Standard input, output, error and exit status are the command's; JSON lines become typed events."""
    program = (
        "import sys, os; text = sys.stdin.read(); print(text.upper());"
        'print(\'{"kind": "thought", "data": {"text": "typed"}}\'); print(os.environ[\'KHALA_RUN\'], file=sys.stderr)'
    )
    done = pipe(system, "quiet", "record", "--", sys.executable, "-c", program)
    assert done.returncode == 0
    assert done.stdout.startswith("QUIET")
    run_id = next(line for line in done.stderr.splitlines() if line.startswith("run_"))
    events = [line for line in records(system, "tail", run_id, "--until-finished") if line["type"] == "event"]
    assert {event["kind"] for event in events} == {"run.started", "output", "thought", "run.finished"}


def test_record_passes_signals_on_and_reports_the_death_by_one(system: System) -> None:
    """SIGTERM reaches the command; its end is 128 + 15, as shells have it."""
    with system.start_command("record", "--json", "--", "sleep", "60") as recording:
        assert recording.stdout is not None
        run_id = json.loads(recording.stdout.readline())["run_id"]
        recording.send_signal(signal.SIGTERM)
        assert recording.wait(30) == 128 + signal.SIGTERM
    end = [line for line in records(system, "tail", run_id, "--until-finished") if line["type"] == "event"][
        -1
    ]
    assert (end["data"]["exit_status"], end["data"]["reason"]) == (143, "ended by SIGTERM")


def test_record_of_a_command_that_is_not_there_makes_no_run(system: System) -> None:
    """127, as shells have it."""
    before = records(system, "runs")
    refused = system.run("record", "--", "no-such-command-anywhere", check=False)
    assert (refused.returncode, refused.stdout) == (127, "")
    assert records(system, "runs") == before


def test_publish_appends_one_event_or_many(system: System) -> None:
    """By argument and by pipe; a key makes a repetition harmless; a broken line is named."""
    with system.start_command("record", "--json", "--", "sleep", "60") as recording:
        try:
            assert recording.stdout is not None
            run_id = json.loads(recording.stdout.readline())["run_id"]
            [first] = records(system, "publish", run_id, "thought", "--text", "hi", "--key", "k1")
            [again] = records(system, "publish", run_id, "thought", '{"text": "hi"}', "--key", "k1")
            assert (first["seq"], first) == ("2", again)
            lines = "".join(f'{{"kind": "thought", "data": {{"text": "{n}"}}}}\n' for n in range(600))
            piped = pipe(system, lines, "publish", run_id)
            assert piped.stdout.split() == [f"run:{run_id}:events", "602"]
            broken = pipe(system, "{}\n", "publish", run_id)
            assert (broken.returncode, "Line 1" in broken.stderr) == (1, True)
            unknown = system.run("publish", run_id, "no.such.kind", check=False)
            assert (unknown.returncode, "kind_unknown" in unknown.stderr) == (1, True)
        finally:
            recording.terminate()


def test_runs_and_topics_say_where_things_stand(system: System, run_id: str) -> None:
    """The table has names and states; the JSON has every attribute."""
    table = system.run("runs").stdout
    assert run_id in table
    assert "succeeded" in table
    assert len(records(system, "runs", "--limit", "1")) == 1
    [topic] = records(system, "topics", run_id)
    whole = records(system, "tail", run_id, "--until-finished")
    assert (topic["head_seq"], topic["head_chain"]) == (whole[-1]["through_seq"], whole[-1]["chain"])


def test_a_key_is_shown_once_works_and_ends(system: System, run_id: str) -> None:
    """Create prints the secret alone; another program follows with it; revoked, it is refused."""
    created = system.run("keys", "create", "--name", "bot", "--can", "read")
    secret = created.stdout.strip()
    assert secret.startswith("khk_")
    [key] = [key for key in records(system, "keys", "list") if key["name"] == "bot"]
    assert "secret" not in key
    urls = {
        "KHALA_CONTROL_URL": system.ready["control_url"],
        "KHALA_RUNTIME_URL": system.ready["runtime_url"],
        "KHALA_SYNC_URL": system.ready["sync_url"],
    }
    env = {name: value for name, value in os.environ.items() if not name.startswith("KHALA_")}
    env = {**env, **urls, "KHALA_KEY": secret}

    def runs() -> subprocess.CompletedProcess[str]:
        command = [*KHALA, "runs", "--json"]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)

    assert runs().returncode == 0
    [revoked] = records(system, "keys", "revoke", str(key["key_id"]))
    assert revoked["revoked_at_s"] is not None
    wait_refused = [runs() for _ in range(3)][-1]
    assert (wait_refused.returncode, secret in wait_refused.stderr) == (1, False)
    assert system.run("keys", "create", "--name", "x", "--can", "fly", check=False).returncode == 2


def test_a_token_is_alone_on_standard_output(system: System, run_id: str) -> None:
    """TOKEN=$(khala token RUN)."""
    token = system.run("token", run_id).stdout.strip()
    assert token.count(".") == 2
    [record] = records(system, "token", run_id, "--ttl", "60")
    assert [grant["basis"] for grant in record["grants"]] == ["owner"]
