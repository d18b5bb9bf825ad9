"""A pytest plugin that writes down from where the packages of this tree were imported.

Loaded by `mutant_runs.py` with ``-p tests.mutants.import_witness``; the file is named by `WITNESS_VARIABLE`.
A mutant in a file that nobody imported would survive, or die, for another reason than its defect.
"""

import json
import os
import sys
from pathlib import Path

import pytest

WITNESS_VARIABLE = "KHALA_MUTANT_WITNESS"
PACKAGES = frozenset(
    {"khala_contracts", "khala_client", "khala_service", "fanout_drivers", "runtime", "control", "khala"}
)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the file of every imported module of the product."""
    del session
    files = [
        str(Path(file).resolve())
        for name, module in tuple(sys.modules.items())
        if name.partition(".")[0] in PACKAGES and (file := getattr(module, "__file__", None))
    ]
    Path(os.environ[WITNESS_VARIABLE]).write_text(json.dumps(sorted(files)), encoding="utf-8")
