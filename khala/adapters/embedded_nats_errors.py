"""Why an embedded NATS server is not running. Imports nothing: commands on systems without it name these."""

from __future__ import annotations


class EmbeddedNatsRefused(Exception):
    """The server cannot be started as asked; a person must change something. Exit status 78."""


class EmbeddedNatsFailed(Exception):
    """The server did not start, or ended by itself. The message carries its last words."""
