"""A figure's body, looks and surroundings, sampled once for all of its clips."""

import dataclasses

import numpy as np

from .skeleton import Body

Colour = tuple[float, float, float]

_SKINS = (
  (244, 209, 184),
  (234, 190, 160),
  (224, 172, 138),
  (198, 142, 106),
  (160, 106, 76),
  (134, 90, 66),
  (112, 74, 56),
)
_HAIRS = (
  (24, 20, 20),
  (38, 28, 24),
  (62, 44, 32),
  (96, 66, 42),
  (150, 110, 62),
  (128, 122, 118),
  (86, 40, 26),
)
_TROUSERS = ((44, 54, 84), (32, 34, 40), (86, 92, 104), (118, 100, 78), (58, 66, 58), (70, 82, 118))
_SHOES = ((28, 26, 28), (230, 228, 224), (92, 62, 44), (60, 70, 96), (150, 40, 44))


@dataclasses.dataclass(frozen=True)
class Looks:
  """Colours (RGB, 0-255), hair and clothes.

  `hair_line` is the angular radius of the face within the hair (radians). `hair` is one of short,
  bob, long, bun; `pattern` is one of plain, stripes, placket, print, jacket.
  """

  skin: Colour
  hair_colour: Colour
  hair: str
  hair_line: float
  hair_volume: float
  beard: bool
  glasses: bool
  shirt: Colour
  shirt_accent: Colour
  pattern: str
  long_sleeves: bool
  trousers: Colour
  shorts: bool
  shoes: Colour


@dataclasses.dataclass(frozen=True)
class Figure:
  """One identity: body, looks, and the seed of its room and camera."""

  body: Body
  looks: Looks
  setting: int


def _vivid(rng: np.random.Generator) -> Colour:
  """A colour for clothes: any hue, from pale to strong, from dark to light."""
  hue, saturation, value = rng.uniform(0, 6), rng.uniform(0.05, 0.75), rng.uniform(0.25, 0.95)
  wheel = np.clip(np.abs((hue + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
  return tuple(255 * value * (1 - saturation * (1 - wheel)))


def sample_figure(rng: np.random.Generator) -> Figure:
  """Samples a figure."""
  size = rng.normal(1.0, 0.045)
  part = dict(
    zip(
      (
        "upper_arm",
        "forearm",
        "thigh",
        "shin",
        "lower_spine",
        "upper_spine",
        "neck",
        "shoulder",
        "hip",
        "foot",
      ),
      size * np.clip(rng.normal(1.0, 0.04, 10), 0.9, 1.1),
    )
  )
  average = Body()
  lengths = {name: float(getattr(average, name) * factor) for name, factor in part.items()}
  seat = lengths["shin"] + rng.uniform(0.06, 0.11)
  body = Body(
    **lengths,
    hand=float(size * rng.uniform(0.95, 1.1)),
    head=float(rng.normal(1.02, 0.035)),
    girth=float(np.clip(rng.normal(1.0, 0.12), 0.8, 1.35)),
    seat=float(seat),
  )
  skin = np.array(_SKINS[rng.integers(len(_SKINS))]) + rng.normal(0, 5, 3)
  hair = rng.choice(["short", "short", "bob", "long", "bun"])
  shirt = np.array(_vivid(rng))
  looks = Looks(
    skin=tuple(np.clip(skin, 30, 250)),
    hair_colour=_HAIRS[rng.integers(len(_HAIRS))],
    hair=str(hair),
    hair_line=float(rng.uniform(1.12, 1.3)),
    hair_volume=float(rng.uniform(1.03, 1.1) if hair == "short" else rng.uniform(1.08, 1.2)),
    beard=bool(hair == "short" and rng.random() < 0.3),
    glasses=bool(rng.random() < 0.35),
    shirt=tuple(shirt),
    shirt_accent=tuple(np.clip(shirt + rng.choice([-60, 60]) + rng.normal(0, 25, 3), 10, 250)),
    pattern=str(rng.choice(["plain", "plain", "stripes", "placket", "print", "jacket"])),
    long_sleeves=bool(rng.random() < 0.6),
    trousers=tuple(
      np.clip(np.array(_TROUSERS[rng.integers(len(_TROUSERS))]) + rng.normal(0, 10, 3), 10, 250)
    ),
    shorts=bool(rng.random() < 0.15),
    shoes=_SHOES[rng.integers(len(_SHOES))],
  )
  return Figure(body, looks, int(rng.integers(2**62)))
