"""One topic on one connection: position, barrier, page."""

from khala.core.pages import Page
from khala.core.subscription import Subscription
from tests.range_source import WindowSource, live_subscription, replaying_subscription
from tests.topic_log import TopicLog


def _source(head: int) -> WindowSource:
    source = WindowSource()
    source.write([1] * head)
    return source


def _page(after_seq: int, count: int) -> Page:
    return Page.from_sizes(
        after_seq, bytes(count), [1] * count, last_chain=b"c", observation=TopicLog().observe()
    )


def _give(subscription: Subscription, page: Page) -> None:
    page.users += 1
    subscription.page = page


def test_a_replay_stops_at_its_barrier() -> None:
    """INV-4: while replaying, frames above through_seq are not to be sent, though the head is higher."""
    subscription = replaying_subscription(_source(10), position=3, through_seq=5)
    assert (subscription.limit_seq, subscription.has_frames) == (5, True)
    subscription.advance(5)
    assert not subscription.has_frames


def test_the_barrier_is_taken_once() -> None:
    """replay_complete is due exactly once, when position reaches through_seq and not one before."""
    subscription = replaying_subscription(_source(10), position=3, through_seq=5)
    assert not subscription.take_barrier()
    subscription.advance(4)
    assert not subscription.take_barrier()
    subscription.advance(5)
    assert subscription.take_barrier()
    assert not subscription.take_barrier()


def test_after_the_barrier_the_head_is_the_limit() -> None:
    """Once live, everything up to the head is to be sent."""
    subscription = live_subscription(_source(10), position=9)
    assert (subscription.limit_seq, subscription.has_frames) == (10, True)
    subscription.advance(10)
    assert not subscription.has_frames


def test_nothing_to_replay() -> None:
    """A subscription that starts at its barrier passes it at once."""
    assert replaying_subscription(_source(5), position=5, through_seq=5).take_barrier()


def test_waiting_for_a_page_is_not_having_frames() -> None:
    """While a page is read, the subscription takes no turn."""
    subscription = live_subscription(_source(10))
    subscription.is_waiting_for_page = True
    assert not subscription.has_frames


def test_a_page_is_dropped_at_its_end() -> None:
    """INV-7: a page is held until its last frame was sent and no longer."""
    subscription = live_subscription(_source(10))
    page = _page(0, 4)
    _give(subscription, page)
    subscription.advance(3)
    assert (subscription.page, page.users) == (page, 1)
    subscription.advance(4)
    assert (subscription.page, page.users) == (None, 0)
    subscription.advance(5)
    assert page.users == 0


def test_an_ended_subscription_sends_nothing_and_holds_nothing() -> None:
    """Ending frees the page once, however often it is said."""
    subscription = live_subscription(_source(10))
    page = _page(0, 4)
    _give(subscription, page)
    subscription.end()
    subscription.end()
    assert (subscription.is_active, subscription.has_frames, page.users) == (False, False, 0)
