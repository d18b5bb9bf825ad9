"""Configuration: where values come from, and that every error is named at once."""

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Literal

import attrs
import pytest

from khala_service.config import (
    ConfigRefused,
    ConfigSections,
    Secret,
    describe_config,
    described,
    load_config,
)


class Tier(Enum):
    HOT = "hot"
    COLD = "cold"


@attrs.frozen
class Limits:
    batch_max: int = attrs.field(
        default=512, validator=attrs.validators.ge(1), metadata=described("Events per batch.")
    )
    wait_s: float = 2.0


@attrs.frozen
class Config:
    dsn: Secret = attrs.field(metadata=described("Connection URL."))
    host: str = "127.0.0.1"
    port: int = attrs.field(default=8472, validator=[attrs.validators.ge(0), attrs.validators.le(65535)])
    is_dev: bool = False
    data_dir: Path | None = None
    origins: tuple[str, ...] = ()
    weights: tuple[int, ...] = (1, 2)
    callers: Mapping[str, Secret] = attrs.field(factory=dict)
    tier: Tier = Tier.HOT
    level: Literal["info", "debug"] = "info"
    admin_key: Secret | None = None
    limits: Limits = attrs.field(factory=Limits)

    def __attrs_post_init__(self) -> None:
        if self.is_dev and self.host != "127.0.0.1":
            raise ValueError("is_dev needs host 127.0.0.1")


def _file(folder: Path, text: str) -> Path:
    path = folder / "khala.toml"
    path.write_text(text)
    return path


def _refused(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigRefused) as caught:
        load_config(Config, section="runtime", file=_file(folder, text), environ=environ or {})
    return caught.value.errors


def test_every_type_from_the_file(tmp_path: Path) -> None:
    """The file's values arrive with the types that the class names."""
    (tmp_path / "key").write_text("khs_from_file\n")
    config = load_config(
        Config,
        section="runtime",
        file=_file(
            tmp_path,
            f"""
            [runtime]
            dsn = "postgresql://a:b@c/d"
            port = 1
            is_dev = true
            data_dir = "/srv/khala"
            origins = ["https://a.example", "https://b.example"]
            weights = [3]
            tier = "cold"
            level = "debug"
            callers = {{ node = "khs_1", control_file = "{tmp_path / "key"}" }}
            [runtime.limits]
            batch_max = 1
            wait_s = 3
            [node]
            anything = "of another service is its own affair"
            """,
        ),
    )
    assert config == Config(
        dsn=Secret("postgresql://a:b@c/d"),
        port=1,
        is_dev=True,
        data_dir=Path("/srv/khala"),
        origins=("https://a.example", "https://b.example"),
        weights=(3,),
        tier=Tier.COLD,
        level="debug",
        callers={"node": Secret("khs_1"), "control": Secret("khs_from_file")},
        limits=Limits(batch_max=1, wait_s=3.0),
    )


def test_every_type_from_variables() -> None:
    """Variables are text; lists are separated by commas, mappings are JSON."""
    environ = {
        "KHALA_RUNTIME_DSN": "x",
        "KHALA_RUNTIME_PORT": "65535",
        "KHALA_RUNTIME_IS_DEV": "True",
        "KHALA_RUNTIME_DATA_DIR": "/srv",
        "KHALA_RUNTIME_ORIGINS": "https://a.example, https://b.example",
        "KHALA_RUNTIME_WEIGHTS": "4,5",
        "KHALA_RUNTIME_CALLERS": '{"node": "khs_1"}',
        "KHALA_RUNTIME_TIER": "cold",
        "KHALA_RUNTIME_LIMITS_WAIT_S": "0.5",
        "KHALA_NODE_PORT": "of another service",
        "KHALA_PROFILE": "of the commands",
        "PATH": "/bin",
    }
    config = load_config(Config, section="runtime", environ=environ)
    assert config == Config(
        dsn=Secret("x"),
        port=65535,
        is_dev=True,
        data_dir=Path("/srv"),
        origins=("https://a.example", "https://b.example"),
        weights=(4, 5),
        callers={"node": Secret("khs_1")},
        tier=Tier.COLD,
        limits=Limits(wait_s=0.5),
    )


def test_precedence(tmp_path: Path) -> None:
    """Override before variable before file before default."""
    file = _file(tmp_path, '[runtime]\ndsn = "x"\nport = 1\n[runtime.limits]\nbatch_max = 1\n')
    environ = {"KHALA_RUNTIME_PORT": "2", "KHALA_RUNTIME_LIMITS_BATCH_MAX": "2"}

    def load(env: Mapping[str, str], overrides: Mapping[str, object]) -> Config:
        return load_config(Config, section="runtime", file=file, environ=env, overrides=overrides)

    assert load({}, {}).port == 1
    assert load(environ, {}).port == 2
    typed = load(environ, {"port": 3, "limits.batch_max": 3, "data_dir": tmp_path})
    assert (typed.port, typed.limits.batch_max, typed.data_dir) == (3, 3, tmp_path)
    assert load(environ, {"port": "4"}).port == 4
    assert load(environ, {"port": None}).port == 2


def test_every_error_at_once(tmp_path: Path) -> None:
    """The operator sees all errors of one attempt, each with its key."""
    errors = _refused(
        tmp_path,
        """
        [runtim]
        [runtime]
        prt = 1
        port = 65536
        is_dev = "yes"
        origins = "https://a.example"
        weights = [1, "2"]
        tier = "warm"
        level = "loud"
        data_dir = 7
        callers = { node = 5 }
        limits = { batch_max = 0, wait_s = nan, surplus = 1 }
        """,
        {"KHALA_RUNTIME_HOTS": "x"},
    )
    assert [error.split(": ")[0] for error in errors] == [
        "KHALA_RUNTIME_HOTS",
        "runtim",
        "runtime.callers.node",
        "runtime.data_dir",
        "runtime.dsn",
        "runtime.is_dev",
        "runtime.level",
        "runtime.limits.batch_max",
        "runtime.limits.surplus",
        "runtime.limits.wait_s",
        "runtime.origins",
        "runtime.port",
        "runtime.prt",
        "runtime.tier",
        "runtime.weights.1",
    ]
    said = "\n".join(errors)
    assert "unknown key; did you mean port?" in said
    assert "required; set it here or in KHALA_RUNTIME_DSN" in said
    assert "expected one of hot, cold" in said


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("PORT", "1.5", "expected an integer"),
        ("PORT", "", "expected an integer"),
        ("IS_DEV", "maybe", "expected true or false"),
        ("LIMITS_WAIT_S", "inf", "expected a finite number"),
        ("LIMITS_WAIT_S", "soon", "expected a number"),
        ("CALLERS", "node=khs_1", "expected a JSON object"),
        ("CALLERS", "[]", "expected a table"),
        ("WEIGHTS", "1,x", "expected an integer"),
        ("DATA_DIR", "", "expected a path"),
    ],
)
def test_variables_that_do_not_fit(variable: str, text: str, expected: str) -> None:
    """A variable is judged as strictly as the file."""
    environ = {"KHALA_RUNTIME_DSN": "x", f"KHALA_RUNTIME_{variable}": text}
    with pytest.raises(ConfigRefused, match=expected):
        load_config(Config, section="runtime", environ=environ)


def test_no_lenient_conversion(tmp_path: Path) -> None:
    """1 is not true, true is not 1, "1" is not 1, 1.0 is no integer."""
    errors = _refused(
        tmp_path,
        '[runtime]\ndsn = "x"\nport = true\nis_dev = 1\nweights = ["1", 1.0]\nhost = 1\n'
        "[runtime.limits]\nwait_s = true\n",
    )
    assert errors == (
        "runtime.host: expected text",
        "runtime.is_dev: expected true or false",
        "runtime.limits.wait_s: expected a finite number",
        "runtime.port: expected an integer",
        "runtime.weights.0: expected an integer",
    )


def test_rules_between_fields(tmp_path: Path) -> None:
    """A rule of the class is reported under its table, once the fields themselves are right."""
    text = '[runtime]\ndsn = "x"\nis_dev = true\nhost = "0.0.0.0"\n'
    assert _refused(tmp_path, text) == ("runtime: is_dev needs host 127.0.0.1",)


def test_secrets_from_files(tmp_path: Path) -> None:
    """A secret may stand in a file of its own; the last line break is not part of it."""
    secret = tmp_path / "dsn"
    secret.write_text("postgresql://a:b@c/d\n")
    file = _file(tmp_path, f'[runtime]\ndsn_file = "{secret}"\n')
    config = load_config(Config, section="runtime", file=file)
    assert config.dsn.reveal() == "postgresql://a:b@c/d"
    environ = {"KHALA_RUNTIME_ADMIN_KEY_FILE": str(secret)}
    config = load_config(Config, section="runtime", file=file, environ=environ)
    assert config.admin_key == Secret("postgresql://a:b@c/d")
    config = load_config(Config, section="runtime", overrides={"dsn_file": secret})
    assert config.dsn == Secret("postgresql://a:b@c/d")


def test_secret_files_that_are_refused(tmp_path: Path) -> None:
    """Missing, empty, huge and binary files, and a secret given twice, are named."""
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "huge").write_text("x" * 70_000)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name, expected in (
        ("missing", "cannot be read"),
        ("empty", "is empty or too large"),
        ("huge", "is empty or too large"),
        ("binary", "is not UTF-8 text"),
    ):
        errors = _refused(tmp_path, f'[runtime]\ndsn_file = "{tmp_path / name}"\n')
        assert len(errors) == 1
        assert errors[0].startswith("runtime.dsn: file")
        assert expected in errors[0]
    both = '[runtime]\ndsn = "x"\ndsn_file = "y"\ncallers = { a = "1", a_file = "y" }\n'
    assert [error.split(": ")[0] for error in _refused(tmp_path, both)] == [
        "runtime.callers.a_file",
        "runtime.dsn",
    ]
    assert "path of a file" in _refused(tmp_path, "[runtime]\ndsn_file = 3\n")[0]


def test_errors_never_quote_secrets(tmp_path: Path) -> None:
    """SEC-13: a wrong secret is named by its key alone; nor does the object print it."""

    @attrs.frozen
    class Strict:
        key: Secret = attrs.field(validator=attrs.validators.in_([Secret("right")]))

    file = _file(tmp_path, '[runtime]\nkey = "canary-93"\n')
    with pytest.raises(ConfigRefused) as caught:
        load_config(Strict, section="runtime", file=file)
    assert caught.value.errors == ("runtime.key: refused by its rule",)
    config = load_config(Config, section="runtime", environ={"KHALA_RUNTIME_DSN": "canary-93"})
    assert "canary-93" not in repr(config)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[runtime", "not TOML"),
        ("runtime = 3", "runtime: expected a table"),
        ('[runtime]\ndsn = "x"\nlimits = 3', "runtime.limits: expected a table"),
        ("# " + "x" * (1 << 20), "not a configuration file"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str, expected: str) -> None:
    """A file that is no configuration says so."""
    assert any(expected in error for error in _refused(tmp_path, text))


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    """A typing mistake in the path must not start a service with defaults."""
    with pytest.raises(ConfigRefused, match="cannot be read"):
        load_config(Config, section="runtime", file=tmp_path / "absent.toml")


def test_describe() -> None:
    """check-config prints each key with type, default, variable and meaning."""
    fields = {field.name: field for field in describe_config(Config, "runtime")}
    assert list(fields)[:3] == ["runtime.dsn", "runtime.host", "runtime.port"]
    dsn = fields["runtime.dsn"]
    assert (dsn.type_name, dsn.default, dsn.env) == ("Secret", "", "KHALA_RUNTIME_DSN")
    assert (dsn.doc, dsn.is_required, dsn.is_secret) == ("Connection URL.", True, True)
    batch = fields["runtime.limits.batch_max"]
    assert (batch.default, batch.env) == ("512", "KHALA_RUNTIME_LIMITS_BATCH_MAX")
    assert (batch.doc, batch.is_required, batch.is_secret) == ("Events per batch.", False, False)
    assert fields["runtime.callers"].default == "{}"
    assert fields["runtime.origins"].type_name == "tuple[str, ...]"
    assert fields["runtime.admin_key"].is_secret
    assert fields["runtime.tier"].default == "hot"


@attrs.frozen(kw_only=True)
class Small:
    """A section with one key."""

    port: int = 1


def test_sections_of_one_process_are_refused_together(tmp_path: Path) -> None:
    """Every error of every section once, sorted; without one, what was found is there."""
    file = tmp_path / "khala.toml"
    file.write_text("[node]\nport = 'x'\n[fanout]\nprot = 2\n[nods]\n[control]\nnot = 'ours'\n")
    sections = ConfigSections(file, {"KHALA_NODE_X": "1"})
    assert sections.find(Small, "node") is None
    assert sections.find(Small, "fanout") is None
    sections.add_error("fanout.driver: cannot leave its process")
    with pytest.raises(ConfigRefused) as refused:
        sections.refuse_errors()
    known = "known are control, runtime, node, fanout, up, migrate, logging"
    assert refused.value.errors == (
        "KHALA_NODE_X: unknown variable",
        "fanout.driver: cannot leave its process",
        "fanout.prot: unknown key; did you mean port?",
        "node.port: expected an integer",
        f"nods: unknown section; {known}",
    )
    well = ConfigSections(None, {"KHALA_NODE_PORT": "7"})
    assert well.find(Small, "node") == Small(port=7)
    assert well.find(Small, "fanout", overrides={"port": 9}) == Small(port=9)
    well.refuse_errors()
