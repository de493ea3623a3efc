"""Reads other projects' PyTorch checkpoints without PyTorch."""
