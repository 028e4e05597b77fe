"""Benchmarks: what the figures of the README come from."""
