"""`python -m khala serve`: a node; `khala node` is the same service."""

from __future__ import annotations

import sys

from khala.cli.services import serve_node_process
from khala_service.service_commands import run_commands

if __name__ == "__main__":
    sys.exit(run_commands("khala", serve=serve_node_process))
