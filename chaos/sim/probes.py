"""After all has converged: single events must be there within the promised time, and soon.

SPEC section 1.4 gives two seconds to what the broker lost; nothing loses anything any more, so most of it must
come by the hint, much sooner than the next position check.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import trio

if TYPE_CHECKING:
    from chaos.sim.client_process import ClientProgram
    from chaos.sim.publisher import Producers
    from chaos.sim.reports import Findings

__all__ = ["PROMISED_S", "probe"]

# SPEC section 1.4.
PROMISED_S: Final = 2.0
# By the hint: commit, relay, network. Longer than that means that the position check has found it.
PROMPT_S: Final = 0.15
# Not a multiple of the position check's interval, so that not every probe meets it.
_PAUSE_S: Final = 0.31
_ROUNDS: Final = 4


class Probed(Protocol):
    """What a probe touches of a world."""

    producers: Producers
    clients: dict[str, ClientProgram]
    findings: Findings


async def probe(world: Probed) -> None:
    """Append to every topic that takes events, and look when each follower was given them."""
    await trio.sleep(_PAUSE_S)
    late: dict[str, list[float]] = {}
    for number in range(_ROUNDS):
        for target in tuple(world.producers.targets.values()):
            if target.topic is None or target.is_finished:
                continue
            seq = await world.producers.probe(target, number)
            if seq is None:
                continue
            acked_at = world.producers.acked_at[target.topic, seq]
            await trio.sleep(_PAUSE_S)
            for name, client in world.clients.items():
                followed = client.followed.get(target.topic)
                if followed is None or followed.is_forbidden:
                    continue
                if seq not in followed.got_at:
                    with trio.move_on_at(acked_at + PROMISED_S):
                        while seq not in followed.got_at:  # noqa: ASYNC110 - a look at a client, not a wait for it
                            await trio.sleep(0.05)
                got_at = followed.got_at.get(seq)
                if got_at is None:
                    world.findings.add(
                        name, f"was not given {seq} of {target.topic} within {PROMISED_S} s of its commit"
                    )
                else:
                    late.setdefault(name, []).append(got_at - acked_at)
    for name, delays in late.items():
        if min(delays) > PROMPT_S and len(delays) >= _ROUNDS:
            world.findings.add(name, f"was given every probe late, the first after {delays[0]:.3f} s")
