"""Drills: faults done to real processes under load, and a verdict by the checker.

Read in this order: ``commands.py`` (what is typed), ``kill.py`` (a drill), ``stage.py`` (what every
drill stands on), ``follower.py`` and ``publisher.py`` (the clients, processes of their own).
"""
