"""What a node holds for clients that take nothing, if nobody acts on them (CARD-03).

A node of its own, configured so that it keeps them, and a run whose frames they do not take. All that is
held for one connection alone is bounded: the rest of a chunk, its control lane, one message that comes in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import trio

from chaos.load.delivery_client import DeliveryClient
from chaos.load.native_client import ReceiverFailedError
from chaos.load.native_tools import compile_native
from chaos.load.paced_feed import RunFeed, run_feeds
from chaos.load.preambles import FROM_NOW, Preamble, write_preambles
from khala.core.limits import NodeLimits
from khala_contracts.codec import TopicStart
from khala_contracts.topics import format_run_events

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chaos.load.rig import NodeUnderTest, Rig

__all__ = ["HeldResult", "HeldSetup", "measure_held"]

# SPEC section 6: remainder, control lane, inbound. The fourth, SO_SNDBUF, is the kernel's.
REMAINDER_MAX_BYTES: Final = 320 * 1024
# What the row allows above the bounds themselves.
SLACK: Final = 1.2
WARM_UP_S: Final = 2.0
_SAMPLE_EVERY_S: Final = 1.0
_OPEN_TIMEOUT_S: Final = 60.0
_OUTBOUND_MAX: Final = "khala_node_outbound_bytes_max"


@attrs.frozen
class HeldSetup:
    """What is done.

    Attributes:
        clients: None of them reads.
        frames_per_s: What their run gets.
        payload_bytes: Of each frame.
        seconds: For how long they are held.
        receive_buffer_bytes: SO_RCVBUF of each.
        node_name: Of the node that holds them.
    """

    clients: int = 100
    frames_per_s: float = 1_000.0
    payload_bytes: int = 1_024
    seconds: float = 30.0
    receive_buffer_bytes: int = 4_096
    node_name: str = "holding"

    @property
    def node_config(self) -> Mapping[str, object]:
        """What the node has that others have not: it acts on nobody in this time."""
        patience_s = self.seconds * 10 + 600
        return {
            "limits": {
                "write_stall_timeout_s": patience_s,
                "dead_after_s": patience_s,
                "release_after_warm_s": patience_s,
            }
        }

    @property
    def outbound_max_bytes(self) -> int:
        """Bound of what waits for one connection."""
        return REMAINDER_MAX_BYTES + NodeLimits().control_lane_max_bytes

    @property
    def growth_max_bytes(self) -> float:
        """Bound of what the node may hold for all of them."""
        return SLACK * self.clients * (self.outbound_max_bytes + NodeLimits().inbound_message_max_bytes)


@attrs.frozen
class HeldResult:
    """What was found.

    Attributes:
        seconds: For which they were held.
        frames: That the run got meanwhile, and none of them took.
        growth_bytes: The most that the node held above what it held before they stopped.
        outbound_max_bytes: The most that waited for one connection.
    """

    seconds: float
    frames: int
    growth_bytes: int
    outbound_max_bytes: float


def measure_held(setup: HeldSetup, rig: Rig, progress: Callable[[str], None]) -> HeldResult:
    """Hold clients that take nothing; return what the node holds for them.

    Raises:
        ReceiverFailedError: Somebody was ended, or got what no client may get.
        SystemFailedError: The node did not start.
        CompilerMissingError: There is no C compiler.
    """
    program = compile_native("delivery_client", rig.folder)
    with rig.extra_node(setup.node_name, setup.node_config) as node:
        (run_id,) = rig.create_runs(1)
        topic = format_run_events(run_id)
        file = rig.folder / "held.preambles"
        write_preambles(
            file,
            [
                Preamble.of_subscriber(v.token, v.device_id, [TopicStart(topic, FROM_NOW)], path=node.path)
                for v in rig.mint(setup.clients, [topic])
            ],
        )
        buffer_bytes = setup.receive_buffer_bytes
        with DeliveryClient(program, node.port, file, receive_buffer_bytes=buffer_bytes) as clients:
            clients.command(f"open {_OPEN_TIMEOUT_S}", timeout_s=_OPEN_TIMEOUT_S)
            result = trio.run(_hold, setup, rig, node, clients, run_id)
            ended = sum(state.is_ended for state in clients.report())
            if ended:
                raise ReceiverFailedError(f"{ended} of {setup.clients} were ended, and should have been held")
    progress(
        f"held {setup.clients} for {result.seconds:.0f} s: the node grew by {result.growth_bytes >> 20} MiB"
    )
    return result


async def _hold(
    setup: HeldSetup, rig: Rig, node: NodeUnderTest, clients: DeliveryClient, run_id: str
) -> HeldResult:
    feed = RunFeed(run_id, setup.frames_per_s, events_per_request=20, payload_bytes=setup.payload_bytes)
    over = trio.Event()
    growth_bytes, outbound_max_bytes = 0, 0.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: run_feeds(rig, [feed], until=over))
        # A full window of the topic is not theirs.
        await trio.sleep(WARM_UP_S)
        head_before, held_before = feed.head_seq, rig.memory(node.name).rss_bytes
        clients.command(f"stall 0 {setup.clients}")
        began = trio.current_time()
        while trio.current_time() - began < setup.seconds:
            await trio.sleep(_SAMPLE_EVERY_S)
            growth_bytes = max(growth_bytes, rig.memory(node.name).rss_bytes - held_before)
            metrics = await trio.to_thread.run_sync(node.metrics)
            outbound_max_bytes = max(outbound_max_bytes, metrics[_OUTBOUND_MAX])
        over.set()
    return HeldResult(setup.seconds, feed.head_seq - head_before, growth_bytes, outbound_max_bytes)
