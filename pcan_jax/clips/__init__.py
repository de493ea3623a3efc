"""One recording becomes one stored clip: videos, crops, poses, source directories.

Neither JAX nor TensorFlow is imported here.
"""
