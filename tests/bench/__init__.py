"""What the benchmarks share with nobody else: workloads, contestants, measurements."""
