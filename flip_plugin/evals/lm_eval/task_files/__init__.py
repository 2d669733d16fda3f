"""Tasks for lm-eval that it does not have itself: a folder each, found through ``TaskManager(include_path=...)``."""
