"""A checkpoint put to use: arrays, videos, pictures of what was found, models for elsewhere."""
