"""The runtime: the authority over runs and their events. Everything that is written goes through it."""
