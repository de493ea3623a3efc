"""Agreement: known answers, an independent kappa, and what must hold for any two codings."""

import dataclasses
import math

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from pcan_jax.coding.agreement import measure
from pcan_jax.coding.comparison import ONE_TIER, bring_together
from pcan_jax.coding.detection import THRESHOLDS, average_precision, detect
from pcan_jax.coding.events import Coding, Event
from pcan_jax.coding.kappa import Margins, cohen_kappa, event_kappa
from pcan_jax.coding.matching import iou, pair_events, share_of_longer
from pcan_jax.labels import LabelTree

TREE = LabelTree(("nod", "shake", "wave", "point"), ("head", "arm"), (0, 0, 1, 1))


def event(onset, offset, label="nod", tier="head", **fields):
  return Event(float(onset), float(offset), label, tier, **fields)


def coding(*events, video="a.mp4", duration=20.0):
  return Coding(video, events, duration)


def agreement(first, second, **options):
  return measure(bring_together(first, second), **options)


def value(scope, name):
  return scope.values[name].value


def drawn_coding(seed, video, noise=0.0, overlapping=False):
  """Events drawn from a seed; noise changes some of them, but not the others."""
  drawn, changed = np.random.default_rng(seed), np.random.default_rng(seed + 1)
  events, time = [], 0.0
  for _ in range(30):
    time += drawn.uniform(0.05, 1.5)
    label = int(drawn.integers(4))
    length = drawn.uniform(0.3, 2.0)
    kept = changed.uniform() >= noise
    shift = changed.normal(0, 0.2, 2) * (noise > 0)
    other = int(changed.integers(4))
    onset = max(0.0, time + shift[0])
    if kept or other % 2:
      label = label if kept else other
      offset = onset + length + abs(shift[1])
      events.append(
        event(
          onset,
          offset,
          TREE.actions[label],
          TREE.bodies[TREE.parents[label]],
          confidence=changed.uniform(),
        )
      )
    time += length * (0.3 if overlapping else 1.2)
  return Coding(video, tuple(events), 120.0)


def two_sides(noise=0.3, overlapping=False, videos=3):
  return [
    [drawn_coding(10 * n, f"{n}.mp4", amount, overlapping) for n in range(videos)]
    for amount in (0.0, noise)
  ]


def test_cohen_kappa_is_that_of_scikit_learn():
  rng = np.random.default_rng(0)
  for size in (2, 3, 7):
    first = rng.integers(size, size=200)
    second = np.where(rng.uniform(size=200) < 0.6, first, rng.integers(size, size=200))
    found = cohen_kappa(Margins.of_labels(first, second, size))
    assert found == pytest.approx([cohen_kappa_score(first, second)])


def test_event_kappa_is_that_of_proportional_fitting():
  """Fitted by iteration as EasyDIAg does it, from a table with a zero in the corner."""
  rng = np.random.default_rng(1)
  for _ in range(20):
    table = rng.integers(0, 9, size=(4, 4)).astype(float)
    table[-1, -1] = 0
    expected = np.ones((4, 4))
    expected[-1, -1] = 0
    for _ in range(500):
      expected *= (table.sum(1) / np.maximum(expected.sum(1), 1e-12))[:, None]
      expected *= table.sum(0) / np.maximum(expected.sum(0), 1e-12)
    chance, agreed = np.trace(expected) / table.sum(), np.trace(table) / table.sum()
    found = event_kappa(Margins.of_tables(table[None]))
    assert found == pytest.approx([(agreed - chance) / (1 - chance)])


def test_event_kappa_by_hand():
  """Two pairs of each label, and one event without a counterpart on each side.

  Of 10 events, 8 agree. By chance, 8 of them are pairs, 5/9 and 4/9 of which are of the labels.
  """
  first = [event(t, t + 1) for t in (0, 2, 4)] + [event(t, t + 1, "shake") for t in (6, 8)]
  second = [event(t, t + 1) for t in (0, 2)] + [event(t, t + 1, "shake") for t in (6, 8, 10)]
  found = agreement([coding(*first)], [coding(*second)])
  chance = 2 * 8 * (5 / 9) * (4 / 9) / 10
  assert value(found.overall, "kappa_events") == pytest.approx((0.8 - chance) / (1 - chance))
  # Nodding or not: [[4, 1], [0, 5]].
  assert value(found.classes[0], "kappa_events") == pytest.approx((0.9 - 0.5) / 0.5)
  assert found.matched.tolist() == [[2, 0, 1], [0, 2, 0], [0, 1, 0]]


@pytest.mark.parametrize("unit", [0.1, 0.25, 1.0])
def test_time_kappa_is_that_of_scikit_learn(unit):
  sides = two_sides()
  found = agreement(*sides, unit=unit)
  times = (np.arange(round(120 / unit)) + 0.5) * unit

  def labels(codings, wanted):
    parts = [np.zeros(len(times), int) for _ in codings]
    for part, one in zip(parts, codings):
      for e in one.events:
        if wanted(e):
          part[(times >= e.onset) & (times < e.offset)] = TREE.actions.index(e.label) + 1
    return np.concatenate(parts)

  for scope in found.classes:
    both = [labels(side, lambda e, label=scope.label: e.label == label) > 0 for side in sides]
    assert value(scope, "kappa_time") == pytest.approx(cohen_kappa_score(*both))
  for scope in found.tiers:
    both = [labels(side, lambda e, tier=scope.tier: e.tier == tier) for side in sides]
    assert value(scope, "kappa_time") == pytest.approx(cohen_kappa_score(*both))
    active = [one > 0 for one in both]
    assert value(scope, "kappa_active") == pytest.approx(cohen_kappa_score(*active))
  both = [labels(side, lambda e: True) for side in sides]
  assert value(found.overall, "kappa_active") == pytest.approx(
    cohen_kappa_score(*[b > 0 for b in both])
  )
  stacked = [
    np.concatenate([labels(side, lambda e, tier=tier: e.tier == tier) for tier in TREE.bodies])
    for side in sides
  ]
  assert value(found.overall, "kappa_tiers") == pytest.approx(cohen_kappa_score(*stacked))


def test_one_class_at_a_time_has_one_kappa_and_several_have_none():
  one = [coding(event(0, 2), event(2, 4, "wave", "arm"))]
  assert value(agreement(one, one).overall, "kappa_time") == 1
  two = [coding(event(0, 2), event(1, 4, "wave", "arm"))]
  found = agreement(one, two)
  assert math.isnan(value(found.overall, "kappa_time"))
  assert math.isfinite(value(found.overall, "kappa_tiers"))
  assert any("tiers overlap" in note for note in found.notes)
  three = [coding(event(0, 2), event(1, 4, "shake"))]
  found = agreement(one, three)
  assert math.isnan(value(found.overall, "kappa_tiers"))
  assert any("several labels at the same time in head" in note for note in found.notes)


def test_pairs_are_found_by_overlap():
  first = [event(0, 10), event(20, 30)]
  second = [event(3.9, 13.9), event(4, 10), event(20, 30, "shake"), event(20, 30)]
  assert pair_events(first, second, share_of_longer, 0.6) == [(0, 0), (1, 3)]
  assert pair_events(first, second, share_of_longer, 0.62) == [(1, 3)]
  assert pair_events(first, second, iou, 0.6) == [(0, 1), (1, 3)]
  assert pair_events(second, first, iou, 0.6) == [(1, 0), (3, 1)]
  exactly = pair_events([event(0, 1)], [event(0.4, 1.4)], share_of_longer, 0.6)
  assert exactly == [(0, 0)]  # 0.6 of a second, which is less in binary


def test_f1_by_hand():
  first = [coding(event(0, 4), event(10, 14))]
  second = [coding(event(2, 6), event(10, 14, "shake"), event(16, 18))]
  found = agreement(first, second)
  # An IoU of 1/3: a hit at 0.1 and 0.25, not at 0.5; five events altogether.
  assert [value(found.overall, f"f1_{level}") for level in ("0.1", "0.25", "0.5")] == [0.4, 0.4, 0]


def test_average_precision_by_hand():
  truths = [event(0, 1), event(2, 3)]
  found = [
    event(0, 1, confidence=0.9),
    event(0, 1, confidence=0.8),  # the same again is wrong
    event(2, 3.5, confidence=0.7),  # an IoU of 2/3
  ]
  precision = average_precision([detect(truths, found)], np.ones((1, 1)))[0]
  expected = [0.5 + 0.5 * 2 / 3 if level <= 0.6 else 0.5 for level in THRESHOLDS]
  assert precision == pytest.approx(expected)
  # As often as it was drawn: a video without anything right counts twice.
  other = detect([event(0, 1)], [event(5, 6, confidence=1.0)])
  weighted = average_precision([detect(truths, found), other], np.array([[1.0, 2.0]]))[0]
  assert weighted[0] == pytest.approx(0.25 * 0.4 + 0.25 * 0.4)
  assert np.isnan(average_precision([detect([], found)], np.ones((1, 1)))).all()


def test_average_precision_is_that_of_the_detection_task():
  """Written out for one threshold at a time, as the task is described."""
  first, second = two_sides(overlapping=True)
  found = agreement(first, second)
  for threshold in (0.3, 0.7):
    each = []
    for label in TREE.actions:
      truths = [(v, e) for v, one in enumerate(first) for e in one.events if e.label == label]
      guesses = [(v, e) for v, one in enumerate(second) for e in one.events if e.label == label]
      free, hits = set(range(len(truths))), []
      for video, guess in sorted(guesses, key=lambda pair: -pair[1].confidence):
        best, number = 0.0, None
        for place in free:
          shared = min(truths[place][1].offset, guess.offset) - max(
            truths[place][1].onset, guess.onset
          )
          ratio = shared / (truths[place][1].duration + guess.duration - shared)
          if truths[place][0] == video and ratio > best:
            best, number = ratio, place
        hits.append(best >= threshold)
        free -= {number} if hits[-1] else set()
      precision = [sum(hits[: n + 1]) / (n + 1) for n in range(len(hits))]
      each.append(sum(max(precision[n:]) for n in range(len(hits)) if hits[n]) / len(truths))
    assert value(found.overall, f"ap_{threshold}") == pytest.approx(np.mean(each))


def test_equal_confidences_have_no_order():
  parts = [detect([event(0, 1)], [event(0, 1)]), detect([event(0, 1)], [event(3, 4)])]
  for videos in (parts, parts[::-1]):
    assert average_precision(videos, np.ones((1, 2)))[0] == pytest.approx([0.25] * 9)


def test_differences_of_borders_by_hand():
  first = [coding(event(0.2, 2), event(5, 7), event(10, 12, "shake"))]
  second = [coding(event(0.1, 2), event(5.2, 7.5), event(10, 12))]
  found = agreement(first, second).overall
  assert value(found, "onset_mean") == pytest.approx(0.05)
  assert value(found, "offset_mean") == value(found, "offset_median") == pytest.approx(0.25)
  assert found.quantiles["onset"] == pytest.approx((-0.085, -0.025, 0.05, 0.125, 0.185))


def test_what_is_taken_for_what_also_across_tiers():
  first = [coding(event(0, 2), event(4, 6), event(8, 10))]
  second = [coding(event(0, 2, "shake"), event(4, 6, "wave", "arm"))]
  found = agreement(first, second)
  taken = {(one.first, one.second): one.count for one in found.disagreements}
  assert taken == {
    (("head", "nod"), ("head", "shake")): 1,
    (("head", "nod"), ("arm", "wave")): 1,
    (("head", "nod"), None): 1,
  }
  assert value(found.overall, "kappa_events") < 0.5  # where the pair across tiers is no pair


@pytest.mark.parametrize("overlapping", [False, True])
def test_both_orders_of_the_coders_agree(overlapping):
  first, second = two_sides(overlapping=overlapping)
  there, back = agreement(first, second), agreement(second, first)
  for one, other in zip(
    [there.overall, *there.tiers, *there.classes], [back.overall, *back.tiers, *back.classes]
  ):
    for name in one.values:
      if name.startswith(("kappa", "f1")):
        assert value(one, name) == pytest.approx(value(other, name), nan_ok=True)
      if "set_" in name:
        assert value(one, name) == pytest.approx(-value(other, name), nan_ok=True)
  assert (there.matched == back.matched.T).all()


@pytest.mark.parametrize("overlapping", [False, True])
def test_a_coding_agrees_with_itself(overlapping):
  side, _ = two_sides(overlapping=overlapping)
  found = agreement(side, side)
  for scope in (found.overall, *found.tiers, *found.classes):
    for name, one in scope.values.items():
      expected = 0 if "set_" in name else 1
      assert one.value == expected or (
        math.isnan(one.value) and name in ("kappa_time", "kappa_tiers")
      )
  assert found.disagreements == ()


def test_one_label_alone_is_defined():
  same = [coding(event(0, 2))]
  assert value(agreement(same, same).overall, "kappa_events") == 1
  other = agreement(same, [coding(event(0, 2), event(4, 6))])
  assert math.isnan(value(other.overall, "kappa_events"))  # by chance, it could not differ
  assert math.isnan(value(other.classes[0], "kappa_events"))


def test_empty_codings_are_defined():
  nothing, something = [coding(duration=None)], [coding(event(0, 2), event(4, 6, "shake"))]
  found = agreement(nothing, nothing)
  assert found.classes == ()
  assert all(math.isnan(one.value) for one in found.overall.values.values())
  for first, second in ((nothing, something), (something, nothing)):
    found = agreement(first, second)
    for name in ("kappa_events", "kappa_active", "f1_0.5"):
      assert value(found.overall, name) == 0
  assert value(agreement(something, nothing).overall, "map") == 0
  assert math.isnan(value(agreement(nothing, something).overall, "map"))


def test_intervals_are_over_videos_and_follow_the_seed():
  sides = two_sides(videos=6)
  one, same, other = (agreement(*sides, seed=seed) for seed in (1, 1, 2))
  assert one.to_json() == same.to_json() != other.to_json()
  for scope in (one.overall, *one.classes):
    for name in ("kappa_events", "kappa_active", "f1_0.5", "map", "onset_median"):
      if name in scope.values:
        found = scope.values[name]
        assert found.low <= found.value + 0.1 and found.value - 0.1 <= found.high
  alone = agreement(*two_sides(videos=1))
  assert math.isnan(alone.overall.values["f1_0.5"].low)
  assert any("one video" in note for note in alone.notes)
  # Videos that are all alike leave no doubt.
  first, second = (
    [dataclasses.replace(side[0], video=f"{n}.mp4") for n in range(4)] for side in sides
  )
  certain = agreement(first, second).overall.values["kappa_active"]
  assert certain.low == pytest.approx(certain.value) == pytest.approx(certain.high)


def test_people_are_told_apart_where_both_codings_name_them():
  first = [coding(event(0, 2, subject="P1"), event(0, 2, "shake", subject="P2"))]
  second = [coding(event(0, 2, "shake", subject="P1"), event(0, 2, subject="P2"))]
  assert value(agreement(first, second).overall, "f1_0.5") == 0
  unnamed = [coding(event(0, 2, "shake"), event(0, 2))]
  found = agreement(first, unnamed)
  assert value(found.overall, "f1_0.5") == 1
  assert any("subjects" in note for note in found.notes)


def test_tiers_come_from_the_tree_or_from_the_other_coding():
  without = [Coding("C:\\films\\a.avi", (event(0, 2, tier=""), event(3, 4, "wave", "")), 20.0)]
  tiers = [coding(event(0, 2), event(3, 4, "wave", "arm"))]
  found = bring_together(without, tiers)
  assert found.tiers == ("arm", "head") and "has no tiers" in found.notes[0]
  assert found.recordings[0].first == found.recordings[0].second
  assert bring_together(without, without).tiers == (ONE_TIER,)
  by_tree = bring_together(without, without, tree=TREE)
  assert by_tree.classes == (("head", "nod"), ("arm", "wave"))
  assert bring_together(tiers, without, one_tier=True).tiers == (ONE_TIER,)


@pytest.mark.parametrize(
  ("first", "second", "options", "message"),
  [
    (["a.mp4", "b.mp4"], ["a.mp4"], {}, "only A has 'b.mp4'; --common"),
    (["a.mp4"], ["c.mp4"], {}, "no video in common: only A has 'a.mp4'; only B has 'c.mp4'"),
    (["a.mp4", "a.avi"], ["a.mp4"], {}, "A has two codings of a.avi"),
    ([], ["a.mp4"], {}, "A holds no coding"),
    (["a.mp4"], ["a.mp4"], {"start": 30.0}, "a.mp4 ends at 20 s"),
    (["a.mp4"], ["a.mp4"], {"start": 3.0, "end": 2.0}, "ends at 2.0 s, before"),
    (["a.mp4"], ["a.mp4"], {"start": -5.0}, "from -5.0 s to None s; both are 0 or more"),
    (["a.mp4"], ["a.mp4"], {"end": float("nan")}, "to nan s; both are 0 or more"),
    (["a.mp4"], ["a.mp4"], {"tree": LabelTree(("x",), ("y",), (0,))}, "not in the tree: 'nod'"),
  ],
)
def test_codings_that_do_not_fit_are_refused(first, second, options, message):
  first, second = ([coding(event(0, 1), video=v) for v in videos] for videos in (first, second))
  with pytest.raises(ValueError, match=message):
    bring_together(first, second, **options)


def test_tiers_that_do_not_fit_are_refused():
  first = [coding(event(0, 1, tier="Kopf"))]
  with pytest.raises(ValueError, match="A has 'Kopf', B has 'head'; rename them"):
    bring_together(first, [coding(event(0, 1))])
  twice = [coding(event(0, 1), event(2, 3, tier="arm"))]
  with pytest.raises(ValueError, match="'nod' under 'arm', 'head'"):
    bring_together([coding(event(0, 1, tier=""))], twice)


def test_a_part_of_the_recordings_and_common_videos():
  first = [coding(event(1, 3), event(5, 9)), coding(event(0, 1), video="b.mp4")]
  second = [coding(event(5, 9), event(12, 14))]
  found = bring_together(first, second, only_common=True, start=4.0, end=8.0)
  [one] = found.recordings
  assert (one.duration, one.first, one.second) == (4.0, (event(1, 4),), (event(1, 4),))
  assert "only A has 'b.mp4', which was left out" in found.notes[0]


def test_names_that_are_nearly_the_same_are_told():
  first = [coding(event(0, 1, subject="Ann"), event(2, 3, subject="Ben"))]
  second = [coding(event(0, 1, "Nod", subject="ann"), event(2, 3, subject="Ben"))]
  notes = "; ".join(bring_together(first, second).notes)
  assert "labels that are nearly the same count as different: 'Nod' and 'nod'" in notes
  assert "subjects that are nearly the same count as different: 'Ann' and 'ann'" in notes


def test_a_length_counts_that_only_the_video_has():
  one = [coding(event(0, 1), duration=None)]
  assert "the length of 'a.mp4' is not known" in bring_together(one, one).notes[0]
  found = bring_together(one, one, lengths={"a": 30.0})
  assert found.notes == () and found.recordings[0].duration == 30


def test_wrong_settings_are_refused():
  one = bring_together([coding(event(0, 1))], [coding(event(0, 1))])
  with pytest.raises(ValueError, match="time unit"):
    measure(one, unit=0.0)
  with pytest.raises(ValueError, match="least overlap"):
    measure(one, overlap=1.5)
