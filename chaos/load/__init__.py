"""Benchmarks: each compares the product with a reference in alternating pairs of one run."""
