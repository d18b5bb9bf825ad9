"""Extracts what README tells to type: each fenced ``sh`` block, and the ``python`` programs between them.

The first block starts the system, the second runs the tests; `.ci/run` repeats the second word for word. All
others are one session in a second terminal, in order.
"""

from typing import Literal, cast

import attrs

from tests.ci.markdown import fenced_blocks


@attrs.frozen
class ReadmeCommand:
    """One block and the line of README on which it begins."""

    line: int
    language: Literal["sh", "python"]
    text: str


def extract_commands(readme: str) -> list[ReadmeCommand]:
    """Return every ``sh`` and ``python`` block of README in order."""
    return [
        ReadmeCommand(block.line, cast("Literal['sh', 'python']", block.language), block.text)
        for block in fenced_blocks(readme)
        if block.language in {"sh", "python"}
    ]


def start_command(readme: str) -> ReadmeCommand:
    """Return the command that installs and starts the system: README's first."""
    return extract_commands(readme)[0]


def all_tests_command(readme: str) -> ReadmeCommand:
    """Return the command that installs and runs every test: README's second."""
    return extract_commands(readme)[1]


def session_script(readme: str) -> str:
    """Return everything else as one shell script that stops at the first failure and says where it is.

    A program is handed to ``python`` on standard input, as if it had been typed.
    """
    lines = ["set -euo pipefail"]
    for command in extract_commands(readme)[2:]:
        lines.append(f"echo '--- README.md:{command.line}'")
        if command.language == "python":
            lines += ["python - <<'README_PROGRAM'", command.text, "README_PROGRAM"]
        else:
            lines.append(command.text)
    return "\n".join(lines) + "\n"
