"""Writes torch_training.pth, torch_training_legacy.pth and torch_tensors.npz beside this file.

Needs PyTorch (2.13 wrote those that are kept), and NumPy for nothing but the last file. The
checkpoints hold what a training run with mmengine leaves: a state dict, an optimizer, and a message
hub with objects of classes that a reader will not have.
"""

import collections
import pathlib
import sys
import types

import numpy as np
import torch

HERE = pathlib.Path(__file__).parent


class HistoryBuffer:
  """Stands in for mmengine's class of this name."""

  def __init__(self) -> None:
    self._log_history = np.arange(5.0)
    self._statistics_methods = collections.OrderedDict(mean=HistoryBuffer.mean)

  def mean(self) -> float:
    return float(self._log_history.mean())


def disguise() -> None:
  """Lets the class be pickled as mmengine's."""
  name = "mmengine.logging.history_buffer"
  for part in ("mmengine", "mmengine.logging", name):
    sys.modules[part] = types.ModuleType(part)
  sys.modules[name].HistoryBuffer = HistoryBuffer
  for thing in (HistoryBuffer, HistoryBuffer.mean):
    thing.__module__ = name


def main() -> None:
  disguise()
  torch.manual_seed(0)
  network = torch.nn.Sequential(
    collections.OrderedDict(
      conv=torch.nn.Conv3d(2, 3, (3, 1, 1)), bn=torch.nn.BatchNorm3d(3), fc=torch.nn.Linear(3, 4)
    )
  )
  optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
  network.conv(torch.randn(2, 2, 4, 1, 1)).sum().backward()
  optimizer.step()
  state_dict = network.state_dict()
  base = torch.arange(24.0).reshape(4, 6)
  state_dict["view.transposed"] = base.t()[1:4]
  state_dict["view.shared"] = base[2]
  state_dict["half"] = torch.randn(5).half()
  state_dict["bfloat16"] = torch.randn(5).bfloat16()
  state_dict["double"] = torch.randn(2, 2).double()
  state_dict["scalar"] = torch.tensor(7)
  state_dict["empty"] = torch.zeros(0, 3)
  state_dict["bool"] = torch.tensor([True, False])
  state_dict["parameter"] = torch.nn.Parameter(torch.randn(3))
  checkpoint = {
    "meta": {"epoch": 3},
    "state_dict": state_dict,
    "message_hub": {
      "log_scalars": {"train/loss": HistoryBuffer()},
      "runtime_info": collections.OrderedDict(iter=3, loss=np.float64(3.0)),
    },
    "optimizer": optimizer.state_dict(),
  }
  torch.save(checkpoint, HERE / "torch_training.pth")
  torch.save(checkpoint, HERE / "torch_training_legacy.pth", _use_new_zipfile_serialization=False)
  tensors = {
    name: (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
    for name, tensor in state_dict.items()
  }
  np.savez(HERE / "torch_tensors.npz", **tensors)


if __name__ == "__main__":
  main()
