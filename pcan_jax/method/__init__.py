"""PCAN's method, to be read beside the paper: sets, prototypes, losses, rectification."""
