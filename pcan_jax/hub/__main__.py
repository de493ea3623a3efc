"""Command line: `pcan hub push RUN user/model`."""

import argparse
import pathlib
import sys
import tempfile
from collections.abc import Sequence

from pcan_jax.console import quiet_libraries
from pcan_jax.prediction.pretrained import NAME


def main(argv: Sequence[str] | None = None) -> None:
  """Pushes a model, or shows what would be pushed."""
  parser = argparse.ArgumentParser(
    prog="pcan hub", description="Shares a trained model on the Hugging Face Hub."
  )
  commands = parser.add_subparsers(dest="command", required=True)
  push = commands.add_parser(
    "push", help="upload a checkpoint with a model card; `hf auth login` first"
  )
  push.add_argument("run", type=pathlib.Path, help="working directory, DIR/best or one checkpoint")
  push.add_argument("name", help="user/model")
  push.add_argument("--private", action="store_true", help="a new model is only seen by you")
  push.add_argument("--license", help="of the weights, as the hub abbreviates it: cc-by-nc-4.0")
  push.add_argument("--dry_run", action="store_true", help="print the card and the files only")
  arguments = parser.parse_args(argv)
  if not NAME.fullmatch(arguments.name):
    parser.error(f"{arguments.name!r} is not the name of a model, user/model")
  quiet_libraries()
  try:
    from pcan_jax.hub.push import push as push_model
    from pcan_jax.hub.push import write_shared

    if arguments.dry_run:
      with tempfile.TemporaryDirectory() as directory:
        folder = pathlib.Path(directory)
        print(write_shared(arguments.run, arguments.name, folder, arguments.license))
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
          print(f"{path.stat().st_size:>12,}  {path.relative_to(folder)}")
      return
    address = push_model(
      arguments.run, arguments.name, private=arguments.private, license_id=arguments.license
    )
  except (ModuleNotFoundError, OSError, ValueError) as error:
    sys.exit(f"error: {error}")
  print(address)


if __name__ == "__main__":
  main()
