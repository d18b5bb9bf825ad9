"""Noise against everything that reads bytes from outside; see targets.py for what must hold."""
