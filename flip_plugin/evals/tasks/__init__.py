"""The evaluations of ``flip eval``, one a file."""
