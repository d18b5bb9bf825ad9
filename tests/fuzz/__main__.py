"""Fuzzes every target by coverage, with atheris, for a number of inputs each; counts them.

    python -m tests.fuzz [--inputs N] [--connections N] [--target NAME ...] [--report DIR]

Needs ``atheris`` (``pip install -e '.[fuzz]'``). Each target runs in a process of its own, from the inputs of
seeds.py. An input that breaks a rule ends its target, is kept beside the report, and makes the exit status 1.
"""

from __future__ import annotations

import argparse
import platform
import re
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import attrs
import click

CONNECTIONS: Final = ("framing", "request")
_COVERED: Final = re.compile(r"cov: (\d+)")
_PEAK: Final = re.compile(r"stat::peak_rss_mb:\s+(\d+)")
_RUNS: Final = re.compile(r"stat::number_of_executed_units:\s+(\d+)")


@attrs.frozen
class Outcome:
    """One target's run."""

    target: str
    inputs: int
    seconds: float
    covered: int
    peak_mb: int
    # Empty: no rule was broken.
    failure: str


def run_target(name: str, inputs: int, folder: Path) -> Outcome:
    """Fuzz one target in a child process."""
    from tests.fuzz.seeds import SEEDS

    corpus = folder / name
    corpus.mkdir(parents=True)
    for number, seed in enumerate(SEEDS[name]):
        (corpus / f"seed-{number}").write_bytes(seed)
    command = [
        sys.executable, "-m", "tests.fuzz.run_target", name, str(corpus), f"-runs={inputs}", "-max_len=4096",
        "-seed=1", "-print_final_stats=1", "-rss_limit_mb=2048", f"-artifact_prefix={folder}/{name}-",
    ]  # fmt: skip
    began = time.monotonic()
    ran = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    said = ran.stderr + ran.stdout
    counted, covered, peak = _RUNS.findall(said), _COVERED.findall(said), _PEAK.findall(said)
    return Outcome(
        target=name,
        inputs=int(counted[-1]) if counted else 0,
        seconds=time.monotonic() - began,
        covered=int(covered[-1]) if covered else 0,
        peak_mb=int(peak[-1]) if peak else 0,
        failure="" if ran.returncode == 0 else said[-3_000:],
    )


def render(outcomes: list[Outcome], command: str) -> str:
    """Return the report of what this command did."""
    rows = [
        f"| {o.target} | {o.inputs:,} | {o.seconds:.0f} | {o.covered} | {o.peak_mb} | {'broken' if o.failure else 'held'} |"
        for o in outcomes
    ]
    return "\n".join(
        (
            "# Fuzzing by coverage",
            "",
            f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC, `{command}`, Python {platform.python_version()}, libFuzzer through atheris,",
            "from the inputs of `tests/fuzz/seeds.py`. What must hold for each target is in `tests/fuzz/targets.py`;",
            "`framing` and `request` run whole connections through both WebSocket adapters for each input.",
            "",
            f"Inputs in all: {sum(o.inputs for o in outcomes):,}.",
            "",
            "| target | inputs | seconds | edges covered | peak memory, MB | rules |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
        )
    )


def main() -> int:
    """Run the command line; return the exit status."""
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--inputs", type=int, default=500_000, help="for each decoder and the protocol")
    parser.add_argument(
        "--connections", type=int, default=20_000, help="for each target that runs connections"
    )
    parser.add_argument("--target", choices=list(TARGETS), action="append")
    parser.add_argument("--report", type=Path, help="folder for <date>-fuzz.md")
    arguments = parser.parse_args()
    if find_spec("atheris") is None:
        click.echo("atheris is not installed: pip install -e '.[fuzz]'", err=True)
        return 1
    folder = Path(tempfile.mkdtemp(prefix="khala-fuzz-"))
    outcomes = []
    for name in arguments.target or TARGETS:
        inputs = arguments.connections if name in CONNECTIONS else arguments.inputs
        outcome = run_target(name, inputs, folder)
        outcomes.append(outcome)
        click.echo(
            f"{name}: {outcome.inputs:,} inputs in {outcome.seconds:.0f} s{' BROKEN' if outcome.failure else ''}"
        )
        if outcome.failure:
            click.echo(f"{outcome.failure}\ninputs are kept in {folder}", err=True)
    command = f"python -m tests.fuzz --inputs {arguments.inputs} --connections {arguments.connections}"
    text = render(outcomes, command)
    click.echo(text)
    if arguments.report is not None:
        arguments.report.mkdir(parents=True, exist_ok=True)
        (arguments.report / time.strftime("%Y-%m-%d-fuzz.md", time.gmtime())).write_text(text)
    return 1 if any(outcome.failure or not outcome.inputs for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
