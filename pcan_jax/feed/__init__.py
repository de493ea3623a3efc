"""Stored clips are written, read and become batches. The only place that knows TensorFlow."""

import tensorflow as tf

# TensorFlow would take the memory of the GPUs, which are JAX's.
tf.config.set_visible_devices([], "GPU")
