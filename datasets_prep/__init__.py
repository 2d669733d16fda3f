"""Prompts of public data sets, or of your own, as rows of a GRPO run; and the tiny world, an embedded test bed."""
