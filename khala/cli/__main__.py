"""``python -m khala.cli`` is ``khala``."""

from khala.cli.main import main

main()
