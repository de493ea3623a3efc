"""Writes stored clips, reads them and makes batches of them. The only user of TensorFlow."""

import tensorflow as tf

# Otherwise TensorFlow would claim the GPU memory that JAX needs.
tf.config.set_visible_devices([], "GPU")
