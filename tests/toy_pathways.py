"""The paper's pathways with fewer stages and channels."""

import dataclasses

from tests.paper import POSE_PATHWAY, RGB_PATHWAY

RGB = dataclasses.replace(
  RGB_PATHWAY,
  stem_features=4,
  blocks=(1, 1, 1),
  widths=(4, 4, 8),
  spatial_strides=(1, 2, 2),
  temporal_kernels=(1, 1, 3),
)
POSE = dataclasses.replace(
  POSE_PATHWAY,
  stem_features=4,
  blocks=(1, 1),
  widths=(4, 8),
  spatial_strides=(2, 2),
  temporal_kernels=(1, 3),
)
