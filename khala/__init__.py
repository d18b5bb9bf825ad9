"""The WebSocket node (this package) and the ``khala`` command (``khala.cli``)."""
