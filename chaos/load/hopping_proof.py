"""The proof file of ``khala load hopping``: which event is where, and who holds which run of them.

One JSON object a line:

    {"journal": topic, "seq": "1", "hash": chain in hexadecimal}                      every event, as PostgreSQL has it
    {"client": name, "topic": .., "from_seq": "1", "through_seq": .., "hash": ..}     what a client applied, contiguous

The hash is that of the chain: it seals the topic up to its seq. So whoever holds the journal's hash at
``through_seq`` has applied exactly that history, and a client's line can be checked against the journal's alone.
"""

from __future__ import annotations

import json
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from chaos.checker import History, Journal, Line

__all__ = ["proof_lines", "write_proof"]


def write_proof(file: Path, journal: Journal, histories: Iterable[History]) -> None:
    """Write the file."""
    with file.open("w", encoding="ascii") as output:
        output.writelines(line + "\n" for line in proof_lines(journal, histories))


def proof_lines(journal: Journal, histories: Iterable[History]) -> Iterator[str]:
    """Return the lines, the journal's first."""
    for topic, lines in journal.topics.items():
        for line in lines:
            yield json.dumps({"journal": topic, "seq": str(line.seq), "hash": line.chain.hex()})
    for history in histories:
        for topic, held in groupby(
            sorted(history.lines, key=lambda line: line.topic), lambda line: line.topic
        ):
            for run in _contiguous(list(held)):
                yield json.dumps(
                    {
                        "client": history.source,
                        "topic": topic,
                        "from_seq": str(run[0].seq),
                        "through_seq": str(run[-1].seq),
                        "hash": run[-1].chain.hex(),
                    }
                )


def _contiguous(lines: Sequence[Line]) -> Iterator[list[Line]]:
    """Return the runs in the order of applying: more than one only where a promise was broken."""
    run: list[Line] = []
    for line in lines:
        if run and line.seq != run[-1].seq + 1:
            yield run
            run = []
        run.append(line)
    if run:
        yield run
