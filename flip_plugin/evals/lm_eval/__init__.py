"""GRPO checkpoints on lm-eval's benchmarks."""
