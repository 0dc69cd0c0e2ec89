"""Quick measurement during training, on faces that stay in memory."""

from __future__ import annotations

import numpy as np
import torch

from pipnet.data.dataset import FaceCrops
from pipnet.data.report import contact_sheet, draw_points
from pipnet.layouts import PointLayout
from pipnet.metrics import labelled_mean, nme, norm_distances, point_distances
from pipnet.model.confidence import TOLERANCE
from pipnet.model.network import LandmarkNet

_SHOWN = 16  # faces of the contact sheet


class Validation:
    """NME of a network on validation faces.

    Crops are cut once, by the warp that everything uses. A crop is a similarity of the photo, so its NME equals the one
    in source pixels; the full report is :mod:`pipnet.evaluation.evaluate`.

    Raises:
        ValueError: There is no face, or none on which errors can be measured.
    """

    def __init__(self, faces: FaceCrops, layout: PointLayout, *, batch_size: int = 32) -> None:
        if not len(faces):
            raise ValueError("no face to validate on; choose another split, such as splits.val=test")
        self.layout, self.crop_scale = layout, faces.crop_scale
        crops = [faces[0, index] for index in range(len(faces))]
        self.images = torch.stack([crop["image"] for crop in crops]).permute(0, 3, 1, 2)  # (F, 3, S, S)
        self.points = np.stack([crop["points"].numpy() for crop in crops])  # (F, N, 2)
        norms = norm_distances(self.points, layout)
        self.norm = norms.get("outer_eye", norms["box"])
        self.box_norm = norms["box"]
        if not np.isfinite(self.norm).any():
            raise ValueError(f"no validation face has both points of norm_pair of layout {layout.name}")
        self.batch_size = batch_size

    def predict(self, net: LandmarkNet, device: torch.device, count: int | None = None) -> np.ndarray:
        """Points of the first ``count`` faces (all by default), ``(F, N, 2)``, fractions of the crop."""
        was_training = net.training
        net.eval()
        images = self.images[:count]
        points = [net.predict(part.to(device)).points_unit.cpu().numpy() for part in images.split(self.batch_size)]
        net.train(was_training)
        return np.concatenate(points)

    def __call__(self, net: LandmarkNet, device: torch.device) -> dict[str, float]:
        """``val_nme`` (outer eyes where the layout has them, else box) and ``val_nme_box``, in percent."""
        predicted = self.predict(net, device)
        return {
            "val_nme": 100 * float(np.nanmean(nme(predicted, self.points, self.norm))),
            "val_nme_box": 100 * float(np.nanmean(nme(predicted, self.points, self.box_norm))),
        }

    def by_face(self, net: LandmarkNet, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
        """NME of each face, a fraction, and the share of its labelled points that are right, both ``(F,)``.

        Right is within :data:`pipnet.model.confidence.TOLERANCE` of the label. NaN where a face can't tell.
        """
        predicted = self.predict(net, device)
        apart = point_distances(predicted, self.points) / self.box_norm[:, None]
        right = labelled_mean(np.where(np.isnan(apart), np.nan, apart <= TOLERANCE))
        return nme(predicted, self.points, self.norm), right

    def mean_face_nme(self, mean_face: np.ndarray) -> float:
        """What the mean face scores on every crop, in percent: the error of not looking at the picture."""
        guess = np.broadcast_to(mean_face, self.points.shape)
        return 100 * float(np.nanmean(nme(guess, self.points, self.norm)))

    def contact_sheet(self, net: LandmarkNet, device: torch.device) -> np.ndarray:
        """Predictions (green) over labels (red) on the first faces, RGB uint8."""
        size = self.images.shape[-1]
        tiles = []
        for image, truth, guess in zip(self.images, self.points, self.predict(net, device, _SHOWN), strict=False):
            tile = draw_points(image.permute(1, 2, 0).numpy(), truth * size - 0.5, color=(230, 60, 60))
            tiles.append(draw_points(tile, guess * size - 0.5))
        return contact_sheet(tiles, columns=8)
