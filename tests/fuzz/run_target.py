"""One target under atheris; started by ``python -m tests.fuzz``, which gives it libFuzzer's options."""

from __future__ import annotations

import sys
from typing import Final

# Of whose code the coverage steers the fuzzer.
INSTRUMENTED: Final = ["khala", "khala_contracts", "trio_websocket", "wsproto", "h11", "websockets"]


def main() -> None:
    """Run the target that the first argument names."""
    # Not at the top: who only looks at this module may not have it.
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.fuzz.targets import TARGETS

    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
