"""The suite of providers on programs that others wrote: a certified OpenID Connect provider, the emulator of WorkOS.

    mkdir /tmp/providers && cd /tmp/providers && npm install oidc-provider workos
    python -m tests.integration.control.real_providers --node-modules /tmp/providers/node_modules

Not part of the tests: it needs Node, and packages that are not ours. Runs in a network namespace of its own where
the kernel allows that, so that nothing it starts can talk to anybody else. Paths of runbooks: sign-in.md.
"""

from __future__ import annotations

import argparse
import html.parser
import os
import shutil
import subprocess
import sys
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urljoin

import attrs
import httpx
import pytest
import trio

from khala_service.config import Secret
from tests.integration.control.rig import free_port, make_config, refusal, running_control
from tests.integration.control.sign_in_suite import HTML, Doors, SignInSuite, session_count

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from control.adapters.configuration import ControlConfig
    from tests.postgres_cluster import Database

MODULES: Final = "KHALA_TEST_NODE_MODULES"
PROGRAMS: Final = Path(__file__).parent / "providers"
START_S: Final = 30.0
# Pages between the authorisation request and the callback: log in, consent, and a redirect at each.
STEPS_MAX: Final = 12
EMAIL: Final = "ann@example.org"


class _Form(html.parser.HTMLParser):
    """The one form of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take the form's address and its fields."""
        named = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.action = named.get("action", "")
        elif tag == "input" and "name" in named:
            self.fields[named["name"]] = named.get("value", "")


@attrs.define
class PersonsDoors(Doors):
    """At a provider with pages: somebody fills them in."""

    async def sign_in_at_provider(self, url: str) -> str:
        """Log in and consent."""
        answer = await self.browser.get(url, headers=HTML)
        for _ in range(STEPS_MAX):
            if answer.is_redirect:
                url = urljoin(str(answer.url), answer.headers["Location"])
                if url.startswith(f"{self.origin}/api/auth/callback"):
                    return url
                answer = await self.browser.get(url, headers=HTML)
                continue
            assert answer.is_success, answer.text
            form = _Form()
            form.feed(answer.text)
            fields = dict(form.fields)
            fields |= {name: self.login for name in ("login", "password") if name in fields}
            answer = await self.browser.post(urljoin(str(answer.url), form.action), data=fields)
        raise AssertionError(f"no callback after {STEPS_MAX} steps: {answer.url}")


@asynccontextmanager
async def node_program(name: str, *arguments: str) -> AsyncIterator[str]:
    """Run one of the programs for the block; yield what it said when it was ready."""
    command = ["node", str(PROGRAMS / name), os.environ[MODULES], *arguments]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(partial(trio.run_process, command, stdout=subprocess.PIPE, check=False))
        assert process.stdout is not None
        said = b""
        with trio.fail_after(START_S):
            while not said.endswith(b"\n"):
                received = await process.stdout.receive_some()
                assert received, f"{name} ended: {said!r}"
                said += received
        yield said.decode().strip()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_doors(config: ControlConfig, database: Database, **said: Any) -> AsyncIterator[Doors]:
    """Run control with the provider that the configuration names."""
    async with (
        running_control(config, database) as control,
        httpx.AsyncClient(base_url=config.origin, trust_env=False, timeout=20) as browser,
    ):
        yield PersonsDoors(control, browser, config.origin, **said)


class TestCertifiedProvider(SignInSuite):
    """oidc-provider, as a public client and as one with a secret."""

    @pytest.fixture(params=["public", "secret"])
    async def doors(self, request: Any, control_database: Database, tmp_path: Path) -> AsyncIterator[Doors]:
        """Open them."""
        config, port = make_config(control_database, tmp_path), free_port()
        secret = Secret("a-secret-of-the-tests-alone-0123456789") if request.param == "secret" else None
        config = attrs.evolve(
            config,
            identity_provider="oidc",
            oidc_issuer=f"http://127.0.0.1:{port}",
            oidc_client_id="khala-test",
            oidc_client_secret=secret,
        )
        callback = f"{config.origin}/api/auth/callback"
        async with (
            node_program("oidc_provider.mjs", str(port), callback, request.param),
            open_doors(config, control_database) as doors,
        ):
            yield doors


async def test_a_secret_that_the_provider_does_not_know(control_database: Database, tmp_path: Path) -> None:
    """Our own mistake, not the person's: unavailable, and no session."""
    port = free_port()
    config = attrs.evolve(
        make_config(control_database, tmp_path),
        identity_provider="oidc",
        oidc_issuer=f"http://127.0.0.1:{port}",
        oidc_client_id="khala-test",
        oidc_client_secret=Secret("another secret"),
    )
    callback = f"{config.origin}/api/auth/callback"
    async with (
        node_program("oidc_provider.mjs", str(port), callback, "secret"),
        open_doors(config, control_database) as doors,
    ):
        assert refusal(await doors.sign_in()) == (503, "unavailable")
        assert await session_count(doors) == 0


class TestWorkosEmulator(SignInSuite):
    """The vendor's own."""

    @pytest.fixture
    async def doors(self, control_database: Database, tmp_path: Path) -> AsyncIterator[Doors]:
        """Open them."""
        port = free_port()
        async with node_program("workos_emulator.mjs", str(port), EMAIL) as said:
            _, subject, api_key = said.split()
            config = attrs.evolve(
                make_config(control_database, tmp_path),
                identity_provider="workos",
                workos_client_id="client_01TEST",
                workos_api_key=Secret(api_key),
                workos_base_url=f"http://localhost:{port}",
            )
            async with open_doors(config, control_database, login=EMAIL, subject=subject) as doors:
                yield doors


def main() -> int:
    """Run the suite, in a namespace without a network if there can be one; return pytest's status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--node-modules", type=Path, required=True, help="where npm installed the packages")
    parser.add_argument("pytest", nargs="*", help="more arguments for pytest")
    options = parser.parse_args()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, *options.pytest]
    environment = {**os.environ, MODULES: str(options.node_modules.resolve())}
    if shutil.which("unshare") and shutil.which("ip"):
        probe = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
        if probe.returncode == 0:
            command = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]
    sys.stdout.write(f"network namespace of its own: {command[0] == 'unshare'}\n")
    sys.stdout.flush()
    return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
