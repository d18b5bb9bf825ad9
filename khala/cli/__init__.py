"""The ``khala`` command: one module per family of subcommands, all of them thin.

``main.py`` finds the subcommand and turns every failure into a sentence and an exit status. What a
subcommand prints for people is decided by pure modules (``event_view``, ``wording``); what it prints
for scripts is one JSON object a line.
"""
