"""The command `pcan convert`, which imports large libraries only once the flags are parsed."""

import sys

from absl import flags

from pcan_jax.console import define_config_flag, quiet_libraries, run_with_flags
from pcan_jax.keypoints import get_layout
from pcan_jax.labels import get_tree

FLAGS = flags.FLAGS


def main() -> None:
  """The command line."""
  define_config_flag()
  flags.mark_flag_as_required("config")
  flags.DEFINE_string(
    "source", None, "PyTorch checkpoint: .pth, .bin or .safetensors.", required=True
  )
  flags.DEFINE_string("workdir", None, "Working directory for the checkpoint.", required=True)
  flags.DEFINE_string("tree", "ma52", "Label tree: a name, or a CSV file id,action,body.")
  flags.DEFINE_string("layout", "openpose-28", "Keypoint layout: a name, or a JSON file.")
  flags.DEFINE_integer("stored_size", None, "Pixels of stored frames; default: input.test_size.")
  flags.DEFINE_bool("reinit_stem", False, "Reinitialise a pose stem for other keypoints.")
  usage = "usage: pcan convert --config=NAME[:VARIANT] --source=FILE --workdir=DIR"
  run_with_flags(_convert_as_flags_say, usage, __name__)


def _convert_as_flags_say() -> None:
  """Converts, and prints what was left out."""
  quiet_libraries()
  import jax

  from pcan_jax.spec import ModelSpec
  from pcan_jax.torch.convert import convert

  try:
    spec = ModelSpec(
      config=FLAGS.config,
      tree=get_tree(FLAGS.tree),
      layout=get_layout(FLAGS.layout),
      stored_size=FLAGS.stored_size or FLAGS.config.input.test_size,
    )
    conversion = convert(FLAGS.source, FLAGS.workdir, spec, reinit_stem=FLAGS.reinit_stem)
  except (OSError, ValueError) as error:
    sys.exit(f"error: {error}")
  for note in conversion.notes:
    print(note)
  size = sum(leaf.size for leaf in jax.tree.leaves(conversion.variables["params"]))
  print(f"wrote {size / 1e6:.2f} M parameters to {FLAGS.workdir}/checkpoints/0")
