"""Other people's PyTorch checkpoints, read without PyTorch."""
