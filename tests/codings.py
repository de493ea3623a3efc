"""Codings with everything that formats find hard, for the tests of those formats."""

import random

from pcan_jax.coding.events import Coding, Event
from pcan_jax.labels import LabelTree

NAMES = (
  "nod",
  'wave, "big"',
  "Kopf schütteln",
  "点头",
  "two\nlines",
  "old\r\nlines",
  "a & <b>; c|d",
)
TREE = LabelTree(NAMES, ("head", "arm, upper", 'leg "left"'), (0, 1, 0, 2, 1, 2, 0))


def random_coding(seed, video, confident=True):
  """Events of two people; those of one person and tier may overlap."""
  rng = random.Random(seed)
  events = []
  for _ in range(rng.randrange(1, 30)):
    onset = rng.randrange(0, 4_000_000)
    action = rng.randrange(TREE.num_actions)
    events.append(
      Event(
        onset / 1000,
        (onset + rng.randrange(1, 20_000)) / 1000,
        TREE.actions[action],
        TREE.bodies[TREE.parents[action]],
        rng.choice(["", "Ann", 'Bob "B", é']),
        rng.randrange(1001) / 1000 if confident else None,
      )
    )
  return Coding(video, tuple(events))


def in_milliseconds(coding):
  return [
    (round(e.onset * 1000), round(e.offset * 1000), e.label, e.tier, e.subject, e.confidence)
    for e in coding.events
  ]


def event(onset, offset, *fields):
  return Event(float(onset), float(offset), *fields)
