"""`python -m khala serve`: a node; `khala node` is the same service. Else the command `khala` without its script."""

from __future__ import annotations

import sys

from khala.cli.main import main
from khala.cli.node_service import serve_node_process
from khala_service.service_commands import run_commands

if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        sys.exit(run_commands("khala", serve=serve_node_process))
    main()
