"""An HTML page of the network's inputs: animated clips with skeleton, crop and heatmaps."""

import base64
import dataclasses
import functools
import html
import pathlib
from collections.abc import Iterable, Sequence

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from pcan_jax.clips.encode_clip import encode_clip
from pcan_jax.clips.skeleton import draw_alone, draw_skeletons
from pcan_jax.clips.source_layout import UNLABELLED, ClipSource
from pcan_jax.clips.stored_frames import Encoding
from pcan_jax.clips.video import decode_video
from pcan_jax.config import load_config
from pcan_jax.inputs import Preprocessing, preprocess
from pcan_jax.keypoints import KeypointLayout
from pcan_jax.labels import LabelTree

from . import findings
from .findings import CheckResult, ClipFacts

_FRAMES = 16
_HEIGHT = 168
_SIDE = 256
_HEATMAP_SIZE = 64

_PAGE = """<!doctype html>
<html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">
<title>{title}</title>
<style>
  body {{ font: 15px/1.45 system-ui, sans-serif; max-width: 1240px; margin: 2em auto;
    padding: 0 1em; color: #222; background: #fff }}
  h1 {{ font-size: 1.35em; overflow-wrap: anywhere }} h2 {{ font-size: 1.1em; margin-top: 2em }}
  figure {{ margin: 0 0 1.6em }} figcaption {{ margin-bottom: .3em }}
  .samples {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(590px, 1fr)) }}
  .panels {{ display: flex; flex-wrap: wrap; gap: 6px; font-size: 12px; color: #666 }}
  .strip {{ height: 168px; background-size: auto 100% }}
  .strip:hover {{ animation-play-state: paused }}
  @keyframes play {{ to {{ background-position-x: var(--shift) }} }}
  table {{ border-collapse: collapse; font-size: 13px }}
  td, th {{ padding: 2px 10px 2px 0; text-align: left; vertical-align: top }}
  .classes td + td, .classes th + th {{ width: 220px }} .classes th {{ padding-top: .6em }}
  .bar {{ display: inline-block; height: .7em; margin-right: 6px; max-width: 75%;
    background: #7aa6d8 }}
  .error td:first-child {{ color: #b00020; font-weight: 600 }}
  .warning td:first-child {{ color: #8a5a00 }}
  .key {{ color: #666 }} .left {{ color: #d97706 }} .right {{ color: #1d6fd1 }}
</style>
<h1>{title}</h1>
{splits}
<p class=key>{layout}. <b class=left>Orange</b>: the person's left, <b class=right>blue</b>: the
person's right, white: neither. Green: the crop. Point at a sample to pause it.</p>
<h2>Samples</h2>
<div class=samples>{figures}</div>
<h2>Findings</h2>
{findings}
<h2>Clips per class</h2>
{classes}
</html>
"""


@dataclasses.dataclass(frozen=True)
class SourceFrames:
  """The original frames of a sample.

  Attributes:
    frames: [T, H, W, 3], RGB.
    box: (x0, y0, x1, y1) of the crop in pixels.
    keypoints: [M, T, V, 2] in pixels of these frames.
  """

  frames: UInt8[np.ndarray, "t h w 3"]
  box: Sequence[float]
  keypoints: Float[np.ndarray, "m t v 2"]


@dataclasses.dataclass(frozen=True)
class Sample:
  """Some stored frames of a clip.

  Attributes:
    facts: measurements of the clip.
    frames: [T, S, S, 3], RGB; None without videos.
    keypoints: [M, T, V, 2] in pixels of the stored frames, of which there may be none.
    scores: [M, T, V].
    source: the original frames, if known.
    side: S.
  """

  facts: ClipFacts
  frames: UInt8[np.ndarray, "t s s 3"] | None
  keypoints: Float[np.ndarray, "m t v 2"]
  scores: Float[np.ndarray, "m t v"]
  source: SourceFrames | None
  side: int


def evenly_spaced(num_frames: int) -> list[int]:
  """Indices of the frames to show."""
  return np.linspace(0, num_frames - 1, min(_FRAMES, num_frames)).round().astype(int).tolist()


def samples_of_source(
  clips: Iterable[tuple[ClipSource, ClipFacts]], per_split: int
) -> list[Sample]:
  """Decodes up to `per_split` clips of different classes from every split."""
  by_split: dict[str, dict[int | str, tuple[ClipSource, ClipFacts]]] = {}
  for clip, facts in clips:
    by_split.setdefault(clip.split, {}).setdefault(facts.kind, (clip, facts))
  samples = []
  for of_split in by_split.values():
    kinds = sorted(of_split)
    count = min(per_split, len(kinds))
    for index in range(count):
      samples.append(_sample(*of_split[kinds[index * len(kinds) // count]]))
  return samples


def _sample(clip: ClipSource, facts: ClipFacts) -> Sample:
  record = encode_clip(clip, Encoding(_SIDE))
  chosen = evenly_spaced(facts.num_frames)
  poses = record["keypoints"][:, chosen], record["keypoint_scores"][:, chosen]
  if clip.video is None:
    return Sample(facts, None, *poses, source=None, side=_SIDE)
  shown = record["order"][chosen].tolist()
  wanted = set(shown)
  frames = {i: frame for i, frame in enumerate(decode_video(clip.video)) if i in wanted}
  stored = [cv2.imdecode(np.frombuffer(record["frames"][index], np.uint8), 1) for index in chosen]
  return Sample(
    facts=facts,
    frames=np.stack(stored)[..., ::-1],
    keypoints=poses[0],
    scores=poses[1],
    source=SourceFrames(
      np.stack([frames[index] for index in shown]), record["box"], clip.keypoints[:, shown]
    ),
    side=_SIDE,
  )


def write_page(
  path: pathlib.Path, result: CheckResult, layout: KeypointLayout, samples: Sequence[Sample]
) -> None:
  """Writes one self-contained HTML file.

  Args:
    path: of the file.
    result: the numbers and findings to show with the samples.
    layout: of the samples' keypoints.
    samples: clips to show.
  """
  figures = "".join(_figure(sample, result.tree, layout) for sample in samples)
  splits = "".join(
    f"<p><b>{html.escape(split)}</b>: {html.escape(findings.describe_clips(clips))}</p>"
    for split, clips in result.clips.items()
  )
  page = _PAGE.format(
    title=html.escape(result.title),
    splits=splits,
    findings=_findings_table(result),
    classes=_classes_table(result),
    figures=figures,
    layout=html.escape(f"{layout.num_keypoints} keypoints, layout {layout.name}"),
  )
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(page, encoding="utf-8")


def _figure(sample: Sample, tree: LabelTree, layout: KeypointLayout) -> str:
  draw = functools.partial(_draw, scores=sample.scores, layout=layout)
  panels = []
  if sample.source is not None:
    frames = [frame.copy() for frame in sample.source.frames]
    x0, y0, x1, y1 = (round(edge) for edge in sample.source.box)
    for frame in frames:
      cv2.rectangle(frame, (x0, y0), (x1 - 1, y1 - 1), (90, 220, 90), max(1, len(frame) // 200))
    panels.append(("video", draw(frames, sample.source.keypoints)))
  if sample.frames is None:
    alone = draw_alone(sample.keypoints, sample.scores, sample.side, layout)
    panels.append(("skeleton", draw(alone, sample.keypoints)))
  else:
    panels.append(("stored frame", draw(sample.frames, sample.keypoints)))
  panels.append(("heatmaps", _draw_heatmaps(sample, layout)))
  facts = sample.facts
  seconds = facts.num_frames / facts.fps
  shown = "".join(_strip(name, frames, seconds) for name, frames in panels)
  if facts.action == UNLABELLED:
    label = "no label"
  else:
    action, body = tree.actions[facts.action], tree.parents[facts.action]
    label = f"{facts.action} {action} ({tree.bodies[body]})"
  caption = f"{facts.split}/{facts.id}, {facts.num_frames} frames, {facts.fps:g} fps"
  return (
    f"<figure><figcaption><b>{html.escape(label)}</b><br>{html.escape(caption)}</figcaption>"
    f"<div class=panels>{shown}</div></figure>\n"
  )


def _draw(
  frames: Iterable[np.ndarray], keypoints: np.ndarray, scores: np.ndarray, layout: KeypointLayout
) -> list[np.ndarray]:
  """Resizes frames to the displayed height, and draws the skeletons on them."""
  drawn = []
  for time, frame in enumerate(frames):
    scale = _HEIGHT / frame.shape[0]
    size = (max(1, round(frame.shape[1] * scale)), _HEIGHT)
    image = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    draw_skeletons(image, keypoints[:, time].astype(float) * scale, scores[:, time], layout)
    drawn.append(image)
  return drawn


def _draw_heatmaps(sample: Sample, layout: KeypointLayout) -> list[np.ndarray]:
  """The heatmaps that MA-52's network receives, as the maximum over joints."""
  config = Preprocessing(
    stored_size=sample.side,
    rgb_size=4 * _HEATMAP_SIZE,
    heatmap_size=_HEATMAP_SIZE,
    layout=layout,
    sigma=load_config("ma52").input.sigma,
    heatmaps="joints",
    augmentation=None,
  )
  batch = {
    "keypoints": jnp.asarray(sample.keypoints.swapaxes(0, 1)[None]),
    "keypoint_scores": jnp.asarray(sample.scores.swapaxes(0, 1)[None]),
  }
  to_inputs = jax.jit(preprocess, static_argnums=1)
  volume = np.asarray(to_inputs(batch, config)["heatmaps"])[0].max(axis=-1)
  images = (255 * volume.clip(0, 1)).astype(np.uint8)
  return [
    cv2.resize(
      cv2.cvtColor(cv2.applyColorMap(image, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB),
      (_HEIGHT, _HEIGHT),
      interpolation=cv2.INTER_NEAREST,
    )
    for image in images
  ]


def _strip(name: str, frames: Sequence[np.ndarray], seconds: float) -> str:
  """All frames side by side in one image, which the page animates."""
  done, jpeg = cv2.imencode(".jpg", np.hstack(frames)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
  if not done:
    raise RuntimeError("OpenCV cannot write JPEG images")
  width, count = frames[0].shape[1], len(frames)
  encoded = base64.b64encode(jpeg.tobytes()).decode()
  return (
    f'<div><div class=strip style="width:{width}px;--shift:-{width * count}px;'
    f"background-image:url(data:image/jpeg;base64,{encoded});"
    f'animation:play {seconds:.2f}s steps({count}) infinite"></div>{name}</div>'
  )


def _findings_table(result: CheckResult) -> str:
  if not result.findings:
    return "<p>None.</p>"
  rows = "".join(
    f"<tr class={'error' if finding.is_error else 'warning'}>"
    + "".join(
      f"<td>{html.escape(text)}</td>" for text in (finding.kind, finding.clip, finding.detail)
    )
    + "</tr>\n"
    for finding in sorted(result.findings, key=lambda finding: not finding.is_error)
  )
  return f"<table>{rows}</table>"


def _classes_table(result: CheckResult) -> str:
  tree, counts = result.tree, {split: result.counts(split) for split in result.clips}
  largest = max((n for of_split in counts.values() for n in of_split.values()), default=1)

  def row(cells: Iterable[str], tag: str = "td") -> str:
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>\n"

  def bar(count: int) -> str:
    return f"<div class=bar style='width:{100 * count / largest:.1f}%'></div>{count}"

  rows = row(["", *map(html.escape, counts)], "th")
  for body, body_name in enumerate(tree.bodies):
    actions = [action for action, parent in enumerate(tree.parents) if parent == body]
    sums = (sum(of_split[action] for action in actions) for of_split in counts.values())
    rows += row([html.escape(body_name), *map(str, sums)], "th")
    for action in actions:
      name = html.escape(f"{action} {tree.actions[action]}")
      rows += row([name, *(bar(of_split[action]) for of_split in counts.values())])
  return f"<table class=classes>{rows}</table>"
