"""One pure step, the loop around it, what a run starts from and what it says."""
