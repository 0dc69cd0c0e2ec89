"""One file that is enough to predict."""

from __future__ import annotations

import errno
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipnet.files import replacing
from pipnet.layouts import PointLayout, layout_from_dict
from pipnet.model.network import LandmarkNet
from pipnet.model.networks import DEFAULT, network_class, network_name

FORMAT = 1
SECOND_HEAD = "second_head."  # begins the names of weights that only training uses


class CheckpointError(ValueError):
    """A file that is not a usable checkpoint; the message names the file and what is wrong."""


@dataclass(frozen=True)
class LoadedModel:
    """A network with everything needed to use it.

    Attributes:
        net: In eval mode; it knows its crop size.
        layout: What its points mean.
        crop_scale: Side of the crop over the longer side of the face box.
        training: Record of the training: plain config, data counts, seed, metrics, versions, licence of the data.
    """

    net: LandmarkNet
    layout: PointLayout
    crop_scale: float
    training: dict[str, Any]


def save(
    path: str | Path,
    net: LandmarkNet,
    *,
    layout: PointLayout,
    crop_scale: float,
    training: Mapping[str, Any],
    resume: Mapping[str, Any] | None = None,
    half: bool = False,
) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        path: Target; an older file of that name is replaced.
        net: Its weights and arguments are stored.
        layout: What its points mean.
        crop_scale: Side of the crop over the longer side of the face box.
        training: Plain types only.
        resume: What a training needs to go on (``last.pt``); files that are shared lack it.
        half: Store floating-point weights in 16 bits, half the size. They are read back as 32 bits.

    Raises:
        ValueError: If the layout does not fit the network.
        OSError: If the file can't be written.
    """
    if layout.num_points != net.num_points:
        raise ValueError(f"layout {layout.name} has {layout.num_points} points, the network {net.num_points}")
    weights = {
        name: values.detach().cpu() for name, values in net.state_dict().items() if not name.startswith(SECOND_HEAD)
    }
    if half:
        weights = {name: values.half() if values.is_floating_point() else values for name, values in weights.items()}
    content: dict[str, Any] = {
        "format": FORMAT,
        "model": net.arguments,
        "layout": layout.to_dict(),
        "crop_scale": float(crop_scale),
        "weights": weights,
        "training": dict(training),
    }
    if network_name(net) != DEFAULT:  # PIPNet's files are those of 0.4
        content["network"] = network_name(net)
    if resume is not None:
        content["resume"] = dict(resume)
    with replacing(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # how torch's writer reports a full disk
            raise OSError(errno.EIO, _first_line(error)) from error


def read_tensors(path: str | Path) -> Any:
    """Content of any file of torch, on the CPU, with ``weights_only=True``: opening a stranger's file can't run code.

    Raises:
        FileNotFoundError: No such file; the message lists the checkpoints beside it.
        CheckpointError: Damaged, or holding more than tensors and plain types.
    """
    path = Path(path)
    if not path.is_file():
        beside = sorted(p.name for p in path.parent.glob("*.pt*") if p.suffix in (".pt", ".pth"))
        hint = f"beside it: {', '.join(beside)}" if beside else "give the path of a .pt, .onnx or .xml file"
        raise FileNotFoundError(f"no checkpoint {path}; {hint}")
    try:
        # torch does not look at the checksums that it writes: a flipped bit would pass as a weight.
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as records:
                damaged = records.testzip()
            if damaged:
                raise CheckpointError(f"{path} is damaged (in {damaged}); copy or train it again")
        return torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # on a foreign file torch's unpickler fails with whatever its bytes lead to
        raise CheckpointError(
            f"{path} is damaged or not a checkpoint{_reason(error)}; copy or train it again"
        ) from error


def read(path: str | Path) -> dict[str, Any]:
    """Content of a checkpoint file of pipnet; see :func:`read_tensors`.

    Raises:
        FileNotFoundError: No such file; the message lists the checkpoints beside it.
        CheckpointError: Not a pipnet checkpoint, damaged, or newer than this version.
    """
    content = read_tensors(path)
    if not isinstance(content, dict) or "format" not in content or "model" not in content:
        raise CheckpointError(
            f"{path} holds no pipnet checkpoint; a bare state dict of the authors' code goes through"
            " pipnet.model.released_weights.load_reference_weights"
        )
    if isinstance(content["format"], bool) or not isinstance(content["format"], int):
        raise CheckpointError(f"{path} has format {content['format']!r}, which is no number; copy or train it again")
    if content["format"] > FORMAT:
        raise CheckpointError(
            f"{path} has format {content['format']}, this pipnet reads up to {FORMAT}; upgrade pipnet"
        )
    if "box_scale" in content:  # its name in files of pipnet 0.4
        content["crop_scale"] = content.pop("box_scale")
    missing = sorted({"layout", "crop_scale", "weights", "training"} - set(content))
    if missing:
        raise CheckpointError(f"{path} lacks {missing[0]!r}; it was not written by pipnet.model.checkpoint.save")
    for key, kind in {"crop_scale": int | float, "weights": Mapping, "training": Mapping}.items():
        if not isinstance(content[key], kind):
            raise CheckpointError(f"{path}: {key} is {type(content[key]).__name__}; copy or train the file again")
    return content


def load(path: str | Path, *, device: str | torch.device = "cpu") -> LoadedModel:
    """Rebuild a network, its layout and its crop from one file written by :func:`save`, on whatever device.

    Raises:
        FileNotFoundError: No such file.
        CheckpointError: Not usable; the message names the file, and for weights the key and both shapes.
    """
    content = read(path)
    try:
        net = network_class(_network_of(content))(**content["model"])
        layout = layout_from_dict(content["layout"])
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    if layout.num_points != net.num_points:
        counts = f"layout {layout.name} has {layout.num_points} points, the network {net.num_points}"
        raise CheckpointError(f"{path}: {counts}")
    load_weights(net, content["weights"], source=str(path))
    return LoadedModel(net.to(device).eval(), layout, float(content["crop_scale"]), content["training"])


def holds(content: Mapping[str, Any], net: LandmarkNet) -> bool:
    """Whether a checkpoint's content, of :func:`read`, is of a network of the same class and arguments."""
    return _network_of(content) == network_name(net) and content["model"] == net.arguments


def _network_of(content: Mapping[str, Any]) -> str:
    return str(content.get("network", DEFAULT))


def load_weights(net: LandmarkNet, weights: Mapping[str, Tensor], *, source: str) -> None:
    """Put weights into a network; every key and shape must match, see :func:`check_fit`.

    Those of a second head may be missing, and stay as they are: they are not in every file.
    """
    own = net.state_dict()
    weights = {re.sub(r"^trunk\.", "backbone.", key): values for key, values in weights.items()}  # its name up to 0.4
    wanted = {key: values for key, values in own.items() if key in weights or not key.startswith(SECOND_HEAD)}
    check_fit({key: tuple(values.shape) for key, values in wanted.items()}, weights, source=source)
    net.load_state_dict(own | {key: values.to(own[key].dtype) for key, values in weights.items()})


def check_fit(shapes: Mapping[str, tuple[int, ...]], weights: Mapping[str, Tensor], *, source: str) -> None:
    """Whether weights have the names and shapes that a network wants.

    Raises:
        CheckpointError: Names ``source``, the first key that differs, and both shapes.
    """
    for key in sorted(shapes.keys() | weights.keys()):
        if key not in weights:
            wrong = "is missing"
        elif key not in shapes:
            wrong = "is not known"
        elif tuple(weights[key].shape) != shapes[key]:
            wrong = f"has shape {tuple(weights[key].shape)}, the network needs {shapes[key]}"
        else:
            continue
        raise CheckpointError(f"{source}: weight {key!r} {wrong}; the file belongs to another layout or network")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def _reason(error: BaseException) -> str:
    """In brackets; nothing where it tells nobody anything: a bare key, or how the unpickler stumbled over a text."""
    line = _first_line(error)
    return f" ({line})" if " " in line and not isinstance(error, LookupError) else ""
