"""runbooks/deploy.md: its example is a configuration that the services accept, its tables are true."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from control.app import ControlConfig
from fanout_drivers.opening import FanoutConfig
from khala.adapters.origin_routes import origin_routes
from khala.app import NodeConfig
from khala.cli.main import COMMANDS
from khala.cli.supervision import RestartPolicy
from khala.cli.toml_text import toml_document
from khala_service.config import ConfigSections
from khala_service.identifiers import SystemRng
from khala_service.service_auth import new_service_credential
from khala_service.service_process import EXIT_FAILED, EXIT_REFUSED, LoggingConfig
from runtime.app import RuntimeConfig
from tests.ci.markdown import fenced_blocks
from tests.ci.tree import ROOT

if TYPE_CHECKING:
    from pathlib import Path

TEXT = (ROOT / "runbooks" / "deploy.md").read_text(encoding="utf-8")
CLASSES: dict[str, type[Any]] = {
    "control": ControlConfig, "runtime": RuntimeConfig, "node": NodeConfig, "fanout": FanoutConfig,
    "logging": LoggingConfig,
}  # fmt: skip


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The example as a file, with its secrets made below ``tmp_path``."""
    [block] = [block.text for block in fenced_blocks(TEXT) if block.language == "toml"]
    document: dict[str, Any] = tomllib.loads(block.replace("/run/secrets", str(tmp_path)))
    rng = SystemRng()
    for name in set(re.findall(r'"/run/secrets/(\w+)"', block)):
        secret = "x" * 32
        if name.startswith("service_"):
            secret = new_service_credential(rng.token_bytes).reveal()
        if name == "fanout_key":
            secret = rng.token_bytes(32).hex()
        path = tmp_path / name
        path.write_text(secret)
        path.chmod(0o600)
    file = tmp_path / "khala.toml"
    file.write_text(toml_document(document))
    return file


def test_the_example_is_accepted_by_every_service(example: Path) -> None:
    """Each section as it stands, unknown keys refused."""
    assert set(tomllib.loads(example.read_text())) == set(CLASSES)
    sections = ConfigSections(example, {})
    found = [sections.find(cls, section) for section, cls in CLASSES.items()]
    sections.refuse_errors()
    assert None not in found


def test_the_load_balancer_has_the_table_of_the_one_origin() -> None:
    """Each path reaches the service that `khala up` would send it to; what only services need reaches none."""
    [block] = [block.text for block in fenced_blocks(TEXT) if block.language == "nginx"]
    upstreams = dict(re.findall(r"upstream (\w+) \{ server [a-z0-9-]+:(\d+);", block))
    locations = [
        (
            re.compile(path if is_pattern else re.escape(path)),
            int(upstreams[to.partition("http://")[2]]) if to.startswith("proxy_pass") else None,
        )
        # nginx takes the first pattern that matches, and the plain prefix if none does.
        for is_pattern, path, to in sorted(
            re.findall(r"location (~ )?(\S+) \{\s*(return 404|proxy_pass http://\w+);", block), reverse=True
        )
    ]
    table = origin_routes(control=8471, runtime=8472, nodes=[8473])
    for path in (
        "/", "/api/auth/session", "/assets/x.js", "/v1", "/v1/runs", "/v12", "/sync/v1/ws", "/sync", "/synchronous",
        "/internal/v1/revocations", "/internal", "/internally", "/metrics", "/metrics2", "/healthz",
    ):  # fmt: skip
        route = table.find(path.encode())
        found = next(port for pattern, port in locations if pattern.match(path))
        assert found == (route.ports[0] if route.ports else None), path
    assert block.count("proxy_set_header X-Forwarded-For $remote_addr;") == 2
    assert re.search(
        r"proxy_set_header Upgrade \$http_upgrade;\s+proxy_set_header Connection upgrade;", block
    )


def test_every_command_and_exit_status_exists() -> None:
    """A deployment types the commands, and its supervisor reads the statuses."""
    commands = set(re.findall(r"`khala ([\w-]+)", TEXT))
    assert commands >= {"control", "runtime", "node", "migrate", "up", "status"}
    assert commands <= set(COMMANDS)
    statuses = {int(number) for number in re.findall(r"^\| (\d+) \|", TEXT, re.MULTILINE)}
    assert statuses == {0, EXIT_FAILED, 2, EXIT_REFUSED}


def test_every_default_that_is_named_is_the_default() -> None:
    """Ports, limits and delays."""
    config = {field.name: field.default for cls in CLASSES.values() for field in attrs.fields(cls)}
    assert f"`drain_notice_s`\n({config['drain_notice_s']:.0f} s)" in TEXT
    policy = RestartPolicy()
    assert f"after {policy.first_s} s, doubling to {policy.max_s:.0f} s" in TEXT
    assert f"after {policy.stable_s:.0f} s of life" in TEXT
    ports = [
        field.default
        for cls in (ControlConfig, RuntimeConfig, NodeConfig)
        for field in attrs.fields(cls)
        if field.name in ("port", "admin_port")
    ]
    assert ports == [8471, 8472, 8473, 8474]
    for port in ports:
        assert re.search(rf"\b{port}\b", TEXT)
