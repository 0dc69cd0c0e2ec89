"""Which device a network runs on."""

from __future__ import annotations

import shutil
import sys
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def choose_device(device: str) -> torch.device:
    """A torch device by name; ``"auto"`` is CUDA where there is one, else the CPU.

    Raises:
        ValueError: No such device here.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ValueError(f"no device {device!r}; use 'auto', 'cpu' or 'cuda'") from None
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {device!r} is not there, torch sees {torch.cuda.device_count()} CUDA devices; use 'cpu'"
        )
    try:
        torch.zeros(1, device=chosen).cpu()  # torch knows the names of devices that it was not built for
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {device!r} can't be used here ({reason}); use 'auto', 'cpu' or 'cuda'") from error
    return chosen


def usable_device(device: str) -> str:
    """The name of a device that is here: the one asked for, or the CPU with a warning that says why.

    Where there is no trace of an NVIDIA driver PyTorch is not imported to find out: it takes seconds.

    Example:
        >>> usable_device("cpu")
        'cpu'
    """
    if device == "cpu" or (device == "auto" and "torch" not in sys.modules and shutil.which("nvidia-smi") is None):
        return "cpu"
    try:
        return str(choose_device(device))
    except ValueError as error:
        # A word that is no device is a mistake, not a machine without one.
        if device.partition(":")[0] not in ("cuda", "auto"):
            raise
        warnings.warn(f"{str(error).partition('; use ')[0]}; the CPU serves instead", stacklevel=3)
        return "cpu"
