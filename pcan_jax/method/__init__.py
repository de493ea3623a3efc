"""What makes it PCAN, to be read beside the paper: sets, prototypes, losses, rectification."""
