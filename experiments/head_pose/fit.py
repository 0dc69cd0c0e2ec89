"""The 3D template of pipnet/measurements.py, from 2D labels alone.

    python experiments/head_pose/fit.py DATA_ROOT

DATA_ROOT holds ``300W/``; the 1,808 training faces are read, the validation faces left out. Writes ``template.json``
beside this file. Takes 10 seconds.

Many pictures of one rigid shape under scaled orthography are a matrix of rank 3 (Tomasi and Kanade, "Shape and Motion
from Image Streams under Orthography: a Factorization Method", IJCV 1992). Here every face is taken for the same shape,
a mean head, and what differs between heads and expressions for noise. Its points are those that move least: nose, eyes
and mouth corners. Mirrored faces are added, so that the shape is symmetric. A metric upgrade gives the start,
alternating least squares (poses, then shape) the rest.

Noise could shrink such a shape in depth. Whether it does is checked (``depth_kept``): faces are made from the result,
with the poses that were found and noise as large as the residual, and fitted in the same way. It does not.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments.record import command_line
from pipnet.data.datasets import read_dataset
from pipnet.layouts import get_layout

HERE = Path(__file__).resolve().parent
LAYOUT = get_layout("300w_68")
RIGID = [*range(27, 48), 48, 54]
MIRROR = [RIGID.index(LAYOUT.mirror[i]) for i in RIGID]
OUTER_EYES_MM = 90.0


def normalised(faces: np.ndarray) -> np.ndarray:
    """Faces ``(F, N, 2)`` about their mean, with a mean squared distance of 1 from it."""
    centred = faces - faces.mean(axis=1, keepdims=True)
    return centred / np.sqrt((centred**2).sum(axis=2).mean(axis=1))[:, None, None]


def factorised(faces: np.ndarray) -> np.ndarray:
    """A first shape ``(N, 3)`` of normalised faces: rank 3, then the upgrade that makes cameras orthographic."""
    stacked = faces.transpose(0, 2, 1).reshape(-1, faces.shape[1])
    u, singular, vt = np.linalg.svd(stacked, full_matrices=False)
    rows = u[:, :3] * singular[:3]
    x, y = rows[0::2], rows[1::2]
    i, j = np.triu_indices(3)

    def terms(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.where(i == j, a[:, i] * b[:, j], a[:, i] * b[:, j] + a[:, j] * b[:, i])

    # The rows of a camera are equally long and perpendicular; the last equation fixes the scale.
    equations = np.concatenate([terms(x, x) - terms(y, y), terms(x, y), 1e3 * terms(x, x).mean(axis=0)[None]])
    values = np.linalg.lstsq(equations, np.append(np.zeros(len(equations) - 1), 1e3), rcond=None)[0]
    metric = np.zeros((3, 3))
    metric[i, j] = metric[j, i] = values
    size, axes = np.linalg.eigh(metric)
    return np.linalg.solve(axes * np.sqrt(np.maximum(size, 1e-9)), vt[:3]).T


def cameras_of(shape: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Scaled orthographic cameras ``(F, 2, 3)`` that see the shape as the faces are."""
    affine = np.einsum("fni,nj->fij", faces, shape) @ np.linalg.inv(shape.T @ shape)
    u, size, vt = np.linalg.svd(affine, full_matrices=False)
    return size.mean(axis=1)[:, None, None] * (u @ vt)


def fitted(faces: np.ndarray) -> np.ndarray:
    """The shape ``(N, 3)``, about its mean, any orientation, mean squared distance 1."""
    shape = factorised(faces)
    for _ in range(300):
        cameras = cameras_of(shape, faces)
        shape = np.linalg.solve(np.einsum("fki,fkj->ij", cameras, cameras), np.einsum("fki,fnk->in", cameras, faces)).T
        shape /= np.sqrt((shape**2).sum(axis=1).mean())
    return shape


def upright(shape: np.ndarray) -> np.ndarray:
    """In the template's frame and in millimetres, made symmetric."""

    def at(*points: int) -> np.ndarray:
        return shape[[RIGID.index(i) for i in points]].mean(axis=0)

    x = np.linalg.svd(shape - shape[MIRROR])[2][0]  # what mirroring changes
    x *= np.sign((at(45) - at(36)) @ x)
    y = at(48, 54) - at(36, 45)
    y -= (y @ x) * x
    y /= np.linalg.norm(y)
    turned = (shape - at(36, 45)) @ np.stack([x, y, np.cross(x, y)]).T
    if turned[RIGID.index(30), 2] > 0:  # orthographic views don't tell a face from its mould: the nose does
        turned[:, 2] *= -1
    turned = (turned + turned[MIRROR] * [-1, 1, 1]) / 2
    return turned * OUTER_EYES_MM / (turned[RIGID.index(45), 0] - turned[RIGID.index(36), 0])


def fit(root: Path) -> dict[str, Any]:
    """The template and how it came about."""
    samples, _ = read_dataset("300w", root=root / "300W", layout=LAYOUT, part="train", validation="exclude")
    labels = np.stack([sample.points for sample in samples])
    mirrored = (labels * [-1, 1])[:, list(LAYOUT.mirror)]
    faces = normalised(np.concatenate([labels, mirrored])[:, RIGID])
    shape = fitted(faces)
    template, cameras = upright(shape), cameras_of(shape, faces)
    residual = faces - np.einsum("fki,ni->fnk", cameras, shape)
    noise = np.random.default_rng(0).normal(0, residual.std(), faces.shape)
    again = upright(fitted(normalised(faces - residual + noise)))
    millimetres = np.ptp(template[:, 0]) / np.linalg.norm(shape[RIGID.index(45)] - shape[RIGID.index(36)])
    return {
        "faces": len(samples),
        "residual_mm": float(residual.std() * millimetres),
        "depth_kept": float(again[:, 2].std() / template[:, 2].std()),
        "template_mm": {
            str(point): [round(float(value), 1) + 0.0 for value in xyz]
            for point, xyz in zip(RIGID, template, strict=True)
            if xyz[0] < 0.05
        },
    }


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("root", type=Path, metavar="DATA_ROOT")
    result = fit(parser.parse_args().root)
    (HERE / "template.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
