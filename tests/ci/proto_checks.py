"""The gates of the contracts, written in `proto_gates.py`; here they become checks of the proto lane."""

from tests.ci.checks import Check, CheckContext, Problems

GATES = ("lint", "breaking", "generate", "package")


def _check_of(gate: str) -> Check:
    def run(context: CheckContext) -> Problems:
        # Imported late: a broken gate is a failure of this lane, not of the whole program.
        from tests.ci import proto_gates

        del context
        return proto_gates.run(gate)

    return Check(gate, run)


PROTO_CHECKS = tuple(_check_of(gate) for gate in GATES)
