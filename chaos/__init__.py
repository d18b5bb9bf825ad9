"""Checker, benchmarks and (later) drills and simulation; product code never imports this."""
