"""Runs the Autobahn case classes (all but compression, which is never agreed) on both WebSocket adapters.

    python -m tests.autobahn [--adapter websockets|trio_websocket] [--report DIR] [--work DIR]

Needs a package registry, once per work folder: the suite is downloaded, its cases are converted by ``2to3``
(Python 3.12 and older have it), and they run in an environment of their own. Exit status 1 if a case failed.
What the test command runs without any of that is in tests/actors/khala/framing_cases.py.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
from importlib.metadata import version
from pathlib import Path
from typing import Final, get_args

import click
import trio

from khala.adapters.websocket_adapters import WebSocketAdapter
from khala.core.limits import NodeLimits
from tests.echo_node import EchoNode, open_echo_node

SUITE: Final = "autobahntestsuite==25.10.1"
# 16 MiB messages are cases of class 9.
LIMITS: Final = NodeLimits(inbound_message_max_bytes=16 << 20, write_stall_timeout_s=120)
PASSED: Final = frozenset({"OK", "NON-STRICT", "INFORMATIONAL"})
Results = dict[str, dict[str, str]]


def prepare(work: Path) -> Path:
    """Make environment and converted cases in ``work``, unless they are there; return the interpreter."""
    python = work / "environment" / "bin" / "python"
    if (work / "autobahn_cases" / "__init__.py").exists() and python.exists():
        return python
    work.mkdir(parents=True, exist_ok=True)
    venv.create(work / "environment", with_pip=True)
    pip = [str(python), "-m", "pip", "-q"]
    subprocess.run([*pip, "install", "autobahn", "twisted"], check=True)
    subprocess.run(
        [*pip, "download", "--no-deps", "--no-binary", ":all:", "-d", str(work), SUITE],
        check=True,
    )
    archive = next(work.glob("autobahntestsuite-*.tar.gz"))
    with tarfile.open(archive) as suite:
        suite.extractall(work, filter="data")
    cases = work / archive.name.removesuffix(".tar.gz") / "autobahntestsuite" / "case"
    cases.rename(work / "autobahn_cases")
    _convert(work / "autobahn_cases")
    return python


def _convert(cases: Path) -> None:
    """Turn the case classes into Python 3, without those of compression."""
    for path in [*cases.glob("case12*.py"), *cases.glob("case13*.py"), *cases.glob("case9_9_1.py")]:
        path.unlink()
    index = cases / "__init__.py"
    kept = [
        line
        for line in index.read_text().splitlines()
        if "ase12_" not in line
        and "Case12_" not in line
        and "Case13_" not in line
        and "case9_9_1" not in line
    ]
    index.write_text("\n".join(kept) + "\n")
    subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "lib2to3", "-w", "-n", "--no-diffs", str(cases)],
        check=True,
        capture_output=True,
    )
    for path in cases.glob("*.py"):
        # A literal is bytes to these cases: one character for each. Classes made by type() say "object" first,
        # which Python 3 refuses. The one division is of whole numbers.
        text = path.read_bytes().decode("latin-1")
        text = text.replace("(object, Case, )", "(Case, )").replace(
            "/ self.p.autoFragmentSize", "// self.p.autoFragmentSize"
        )
        path.write_text(text, encoding="utf-8")


async def run_cases(adapter: WebSocketAdapter, python: Path, work: Path) -> tuple[Results, int]:
    """Return the result of each case, and how many connections crashed."""
    node = EchoNode(adapter, LIMITS)
    result = work / f"{adapter}.json"
    client = Path(__file__).with_name("case_client") / "__main__.py"
    async with open_echo_node(node) as port:
        await trio.run_process([str(python), str(client), str(work), str(port), str(result)])
    return json.loads(result.read_text()), len(node.crash_log.crashes)


def render(adapter: str, results: Results, crashes: int) -> tuple[str, bool]:
    """Return a summary in markdown, and whether nothing failed."""
    failed = {
        name: result
        for name, result in results.items()
        if result["behavior"] not in PASSED or result["close"] not in {"OK", "INFORMATIONAL"}
    }
    counts: dict[str, int] = {}
    for result in results.values():
        counts[result["behavior"]] = counts.get(result["behavior"], 0) + 1
    said = ", ".join(f"{count} {behavior}" for behavior, count in sorted(counts.items()))
    lines = [f"| {adapter} | {len(results)} | {said} | {len(failed)} | {crashes} |"]
    lines += [
        f"|   {name} | | {r['behavior']} / {r['close']}: {r['result']} {r['close_result']} | | |"
        for name, r in failed.items()
    ]
    return "\n".join(lines), not failed and not crashes


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.autobahn")
    parser.add_argument("--adapter", choices=get_args(WebSocketAdapter), action="append")
    parser.add_argument("--report", type=Path, help="folder for <date>-autobahn.md")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "khala-autobahn")
    arguments = parser.parse_args()
    python = prepare(arguments.work)
    rows, passed = [], True
    for adapter in arguments.adapter or get_args(WebSocketAdapter):
        results, crashes = trio.run(run_cases, adapter, python, arguments.work)
        row, is_clean = render(adapter, results, crashes)
        rows.append(row)
        passed = passed and is_clean and len(results) > 200
    text = "\n".join(
        (
            "# Autobahn case classes",
            "",
            f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC, `python -m tests.autobahn`: cases of {SUITE}, all but compression (classes 12 and 13),",
            "converted to Python 3, against the node's handshake, WebSocket adapter, control lane, writer and sockets,",
            "through an echo that exists in tests only. `inbound_message_max_bytes` is raised to 16 MiB for class 9.",
            f"Python {platform.python_version()}, websockets {version('websockets')},",
            f"trio-websocket {version('trio-websocket')}, wsproto {version('wsproto')}.",
            "",
            "NON-STRICT: allowed by the RFC, though the suite prefers something else.",
            "",
            "| adapter | cases | results | failed | crashed connections |",
            "|---|---|---|---|---|",
            *rows,
            "",
        )
    )
    click.echo(text)
    if arguments.report is not None:
        arguments.report.mkdir(parents=True, exist_ok=True)
        (arguments.report / time.strftime("%Y-%m-%d-autobahn.md", time.gmtime())).write_text(text)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
