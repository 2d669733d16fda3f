"""Flags, and the plans of GPUs and memory that follow from them."""
