"""A scripted agent that writes events of every kind at a steady rate, for the tests of the live page.

khala record --name mend -- python tests/browser/agent.py --events 3000 --rate 100
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

PLAN = (
    ("Reproduce the failure", "The report says that division fails on import. I will run the tests first and read what they say."),
    ("Find the cause", "The traceback ends in the parser, before any test ran. So it is not a wrong result but a file that cannot be read."),
    ("Mend it", "The function's head ends without a colon. Python 3.11 points one column behind it, which is why the report blames the wrong line."),
    ("Check", "All tests again, then the type checker, so that the change is proven and not only plausible."),
)  # fmt: skip
SAID = (
    "The failure comes from `division.py`, line 1: the head of the function has no colon. I have added it, run the "
    "tests twice and the type checker once. Nothing else in the package uses the function before it is imported, "
    "so no caller needs a change."
)
OUTPUT = (
    "collecting ... collected 214 items",
    "tests/test_division.py ....................                    [  9%]",
    "tests/test_fractions.py ..................................     [ 25%]",
    "tests/test_matrix.py ......................................    [ 42%]",
    "tests/test_parser.py ..................................        [ 58%]",
    "tests/test_rounding.py ..............................          [ 72%]",
    "tests/test_series.py .................                         [ 80%]",
    "tests/test_solver.py ...............................           [ 95%]",
    "tests/test_units.py ..........                                 [100%]",
    "=================================== FAILURES ===================================",
    "E   SyntaxError: expected ':' (division.py, line 1)",
)
TRACEBACK = (
    '  File "division.py", line 1\n    def division(a: float, b: float) -> float\n'
    "                                             ^\nSyntaxError: expected ':'"
)


def events() -> Iterator[tuple[str, dict[str, object]]]:
    """Yield kind and data for ever."""
    for turn in count(1):
        title, thought = PLAN[(turn - 1) % len(PLAN)]
        yield "step.started", {"step": str(turn), "title": title}
        yield "thought", {"step": str(turn), "text": thought, "role": "assistant"}
        yield "action", {"step": str(turn), "tool": "pytest", "args": ["-x", "-q", f"--seed={turn}"], "call_id": f"a{turn}"}  # fmt: skip
        for line in OUTPUT:
            yield "output", {"stream": "OUTPUT_STREAM_STDOUT", "text": line}
        yield "observation", {"step": str(turn), "text": f"1 failed, 213 passed in 2.{turn % 90 + 10} s", "call_id": f"a{turn}"}  # fmt: skip
        yield (
            "tool.called",
            {"call_id": f"t{turn}", "tool": "read_file", "args": {"path": "src/division.py", "turn": turn}},
        )
        if turn % 3 == 2:
            yield (
                "tool.returned",
                {"call_id": f"t{turn}", "error": f"turn {turn}: no such file: src/division.py"},
            )
            yield "error", {"type": "SyntaxError", "text": f"{TRACEBACK}  (attempt {turn})"}
        else:
            yield "tool.returned", {"call_id": f"t{turn}", "result": f"def division(a: float, b: float) -> float:\n    return a / b  # {turn}"}  # fmt: skip
        words = SAID.split(" ")
        offset = 0
        for at in range(0, len(words), 3):
            text = " ".join(words[at : at + 3]) + (" " if at + 3 < len(words) else "")
            yield "message.delta", {"message_id": f"m{turn}", "offset": str(offset), "text": text}
            offset += len(text)
        yield "message.done", {"message_id": f"m{turn}", "text": SAID, "role": "assistant"}


def main() -> None:
    """Write events, one a line, spread evenly over time."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, required=True, help="stop after so many")
    parser.add_argument("--until", type=Path, help="stop as soon as this file exists")
    parser.add_argument("--rate", type=float, required=True, help="events a second")
    options = parser.parse_args()
    began = time.monotonic()
    for number, (kind, data) in zip(range(options.events), events(), strict=False):
        if options.until is not None and options.until.exists():
            break
        due = began + number / options.rate
        while (wait := due - time.monotonic()) > 0:
            time.sleep(wait)  # noqa: TID251 - the pace of a program under observation, no synchronisation
        sys.stdout.write(json.dumps({"kind": kind, "data": data}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
