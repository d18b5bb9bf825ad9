"""The gates of the contracts fail for each seeded fault, naming what is wrong, and pass otherwise."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ci import proto_gates
from tests.ci.proto_breaking import list_messages
from tests.contract.fixture_files import PROTO_DIR

SESSION = "openagents/sync/v1/session.proto"
FRAMES = "openagents/sync/v1/frames.proto"
ERRORS = "openagents/sync/v1/errors.proto"
EVENTS = "openagents/runtime/v1/events.proto"
IGNORED = shutil.ignore_patterns("fixtures", "__pycache__", ".*cache")


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Path]:
    """A copy of proto/ that a test may spoil."""
    target = tmp_path / "proto"
    shutil.copytree(PROTO_DIR, target, ignore=IGNORED)
    yield target
    shutil.rmtree(target)


def edit(proto_dir: Path, name: str, old: str, new: str) -> None:
    """Replace the one occurrence of ``old`` in a source."""
    path = proto_dir / name
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times"
    path.write_text(text.replace(old, new), encoding="utf-8")


def ours(problems: list[str]) -> list[str]:
    """Return what the gates in Python found, leaving out what buf adds where it is installed."""
    return [problem for problem in problems if not problem.startswith("buf ")]


@pytest.mark.parametrize("gate", proto_gates.GATES)
def test_the_repository_passes(gate: str) -> None:
    """PR-25: each gate alone."""
    assert proto_gates.run(gate) == []


BREAKS = {
    "deleted field": (SESSION, "  string lineage = 2;\n  int64 head_seq = 3;\n  int64 floor_seq = 4;\n  // Chain at the", "  int64 head_seq = 3;\n  int64 floor_seq = 4;\n  // Chain at the", "openagents.sync.v1.Subscribed.lineage was deleted"),
    "renamed field": (SESSION, "int64 through_seq = 2;", "int64 to_seq = 2;", "openagents.sync.v1.ReplayComplete.through_seq was renamed to to_seq"),
    "renumbered field": (SESSION, "int64 from_seq = 2;", "int64 from_seq = 9;", "openagents.sync.v1.Lagging.from_seq was renumbered from 2 to 9"),
    "retyped field": (SESSION, "int64 through_seq = 2;", "int32 through_seq = 2;", "openagents.sync.v1.ReplayComplete.through_seq was retyped from int64 to int32"),
    "repeated field": (SESSION, "repeated string topics = 1;", "string topics = 1;", "openagents.sync.v1.Unsubscribe.topics was retyped from repeated string to string"),
    "presence": (EVENTS, "optional int32 exit_status = 2;", "int32 exit_status = 2;", "openagents.runtime.v1.RunFinished.exit_status was retyped from optional int32 to int32"),
    "moved into a oneof": (FRAMES, "  uint32 original_schema_version = 4;", "  oneof version {\n    uint32 original_schema_version = 4;\n  }", "openagents.sync.v1.Erased.original_schema_version was moved from no oneof to oneof version"),
    "removed enum value": (SESSION, "  QOS_TIER_COLD = 3;\n", "", "openagents.sync.v1.QosTier.QOS_TIER_COLD was removed"),
    "renumbered enum value": (ERRORS, "REASON_CODE_SUPERSEDED = 76;", "REASON_CODE_SUPERSEDED = 77;", "openagents.sync.v1.ReasonCode.REASON_CODE_SUPERSEDED was renumbered from 76 to 77"),
    "removed message": (EVENTS, "message InboxDelivered {\n  string subject = 1;\n  google.protobuf.Value data = 2;\n}\n", "", "openagents.runtime.v1.InboxDelivered was removed"),
    "sixth frame field": (FRAMES, "  uint32 schema_version = 5;", "  uint32 schema_version = 5;\n  string extra = 6;", "openagents.sync.v1.KhalaFrame is locked to topic, seq, kind, payload_bytes, schema_version"),
    "optional frame field": (FRAMES, "  bytes payload_bytes = 4;", "  optional bytes payload_bytes = 4;", "openagents.sync.v1.KhalaFrame is locked to topic, seq, kind, payload_bytes, schema_version"),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_a_break_is_refused_by_name(copy: Path, name: str) -> None:
    """PR-09: the gate names the field, value or message."""
    path, old, new, problem = BREAKS[name]
    edit(copy, path, old, new)
    problems = proto_gates.run("breaking", proto_dir=copy)
    assert problem in problems
    assert problem in proto_gates.accept(copy)
    # buf has no rule against an added field, so the lock of the envelope is ours alone.
    is_known_to_buf = shutil.which("buf") is not None and name != "sixth frame field"
    assert is_known_to_buf == any(line.startswith("buf breaking: ") for line in problems)


def test_a_removed_enum_and_a_changed_package_are_breaks(copy: Path) -> None:
    """Everything of the old package is missing."""
    edit(
        copy, "openagents/sync/v1/fanout.proto", "package openagents.sync.v1;", "package openagents.sync.v9;"
    )
    assert ours(proto_gates.run("breaking", proto_dir=copy)) == [
        "openagents.sync.v1.FanoutRecord was removed"
    ]
    text = (copy / EVENTS).read_text(encoding="utf-8")
    start = text.index("enum OutputStream")
    end = text.index("message Output {")
    (copy / EVENTS).write_text(
        (text[:start] + text[end:]).replace("OutputStream stream", "int32 stream"), encoding="utf-8"
    )
    problems = proto_gates.run("breaking", proto_dir=copy)
    assert "openagents.runtime.v1.OutputStream was removed" in problems


def test_additions_and_a_new_version_are_no_breaks(copy: Path) -> None:
    """PR-09: an optional field, an enum value, a message, a v2 package beside v1."""
    edit(
        copy,
        SESSION,
        "message Renewed {",
        "message Added {\n  string a = 1;\n}\n\nmessage Renewed {\n  optional string note = 9;",
    )
    edit(copy, SESSION, "  QOS_TIER_COLD = 3;", "  QOS_TIER_COLD = 3;\n  QOS_TIER_ICE = 4;")
    v2 = copy / "openagents/sync/v2"
    v2.mkdir()
    v2.joinpath("frames.proto").write_text(
        'syntax = "proto3";\npackage openagents.sync.v2;\nmessage KhalaFrame {\n  string topic = 1;\n}\n',
        encoding="utf-8",
    )
    assert proto_gates.run("breaking", proto_dir=copy) == []
    assert proto_gates.accept(copy) == []
    assert "openagents.sync.v1.Added" in list_messages(proto_gates.read_image(copy))
    edit(copy, SESSION, "  optional string note = 9;", "")
    assert ours(proto_gates.run("breaking", proto_dir=copy)) == [
        "openagents.sync.v1.Renewed.note was deleted"
    ]


FAULTS = {
    "field name": (SESSION, "string node_id = 2;", "string nodeId = 2;", "openagents.sync.v1.Welcome.nodeId: field name is not lower_snake_case"),
    "message name": (SESSION, "message GoAway {", "message Go_away {", "openagents.sync.v1.Go_away: message name is not PascalCase"),
    "enum value": (SESSION, "QOS_TIER_COLD = 3;", "COLD = 3;", "openagents.sync.v1.QosTier.COLD: value name does not begin with QOS_TIER_"),
    "zero value": (SESSION, "QOS_TIER_UNSPECIFIED = 0;", "QOS_TIER_NONE = 0;", "openagents.sync.v1.QosTier: the value 0 is not QOS_TIER_UNSPECIFIED"),
    "enum name": (SESSION, "enum QosTier {", "enum Qos_tier {", "openagents.sync.v1.Qos_tier: enum name is not PascalCase"),
    "alias": (SESSION, "  QOS_TIER_COLD = 3;", "  option allow_alias = true;\n  QOS_TIER_COLD = 3;\n  QOS_TIER_ICE = 3;", "openagents.sync.v1.QosTier: two names for one number"),
    "oneof name": (SESSION, "oneof credential {", "oneof Credential {", "openagents.sync.v1.Hello.Credential: oneof name is not lower_snake_case"),
    "float": (EVENTS, "optional double duration_s = 4;", "optional float duration_s = 4;", "openagents.runtime.v1.Observation.duration_s: float; use double"),
    "map key": (EVENTS, "map<string, double> gauges = 3;", "map<int32, double> gauges = 3;", "openagents.runtime.v1.WorkerStatusReported.gauges: a map key is a string"),
    "map value": (EVENTS, "map<string, double> gauges = 3;", "map<string, Thought> gauges = 3;", "openagents.runtime.v1.WorkerStatusReported.gauges: a map value is a scalar"),
    "package": (FRAMES, "package openagents.sync.v1;", "package openagents.sync.v2;", "openagents/sync/v1/frames.proto: package openagents.sync.v2 does not match its folder"),
    "unused import": (EVENTS, 'import "google/protobuf/struct.proto";', 'import "google/protobuf/struct.proto";\nimport "google/protobuf/any.proto";', "openagents/runtime/v1/events.proto: import google/protobuf/any.proto is not used"),
    "package without owner": ("PACKAGE_MAP.md", "| `openagents.control.v1` | control |", "| `openagents.control.v1` | |", "PACKAGE_MAP.md: openagents.control.v1 needs owner, namespace, stability and consumers"),
    "package listed twice": ("PACKAGE_MAP.md", "`openagents.lightning.v1`", "`openagents.codex.v1`", "PACKAGE_MAP.md: openagents.codex.v1 is listed twice"),
    "package that exists but is planned": ("PACKAGE_MAP.md", "over HTTP | stable from 0.1 | control, runtime, khala, khala_client |", "over HTTP | planned | control |", "PACKAGE_MAP.md: openagents.control.v1 exists and is still marked planned"),
    "package that does not exist": ("PACKAGE_MAP.md", "| payments | planned |", "| payments | stable from 0.1 |", "PACKAGE_MAP.md: openagents.lightning.v1 does not exist"),
    "package that is missing": ("PACKAGE_MAP.md", "`openagents.control.v1`", "`openagents.controls.v1`", "PACKAGE_MAP.md: openagents.control.v1 is missing"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_form_is_refused_by_name(copy: Path, name: str) -> None:
    """Each rule of the lint, and of the package map (PR-02)."""
    path, old, new, problem = FAULTS[name]
    edit(copy, path, old, new)
    if name in {"package", "message name", "enum name"}:
        # Their users would not compile: the name is spoiled everywhere.
        for source in copy.rglob("*.proto"):
            text = source.read_text(encoding="utf-8")
            text = (
                text.replace("openagents.sync.v1.KhalaFrame", "openagents.sync.v2.KhalaFrame")
                if name == "package"
                else text
            )
            text = (
                text.replace("repeated KhalaFrame", "repeated openagents.sync.v2.KhalaFrame")
                if name == "package"
                else text
            )
            text = text.replace("GoAway go_away", "Go_away go_away") if name == "message name" else text
            text = text.replace("QosTier tier", "Qos_tier tier") if name == "enum name" else text
            source.write_text(text, encoding="utf-8")
    assert problem in proto_gates.run("lint", proto_dir=copy)


def test_files_are_judged_by_name_syntax_and_place(copy: Path) -> None:
    """proto2, a capital in the file name, a package outside openagents."""
    folder = copy / "openagents/odd"
    folder.mkdir()
    folder.joinpath("Odd.proto").write_text(
        'syntax = "proto2";\npackage odd;\nmessage A {}\n', encoding="utf-8"
    )
    problems = proto_gates.run("lint", proto_dir=copy)
    assert "openagents/odd/Odd.proto: syntax is not proto3" in problems
    assert "openagents/odd/Odd.proto: package odd is not openagents.<name>.v<number>" in problems
    assert "openagents/odd/Odd.proto: file name is not lower_snake_case" in problems


def test_one_edited_generated_byte_is_found(copy: Path) -> None:
    """PR-08, with the name of the file."""
    edit(
        copy,
        "khala_contracts/gen/openagents/sync/v1/frames_pb2.pyi",
        "payload_bytes: bytes",
        "payload_bytes: str  ",
    )
    problem = "khala_contracts/gen/openagents/sync/v1/frames_pb2.pyi differs from what the sources give"
    assert proto_gates.run("generate", proto_dir=copy) == [problem]


def test_missing_and_foreign_generated_files_are_found(copy: Path) -> None:
    """A module whose source is gone, and one that was never committed."""
    folder = copy / "khala_contracts/gen/openagents/sync/v1"
    (folder / "fanout_pb2.py").rename(folder / "stray_pb2.py")
    assert proto_gates.run("generate", proto_dir=copy) == [
        "khala_contracts/gen/openagents/sync/v1/fanout_pb2.py is missing",
        "khala_contracts/gen/openagents/sync/v1/stray_pb2.py is not generated from any source",
    ]


@pytest.mark.parametrize("gate", ["lint", "breaking", "generate"])
def test_a_syntax_error_fails_every_gate_that_compiles(copy: Path, gate: str) -> None:
    """PR-09: generation itself is a gate."""
    edit(copy, FRAMES, "message KhalaFrame {", "mesage KhalaFrame {")
    assert proto_gates.run(gate, proto_dir=copy) == [f"{gate}: the compiler refused the sources in proto"]


def test_a_package_that_does_not_import_is_found(copy: Path) -> None:
    """PR-25, in a fresh interpreter that sees only the copy."""
    path = copy / "khala_contracts/gen/openagents/sync/v1/frames_pb2.py"
    path.write_text("import nothing_of_this_name\n", encoding="utf-8")
    (problem,) = proto_gates.run("package", proto_dir=copy)
    assert "nothing_of_this_name" in problem
    shutil.rmtree(copy / "khala_contracts/gen/openagents")
    assert proto_gates.run("package", proto_dir=copy) == ["khala_contracts/gen has no modules"]


def test_buf_agrees_where_it_is_installed(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without buf the gate says so; a refusal by buf is a problem of the gate."""
    monkeypatch.setenv("PATH", str(copy))
    assert proto_gates.run("lint", proto_dir=copy) == []
    assert "buf lint did not run" in capsys.readouterr().out
    buf = copy / "buf"
    buf.write_text('#!/bin/sh\necho "$1: refused"\nexit 100\n', encoding="utf-8")
    buf.chmod(0o755)
    assert proto_gates.run("lint", proto_dir=copy) == ["buf lint: lint: refused"]
    assert proto_gates.run("breaking", proto_dir=copy) == ["buf breaking: breaking: refused"]
