"""Training and measuring the tiny world's models."""
