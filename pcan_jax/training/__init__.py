"""The training step, the loop around it, initial weights, checks before a run, progress."""
