"""What every test of the runtime's actors starts with."""

from __future__ import annotations

from collections.abc import Iterator  # noqa: TC003  # pytest looks at annotations of fixtures

import pytest

from khala_service import failpoints


@pytest.fixture(autouse=True)
def no_failpoint_stays_armed() -> Iterator[None]:
    """Points are a matter of the whole process: what one test arms must not hit another."""
    yield
    failpoints.disarm()
