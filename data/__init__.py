"""Data sets: reading source directories, checking them and building TFRecord shards of them."""
