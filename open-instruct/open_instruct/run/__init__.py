"""A run from start to end: cluster, judge, training loop, stopping."""
