"""check_config.py and config_example.py: every error at once, and an example that is itself right."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING

import pytest

from khala.cli.check_config import SECTIONS, check_file
from khala.cli.config_example import example_document
from khala_service.config import CONFIG_SECTIONS, ConfigRefused, describe_config, load_config

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CREDENTIAL = "khs_" + "0" * 52
# What only the owner of a system can say.
FILLED = {
    "control.database_dsn": "postgresql://khala_control:x@db/khala",
    "control.runtime_url": "https://runtime.example",
    "control.service_credential": CREDENTIAL,
    "control.runtime_credential": CREDENTIAL,
    "control.node_credential": CREDENTIAL,
    "control.signing_keys_file": "/etc/khala/keys.json",
    "runtime.database_dsn": "postgresql://khala_runtime:x@db/khala",
    "runtime.control_url": "https://control.example",
    "runtime.service_credential": CREDENTIAL,
    "runtime.control_credential": CREDENTIAL,
    "runtime.admin_token": "t" * 43,
    "runtime.fanout_key": "ab" * 32,
    "runtime.fanout_key_id": "k1",
    "node.database_dsn": "postgresql://khala_reader:x@db/khala",
    "node.control_url": "https://control.example",
    "node.service_credential": CREDENTIAL,
    "node.admin_token": "t" * 43,
    "node.fanout_keys": {"k1": "ab" * 32},
    "node.node_id": "node-1",
}
REQUIRED = {
    field.name
    for section, cls in SECTIONS.items()
    for field in describe_config(cls, section)
    if field.is_required
}


def filled(text: str, *, with_defaults: bool, **instead: object) -> str:
    """Return the example with its required keys set; with every default set, too, if that is wanted."""
    lines, table = [], ""
    for line in text.splitlines():
        header = re.fullmatch(r"(?:# )?\[([a-z.]+)\]", line)
        entry = re.fullmatch(r"# ([a-z_]+) =(.*)", line)
        table = header[1] if header else table
        if entry and f"{table}.{entry[1]}" in REQUIRED:
            value = {**FILLED, **instead}[f"{table}.{entry[1]}"]
            line = f"{entry[1]} = {json.dumps(value) if isinstance(value, str) else inline(value)}"
        elif entry and entry[2] and with_defaults and table.partition(".")[0] != "up":
            line = line.removeprefix("# ")
        lines.append(line)
    return "\n".join(lines) + "\n"


def inline(value: object) -> str:
    """Return a table on one line."""
    assert isinstance(value, dict)
    return "{" + ", ".join(f"{key} = {json.dumps(item)}" for key, item in value.items()) + "}"


def check(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Check a file with this text."""
    file = folder / "khala.toml"
    file.write_text(text)
    return check_file(file, environ or {})


def errors_of(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return what is said against a file."""
    with pytest.raises(ConfigRefused) as refused:
        check(folder, text, environ)
    return refused.value.errors


def test_every_section_can_be_checked_and_is_in_the_example() -> None:
    """What the reader of files knows, the command knows."""
    assert set(SECTIONS) == set(CONFIG_SECTIONS)
    text = example_document(SECTIONS)
    for section, cls in SECTIONS.items():
        assert f"\n[{section}]\n" in text or f"\n# [{section}]\n" in text
        for field in describe_config(cls, section):
            assert f"\n# {field.name.rpartition('.')[2]} =" in text, field.name
            assert field.doc, f"{field.name} says nothing of itself"


@pytest.mark.parametrize("with_defaults", [False, True])
def test_the_example_is_right_once_it_is_filled_in(tmp_path: Path, with_defaults: bool) -> None:
    """With the required keys it passes; so it does with every default written out, and means the same."""
    text = filled(example_document(SECTIONS), with_defaults=with_defaults)
    sections = check(tmp_path, text)
    assert set(sections) == set(SECTIONS) - {"up"}
    if with_defaults:
        short = tmp_path / "short.toml"
        short.write_text(filled(example_document(SECTIONS), with_defaults=False))
        for section in sections:
            cls = SECTIONS[section]
            whole: object = load_config(cls, section=section, file=tmp_path / "khala.toml")
            assert whole == load_config(cls, section=section, file=short)


def test_the_example_as_it_is_names_what_must_be_set(tmp_path: Path) -> None:
    """Each required key once, with its variable, and nothing else."""
    errors = errors_of(tmp_path, example_document(SECTIONS))
    assert {error.partition(":")[0] for error in errors} == REQUIRED
    assert all("required; set it here or in KHALA_" in error for error in errors)


def test_an_example_of_some_sections(tmp_path: Path) -> None:
    """One for a node alone, and one for khala up, which needs nothing."""
    text = example_document({name: SECTIONS[name] for name in ("node", "fanout")})
    assert "[control]" not in text
    assert check(tmp_path, filled(text, with_defaults=False)) == ("node", "fanout")
    assert check(tmp_path, example_document({"up": SECTIONS["up"]})) == ("up",)


def test_all_errors_at_once_in_the_file_and_in_variables(tmp_path: Path) -> None:
    """Unknown keys, wrong values, foreign roles, a driver that is not there, misspelt variables and sections."""
    text = filled(
        example_document({name: SECTIONS[name] for name in ("runtime", "node", "fanout")}),
        with_defaults=False,
        **{"runtime.database_dsn": "postgresql://khala_control:x@db/khala"},
    )
    environ = {
        "KHALA_FANOUT_DRIVER": "pigeon", "KHALA_NODE_PRT": "1", "KHALA_CONTRL_PORT": "1", "KHALA_RUN": "run_1",
        "KHALA_LOGGING_LEVEL": "loud",
    }  # fmt: skip
    said = errors_of(tmp_path, text, environ)
    for part in (
        "runtime.database_dsn", "fanout.driver: pigeon is not installed", "KHALA_NODE_PRT: unknown variable",
        "KHALA_CONTRL_PORT: unknown variable; did you mean KHALA_CONTROL_PORT?", "logging.level",
    ):  # fmt: skip
        assert any(part in error for error in said), (part, said)
    assert list(said) == sorted(set(said))
    assert not any("KHALA_RUN:" in error for error in said)
    assert any("kontrol: unknown section" in error for error in errors_of(tmp_path, "[kontrol]\nport = 1\n"))


def test_variables_alone_are_judged(tmp_path: Path) -> None:
    """A container has no file; nothing said is nothing to judge."""
    assert check_file(None, {}) == ()
    assert check_file(None, {"KHALA_LOGGING_LEVEL": "info"}) == ("logging",)
    with pytest.raises(ConfigRefused, match=r"control\.database_dsn: required"):
        check_file(None, {"KHALA_CONTROL_PORT": "1"})


def test_a_file_for_khala_up_is_judged_as_khala_up_does(tmp_path: Path) -> None:
    """What it fills in is not asked for; what it cannot run is refused, whatever section it is in."""
    assert check(tmp_path, "[up]\nnodes = 2\nsplit = true\n[control]\naccess_token_ttl_s = 600\n") == (
        "up",
        "control",
    )
    said = errors_of(tmp_path, "[up]\nnodes = 2\n[control]\nport_ = 1\n[node]\nmode = 'production'\n")
    assert len(said) >= 3
    for part in ("needs split", "control.port_: unknown key; did you mean port?", "node.mode: khala up runs"):
        assert any(part in error for error in said), (part, said)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[up", "not TOML"),
        ("up = 1", "up: expected a table"),
        ("[kontrol]", "kontrol: unknown section"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, text: str | None, expected: str) -> None:
    """The file itself is named."""
    file = tmp_path / "khala.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigRefused) as refused:
        check_file(file, {})
    assert any(expected in error for error in refused.value.errors), refused.value.errors


def test_the_command_itself(tmp_path: Path) -> None:
    """The example on standard output is TOML; 78 with a line per error; 2 without anything to check."""
    run = [sys.executable, "-m", "khala.cli", "check-config"]
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}

    def command(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*run, *more], capture_output=True, text=True, env=environ, timeout=60, check=False
        )

    printed = command("--print-defaults")
    assert printed.returncode == 0
    assert set(tomllib.loads(printed.stdout)) == set(SECTIONS) - {"up"}
    file = tmp_path / "khala.toml"
    file.write_text("[node]\nport = 'x'\n[logging]\nlevl = 'info'\n")
    refused = command("--config", str(file))
    assert refused.returncode == 78
    assert "khala: node.port: expected an integer" in refused.stderr
    assert "did you mean level?" in refused.stderr
    assert command().returncode == 2
