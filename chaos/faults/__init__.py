"""Faults that are done to real processes without root, and the proof that they happened.

Read ``fault.py`` (what a network may do), ``proxy.py`` (the process that does it), ``proxy_control.py``
(how a drill tells it to), ``shim.py`` (the disk and the clock of PostgreSQL). Every fault by name is in
``chaos/drills/fault_menu.py``.
"""
