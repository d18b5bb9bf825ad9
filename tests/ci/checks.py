"""The two values everything here is made of: a check, and what it found.

A check takes a `CheckContext` and returns its problems, each one line of the form ``file:line: what is wrong``.
No problems means passed. Checks never print and never raise for what they look for.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import attrs

Problems = list[str]
TestOutcome = Literal["passed", "failed", "skipped"]


@attrs.frozen
class CheckContext:
    """What a check may look at.

    Attributes:
        root: Top of the tree that is judged; never the current directory.
        outcomes: Test node id to outcome of the lanes that ran before, if this build runs every lane; None
            in a build that runs some of them, in which a test's absence proves nothing.
        write: Generated parts of documents are written instead of compared.
    """

    root: Path
    outcomes: Mapping[str, TestOutcome] | None = None
    write: bool = False


@attrs.frozen
class Check:
    """A named gate; `--only NAME` selects it within its lane."""

    name: str
    run: Callable[[CheckContext], Problems]
