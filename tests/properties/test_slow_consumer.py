"""Who may be released at all, whatever a client and its topic do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from khala.core.slow_consumer import Progress, SlowConsumer, SlowConsumerAction, SlowConsumerPolicy

WINDOW_S = 10.0
POLICY = SlowConsumerPolicy(2.0, 30.0, WINDOW_S, is_disconnecting=False)
# One look: seconds since the last one, frames the topic got, and how many of the unsent ones were taken.
LOOKS = st.lists(
    st.tuples(st.sampled_from([0.25, 0.5, 1.0, 3.0]), st.integers(0, 20), st.floats(0, 25)), max_size=200
)


@given(LOOKS, st.integers(0, 500))
def test_only_the_slow_are_released(looks: list[tuple[float, int, float]], behind: int) -> None:
    """A release means: old enough, told before, and fewer taken than grown over a window of 10 s at least."""
    slow = SlowConsumer(POLICY, backlogged_since=0.0)
    now, sent, head = 0.0, 0.0, 1 + behind
    # (time, sent, head) of every look; appended_at of every frame.
    seen = [(now, sent, head)]
    appended_at = [0.0] * (head + 1)
    steps: list[SlowConsumerAction] = []
    for wait_s, grown, taken in looks:
        now += wait_s
        head += grown
        appended_at += [now] * grown
        sent = min(sent + taken, head - 0.5)
        seen.append((now, sent, head))
        unsent_since = appended_at[int(sent) + 1]
        action = slow.judge(Progress(sent, head, unsent_since), now)
        if action is None:
            continue
        steps.append(action)
        if action is SlowConsumerAction.RELEASE:
            assert now - unsent_since > POLICY.release_after_s
            assert steps[0] is SlowConsumerAction.THROTTLE
            slower = [
                at
                for at, sent_then, head_then in seen
                if now - at >= WINDOW_S and sent - sent_then < head - head_then
            ]
            assert slower
            return


@given(LOOKS)
def test_whoever_keeps_up_stays(looks: list[tuple[float, int, float]]) -> None:
    """At least as many frames as the topic gets, at every look: never released, however far behind."""
    slow = SlowConsumer(POLICY, backlogged_since=0.0)
    now, sent, head = 0.0, 0.0, 100_000
    for wait_s, grown, extra in looks:
        now, head, sent = now + wait_s, head + grown, sent + grown + extra
        assert slow.judge(Progress(sent, head, unsent_since=-1_000.0), now) is not SlowConsumerAction.RELEASE
