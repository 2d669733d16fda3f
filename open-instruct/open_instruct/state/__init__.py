"""What a run keeps to continue: its folder, states and checkpoints, random streams."""
