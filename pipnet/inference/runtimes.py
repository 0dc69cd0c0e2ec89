"""The network behind one call: crops in, points and scores out, NumPy on both sides."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from pipnet.model.pipnet import PIPNet


class Runtime(Protocol):
    """What :class:`~pipnet.inference.landmarker.FaceLandmarker` needs of a network.

    Attributes:
        input_size: S, side of the crops in pixels.
    """

    input_size: int

    def __call__(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points on crops.

        Args:
            crops: RGB uint8 ``(B, S, S, 3)``.

        Returns:
            ``points_unit``, float32 ``(B, N, 2)``, fractions of the crop; and ``scores``, float32 ``(B, N)`` in [0, 1].
        """
        ...


class TorchRuntime:
    """A :class:`~pipnet.model.pipnet.PIPNet` in PyTorch, on the device where its weights are.

    Args:
        net: In eval mode.
    """

    def __init__(self, net: PIPNet) -> None:
        self.net = net
        self.input_size = net.input_size
        self.device = next((weights.device for weights in net.parameters()), torch.device("cpu"))

    def __call__(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See :meth:`Runtime.__call__`."""
        # Channels stay last in memory: the permuted view is torch's own channels_last format, no copy is made.
        batch = torch.from_numpy(crops).to(self.device).permute(0, 3, 1, 2)
        points_unit, scores = self.net.predict(batch)
        return points_unit.cpu().numpy(), scores.cpu().numpy()
