"""Uses a checkpoint: predictions for arrays and videos, overlays, exported models."""
