"""Rows of training data: what they must hold, and reading them from files."""
