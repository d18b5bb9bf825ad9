"""The gates of this repository: `python -m tests.ci LANE... | all [--list]`.

A lane is a list of checks (pure functions over the tree or one tool each) and of pytest targets. `lanes.py`
names them, `runner.py` runs them, `report.py` prints the outcome. Nothing here is imported by the product.
"""
