"""What every landmark network of this package does, PIPNet and its rivals alike: crops in, points and scores out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pipnet.model.backbones import IMAGENET_MEAN, IMAGENET_STD
from pipnet.model.confidence import Confidence, plain_parameters


class Prediction(NamedTuple):
    """Points of a batch of crops."""

    points_unit: Tensor  # (B, N, 2) float32, fractions of the crop
    scores: Tensor  # (B, N) float32 in [0, 1]; see pipnet.model.confidence
    face_scores: Tensor  # (B,) float32 in [0, 1]


class Votes(NamedTuple):
    """Points of a batch of crops, and what their scores are made from.

    What spread and peak are differs from network to network, and each says so at its ``count_votes``; the calibration
    of the scores (:mod:`pipnet.model.confidence`) is the same for all.
    """

    points_unit: Tensor  # (B, N, 2) float32, fractions of the crop
    spread: Tensor  # (B, N), cells; for PIPNet the root mean square distance of the votes from their mean
    peak: Tensor  # (B, N), the largest value of the score map or heatmap


class PointTargets(NamedTuple):
    """Labels of a batch as points."""

    points_unit: Tensor  # (B, N, 2), fractions of the crop; 0 where a point does not count
    weight: Tensor  # (B, N) float32, how much a point counts; 0 where it is not labelled or outside the crop


class LandmarkNet(nn.Module):
    """A network from face crops to N points: the interface that training, measuring and export use.

    A network defines ``forward(images, pool_factor=None)``, :meth:`loss_class` and :meth:`count_votes`, and
    :meth:`targets` if it wants other ones. ``forward`` gives the images to ``backbone``, which holds what is
    pretrained, and to nothing else. :attr:`arguments` lists what rebuilds the network.

    Args:
        mean_face: ``(N, 2)``, mean shape of the training labels as fractions of the crop.
        input_size: Side of the crop in pixels.
        grid: Cells a side of the finest map: the unit of the spread of :class:`Votes`.
        arguments: Further arguments of the network, plain types.
        pixel_mean: Of the backbone's pretraining, RGB, fractions of 255.
        pixel_std: Likewise.

    Attributes:
        arguments: Plain types; ``type(net)(**net.arguments)`` is the same network with other weights.

    Raises:
        ValueError: The mean face is not finite ``(N, 2)``.
    """

    backbone: nn.Module
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        mean_face: Sequence[Sequence[float]] | np.ndarray,
        input_size: int,
        grid: int,
        arguments: Mapping[str, Any],
        pixel_mean: Sequence[float] = IMAGENET_MEAN,
        pixel_std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        mean_face = checked_mean_face(mean_face)
        self.num_points = len(mean_face)
        self.input_size = input_size
        self.grid = grid
        self.arguments: dict[str, Any] = {"mean_face": mean_face.tolist(), **arguments, "input_size": input_size}
        # What follows from the arguments is not stored with the weights.
        for name, values in {"pixel_mean": pixel_mean, "pixel_std": pixel_std}.items():
            self.register_buffer(name, 255 * torch.tensor(tuple(values)).view(1, 3, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.pixel_mean.device

    def targets(self, points_unit: Tensor, *, weight: Tensor | None = None, pool_factor: Tensor | None = None) -> Any:
        """Labels as the loss wants them.

        Args:
            points_unit: ``(B, N, 2)``, fractions of the crop; NaN for points that are not labelled. Those outside the
                crop by more than one cell don't count.
            weight: ``(B, N)`` in [0, 1], how much each point counts; None is 1.
            pool_factor: ``(B,)`` int64 on the CPU, the coarse tasks of self-training, which PIPNet alone has.

        Raises:
            ValueError: A pool factor is not 1, and the network has no coarse tasks.
        """
        if pool_factor is not None and (pool_factor != 1).any():
            raise ValueError("only PIPNet has coarse tasks; choose a curriculum whose stages have pool_factor: 1")
        scaled = points_unit * self.grid
        counts = ((scaled >= -1) & (scaled <= self.grid + 1)).all(dim=-1)  # NaN is neither
        weight = counts.float() if weight is None else torch.where(counts, weight, 0.0)
        return PointTargets(torch.where(counts[..., None], points_unit, 0.0), weight)

    @property
    def ranks_faces(self) -> bool:
        """Whether the scores tell one face from another."""
        return True

    def loss_class(self) -> Callable[..., nn.Module]:
        """What builds this network's loss: a module from output and targets to named terms, whose sum is minimised.

        It takes the config group ``loss``, and ``total_count`` as :class:`pipnet.model.loss.PIPLoss` does.
        """
        raise NotImplementedError

    def count_votes(self, output: Any) -> Votes:
        """What :meth:`forward` gives as points, with what their scores are made from."""
        raise NotImplementedError

    def take_layers(self, other: LandmarkNet, points: Mapping[int, int] | None) -> tuple[str, list[str]]:
        """Take the weights of the layers behind the backbone from another network, as far as they mean the same.

        Here those of equal name and shape, of a network of the same kind with the same points.

        Args:
            other: Of any kind.
            points: Own points that the other has too, and their numbers there; None where its backbone gives other
                features, so that none of its layers fit.

        Returns:
            How a sentence about what is taken goes on behind the backbone, and what is new.
        """
        if type(self) is not type(other) or points != {point: point for point in range(self.num_points)}:
            return " taken", ["all other layers"]
        theirs = other.state_dict()
        own = {key: values for key, values in self.state_dict().items() if not key.startswith("backbone.")}
        fit = {key: theirs[key] for key in own if key in theirs and theirs[key].shape == own[key].shape}
        self.load_state_dict(fit, strict=False)
        missing = len(own) - len(fit)
        return f" taken, and {len(fit)} of {len(own)} other weights", [f"{missing} weights"] * bool(missing)

    def normalize(self, crops: Tensor) -> Tensor:
        """uint8 RGB ``(B, 3, S, S)`` to the float input of :meth:`forward`, by the backbone's mean and deviation."""
        return (crops.to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std

    @torch.inference_mode()
    def predict(self, crops: Tensor) -> Prediction:
        """Points on crops, uint8 RGB ``(B, 3, S, S)`` with ``S = input_size``; ValueError for any others."""
        size = self.input_size
        if crops.dtype != torch.uint8 or crops.dim() != 4 or tuple(crops.shape[1:]) != (3, size, size):
            raise ValueError(f"crops must be uint8 (B, 3, {size}, {size}), got {crops.dtype} {tuple(crops.shape)}")
        return self.interpret(self(self.normalize(crops)))

    def interpret(self, output: Any) -> Prediction:
        """What :meth:`forward` gives as points and scores."""
        votes = self.count_votes(output)
        return Prediction(votes.points_unit, *self.confidence(votes.spread, votes.peak))

    def calibrate(self, confidence: Mapping[str, Any] | None) -> None:
        """Give the scores another calibration; it travels in :attr:`arguments`."""
        plain = None if confidence is None else plain_parameters(confidence)
        self.confidence = Confidence(self.num_points, plain).to(self.device)
        self.arguments.pop("confidence", None)  # absent rather than None: as in files from before there were any
        if plain is not None:
            self.arguments["confidence"] = plain


def take(module: nn.Module, other: nn.Module) -> bool:
    """Give a module another's weights if it has all of them, by name and shape; whether it did."""
    own, theirs = module.state_dict(), other.state_dict()
    fits = all(key in theirs and theirs[key].shape == values.shape for key, values in own.items())
    if fits:
        module.load_state_dict({key: theirs[key] for key in own})
    return fits


def checked_mean_face(mean_face: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
    """A mean face as finite float64 ``(N, 2)``."""
    mean_face = np.asarray(mean_face, dtype=np.float64)
    if mean_face.ndim != 2 or mean_face.shape[1] != 2 or not np.isfinite(mean_face).all():
        raise ValueError(f"mean_face must be finite (N, 2), got shape {mean_face.shape}")
    return mean_face
