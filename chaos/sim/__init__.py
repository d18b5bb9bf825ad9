"""A whole cluster in one process, by seed: everything above the ports is the product, unmodified.

``khala sim`` (commands.py) runs seeds; `world.py` is where one begins. runbooks/simulation.md.
"""
