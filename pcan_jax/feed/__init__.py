"""Stored clips are written, read and become batches. The only place that knows TensorFlow."""
