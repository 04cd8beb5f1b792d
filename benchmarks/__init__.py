"""Benchmarks of speed and memory, each against a peer or a bound in the same run.

``python -m benchmarks`` prints every table.
"""
