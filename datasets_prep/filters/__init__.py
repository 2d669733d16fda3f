"""Rows -> prompts that are kept, with a count at each filter."""
