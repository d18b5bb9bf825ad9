"""The rules of the checker, one module for each kind of evidence; ``chaos/checker.py`` applies them."""
