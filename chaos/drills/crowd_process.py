"""The crowd, as a child process: who is live, and what became of its connections."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import attrs

from chaos.checker import Violation, check_history, read_lines
from chaos.drills.client_process import ClientProcess
from chaos.drills.client_setup import CrowdSetup
from chaos.drills.crowd import history_file
from chaos.drills.json_lines import JsonLineReader

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from chaos.drills.committed import Committed

__all__ = ["CrowdProcess"]


@attrs.define(eq=False)
class CrowdProcess(ClientProcess):
    """A crowd, and what it has told so far.

    Attributes:
        notices: Everything, in its order.
        is_live: By client: whether it follows its topic now.
        node_of: By client: the node that it was connected to last.
    """

    notices: list[Mapping[str, Any]] = attrs.field(factory=list, init=False, repr=False)
    is_live: dict[int, bool] = attrs.field(factory=dict, init=False, repr=False)
    node_of: dict[int, str] = attrs.field(factory=dict, init=False, repr=False)
    _lines: JsonLineReader = attrs.field(init=False, repr=False)
    _histories: dict[int, JsonLineReader] = attrs.field(factory=dict, init=False, repr=False)
    _positions: dict[int, int] = attrs.field(factory=dict, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        """Begin to read its file."""
        self._lines = JsonLineReader(self.setup.file("notices.jsonl"))

    @property
    def clients(self) -> int:
        """How many clients it has."""
        assert isinstance(self.setup, CrowdSetup)
        return self.setup.clients

    def look(self) -> None:
        """Take what it has written since the last look."""
        for line in self._lines.read_new():
            self.notices.append(line)
            match line["notice"]:
                case "live":
                    self.is_live[line["client"]] = True
                case "disconnected":
                    self.is_live[line["client"]] = False
                case "connected":
                    self.node_of[line["client"]] = line["node_id"]
                case _:
                    pass

    def are_all_live(self) -> bool:
        """Whether every client follows its topic now."""
        self.look()
        self.check_running()
        return sum(self.is_live.values()) == self.clients

    def of(self, notice: str) -> list[Mapping[str, Any]]:
        """Return the notices of a kind."""
        self.look()
        return [line for line in self.notices if line["notice"] == notice]

    def count_by_client(self, notice: str) -> Counter[int]:
        """Return how often each client had a notice of a kind."""
        return Counter(line["client"] for line in self.of(notice))

    def behind(self, committed: Committed) -> int:
        """Return how many clients have not applied the newest event of their topics."""
        return sum(
            self._last_seq(number) < committed.journal.topics[self._topic_of(number)][-1].seq
            for number in range(self.clients)
        )

    def check_histories(self, committed: Committed) -> list[Violation]:
        """Return what is wrong with what the clients have applied, each from the beginning to the head.

        Raises:
            BrokenTranscriptError: A file is not what it should be.
        """
        violations: list[Violation] = []
        for number in range(self.clients):
            lines = list(read_lines(self.setup.file(history_file(number))))
            violations += check_history(
                lines,
                committed.journal,
                source=f"{self.setup.name}-{number}",
                is_complete=True,
                after_seq=0,
                topics=[self._topic_of(number)],
            )
        return violations

    def received(self) -> Iterator[tuple[str, int, float]]:
        """Yield topic, seq and Unix time of everything that was applied."""
        for number in range(self.clients):
            reader = JsonLineReader(self.setup.file(history_file(number)))
            for line in reader.read_new():
                yield line["topic"], int(line["seq"]), line["at_s"]

    def absences_s(self) -> list[float]:
        """Return how long clients were not live, for each time that they were not."""
        gone_at: dict[int, float] = {}
        absences: list[float] = []
        for line in self.notices:
            if line["notice"] == "disconnected":
                gone_at.setdefault(line["client"], line["at_s"])
            elif line["notice"] == "live" and line["client"] in gone_at:
                absences.append(line["at_s"] - gone_at.pop(line["client"]))
        return absences

    def connects_per_s(self, *, since_s: float) -> Mapping[str, Counter[int]]:
        """Return by node how many were welcomed in each second of Unix time."""
        seconds: dict[str, Counter[int]] = defaultdict(Counter)
        for line in self.of("connected"):
            if line["at_s"] >= since_s:
                seconds[line["node_id"]][int(line["at_s"])] += 1
        return seconds

    def _last_seq(self, number: int) -> int:
        lines = self._histories.setdefault(
            number, JsonLineReader(self.setup.file(history_file(number)))
        ).read_new()
        if lines:
            self._positions[number] = int(lines[-1]["seq"])
        return self._positions.get(number, 0)

    def _topic_of(self, number: int) -> str:
        return self.setup.topics[number % len(self.setup.topics)]
