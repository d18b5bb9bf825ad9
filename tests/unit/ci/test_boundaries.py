import pytest

from tests.ci import boundaries
from tests.unit.ci.conftest import Plant


def test_top_level_is_exactly_the_list(plant: Plant) -> None:
    """A stranger and a missing entry are named; dot-files and a Makefile are free."""
    names = sorted(boundaries.TOP_LEVEL - {"NOTICE"})
    context = plant({name if "." in name or name.isupper() else f"{name}/x": "" for name in names})
    plant({".ci/run": "", "Makefile": "", "scripts/x": ""})
    assert boundaries.find_top_level_strangers(context) == [
        "scripts:1: not part of the agreed top level",
        "NOTICE:1: missing from the top level",
    ]


def test_vague_and_long_modules(plant: Plant) -> None:
    """At 600 lines a module passes, at 601 it fails; a name that says nothing fails at once."""
    context = plant({"khala/a.py": "x = 1\n" * 600, "khala/b.py": "x = 1\n" * 601, "khala/utils.py": ""})
    assert boundaries.find_vague_modules(context) == [
        "khala/b.py:601: over 600 lines; look for the second idea",
        "khala/utils.py:1: a module with a name that says nothing",
    ]


def test_other_live_lane_names_file_and_line(plant: Plant) -> None:
    """Server-sent events are found wherever they stand."""
    context = plant({"control/web_shell/a.ts": "x\nnew " + "Event" + "Source('/x')\n"})
    [problem] = boundaries.find_other_live_lanes(context)
    assert problem.startswith("control/web_shell/a.ts:2: a live lane beside the WebSocket")


def test_exception_that_excepts_nothing_is_a_problem(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exceptions do not outlive their reason."""
    monkeypatch.setattr(boundaries, "OTHER_LANES_ALLOWED", {"khala/a.py": "refuses it"})
    context = plant({"khala/a.py": ""})
    assert boundaries.find_other_live_lanes(context) == [
        "khala/a.py:1: is excepted (refuses it) but has nothing to except"
    ]


def test_copied_header_is_found(plant: Plant) -> None:
    """The header of somebody else's file gives it away."""
    context = plant({"khala/a.py": "# Copyright (c) 2020 Somebody\n"})
    [problem] = boundaries.find_foreign_headers(context)
    assert problem.startswith("khala/a.py:1: the header of copied code")


@pytest.mark.parametrize(
    ("call", "is_bounded"),
    [
        ("trio.open_memory_channel(math.inf)", False),
        ("trio.open_memory_channel[int](math.inf)", False),
        ("open_memory_channel(float('inf'))", False),
        ("trio.open_memory_channel(64)", True),
        ("anyio.create_memory_object_stream[int](math.inf)", False),
        ("anyio.create_memory_object_stream[int](64)", True),
    ],
)
def test_unbounded_channel(plant: Plant, call: str, is_bounded: bool) -> None:
    """Infinity in any spelling is refused."""
    context = plant({"khala/a.py": f"\nx = {call}\n"})
    problems = boundaries.find_unbounded_channels(context)
    assert [problem.partition(": ")[0] for problem in problems] == ([] if is_bounded else ["khala/a.py:2"])


@pytest.mark.parametrize(
    ("name", "is_allowed"),
    [
        ("runtime/adapters/postgres/journal.py", True),
        ("khala/adapters/postgres_journal.py", True),
        ("khala/service/khala_service/adapters/postgres.py", True),
        ("khala/adapters/embedded_postgres.py", True),
        ("khala/client/khala_client/asyncio/loop.py", True),
        ("khala/client/khala_client/ring/link.py", False),
        ("khala/client/khala_client/blocking/portal.py", False),
        ("tests/integration/test_a.py", True),
        ("khala/adapters/websocket.py", False),
        ("runtime/actors/appender.py", False),
        ("control/app.py", False),
    ],
)
def test_asyncio_stays_in_the_postgres_adapters(plant: Plant, name: str, is_allowed: bool) -> None:
    """The place is judged by file name."""
    context = plant({name: "import trio_asyncio\n"})
    assert (boundaries.find_asyncio_outside_adapters(context) == []) is is_allowed


@pytest.mark.parametrize(
    ("name", "is_allowed"),
    [
        ("khala/actors/topic.py", False),
        ("proto/khala_contracts/chain.py", False),
        ("khala/client/khala_client/core/apply.py", False),
        ("khala/client/khala_client/store.py", True),
        ("runtime/adapters/http.py", True),
    ],
)
def test_time_and_randomness_come_through_ports(plant: Plant, name: str, is_allowed: bool) -> None:
    """Core, actors and ports import neither clock nor randomness."""
    context = plant({name: "from random import Random\n"})
    assert (boundaries.find_hidden_nondeterminism(context) == []) is is_allowed
