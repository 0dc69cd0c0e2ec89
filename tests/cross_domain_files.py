"""Synthetic faces as labelled sets in files of the published forms, checkpoints and runs, for the benchmark's tests."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import scipy.io
import torch
from test_readers import pts_text, wflw_line

from experiments.cross_domain import pairs
from pipnet.layouts import get_layout, map_points
from pipnet.model import checkpoint
from pipnet.model.pipnet import PIPNet

L19, L68, L98 = (get_layout(name) for name in ("aflw_19", "300w_68", "wflw_98"))


def wflw_points(points: np.ndarray) -> np.ndarray:
    """98 points whose mapping to 68 gives these: edges of a brow fall together, eyelids too."""
    wflw = np.zeros((98, 2))
    wflw[:33:2] = points[:17]
    wflw[1:33:2] = (points[:16] + points[1:17]) / 2
    for first, edges in ((17, (33, 34, 35, 36, 37)), (22, (42, 43, 44, 45, 46))):
        wflw[list(edges)] = points[first : first + 5]
    for upper, lower in ((34, 41), (35, 40), (36, 39), (37, 38), (42, 50), (43, 49), (44, 48), (45, 47)):
        wflw[lower] = wflw[upper]
    wflw[51:60] = points[27:36]
    for first, eye in ((60, range(36, 42)), (68, range(42, 48))):
        outer, upper, upper_inner, inner, lower_inner, lower = (points[i] for i in eye)
        middle, below = (upper + upper_inner) / 2, (lower + lower_inner) / 2
        near = [1.5 * upper - middle / 2, middle, 1.5 * upper_inner - middle / 2]
        far = [1.5 * lower_inner - below / 2, below, 1.5 * lower - below / 2]
        wflw[first : first + 8] = [outer, *near, inner, *far]
    wflw[76:96] = points[48:68]
    wflw[96], wflw[97] = points[36:42].mean(axis=0), points[42:48].mean(axis=0)
    return wflw


def write_picture(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1])


def write_300w(root: Path, faces, folder: str = "helen/testset") -> None:
    for needed in ("helen/testset", "lfpw/testset"):  # a tree without them is no 300W
        (root / "300W" / needed).mkdir(parents=True, exist_ok=True)
    for face in faces:
        write_picture(root / "300W" / folder / f"{face.name}.png", face.image)
        (root / "300W" / folder / f"{face.name}.pts").write_text(pts_text(face.points + 1))  # counted from 1


def write_wflw(root: Path, faces, part: str = "test") -> None:
    """The first face of three is posed, the second posed and blurred."""
    attributes = [(1, 0, 0, 0, 0, 0), (1, 0, 0, 0, 0, 1), (0, 0, 0, 0, 0, 0)]
    folder = root / "WFLW" / "WFLW_annotations" / "list_98pt_rect_attr_train_test"
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, face in enumerate(faces):
        photo = f"0--Drawn/{part}_{face.name}.png"
        write_picture(root / "WFLW" / "WFLW_images" / photo, face.image)
        lines.append(wflw_line(wflw_points(face.points), attributes=attributes[number % 3], photo=photo))
    (folder / f"list_98pt_rect_attr_{part}.txt").write_text("\n".join(lines) + "\n")


def write_aflw(root: Path, faces, train: int = 20_000) -> None:
    """The published file: 20,000 faces that train, in the photos of the first half of ``faces``, then the others."""
    names = [f"{number % 2}/{face.name}.png" for number, face in enumerate(faces)]
    for name, face in zip(names, faces, strict=True):
        write_picture(root / "AFLW" / "flickr" / name, face.image)
    points = np.stack([map_points(face.points, L68, L19) for face in faces])
    half = len(faces) // 2
    order = [*(number % half for number in range(train)), *range(half, len(faces))]
    boxes = np.stack([face.box for face in faces])[order]
    cells = np.empty((len(order), 1), dtype=object)
    cells[:, 0] = [names[face] for face in order]
    content = {
        "data": np.concatenate([points[order, :, 0], points[order, :, 1]], axis=1),
        "bbox": boxes[:, [0, 2, 1, 3]],
        "nameList": cells,
        "ra": np.arange(1, len(order) + 1)[None],
    }
    scipy.io.savemat(root / "AFLW" / "AFLWinfo_release.mat", content)


def save(path: Path, seed: int, layout=L68) -> Path:
    """An untrained network: it predicts something else on every face, far off."""
    torch.manual_seed(seed)
    mean_face = np.random.default_rng(0).uniform(0.2, 0.8, (layout.num_points, 2))
    net = PIPNet(mean_face, "mobilenet_v3_small", num_neighbors=2, input_size=64).eval()
    torch.nn.init.normal_(net.head.weight, std=0.5)
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save(path, net, layout=layout, crop_scale=1.25, training={})
    return path


def finished(runs: Path, row: str, seed: int, pair: str = "300w_wflw", images: tuple[int, ...] = (200, 100)) -> Path:
    folder = runs / f"cross_domain_{pair}_{row}_{seed}"
    folder.mkdir(parents=True)
    (folder / "best.pt").write_bytes(b"")
    stages = [{"name": f"stage {number}", "images": count} for number, count in enumerate(images)]
    (folder / "stages.json").write_text(json.dumps(stages))
    return folder


def no_detector(image):
    raise AssertionError("both sets are cut by the boxes of their labels")


def errors_on(pair: str, root: Path, path: Path, detector=no_detector):
    sets = {key: pairs.read_faces(getattr(pairs.pair_named(pair), key), root) for key in ("source", "target")}
    return sets, pairs.errors_of(path, sets, detector)
