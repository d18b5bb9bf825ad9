"""The seam between the runtime and the nodes: who tells a node that a topic has moved.

``base.py`` has the contract and what a driver may do wrong; each other module is one driver.
"""
