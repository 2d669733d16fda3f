"""What several benchmarks share: training runs in the tiny world, and watching their processes."""
