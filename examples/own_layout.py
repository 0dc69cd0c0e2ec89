"""A layout of your own, from nothing: draw cat faces with 12 points, train on them, find the points of new cats.

python examples/own_layout.py cats          # two to five minutes on two cores, no download; needs the extra `train`
python examples/own_layout.py cats quick    # one epoch of a few cats, to see that it runs

Leaves in the folder what you would write for photos of your own: layout.yaml, photos, train.csv, dataset/cats.yaml and
experiment/cats.yaml. docs/own_data.md explains each.
"""

import csv
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

from pipnet import FaceLandmarker
from pipnet.geometry import tight_box

LAYOUT = """\
name: cat_12
num_points: 12
names: [left_ear_tip, left_ear, right_ear_tip, right_ear, left_eye_outer, left_eye_inner,
        right_eye_inner, right_eye_outer, nose, mouth_left, mouth_right, chin]
mirror_pairs: [[0, 2], [1, 3], [4, 7], [5, 6], [9, 10]]
norm_pair: [4, 7]
groups:
  - {name: left_ear, part: ear, indices: [0, 1]}
  - {name: right_ear, part: ear, indices: [2, 3]}
  - {name: left_eye, part: eye, indices: [4, 5]}
  - {name: right_eye, part: eye, indices: [6, 7]}
  - {name: muzzle, part: mouth, indices: [8, 9, 11, 10], closed: true}
"""
DATASET = """\
name: cats
reader: csv
root: ${data_root}
layout: ${.root}/layout.yaml
on_bad: raise
splits:
  train: {file: train.csv, images: ., validation: exclude}
  val: {file: train.csv, images: ., validation: only}
"""
EXPERIMENT = """\
# @package _global_
defaults:
  - override /dataset: cats
  - override /transform: none
name: cats
model: {backbone: mobilenet_v3_small, input_size: 96, pretrained: false}
transform: {mirror_p: 0.5, rotate_p: 0.5, rotate: 15, brightness: 0.2, contrast: 0.2}
optim: {lr: 0.002}
fit: {epochs: 16, batch_size: 16, ema_decay: 0, validate_every: 2, progress_bar: false}
"""
# A cat's head, about 200 units wide, x to the right and y down; left is the picture's.
SHAPE = np.array(
    [[-80, -110], [-95, -20], [80, -110], [95, -20], [-62, -20], [-25, -15], [25, -15], [62, -20], [0, 25], [-28, 50],
     [28, 50], [0, 80]], dtype=float
)  # fmt: skip


def draw_cat(random: np.random.Generator, size: int = 160) -> tuple[np.ndarray, np.ndarray]:
    """A photo (RGB uint8) with one cat, and its 12 points."""
    points = SHAPE * random.uniform(0.9, 1.1, 2) + random.normal(0, 4, SHAPE.shape)
    angle, scale = np.deg2rad(random.uniform(-15, 15)), random.uniform(0.4, 0.55)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = points @ turn.T * scale + size / 2 + random.uniform(-12, 12, 2)
    image = np.full((size, size, 3), random.integers(0, 256, 3), dtype=np.uint8)
    fur, dark = random.integers(90, 256, 3).tolist(), random.integers(0, 60, 3).tolist()

    def polygon(indices: list[int], colour: list[int]) -> None:
        cv2.fillPoly(image, [np.round(points[indices] * 16).astype(np.int32)], colour, cv2.LINE_AA, shift=4)

    polygon([1, 0, 5], fur)
    polygon([3, 2, 6], fur)
    head = cv2.convexHull(np.float32(points[[1, 3, 4, 7, 9, 10, 11]])).reshape(-1, 2)
    cv2.fillPoly(image, [np.round(head * 16).astype(np.int32)], fur, cv2.LINE_AA, shift=4)
    for outer, inner in ((4, 5), (7, 6)):
        middle, axis = (points[outer] + points[inner]) / 2, points[outer] - points[inner]
        axes = (float(np.linalg.norm(axis)) / 2, 5.0 * scale * 2)
        cv2.ellipse(image, (middle.tolist(), (2 * axes[0], 2 * axes[1]), np.rad2deg(np.arctan2(*axis[::-1]))), dark, -1)
    cv2.polylines(image, [np.round(points[[9, 8, 10, 11, 9]] * 16).astype(np.int32)], False, dark, 2, cv2.LINE_AA, 4)
    return np.clip(image + random.normal(0, 6, image.shape), 0, 255).astype(np.uint8), points


if len(sys.argv) < 2:
    sys.exit("usage: python own_layout.py FOLDER [quick]")
folder, quick = Path(sys.argv[1]), "quick" in sys.argv[2:]
for name, text in (("layout", LAYOUT), ("dataset/cats", DATASET), ("experiment/cats", EXPERIMENT)):
    (folder / f"{name}.yaml").parent.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
random = np.random.default_rng(0)
with (folder / "train.csv").open("w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    writer.writerow(["image", *(f"{axis}{i}" for i in range(12) for axis in "xy")])
    for number in range(40 if quick else 500):
        image, points = draw_cat(random)
        cv2.imwrite(str(folder / f"{number:03}.png"), image[:, :, ::-1])
        writer.writerow([f"{number:03}.png", *points.ravel().round(2)])

train = [sys.executable, "-m", "pipnet.train", "--config-dir", folder, "experiment=cats"]
options = [f"data_root={folder}", f"folder={folder}/run", *(["fit.epochs=1", "fit.validate_every=1"] if quick else [])]
subprocess.run([*map(str, train), *options], check=True)

# RetinaFace looks for people, so the box comes from elsewhere: here from the true points.
landmarker = FaceLandmarker.load(folder / "run" / "best.pt")
errors = []
for _ in range(20):
    image, points = draw_cat(random)
    found = landmarker(image, boxes=tight_box(points)).points[0]
    errors.append(np.linalg.norm(found - points, axis=1).mean() / np.linalg.norm(points[4] - points[7]))
print(f"20 new cats: mean error {100 * np.mean(errors):.1f} % of the distance of the outer eye corners")
