import pytest

from tests.hostile_inputs import attack


@pytest.mark.parametrize(
  ("kind", "mutations"),
  [("pickle", 1500), ("video", 500), ("pose file", 500), ("table", 200), ("shard and JPEG", 30)],
)
def test_damaged_files_end_in_words_or_in_a_record(tmp_path, kind, mutations):
  outcomes = attack(kind, mutations, seed=0, folder=tmp_path)
  assert sum(outcomes.values()) == mutations
  assert outcomes["error"] > mutations / 10
