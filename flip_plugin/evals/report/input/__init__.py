"""What a report reads: finished runs, training runs, the paper's numbers."""
