"""The current request id."""

import trio

from khala_service.request_context import current_request_id, is_request_id, set_request_id


def test_form() -> None:
    """SPEC 4: 1..128 of letters, digits, dot, underscore, hyphen, ASCII only."""
    assert is_request_id("a")
    assert is_request_id("A.b_c-9" + "x" * 121)
    assert not is_request_id("")
    assert not is_request_id("x" * 129)
    assert not is_request_id("a b")
    assert not is_request_id("a\n")
    assert not is_request_id("٣")


async def test_scope() -> None:
    """Current in the task and its children, not beside them."""

    async def serve() -> None:
        set_request_id("r-1")
        async with trio.open_nursery() as children:
            for _ in range(2):
                children.start_soon(check)

    async def check() -> None:
        assert current_request_id() == "r-1"
        await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        nursery.start_soon(trio.lowlevel.checkpoint)
    assert current_request_id() == ""
