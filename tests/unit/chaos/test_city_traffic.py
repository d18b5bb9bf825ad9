"""What a city's logs say: a delay for each frame that came live, or no figure at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chaos.load.city_plan import CityLoad
from chaos.load.city_traffic import _TrafficRun
from chaos.load.system_under_test import SystemFailedError

if TYPE_CHECKING:
    from pathlib import Path


def test_no_live_frame_is_left_out(tmp_path: Path) -> None:
    """Frames that the broker lost come late: figures without them would be of the others only."""
    run = object.__new__(_TrafficRun)
    run._folder, run._topics, run._load = tmp_path, ["t"], CityLoad()
    (tmp_path / "watch.log").write_text("0 2 3 5000000000 1\n= 0 0 3 7\n", encoding="ascii")
    assert run._read_watch({("t", 2): 4.0, ("t", 3): 4.5}) == ([1.0, 0.5], [("t", 3, 7)])
    with pytest.raises(SystemFailedError, match="1 frames"):
        run._read_watch({("t", 2): 4.0})
