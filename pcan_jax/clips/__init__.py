"""From recordings to stored clips: videos, crops, poses, source directories.

Imports neither JAX nor TensorFlow.
"""
