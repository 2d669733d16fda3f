"""A judge's reply -> the inferred instruction, a score or a choice; broken JSON is repaired without guessing."""
