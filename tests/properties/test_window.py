"""The window against a naive model: a list of everything ever appended, and slices of it.

Mutants that this machine has killed (each was tried): ``base_seq`` or ``covers`` off by one; trimming by
frames or by bytes one frame late or early; not moving ``_start_total`` on a trim; rebasing ``_ends``;
``choose_end`` without ``before``; an alignment that rounds up, ignores ``first_seq`` or the head. Keeping
``_start_total`` over a reset survives: totals are relative, so it changes nothing.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from khala.core.window import FRAME_OVERHEAD_BYTES, RANGE_ALIGNMENT, Window

SIZES = st.one_of(
    st.lists(st.integers(1, 40), max_size=20),
    # Enough frames to cross the boundaries at which ranges of laggards end.
    st.builds(lambda count, size: [size] * count, st.integers(1, 150), st.integers(1, 20)),
)


class WindowMachine(RuleBasedStateMachine):
    """Every rule does the same to the window and to the model."""

    @initialize(max_frames=st.integers(1, 200), max_bytes=st.integers(1, 6_000))
    def begin(self, max_frames: int, max_bytes: int) -> None:
        """Start empty."""
        self.window = Window(max_frames, max_bytes)
        self.max_frames = max_frames
        self.max_bytes = max_bytes
        # Frames since the last reset, and the seq before the first of them.
        self.log: list[bytes] = []
        self.before = 0
        self.dropped = 0

    @property
    def held(self) -> list[bytes]:
        """The frames that a naive window would hold."""
        held = self.log[self.dropped :]
        while len(held) > self.max_frames or (sum(map(len, held)) > self.max_bytes and len(held) > 1):
            del held[0]
        self.dropped = len(self.log) - len(held)
        return held

    @rule(sizes=SIZES)
    def extend(self, sizes: list[int]) -> None:
        """Append frames, each with its own content."""
        head = self.before + len(self.log)
        entries = [b"%d." % (head + i) + bytes(size) for i, size in enumerate(sizes, start=1)]
        self.log += entries
        self.window.extend(entries, b"c%d" % (head + len(entries)))
        assert self.window.head_chain == b"c%d" % self.window.head_seq

    @rule(count=st.integers(-1, 50))
    def drop(self, count: int) -> None:
        """Make room for other topics."""
        held = self.held
        freed = self.window.drop_oldest(count)
        count = min(max(count, 0), len(held))
        assert freed == sum(map(len, held[:count])) + FRAME_OVERHEAD_BYTES * count
        self.dropped += count

    @rule(head_seq=st.integers(0, 300))
    def reset(self, head_seq: int) -> None:
        """Begin another history."""
        self.window.reset(head_seq, b"r")
        self.log, self.before, self.dropped = [], head_seq, 0

    @precondition(lambda self: self.held)
    @rule(data=st.data(), max_bytes=st.integers(0, 3_000))
    def take_a_range(self, data: st.DataObject, max_bytes: int) -> None:
        """Choose a range like a subscription does and compare its bytes with the model's."""
        held, window = self.held, self.window
        position = data.draw(st.integers(window.base_seq - 1, window.head_seq - 1))
        last_seq = data.draw(st.integers(position + 1, window.head_seq + 5))
        wanted = held[position + 1 - window.base_seq :]
        end = window.choose_end(position, max_bytes=max_bytes, last_seq=last_seq)
        if end is None:
            assert len(wanted[0]) > max_bytes
            return
        assert position < end <= min(last_seq, window.head_seq)
        taken = wanted[: end - position]
        assert window.entries(position, end) == taken
        assert sum(map(len, taken)) <= max_bytes
        limit = min(last_seq, window.head_seq)
        if end == limit:
            return
        # It stopped early: because of the bytes, and then at a boundary if there is one inside.
        fitting = end
        while fitting < limit and sum(map(len, wanted[: fitting + 1 - position])) <= max_bytes:
            fitting += 1
        assert fitting < limit, "a range stops before its limit only for want of bytes"
        # A boundary that leaves less than half of the range is not worth its chunk.
        half = position + (fitting - position) / 2
        boundaries = [s for s in range(position + 1, fitting + 1) if s % RANGE_ALIGNMENT == 0 and s >= half]
        assert end == (boundaries[-1] if boundaries else fitting)

    @invariant()
    def same_as_the_model(self) -> None:
        """INV-3, INV-7: what is held is the tail of the log, within both bounds."""
        held, window = self.held, self.window
        assert window.head_seq == self.before + len(self.log)
        assert len(window) == len(held)
        assert window.base_seq == window.head_seq - len(held) + 1
        assert window.size_bytes == sum(map(len, held))
        assert len(window) <= self.max_frames
        assert window.size_bytes <= self.max_bytes or len(window) == 1
        assert window.entries(window.base_seq - 1, window.head_seq) == held
        assert window.covers(window.base_seq - 1)
        assert not window.covers(window.base_seq - 2)


def test_window_equals_the_model() -> None:
    """INV-3, INV-7: under any appends, trims and resets the window is the bounded tail of its log."""
    run_state_machine_as_test(
        WindowMachine, settings=settings(max_examples=100, stateful_step_count=25, deadline=None)
    )
