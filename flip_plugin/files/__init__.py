"""Files: locks, atomic writes, JSON Lines that survive a kill, keeping secrets out of what is written."""
