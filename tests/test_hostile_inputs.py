import pytest

from tests.hostile_inputs import attack


# Python's reader of pickles says so of damaged strings, which no program shows.
@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize(
  ("kind", "mutations"),
  [("pickle", 750), ("video", 250), ("pose file", 250), ("table", 100), ("shard and JPEG", 15)],
)
def test_damaged_files_end_in_words_or_in_a_record(tmp_path, kind, mutations, seed):
  outcomes = attack(kind, mutations, seed, folder=tmp_path)
  assert sum(outcomes.values()) == mutations
  assert outcomes["error"] > mutations / 10
