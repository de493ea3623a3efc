"""PCAN in plain PyTorch, as fast as its user could make it: what the JAX code is measured against.

Its parameters have the names of the authors' release, so that `pcan_jax.torch.weights` carries
weights over. The paper's variant only: both streams, lateral connections, prototypes.
"""
