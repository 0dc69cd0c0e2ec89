"""How far head poses are off: on made heads whose pose is known, and on real faces against their mirror images.

    python experiments/head_pose/measure.py DATA_ROOT

DATA_ROOT holds ``300W/``; its 202 validation faces are read. Writes ``metrics.json`` beside this file. Takes
under a minute.

A made head is the template, made into another head: stretched by 7 % (one standard deviation) in width, height and
depth each, every point moved by 2 mm a coordinate (what faces of 300W differ by, see fit.py). It is turned by yaw,
pitch and roll, uniform within 75, 40 and 45 degrees of the line of sight, and put before a camera of 640 x 480 pixels
with a focal length of 0.7 to 2 times the width, anywhere in the picture's middle half, 40 to 140 pixels between the
outer eye corners. Its points get the noise of a detector: normal, a mean distance of 3 % of the outer-eye distance. The
pose is then asked for as a user does, who knows neither head nor camera.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from skimage.data import astronaut

from experiments.record import data_root, write
from pipnet.data.datasets import read_dataset
from pipnet.data.images import read_image
from pipnet.inference.landmarker import FaceLandmarker
from pipnet.layouts import get_layout
from pipnet.measurements import (
    TEMPLATE_MM,
    TEMPLATE_POINTS,
    angles_of,
    from_line_of_sight,
    head_angles,
    rotation_of,
    solve_pose,
)

HERE = Path(__file__).resolve().parent
LAYOUT = get_layout("300w_68")
HEADS = 5000
IMAGE_SIZE = (640, 480)
LIMITS = np.array([75.0, 40.0, 45.0])  # yaw, pitch, roll
YAW_RANGES = ((0, 15), (15, 30), (30, 45), (45, 60), (60, 75))
AXIS_SPREAD, POINT_SPREAD_MM, FOCALS, NME = 0.07, 2.0, (0.7, 2.0), 0.03
# Everything wrong at once is what a user meets; the others say where the error comes from.
SETTINGS: dict[str, dict[str, float]] = {
    "exact points, the template's head, known focal length": {"head": 0, "camera": 0, "noise": 0},
    "another head": {"head": 1, "camera": 0, "noise": 0},
    "unknown focal length": {"head": 0, "camera": 1, "noise": 0},
    "points 3 % off": {"head": 0, "camera": 0, "noise": 1},
    "all three": {"head": 1, "camera": 1, "noise": 1},
    "all three, angles against the camera's axes instead": {"head": 1, "camera": 1, "noise": 1, "sight": 0},
    "all three, points 6 % off": {"head": 1, "camera": 1, "noise": 2},
    "all three, points 12 % off": {"head": 1, "camera": 1, "noise": 4},
}
CLEAR_DEGREES = 10.0  # of yaw, from which its sign is asked for
FLIP_DEGREES = 45.0  # an error of this size is another solution, not noise


def made_heads(
    rng: np.random.Generator, head: float, camera: float, noise: float, sight: float = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Points ``(F, 68, 2)``, zero where the template has none, and true angles ``(F, 3)``.

    The angles count from the line of sight, or, with ``sight`` 0, from the camera's axes.
    """
    width, height = IMAGE_SIZE
    angles = rng.uniform(-1, 1, (HEADS, 3)) * LIMITS
    points = np.zeros((HEADS, 68, 2))
    for row, (yaw, pitch, roll) in enumerate(angles):
        shape = TEMPLATE_MM * (1 + head * AXIS_SPREAD * rng.normal(size=3))
        shape = shape + head * POINT_SPREAD_MM * rng.normal(size=shape.shape)
        focal = width * (np.exp(rng.uniform(*np.log(FOCALS))) if camera else 1.0)
        eyes_px = rng.uniform(40, 140)
        middle = rng.uniform([0.25 * width, 0.25 * height], [0.75 * width, 0.75 * height])
        principal = np.array([width - 1, height - 1]) / 2
        distance = focal * 90.0 / eyes_px  # 90 mm between the outer eye corners
        place = np.array([*((middle - principal) * distance / focal), distance])
        rotation = rotation_of(yaw, pitch, roll)
        if sight:
            rotation = from_line_of_sight(np.eye(3)[None], place[None])[0].T @ rotation
        seen = shape @ rotation.T + place
        seen = seen[:, :2] / seen[:, 2:] * focal + principal
        # The mean length of a normal error in two dimensions is sqrt(pi / 2) of its deviation in one.
        deviation = noise * NME * eyes_px / np.sqrt(np.pi / 2)
        points[row, TEMPLATE_POINTS] = seen + rng.normal(0, 1, seen.shape) * deviation
    return points, angles


def figures(found: np.ndarray, angles: np.ndarray) -> dict[str, Any]:
    """Median and 95th percentile of each angle's error, wrong signs of yaw, flips."""
    errors = np.abs((found - angles + 180) % 360 - 180)  # the short way round
    clear = np.abs(angles[:, 0]) > CLEAR_DEGREES
    wrong = clear & (np.sign(found[:, 0]) != np.sign(angles[:, 0]))
    return {
        "heads": len(angles),
        "median": np.median(errors, axis=0).tolist(),
        "p95": np.percentile(errors, 95, axis=0).tolist(),
        "clear": int(clear.sum()),
        "wrong_sign": int(wrong.sum()),
        "flips": int((errors > FLIP_DEGREES).any(axis=1).sum()),
    }


def on_made_heads() -> dict[str, Any]:
    """All settings, and the ranges of yaw of the one with everything wrong."""
    by_setting: dict[str, Any] = {}
    for name, setting in SETTINGS.items():
        points, angles = made_heads(np.random.default_rng(0), **setting)
        if setting.get("sight", 1):
            found = head_angles(points, IMAGE_SIZE)
        else:
            found = angles_of(solve_pose(points, IMAGE_SIZE)[0])
        by_setting[name] = figures(found, angles)
        if name == "all three":
            yaw = np.abs(angles[:, 0])
            chosen = {f"{a} to {b}": (yaw >= a) & (yaw < b) for a, b in YAW_RANGES}
            by_yaw = {key: figures(found[rows], angles[rows]) for key, rows in chosen.items()}
            start = time.process_time()
            head_angles(points[:500], IMAGE_SIZE)
            milliseconds = 1000 * (time.process_time() - start) / 500
    return {"by_setting": by_setting, "by_yaw": by_yaw, "milliseconds_a_face": milliseconds}


def on_mirrored_photos(root: Path) -> dict[str, Any]:
    """Poses of real faces against those of their mirror images: yaw and roll must be negated, pitch must stay."""
    samples, _ = read_dataset("300w", root=root / "300W", layout=LAYOUT, part="train", validation="only")
    landmarker = FaceLandmarker.load(device="cpu")
    found, again, labelled = [], [], []
    for sample in samples:
        image = read_image(sample.image)
        height, width = image.shape[:2]
        x0, y0, x1, y1 = sample.box
        faces = landmarker(
            [image, np.ascontiguousarray(image[:, ::-1])], boxes=[sample.box, [width - 1 - x1, y0, width - 1 - x0, y1]]
        )
        found.append(faces[0].head_pose((width, height))[0])
        again.append(faces[1].head_pose((width, height))[0] * [-1, 1, -1])
        labelled.append(head_angles(sample.points[None], (width, height))[0])
    poses, again, labelled = np.array(found), np.array(again), np.array(labelled)
    return {
        "mirrored photo": figures(again, poses),
        "labels in place of the network's points": figures(labelled, poses),
    }


def on_the_portrait() -> dict[str, list[float]]:
    """Yaw, pitch and roll of scikit-image's astronaut, who looks into the camera, both ways."""
    faces = FaceLandmarker.load(device="cpu")(astronaut())
    rotations, _ = solve_pose(faces.points, (512, 512))
    return {
        "line_of_sight": faces.head_pose((512, 512))[0].tolist(),
        "camera_axes": angles_of(rotations)[0].tolist(),
    }


def main() -> None:
    root = data_root(__doc__)
    metrics = {"made": on_made_heads(), "real": on_mirrored_photos(root), "portrait": on_the_portrait()}
    write(HERE / "metrics.json", metrics)


if __name__ == "__main__":
    main()
