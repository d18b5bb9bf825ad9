"""What the pool's module does without a server."""

import pytest

from khala_service.adapters.postgres import load_queries


def test_queries_are_read_from_the_package() -> None:
    """SQL stands in files; a missing one is our packaging error and says which."""
    assert "khala_runtime_owner" in load_queries("khala_service", "sql/bootstrap_roles")
    with pytest.raises(FileNotFoundError, match="absent"):
        load_queries("khala_service", "sql/absent")
