"""Kept prompts -> a data set with its card."""
