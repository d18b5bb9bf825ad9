"""Walls that no import contract can express: top level, words, file names, channels, drivers of the database.

Each function returns its problems with file and line. Exceptions are named here with their reason, next to the
rule they break; a name that matches nothing any more is itself a problem.
"""

import ast
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tests.ci.checks import CheckContext, Problems
from tests.ci.tree import module_name, python_files, tree_files

TOP_LEVEL = frozenset(
    [
        "khala",
        "control",
        "runtime",
        "fanout_drivers",
        "proto",
        "runbooks",
        "chaos",
        "tests",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "NOTICE",
    ]
)
TOP_LEVEL_OPTIONAL = frozenset({"Makefile"})
VAGUE_NAMES = frozenset(
    {"utils.py", "util.py", "helpers.py", "helper.py", "common.py", "misc.py", "manager.py"}
)
MODULE_LINES_MAX = 600
# WebSocket is the only live lane. These files name the others in order to refuse them.
OTHER_LANES = re.compile("text/event-" + r"stream|\bEvent" + r"Source\b|\bsse_" + "response")
OTHER_LANES_ALLOWED: dict[str, str] = {}
FOREIGN_HEADER = re.compile(
    r"Copyright\s+(\(c\)|©|\d{4})|All rights reserved|Licensed under the|SPDX-License-Identifier",
    re.IGNORECASE,
)
FOREIGN_HEADER_ALLOWED = {
    "LICENSE": "the licence itself",
    "NOTICE": "our own notice",
    "tests/ci/boundaries.py": "names what it looks for",
    "tests/unit/ci/test_boundaries.py": "plants what it looks for",
}
ASYNCIO_MODULES = frozenset({"asyncio", "asyncpg", "nats", "trio_asyncio"})
ASYNCIO_PLACES = re.compile(
    r"/adapters/postgres(_\w+)?(/|\.py$)|^khala/adapters/embedded_postgres\w*\.py$"
    r"|^khala/service/khala_service/adapters/asyncio_bridge\.py$|^fanout_drivers/nats_(client|connection)\.py$"
    r"|^khala/client/khala_client/asyncio/"
    r"|^(tests|chaos|runbooks/recipes)/"
)
CHANNELS = frozenset({"open_memory_channel", "create_memory_object_stream"})
NONDETERMINISM = frozenset({"random", "secrets", "uuid", "time"})
NONDETERMINISM_LAYERS = re.compile(
    r"^(khala|runtime|control)\.(core|actors|ports)\b|^khala_client\.core\b|^khala_contracts\b"
)


def find_top_level_strangers(context: CheckContext) -> Problems:
    """The top level is exactly the agreed list, plus dot-files and at most a Makefile."""
    found = {name.split("/")[0] for name in tree_files(context.root)}
    found = {name for name in found if not name.startswith(".")}
    problems = [
        f"{name}:1: not part of the agreed top level"
        for name in sorted(found - TOP_LEVEL - TOP_LEVEL_OPTIONAL)
    ]
    return problems + [f"{name}:1: missing from the top level" for name in sorted(TOP_LEVEL - found)]


def find_vague_modules(context: CheckContext) -> Problems:
    """A module has a name that says what it is and, outside the tests, one idea."""
    problems = []
    for name in python_files(context.root):
        if Path(name).name in VAGUE_NAMES:
            problems.append(f"{name}:1: a module with a name that says nothing")
        lines = len(_read(context, name).splitlines())
        if lines > MODULE_LINES_MAX and not name.startswith("tests/"):
            problems.append(f"{name}:{lines}: over {MODULE_LINES_MAX} lines; look for the second idea")
    return problems


def find_other_live_lanes(context: CheckContext) -> Problems:
    """No server-sent events, in any file, but where they are refused."""
    return _find_words(context, OTHER_LANES, OTHER_LANES_ALLOWED, "a live lane beside the WebSocket")


def find_foreign_headers(context: CheckContext) -> Problems:
    """No file carries the header of somebody else's code."""
    return _find_words(context, FOREIGN_HEADER, FOREIGN_HEADER_ALLOWED, "the header of copied code")


def find_unbounded_channels(context: CheckContext) -> Problems:
    """No channel is given infinity, trio's or anyio's."""
    problems = []
    for name, node in _calls(context):
        function = node.func.value if isinstance(node.func, ast.Subscript) else node.func
        called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        if called in CHANNELS and any(_is_infinite(argument) for argument in node.args):
            problems.append(
                f"{name}:{node.lineno}: an unbounded channel; give it a bound and say what is full"
            )
    return problems


def find_asyncio_outside_adapters(context: CheckContext) -> Problems:
    """Asyncio and what needs it: in the postgres adapters, the connection to NATS, the client's asyncio front."""
    return [
        f"{name}:{line}: imports {module}; asyncio stays in adapters/postgres*, nats_connection and the client's"
        " asyncio front"
        for name, line, module in _imports(context)
        if module.split(".")[0] in ASYNCIO_MODULES and not ASYNCIO_PLACES.search(name)
    ]


def find_hidden_nondeterminism(context: CheckContext) -> Problems:
    """Nothing above a port reads a clock, draws randomness or makes an identifier by itself."""
    return [
        f"{name}:{line}: imports {module}; take it through a port"
        for name, line, module in _imports(context)
        if module.split(".")[0] in NONDETERMINISM and NONDETERMINISM_LAYERS.search(module_name(name))
    ]


def _find_words(
    context: CheckContext, pattern: re.Pattern[str], allowed: dict[str, str], what: str
) -> Problems:
    problems = []
    seen = set()
    for name in tree_files(context.root):
        text = (context.root / name).read_bytes().decode("utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), start=1):
            if not pattern.search(line):
                continue
            seen.add(name)
            if name not in allowed:
                problems.append(f"{name}:{number}: {what}: {line.strip()[:80]}")
    stale = [name for name in allowed if name not in seen and (context.root / name).exists()]
    return problems + [f"{name}:1: is excepted ({allowed[name]}) but has nothing to except" for name in stale]


def _read(context: CheckContext, name: str) -> str:
    return (context.root / name).read_text(encoding="utf-8")


def _trees(context: CheckContext) -> Iterator[tuple[str, ast.Module]]:
    for name in python_files(context.root):
        # A file that does not parse is named by the lane compile.
        with suppress(SyntaxError):
            yield name, ast.parse(_read(context, name), name)


def _calls(context: CheckContext) -> Iterator[tuple[str, ast.Call]]:
    for name, tree in _trees(context):
        yield from ((name, node) for node in ast.walk(tree) if isinstance(node, ast.Call))


def _imports(context: CheckContext) -> Iterator[tuple[str, int, str]]:
    for name, tree in _trees(context):
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from ((name, node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                yield name, node.lineno, node.module


def _is_infinite(node: ast.expr) -> bool:
    text = ast.unparse(node)
    return text in {"math.inf", "inf"} or re.fullmatch(r"float\(['\"]\+?inf(inity)?['\"]\)", text) is not None
