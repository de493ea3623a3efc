"""What happens when in a recording, as people code it and models predict it.

Events, the files of annotation tools that hold them, and how well two codings agree. Neither JAX
nor TensorFlow.
"""
