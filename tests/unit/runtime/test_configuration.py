"""Configuration: every error at once, nothing secret by default, limits as a table."""

from __future__ import annotations

import pytest

from khala_service.config import ConfigRefused, Secret, describe_config, load_config
from runtime.adapters.configuration import SECTION, RuntimeConfig

ENVIRON = {
    "KHALA_RUNTIME_DATABASE_DSN": "postgresql://khala_runtime:secret@db:5432/khala",
    "KHALA_RUNTIME_CONTROL_URL": "http://control:8471",
    "KHALA_RUNTIME_SERVICE_CREDENTIAL": "khs_" + "a" * 43,
    "KHALA_RUNTIME_CONTROL_CREDENTIAL": "khs_" + "b" * 43,
    "KHALA_RUNTIME_FANOUT_KEY": "0f" * 32,
}


def load(**changes: str) -> RuntimeConfig:
    """Return the configuration of an environment."""
    return load_config(RuntimeConfig, section=SECTION, environ=ENVIRON | changes)


def test_defaults() -> None:
    """The port of SPEC section 4, the registry's rates, the limits of section 6."""
    config = load()
    assert (config.host, config.port, config.fanout_key_id) == ("127.0.0.1", 8472, "1")
    assert config.publish_rate_per_s == {}
    assert config.limits.append_events_max == 500
    assert config.fanout_key_bytes() == b"\x0f" * 32


def test_limits_and_rates_can_be_set() -> None:
    """A benchmark raises the publish rate by configuration, and limits are a table of their own."""
    config = load(
        KHALA_RUNTIME_PUBLISH_RATE_PER_S='{"run_events": 50000}', KHALA_RUNTIME_LIMITS_BATCH_EVENTS_MAX="64"
    )
    assert config.publish_rate_per_s == {"run_events": 50_000.0}
    assert config.limits.batch_events_max == 64


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("KHALA_RUNTIME_SERVICE_CREDENTIAL", "secret", "service_credential: does not start with khs_"),
        ("KHALA_RUNTIME_CONTROL_CREDENTIAL", "khk_x", "control_credential: does not start with khs_"),
        ("KHALA_RUNTIME_FANOUT_KEY", "0f" * 31, "fanout_key: expected at least 32 bytes"),
        ("KHALA_RUNTIME_FANOUT_KEY", "x" * 64, "fanout_key: expected hexadecimal digits"),
        ("KHALA_RUNTIME_PUBLISH_RATE_PER_S", '{"runs": 1}', "publish_rate_per_s: runs: no topic class"),
        ("KHALA_RUNTIME_CONTROL_URL", "ftp://x", "control_url"),
        ("KHALA_RUNTIME_PORT", "65536", "port"),
        ("KHALA_RUNTIME_LIMITS_PAGE_EVENTS_MAX", "0", "limits.page_events_max"),
        ("KHALA_RUNTIME_FANOUT_KEY_ID", "no spaces", "fanout_key_id"),
        ("KHALA_RUNTIME_MODE", "test", "mode"),
        ("KHALA_RUNTIME_FAILPOINTS", "runtime.committed=kill", "failpoints: accepted in mode dev only"),
        ("KHALA_RUNTIME_FAILPOINT_FILE", "/x", "failpoint_file: accepted in mode dev only"),
        ("KHALA_RUNTIME_ADMIN_TOKEN", "fifteen-bytes-x", "admin_token: expected at least 16 bytes"),
        ("KHALA_RUNTIME_CORS_ORIGINS", "https://a.example/", "cors_origins: 'https://a.example/'"),
        ("KHALA_RUNTIME_TRUSTED_PROXIES", "proxy.example", "trusted_proxies: 'proxy.example'"),
        ("KHALA_RUNTIME_DATABASE_STATEMENT_TIMEOUT_MS", "99", "database_statement_timeout_ms"),
        ("KHALA_RUNTIME_DATABASE_ACQUIRE_TIMEOUT_MS", "60001", "database_acquire_timeout_ms"),
    ],
)
def test_refusals(variable: str, value: str, named: str) -> None:
    """Each wrong value is named by its key; secrets are not repeated."""
    with pytest.raises(ConfigRefused) as refused:
        load(**{variable: value})
    assert any(named in error for error in refused.value.errors)
    if variable.endswith(("CREDENTIAL", "KEY", "ADMIN_TOKEN")):
        assert value not in str(refused.value)


def test_mode_dev() -> None:
    """Failpoints are a matter of mode dev, which is not the default."""
    assert (load().mode, load().is_dev, load().admin_token) == ("production", False, None)
    config = load(
        KHALA_RUNTIME_MODE="dev",
        KHALA_RUNTIME_FAILPOINTS="runtime.committed=kill@3",
        KHALA_RUNTIME_FAILPOINT_FILE="/tmp/hits",
        KHALA_RUNTIME_ADMIN_TOKEN="sixteen-bytes-xx",
    )
    assert config.is_dev
    assert config.admin_token == Secret("sixteen-bytes-xx")
    with pytest.raises(ConfigRefused, match="is not a failpoint"):
        load(KHALA_RUNTIME_MODE="dev", KHALA_RUNTIME_FAILPOINTS="runtime.nowhere=kill")


def test_everything_required_is_named_at_once() -> None:
    """Without any configuration every required key is reported, not only the first."""
    with pytest.raises(ConfigRefused) as refused:
        load_config(RuntimeConfig, section=SECTION, environ={})
    named = {error.partition(":")[0] for error in refused.value.errors}
    assert named == {
        "runtime.database_dsn",
        "runtime.control_url",
        "runtime.service_credential",
        "runtime.control_credential",
        "runtime.fanout_key",
    }


def test_every_key_is_explained() -> None:
    """`khala check-config --print-defaults` has a sentence for each key, and secrets are marked."""
    fields = list(describe_config(RuntimeConfig, SECTION))
    assert all(field.doc for field in fields)
    secrets = {field.name for field in fields if field.is_secret}
    assert "runtime.database_dsn" in secrets
    assert "runtime.fanout_key" in secrets
    assert "secret" not in repr(load())
    assert repr(Secret("x")) == "***"
