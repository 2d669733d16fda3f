"""The evaluations of ``flip eval``, one a file; ``candidates`` is in `data`, and ``report`` in `report`."""
