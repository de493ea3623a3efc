import dataclasses

import jax.numpy as jnp
import numpy as np

from pcan_jax.mesh import data_mesh, jit_step, send


@dataclasses.dataclass(eq=False)
class Scale:
  factor: float

  def step(self, offset, batch):
    return offset + self.factor * batch["x"]


def test_a_step_follows_what_its_method_reads_when_it_is_made():
  scale, mesh = Scale(2.0), data_mesh()
  batch = send({"x": np.arange(8.0)}, mesh)
  before = jit_step(scale.step, mesh)(jnp.float32(1), batch)
  scale.factor = 3.0
  after = jit_step(scale.step, mesh)(jnp.float32(1), batch)
  np.testing.assert_array_equal(before, 1 + 2 * np.arange(8.0))
  np.testing.assert_array_equal(after, 1 + 3 * np.arange(8.0))
