"""TFDS builder: converts a source directory in MA-52's layout to TFRecord shards.

    pcan build SOURCE OUT
    tfds build pcan --imports=pcan_jax.feed.pcan_dataset_builder --manual_dir=SOURCE --data_dir=OUT

A shard depends only on its clips and the config, not on the number of processes. Finished shards
stay in `OUT/pcan/CONFIG/VERSION.work` until the data set is complete, so that an interrupted build
can be resumed. An existing data set is kept if it was built from the same sources, and refused
otherwise. With a Beam runner or options in the `DownloadConfig` (`tfds build
--beam_pipeline_options`), Beam's workers build the shards; they need access to SOURCE and OUT.
"""

import dataclasses
import functools
import itertools
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import tensorflow_datasets as tfds
import tqdm

from pcan_jax.clips import source_layout
from pcan_jax.clips.encode_clip import encode_clip
from pcan_jax.clips.parallel import call_or_explain, map_clips
from pcan_jax.clips.problems import Problem, describe_problems, write_problems
from pcan_jax.clips.source_layout import ClipSource
from pcan_jax.clips.stored_frames import CLIPS_PER_SHARD, Encoding
from pcan_jax.feed import records, shard_store
from pcan_jax.feed.offsets import record_offsets
from pcan_jax.feed.sources import Sources, digest_clips
from pcan_jax.keypoints import KeypointLayout, get_layout
from pcan_jax.labels import LabelTree

Shards = dict[str, list[list[ClipSource]]]

_PERSONS = "table of persons"
_REUSE = tfds.GenerateMode.REUSE_DATASET_IF_EXISTS


@dataclasses.dataclass(eq=False, kw_only=True)
class PcanConfig(tfds.core.BuilderConfig):
  """What is built, and how.

  Attributes:
    side: of the stored square frames in pixels.
    jpeg_quality: of the stored frames, 1 to 100.
    layout: a key of `pcan_jax.keypoints.LAYOUTS`, or the path of a JSON file.
    tree: path of the label tree; None is the source's `annotations/actions.csv`, else MA-52's.
    clips_per_shard: maximum number of clips per file.
    videos: whether the source has videos; False is one of skeletons.
    fps: of skeletons whose pickle does not state it.
    skip_bad: leave out and count clips that cannot be read, instead of failing.
    jobs: processes; 0 is one per core. Does not change the result.
  """

  side: int = Encoding.side
  jpeg_quality: int = Encoding.jpeg_quality
  layout: str = "openpose-28"
  tree: str | None = None
  clips_per_shard: int = CLIPS_PER_SHARD
  videos: bool = True
  fps: float = source_layout.SKELETON_FPS
  skip_bad: bool = False
  jobs: int = 0

  def __post_init__(self) -> None:
    if self.clips_per_shard < 1 or self.jobs < 0:
      raise ValueError(
        f"clips_per_shard is {self.clips_per_shard} and jobs is {self.jobs}; "
        "choose at least 1 and at least 0"
      )
    source_layout.skeleton_rate(self.fps)


class Builder(tfds.core.dataset_builder.FileReaderBuilder):
  """Builds the splits for which a source directory has a list of videos."""

  name = "pcan"
  VERSION = tfds.core.Version(f"{records.SCHEMA_VERSION}.0.0")
  BUILDER_CONFIGS: ClassVar = [
    PcanConfig(name="ma52", description="MA-52's keypoints, default frames")
  ]
  MANUAL_DOWNLOAD_INSTRUCTIONS = """
    The manual directory is a source directory in the layout in which MA-52 is published:
    raw_videos/SPLIT/ID.mp4, pose/NAME_SPLIT.pkl, annotations/SPLIT_list_videos.txt.
    MA-52 itself is available to researchers on request:
    https://huggingface.co/datasets/kunli-cs/MA-52
  """

  def __init__(self, **kwargs: Any) -> None:
    super().__init__(**kwargs)
    self._final_folder = pathlib.Path(self.data_path)

  @functools.cached_property
  def _encoding(self) -> Encoding:
    return Encoding(self.builder_config.side, self.builder_config.jpeg_quality)

  @functools.cached_property
  def _layout(self) -> KeypointLayout:
    return get_layout(self.builder_config.layout)

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description="Clips of people, cropped to them, with their keypoints and action labels.",
      features=records.features(self._layout.num_keypoints, videos=self.builder_config.videos),
      metadata=tfds.core.MetadataDict(
        schema_version=records.SCHEMA_VERSION,
        side=self._encoding.side,
        jpeg_quality=self._encoding.jpeg_quality,
        layout=self._layout.to_dict(),
        **self._kind,
      ),
    )

  @property
  def _kind(self) -> dict[str, bool]:
    # Where there are videos, nothing says so: the fingerprints of earlier versions stay valid.
    return {} if self.builder_config.videos else {"videos": False}

  def download_and_prepare(
    self, *, download_config: tfds.download.DownloadConfig | None = None, **kwargs: Any
  ) -> None:
    """Builds the data set, unless it has been built already.

    Raises:
      FileNotFoundError: something of the source is missing.
      ValueError: something of the source cannot be read, clips are bad, or the data set that is
        there was built of something else; the message says what has changed.
    """
    config = download_config or tfds.download.DownloadConfig()
    # Who only wants to read a data set names no source.
    if config.manual_dir and self._final_folder.exists() and config.download_mode == _REUSE:
      self._require_same_sources(pathlib.Path(config.manual_dir))
    super().download_and_prepare(download_config=config, **kwargs)

  def _download_and_prepare(
    self,
    dl_manager: tfds.download.DownloadManager,
    download_config: tfds.download.DownloadConfig | None = None,
  ) -> None:
    clips, tree, problems = self._scan(pathlib.Path(dl_manager.manual_dir))
    self._report(problems)
    sources = self._digest(clips, tree)
    store = shard_store.ShardStore(self._beside("work"), self.info.features)
    with store.locked():
      self._remove_leftovers()
      shards = {
        split: shard_store.plan_shards(of_split, self.builder_config.clips_per_shard)
        for split, of_split in clips.items()
      }
      keys = {
        split: [
          shard_store.shard_key(shard, sources.splits[split], self._encoding) for shard in of_split
        ]
        for split, of_split in shards.items()
      }
      self._build_missing(store, shards, keys, download_config)
      problems += [
        problem
        for key in itertools.chain(*keys.values())
        for problem in store.summary(key).problems
      ]
      self._report(problems)
      self._take_shards(store, keys, problems, _persons_option(clips).get(_PERSONS, {}))
      sources.write(pathlib.Path(self._data_dir))
      self.info.metadata["fingerprint"] = sources.fingerprint
      self.info.metadata["tree"] = tree.to_dict()

  def _post_download_and_prepare_hook(self) -> None:
    shutil.rmtree(self._beside("work"), ignore_errors=True)

  def _remove_leftovers(self) -> None:
    """Deletes incomplete files of TFDS from interrupted builds."""
    for folder in self._final_folder.parent.glob(f"incomplete.*_{self._final_folder.name}"):
      if folder != pathlib.Path(self._data_dir):
        shutil.rmtree(folder)

  def _beside(self, suffix: str) -> pathlib.Path:
    return self._final_folder.with_name(f"{self._final_folder.name}.{suffix}")

  def _scan(
    self, source: pathlib.Path
  ) -> tuple[dict[str, list[ClipSource]], LabelTree, list[Problem]]:
    """Reads the source except for the videos: clips by split, labels, and bad clips."""
    tree = source_layout.read_tree(source, self.builder_config.tree)
    clips, problems = {}, []
    if source_layout.has_videos(source) != self.builder_config.videos:
      raise ValueError(
        f"{source} has {'videos' if not self.builder_config.videos else 'no folder raw_videos'}; "
        f"build it with videos={not self.builder_config.videos}"
      )
    for split in source_layout.find_splits(source):
      clips[split], bad = source_layout.scan_split(
        source, split, tree, self._layout, self.builder_config.fps
      )
      problems += bad
    return clips, tree, problems

  def _digest(self, clips: Mapping[str, Sequence[ClipSource]], tree: LabelTree) -> Sources:
    return Sources(
      options={
        "schema_version": records.SCHEMA_VERSION,
        "side": self._encoding.side,
        "jpeg_quality": self._encoding.jpeg_quality,
        "clips_per_shard": self.builder_config.clips_per_shard,
        "keypoint layout": self._layout.to_dict(),
        "label tree": tree.to_dict(),
        **self._kind,
        **_persons_option(clips),
      },
      splits={split: digest_clips(of_split) for split, of_split in clips.items()},
    )

  def _require_same_sources(self, source: pathlib.Path) -> None:
    """Refuses a data set that this build would not have made.

    Raises:
      FileNotFoundError, ValueError: see `download_and_prepare`.
    """
    where = self._final_folder
    metadata = records.check_metadata(self.info.metadata, str(where))
    clips, tree, problems = self._scan(source)
    if not self.builder_config.skip_bad:
      if problems:
        self._report(problems)
      if metadata["skipped"]:
        raise ValueError(
          f"{where} lacks {metadata['skipped']} bad clips, it was built with --skip_bad. Mend the "
          "clips, delete that folder and build again, or give --skip_bad again"
        )
    sources = self._digest(clips, tree)
    if metadata.get("fingerprint") != sources.fingerprint:
      earlier = Sources.read(where)
      changes = sources.changes_since(earlier) if earlier else ["it does not say of what"]
      raise ValueError(
        f"{where} was built of something else: {'; '.join(changes)}. "
        "Delete that folder to build it again, or build into another directory"
      )

  def _build_missing(
    self,
    store: shard_store.ShardStore,
    shards: Shards,
    keys: Mapping[str, Sequence[str]],
    download_config: tfds.download.DownloadConfig | None,
  ) -> None:
    plan = [*zip(itertools.chain(*keys.values()), itertools.chain(*shards.values()))]
    missing = [(key, clips) for key, clips in plan if not self._is_finished(store, key)]
    if download_config and (download_config.beam_runner or download_config.beam_options):
      _build_with_beam(store, missing, self._encoding, download_config)
      return
    total = sum(len(clips) for _, clips in plan)
    done = total - sum(len(clips) for _, clips in missing)
    encoded = map_clips(
      functools.partial(encode_clip, encoding=self._encoding),
      (clip for _, clips in missing for clip in clips),
      self.builder_config.jobs,
    )
    # disable=None: no progress bar unless on a terminal.
    with tqdm.tqdm(total=total, initial=done, unit=" clips", disable=None) as progress:
      for key, clips in missing:
        store.write(key, _counted(itertools.islice(encoded, len(clips)), progress))

  def _is_finished(self, store: shard_store.ShardStore, key: str) -> bool:
    summary = store.summary(key)
    # Shards with bad clips, which stopped the last build, are built again.
    return summary is not None and (not summary.problems or self.builder_config.skip_bad)

  def _report(self, problems: Sequence[Problem]) -> None:
    """Lists bad clips in a file next to the data set, and raises unless they are to be skipped."""
    table = self._beside("bad_clips.csv")
    write_problems(table, problems)
    if problems and not self.builder_config.skip_bad:
      raise ValueError(
        f"{describe_problems('cannot build the data set', problems)}\n"
        f"All of them: {table}. Fix them, or leave them out with --skip_bad, and build again; "
        "finished shards are kept"
      )

  def _take_shards(
    self,
    store: shard_store.ShardStore,
    keys: Mapping[str, Sequence[str]],
    problems: Sequence[Problem],
    persons: Mapping[str, Mapping[str, str]],
  ) -> None:
    """Moves the shards to where TFDS expects them and records their contents."""
    split_infos, counts = [], {}
    for split, of_split in keys.items():
      summaries = {key: store.summary(key) for key in of_split}
      # Readers do not expect empty shards.
      kept = [key for key, summary in summaries.items() if summary.actions]
      if not kept:
        raise ValueError(f"no clip of the split {split!r} can be read")
      template = self._get_filename_template(split_name=split)
      paths = [
        pathlib.Path(template.sharded_filepath(shard_index=index, num_shards=len(kept)))
        for index in range(len(kept))
      ]
      for key, path in zip(kept, paths):
        store.path(key).replace(path)
      split_infos.append(
        tfds.core.SplitInfo(
          name=split,
          shard_lengths=[len(summaries[key].actions) for key in kept],
          num_bytes=sum(path.stat().st_size for path in paths),
          filename_template=template,
        )
      )
      counts[split] = {
        "clips": sum(len(summary.actions) for summary in summaries.values()),
        "skipped": sum(problem.split == split for problem in problems),
        "trimmed": sum(summary.trimmed for summary in summaries.values()),
        "damaged": sum(summary.damaged for summary in summaries.values()),
        "without_person": sum(summary.without_person for summary in summaries.values()),
        "max_frames": max(summary.max_frames for summary in summaries.values()),
        "ids": [name for key in kept for name in summaries[key].ids],
        "actions": [action for key in kept for action in summaries[key].actions],
        "offsets": [offset for path in paths for offset in record_offsets(path)],
      }
      if split in persons:
        counts[split]["persons"] = [persons[split][name] for name in counts[split]["ids"]]
    self.info.set_splits(tfds.core.splits.SplitDict(split_infos))
    self.info.metadata["splits"] = counts
    self.info.metadata["skipped"] = len(problems)

  # Nothing is downloaded.
  def _log_download_bytes(self) -> None:
    pass

  def _log_download_done(self) -> None:
    pass


def _persons_option(
  clips: Mapping[str, Sequence[ClipSource]],
) -> dict[str, dict[str, dict[str, str]]]:
  """By split the person in every clip, as an option of the build; nothing if they are not known."""
  known = {
    split: {clip.id: clip.person for clip in of_split}
    for split, of_split in clips.items()
    if of_split and all(clip.person for clip in of_split)
  }
  return {_PERSONS: known} if known else {}


def _build_with_beam(
  store: shard_store.ShardStore,
  shards: Sequence[tuple[str, list[ClipSource]]],
  encoding: Encoding,
  download_config: tfds.download.DownloadConfig,
) -> None:
  import apache_beam as beam  # an optional dependency

  def write(key: str, clips: list[ClipSource]) -> None:
    encode = functools.partial(encode_clip, encoding=encoding)
    store.write(key, (call_or_explain(encode, clip) for clip in clips))

  with beam.Pipeline(download_config.beam_runner, download_config.beam_options) as pipeline:
    _ = pipeline | beam.Create(shards) | beam.Reshuffle() | beam.MapTuple(write)


def _counted(items: Iterator[Any], progress: tqdm.tqdm) -> Iterator[Any]:
  for item in items:
    yield item
    progress.update()
