"""Drill ``reconnect-storm``: the connections of 2,000 clients break at once, and all of them come back (CHA-03, KH-12).

Clients in C reset their connections to one node in the same moment, as when a network goes away, and return as
our clients do: after 0 to 250 ms, and where they are refused after the time that they are told, each with its
cursor. The node lets them in at its rate, refuses the others cheaply, asks PostgreSQL per topic and not per client,
and goes on serving those who were not cut off.
"""

from __future__ import annotations

import secrets
from bisect import bisect_left
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from chaos.drills.committed import read_committed
from chaos.drills.drill import Claim, Outcome, claims_of, delivery_facts
from chaos.drills.node_kill import THREE_NODES
from chaos.drills.node_limits import changed_limits
from chaos.drills.plots import latency_plot
from chaos.drills.stage import StageSetup
from chaos.drills.storm import NODE_ROLE, measure_refusals, most_in_a_second, run_storm
from chaos.drills.storm_clients import StormSetup, open_storm_clients
from chaos.drills.verdict import percentile
from chaos.drills.waiting import DrillFailed
from chaos.load.native_tools import CompilerMissingError, compile_native
from chaos.load.svg_plots import Lines
from khala_client.outgoing import OutgoingEvent
from khala_client.trio import Khala
from khala_contracts.topics import parse_topic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chaos.drills.drill import DrillOptions
    from chaos.drills.stage import Stage
    from chaos.drills.storm import Storm

__all__ = ["run_reconnect_storm_drill"]

# Topics on which nothing happens while their clients are away, and events before and after, on each.
STORM_TOPICS: Final = 40
EVENTS_BESIDE: Final = 3
# The load meanwhile, on topics that bystanders follow.
TOPICS: Final = 8
EVENTS_PER_S: Final = 20.0
# The bars: CHA-03 and the issue of many nodes.
LIVE_AGAIN_S: Final = 20.0
SECOND_SHARE: Final = 0.15
REFUSAL_MS: Final = 0.3
BYSTANDERS_P99_S: Final = 1.0
# Two times of equal length do not have equal numbers of statements.
NOISE_SHARE: Final = 0.1


@attrs.frozen(kw_only=True)
class _Size:
    """How large a form of the drill is.

    Attributes:
        clients: That are cut off.
        bystanders: At the same node, who are not.
        knocks: Refusals whose cost is measured.
        limits: Of the node, in place of the defaults.
    """

    clients: int
    bystanders: int
    knocks: int
    limits: Mapping[str, float]


# With the defaults, 250 a second and a burst of 250, the first second of 2,000 holds 250 at once and 250 more: a
# quarter of them. And on two cores, which the clients share, letting in 200 a second leaves bystanders too little:
# their p99 was 1 to 2 s. The short form has the same proportions.
_FULL: Final = _Size(
    clients=2_000,
    bystanders=200,
    knocks=3_000,
    limits={"admission_per_s": 140.0, "admission_burst": 10},
)
_QUICK: Final = _Size(
    clients=320, bystanders=40, knocks=600, limits={"admission_per_s": 24.0, "admission_burst": 2}
)
# Enough to show that nothing happened.
_HARMLESS: Final = _Size(clients=20, bystanders=5, knocks=0, limits={})


def run_reconnect_storm_drill(options: DrillOptions) -> Outcome:
    """Run the drill; see ``chaos.drills.drill.RunDrill``."""
    size = (_QUICK if options.is_quick else _FULL) if options.has_faults else _HARMLESS
    setup = StageSetup(topics=TOPICS, events_per_s=EVENTS_PER_S, has_rereader=False)
    with options.open_stage(setup, THREE_NODES) as stage:
        node = stage.system.node_names[0]
        try:
            program = compile_native("storm_client", options.folder)
        except CompilerMissingError as exc:
            raise DrillFailed(str(exc)) from exc
        profile = stage.publisher.setup.profile
        topics = trio.run(_make_topics, profile)
        who_stays = _setup_of(stage, "bystander", stage.topics, size.bystanders, options)
        who_goes = _setup_of(stage, "client", topics, size.clients, options)
        with (
            open_storm_clients(program, who_stays) as bystanders,
            open_storm_clients(program, who_goes) as clients,
        ):
            trio.run(_append_to_each, profile, topics, "before")
            options.progress(f"{size.clients} clients and {size.bystanders} bystanders are live at {node}")
            with changed_limits(stage.system, [node], size.limits):
                storm = run_storm(stage, clients, options, node)
            options.progress(
                f"all live again after {storm.seconds:.1f} s, {len(storm.refusals)} refusals; settling"
            )
            trio.run(_append_to_each, profile, topics, "after")
            verdict = stage.finish()
            for program_of in (clients, bystanders):
                program_of.settle(quiet_s=1.5, timeout_s=30.0)
            cost = measure_refusals(stage.system, node, clients, size.knocks)
            wire = [one.settle(quiet_s=0.1, timeout_s=5.0) for one in (clients, bystanders)]
            committed = read_committed(stage.system.under_test, [*stage.topics, *topics])
            broken = clients.check_histories(committed) + bystanders.check_histories(committed)
            deliveries = committed.deliveries(bystanders.received(), since_s=stage.began_at_s)
            own = committed.deliveries(clients.received(), since_s=stage.began_at_s)
    during = deliveries.between(storm.cut_at_s, storm.cut_at_s + storm.seconds)
    welcomes = storm.times_s("welcome")
    busiest = most_in_a_second(welcomes)
    told = sum(one.is_told for one in storm.refusals)
    statements = sum(storm.statements.values())
    most = 2 * STORM_TOPICS + round(storm.quiet_per_s * storm.seconds * NOISE_SHARE)
    gaps, repeats = sum(one["gaps"] for one in wire), sum(one["repeats"] for one in wire)
    claims = [
        Claim(
            f"The connections of {size.clients:,} clients broke at once",
            f"{len(storm.times_s('cut')):,} resets within {max(storm.times_s('cut')):.2f} s; the node saw "
            f"{storm.ended:,} connections end",
            len(storm.times_s("cut")) == size.clients and storm.ended >= size.clients,
        ),
        Claim(
            f"All are live again within {LIVE_AGAIN_S:g} s",
            f"{len({one.connection for one in storm.happenings if one.what == 'live'}):,} after "
            f"{storm.seconds:.1f} s",
            storm.seconds <= LIVE_AGAIN_S,
        ),
        Claim(
            f"No second holds more than {SECOND_SHARE:.0%} of the welcomes",
            f"{busiest:,} of {len(welcomes):,} in the busiest one: {busiest / max(1, len(welcomes)):.1%}",
            0 < busiest <= SECOND_SHARE * len(welcomes),
        ),
        Claim(
            "Every refusal says when to come back",
            f"{len(storm.refusals):,} refusals, {told:,} of them in words of the protocol; "
            f"{sum(not one.retry_after_ms for one in storm.refusals)} without a time, "
            f"{len(storm.times_s('failed'))} other failures",
            bool(storm.refusals)
            and all(one.retry_after_ms for one in storm.refusals)
            and not storm.times_s("failed"),
        ),
        Claim(
            f"A refusal costs the node at most {REFUSAL_MS:g} ms of CPU",
            f"{cost.mean_ms(storm.refusals):.2f} ms: {cost.bare_ms:.2f} ms by HTTP, "
            f"{cost.told_ms:.2f} ms in words, of {size.knocks:,} knocks",
            cost.mean_ms(storm.refusals) <= REFUSAL_MS,
        ),
        Claim(
            f"Bystanders' p99 from commit to client stays below {BYSTANDERS_P99_S:g} s",
            f"{percentile(during, 0.99):.3f} s of {len(during):,} deliveries during the storm",
            0.0 < percentile(during, 0.99) < BYSTANDERS_P99_S,
        ),
        Claim(
            f"PostgreSQL sees reads per topic, not per client: at most {most:,} statements more than in quiet",
            f"{statements:,} more than the {storm.quiet_per_s * storm.seconds:,.0f} of a quiet time of that "
            f"length, for {size.clients:,} clients on {STORM_TOPICS} topics",
            statements <= most,
        ),
        Claim(
            "What each of them has applied is the journal, from where it began to the head",
            f"{size.clients + size.bystanders:,} clients, {len(own.latencies_s) + len(deliveries.latencies_s):,} "
            f"events: {len(broken)} differences, {gaps} gaps and {repeats} repeats on the wire",
            not broken and not gaps and not repeats,
        ),
        *claims_of(verdict, offered_per_s=EVENTS_PER_S),
    ]
    tables: dict[str, list[Mapping[str, Any]]] = {
        "Deliveries": [
            delivery_facts("bystanders, before", deliveries.between(stage.began_at_s, storm.cut_at_s)),
            delivery_facts("bystanders, during the storm", during),
            delivery_facts("those who were cut off, all", own.latencies_s),
        ],
        "The node": [
            {
                "CPU s during the storm": round(storm.node_cpu_s, 2),
                "ms for each welcome": round(storm.node_cpu_s * 1000 / max(1, len(welcomes)), 2),
                "resident MB before": round(storm.rss_before_bytes / 1e6, 1),
                "resident MB after": round(storm.rss_after_bytes / 1e6, 1),
            }
        ],
        f"Statements of {NODE_ROLE} during the storm": [
            {"SQL": sql.replace("|", "/"), "executions beyond quiet": count}
            for sql, count in sorted(storm.statements.items())
        ],
        "Limits of the node that differ": [
            {"limit": name, "value": value} for name, value in size.limits.items()
        ],
        "Clients": verdict.clients,
    }
    plots = (
        latency_plot(
            deliveries,
            began_at_s=stage.began_at_s,
            spans=[("storm", storm.cut_at_s, storm.cut_at_s + storm.seconds)],
            title="Bystanders: from commit to client, by time of commit",
        ),
        _welcome_plot(storm),
    )
    return Outcome(claims, tables, [*map(str, broken), *verdict.violations], plots)


async def _make_topics(profile: str) -> list[str]:
    """Make the runs of those who are cut off; return their topics."""
    async with Khala.from_env({"KHALA_PROFILE": profile}) as khala:
        made = [
            await khala.runtime.create_run(idempotency_key=secrets.token_hex(8)) for _ in range(STORM_TOPICS)
        ]
    return [one.run.topic for one in made]


async def _append_to_each(profile: str, topics: Sequence[str], label: str) -> None:
    """Append a few events to each topic."""
    events = [OutgoingEvent.of("output", {"text": f"{label} {number}"}) for number in range(EVENTS_BESIDE)]
    async with Khala.from_env({"KHALA_PROFILE": profile}) as khala:
        for topic in topics:
            run_id = parse_topic(topic).ids["run_id"]
            await khala.runtime.append(run_id, events, idempotency_key=secrets.token_hex(8))


def _setup_of(
    stage: Stage, name: str, topics: Sequence[str], count: int, options: DrillOptions
) -> StormSetup:
    system = stage.system
    ((lineage,),) = system.under_test.query("SELECT id FROM runtime.lineage WHERE is_current")
    return StormSetup(
        name=name,
        folder=Path(stage.publisher.setup.folder),
        profile=stage.publisher.setup.profile,
        topics=[topics[number % len(topics)] for number in range(count)],
        node_url=system.node_url(system.node_names[0]),
        lineage=lineage,
        seed=options.seed,
    )


def _welcome_plot(storm: Storm) -> Lines:
    seconds = range(int(storm.seconds) + 2)

    def in_each(what: str) -> list[tuple[float, float]]:
        times = storm.times_s(what)
        return [(at, bisect_left(times, at + 1) - bisect_left(times, at)) for at in seconds]

    return Lines(
        "Clients that were cut off, second by second",
        "seconds since the cut",
        "clients",
        [("welcomes", in_each("welcome")), ("refusals", in_each("refused"))],
    )
