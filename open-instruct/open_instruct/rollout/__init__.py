"""Prompts -> scored groups -> packed batches: the data side of a run."""
