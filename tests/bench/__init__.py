"""Benchmarks: workloads, contestants, measurements."""
