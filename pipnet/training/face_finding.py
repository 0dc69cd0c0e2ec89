"""One photo through the face detector: each detection measured and cut out."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipnet.data.face_cutting import cut_face
from pipnet.data.face_rules import share_inside, sharpness
from pipnet.data.face_store import FoundFace, PhotoRecord
from pipnet.data.photos_ahead import OpenedPhoto
from pipnet.inference.detections import Detections, Detector


def find_faces(photo: OpenedPhoto, detector: Detector, face_size: int) -> tuple[PhotoRecord, list[np.ndarray]]:
    """What the store keeps of a photo.

    Args:
        photo: With its image.
        detector: Any.
        face_size: Most that the longer side of a face's box may have in its crop, pixels.

    Returns:
        The record, and the crops of its faces, RGB uint8.

    Raises:
        ValueError: The detector gave something that is no box, or a score that is no number. Its own errors arrive as
            they are, with a note that names the photo.
    """
    assert photo.image is not None
    try:
        found = detector(photo.image)
    except Exception as error:  # the photo is good, the detector is not: not to be passed over
        error.add_note(f"the detector failed on {photo.path}; choose another detector, or take the photo out")
        raise
    _check(found, photo.path)
    height, width = photo.image.shape[:2]
    faces, crops = [], []
    angles = getattr(found, "angles", np.full(len(found.scores), np.nan))  # a detector of the user's own may lack them
    for box, score, angle in zip(found.boxes.astype(np.float64), found.scores, angles, strict=True):
        crop, crop_box = cut_face(photo.image, box, face_size)
        faces.append(
            FoundFace(
                box=tuple(box.tolist()),
                score=float(score),
                size=float((box[2:] - box[:2]).max()),
                sharpness=sharpness(photo.image, box),
                inside=share_inside(box, width, height),
                crop_box=crop_box,
                angle=float(angle) if np.isfinite(angle) else None,
            )
        )
        crops.append(crop)
    return PhotoRecord(photo.name, (width, height), faces), crops


def _check(found: Detections, path: Path) -> None:
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    good = np.isfinite(found.boxes).all(axis=1) & (sides > 0).all(axis=1) & np.isfinite(found.scores)
    if not good.all():
        at = int(np.flatnonzero(~good)[0])
        what = f"the box {found.boxes[at].tolist()} with score {found.scores[at]}"
        raise ValueError(f"{path}: the detector gave {what}, which has no extent or is no number; correct the detector")
