"""Clips that are cut out of recordings keep their frames and times."""

import numpy as np
import pytest

from data.import_annotations import import_annotations
from pcan_jax.clips.video import decode_video
from pcan_jax.clips.video_writer import VideoWriter
from tests.coded_study import SIZE, clips_of, number_of, numbered_frames


def test_videos_of_odd_size_and_varying_rate_keep_their_times(tmp_path):
  times = np.cumsum(np.tile([0.02, 0.06, 0.04], 20)) - 0.02
  with VideoWriter(tmp_path / "videos" / "a.mp4", (49, 65), 25.0, crf=0) as writer:
    for index, frame in enumerate(numbered_frames(0)[: len(times)]):
      writer.add(np.pad(frame, [(0, 1), (0, 1), (0, 0)]), float(times[index]))
  rows = "".join(f"a.mp4,{times[first]:.3f},{times[first + 10]:.3f},nod\n" for first in (4, 30))
  (tmp_path / "codings.csv").write_text(f"video,start,end,label\n{rows}")
  result = import_annotations(
    [tmp_path / "codings.csv"], tmp_path / "videos", tmp_path / "source", poses=None, jobs=1
  )
  assert not result.errors
  _, clips = clips_of(tmp_path / "source")
  assert set(clips) == {"a_000004-000013", "a_000030-000039"}
  for name, first in (("a_000004-000013", 4), ("a_000030-000039", 30)):
    frames = decode_video(clips[name].video)
    images = list(frames)
    assert images[0].shape == (49, 65, 3)
    assert [number_of(image[:48, :64]) for image in images] == list(range(first, first + 10))
    np.testing.assert_allclose(
      frames.times[:-1], times[first : first + 10] - times[first], atol=1e-4
    )


def test_a_clip_that_is_given_up_leaves_no_file(tmp_path):
  with pytest.raises(RuntimeError), VideoWriter(tmp_path / "a.mp4", SIZE, 25.0, crf=12) as writer:
    writer.add(numbered_frames(0)[0], 0.0)
    raise RuntimeError
  assert not list(tmp_path.iterdir())
