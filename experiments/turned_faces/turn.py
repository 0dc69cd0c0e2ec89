"""Turned copies of labelled faces: a face mesh is laid on a photo of a head that looks ahead, and turned with it.

    python experiments/turned_faces/turn.py MESH.npz LABELS.csv FOLDER      # FOLDER/train.csv and pictures

After face profiling (300W-LP: Zhu, Lei, Liu, Shi, Li, CVPR 2016), with the canonical face mesh of MediaPipe (Google,
Apache-2.0). Frames: the photo's pixels, x to the right, y down, and z away from the camera; the head's own, the same
axes in centimetres while it looks into the camera.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from scipy.interpolate import RBFInterpolator
from scipy.optimize import least_squares
from scipy.spatial import Delaunay
from scipy.spatial.transform import Rotation

from experiments.record import command_line
from experiments.trainings import write_labels
from pipnet.data.datasets import read_dataset
from pipnet.data.images import read_image, write_image
from pipnet.data.sample import Sample
from pipnet.geometry import crop_of_square, tight_box
from pipnet.layouts import get_layout
from pipnet.measurements import TEMPLATE_POINTS, rotation_of

LAYOUT = get_layout("300w_68")
RIGID = TEMPLATE_POINTS - 17  # of the 51 inner points, those that no expression moves
CUT = 2.4  # side of the picture that is kept, in sizes of the face's box
RINGS = (1.12, 1.3, 1.7)  # outlines behind the face's: its size times
BEHIND = {"side": (2.0, 6.0, 10.0), "above": (1.0, 3.0, 7.5), "below": (3.0, 5.0, 7.0)}  # cm behind the face's outline
AXIS_CM = 4.0  # the head turns about an axis so far behind the mesh's origin
FAR_CM = 30.0  # the photo's border


@dataclass(frozen=True)
class Mesh:
    """The face mesh, in the head's frame, with the spots of 68 points on it.

    Attributes:
        vertices: ``(468, 3)``, centimetres.
        triangles: ``(898, 3)``, indices.
        inner: The vertices of the points 17 to 67.
        jaw: The points 0 to 16 on the outline, ``(17, 468)``: each a mixture of two vertices.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    inner: np.ndarray
    jaw: np.ndarray

    @cached_property
    def outline(self) -> np.ndarray:
        """Indices of the vertices of the outline, in order."""
        return outline_of(self.triangles)

    def slice_at(self, height: float, side: float) -> np.ndarray:
        """Mixtures of two vertices where the edges of one side cross a height, from the outside to the midline."""
        edges = np.unique(np.sort(self.triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0)
        above = self.vertices[edges, 1] - height
        crossing = edges[above[:, 0] * above[:, 1] < 0]
        distance = np.abs(self.vertices[crossing, 1] - height)
        mixtures = np.zeros((len(crossing), len(self.vertices)))
        np.put_along_axis(mixtures, crossing, (distance / distance.sum(1, keepdims=True))[:, ::-1], axis=1)
        x = mixtures @ self.vertices[:, 0] * side
        mixtures, x = mixtures[x > 0], x[x > 0]
        return mixtures[np.argsort(-x)]


def outline_of(triangles: np.ndarray) -> np.ndarray:
    """The vertices of a disc's edge, in order."""
    edges = np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    unique, counts = np.unique(edges, axis=0, return_counts=True)
    following: dict[int, list[int]] = {}
    for a, b in unique[counts == 1]:
        following.setdefault(a, []).append(b)
        following.setdefault(b, []).append(a)
    order = [int(unique[counts == 1][0, 0])]
    while len(order) < len(following):
        order.append(next(int(n) for n in following[order[-1]] if n not in order[-2:]))
    return np.array(order)


def load_mesh(path: Path, samples: list[Sample]) -> Mesh:
    """The mesh of a file, and on its outline the spots next to the jaw of those faces that look ahead."""
    stored = np.load(path)
    vertices = stored["xyz"].astype(float) * [1, -1, -1]
    jaw_cm = mean_jaw(vertices[stored["inner51"]], samples)
    outline = outline_of(stored["tri"])
    begin, end = vertices[outline, :2], vertices[np.roll(outline, -1), :2]
    along = end - begin
    share = ((jaw_cm[:, None] - begin) * along).sum(-1) / (along**2).sum(-1)  # (17, 36)
    share = share.clip(0, 1)
    nearest = np.linalg.norm(begin + share[..., None] * along - jaw_cm[:, None], axis=-1).argmin(1)
    jaw = np.zeros((17, len(vertices)))
    for point, edge in enumerate(nearest):
        jaw[point, outline[edge]] = 1 - share[point, edge]
        jaw[point, outline[(edge + 1) % len(outline)]] += share[point, edge]
    return Mesh(vertices, stored["tri"].astype(int), stored["inner51"].astype(int), jaw)


@dataclass(frozen=True)
class Pose:
    """A head seen from far away: ``pixels = size * (rotation @ cm)[:2] + place``."""

    rotation: np.ndarray
    size: float
    place: np.ndarray
    residual: float  # RMS of the rigid points over the root of the face's box area

    def project(self, head: np.ndarray) -> np.ndarray:
        """Head's frame ``(..., 3)`` to pixels and depth in pixels ``(..., 3)``."""
        return self.size * head @ self.rotation.T + [*self.place, 0]

    @property
    def yaw(self) -> float:
        """Degrees to the right of the picture."""
        facing = self.rotation @ [0, 0, -1]
        return float(np.rad2deg(np.arctan2(facing[0], -facing[2])))


def fit_pose(vertices: np.ndarray, points: np.ndarray) -> Pose:
    """The pose whose rigid points lie closest to a face's inner points, ``(51, 2)``."""
    head, seen = vertices[RIGID], points[RIGID]
    width = np.linalg.norm(seen.max(0) - seen.min(0)) / np.linalg.norm(np.ptp(head[:, :2], axis=0))

    def apart(values: np.ndarray) -> np.ndarray:
        rotation = Rotation.from_rotvec(values[:3]).as_matrix()
        return ((values[3] * width * head @ rotation[:2].T + values[4:] - seen) / width).ravel()

    start = np.array([0, 0, 0, 1, *(seen.mean(0) - width * head[:, :2].mean(0))])
    found = least_squares(apart, start, x_scale=[0.1, 0.1, 0.1, 0.1, width, width])
    area = float(np.prod(np.ptp(points, axis=0)))
    residual = float(np.sqrt((found.fun.reshape(-1, 2) ** 2).sum(1).mean()) * width / np.sqrt(area))
    return Pose(Rotation.from_rotvec(found.x[:3]).as_matrix(), found.x[3] * width, found.x[4:], residual)


@dataclass(frozen=True)
class Laid:
    """A mesh that lies on a photo, with the head behind it and the photo's border around.

    Attributes:
        mesh: In the head's frame.
        pose: Of the head.
        places: ``(V, 3)``, pixels and depth in pixels of all vertices: of the mesh, the rings, the border.
        triangles: ``(T, 3)``.
        points: ``(68, 2)``, the labels, pixels.
    """

    mesh: Mesh
    pose: Pose
    places: np.ndarray
    triangles: np.ndarray
    points: np.ndarray

    @cached_property
    def ring(self) -> np.ndarray:
        """Places of the first ring, ``(36, 3)``."""
        count = len(self.mesh.vertices)
        return self.places[count : count + len(self.mesh.outline)]


def lay(mesh: Mesh, points: np.ndarray, size: int) -> Laid:
    """Lay the mesh on a face, points ``(68, 2)`` in a picture of ``size`` by ``size`` pixels."""
    pose = fit_pose(mesh.vertices[mesh.inner], points[17:])
    seen = pose.project(mesh.vertices)
    spots = np.vstack([mesh.jaw, np.eye(len(seen))[mesh.inner]]) @ seen
    bend = RBFInterpolator(spots[:, :2] / pose.size, points / pose.size, smoothing=0.01)
    places = np.column_stack([bend(seen[:, :2] / pose.size) * pose.size, seen[:, 2]])
    outline = mesh.vertices[mesh.outline]
    centre = outline[:, :2].mean(0)
    ray = (outline[:, :2] - centre) / np.linalg.norm(outline[:, :2] - centre, axis=1, keepdims=True)
    share = {
        "side": ray[:, 0] ** 2,
        "above": ray[:, 1] ** 2 * (ray[:, 1] < 0),
        "below": ray[:, 1] ** 2 * (ray[:, 1] > 0),
    }
    rings = []
    for number, factor in enumerate(RINGS):
        back = sum(share[where] * BEHIND[where][number] for where in share)
        ring = pose.project(np.column_stack([centre + factor * (outline[:, :2] - centre), outline[:, 2] + back]))
        ring[:, :2] += places[mesh.outline, :2] - seen[mesh.outline, :2]
        ring[:, :2] = ring[:, :2].clip(2, size - 3)
        rings.append(ring)
    side = np.linspace(0, size - 1, 9)
    border = np.unique([(x, y) for x in side for y in side if {x, y} & {0.0, size - 1.0}], axis=0)
    border = np.column_stack([border, np.full(len(border), FAR_CM * pose.size)])
    everything = np.vstack([places, *rings, border])
    count, around = len(places), len(outline)
    rows = [mesh.outline, *(count + n * around + np.arange(around) for n in range(len(RINGS)))]
    between = [band(inside, outside) for inside, outside in pairwise(rows)]
    outer = np.concatenate([rows[-1], np.arange(count + len(RINGS) * around, len(everything))])
    far = outer[Delaunay(everything[outer, :2]).simplices]
    polygon = everything[rows[-1], :2].astype(np.float32)
    middle = everything[far, :2].mean(1)
    far = far[[cv2.pointPolygonTest(polygon, tuple(map(float, spot)), False) < 0 for spot in middle]]
    return Laid(mesh, pose, everything, np.vstack([mesh.triangles, *between, far]), points)


def band(inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Triangles between two rings of as many vertices."""
    a, b = np.roll(inside, -1), np.roll(outside, -1)
    return np.vstack([np.column_stack([inside, outside, b]), np.column_stack([inside, b, a])])


def turned(laid: Laid, degrees: float) -> np.ndarray:
    """Places of all vertices, ``(V, 3)``, with the head turned further to the right of the picture."""
    places = laid.places.copy()
    head = slice(0, len(laid.mesh.vertices) + len(RINGS) * len(laid.mesh.outline))
    places[head] = turn(laid, places[head], degrees)
    return places


def turn(laid: Laid, places: np.ndarray, degrees: float) -> np.ndarray:
    """Places ``(..., 3)`` on the head, pixels and depth, after a turn about the head's own vertical axis."""
    whole = laid.pose.rotation @ rotation_of(degrees, 0, 0) @ laid.pose.rotation.T
    centre = laid.pose.project(np.array([0, 0, AXIS_CM]))
    return (places - centre) @ whole.T + centre


def draw(image: np.ndarray, laid: Laid, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The picture with its vertices in new places; the depth that is seen at each pixel, ``(H, W)``, pixels."""
    height, width = image.shape[:2]
    there, here = places[laid.triangles], laid.places[laid.triangles, :2]
    seen = (area(there[..., :2]) * area(here) > 0) & (np.abs(area(there[..., :2])) > 1e-3)
    order = np.flatnonzero(seen)[np.argsort(-there[seen, :, 2].mean(1))]
    index = np.full((height, width), len(order), np.int32)
    corners = np.round(there[order, :, :2] * 16).astype(np.int32)
    for number, triangle in enumerate(corners):
        cv2.fillConvexPoly(index, triangle, number, shift=4)
    matrices = np.zeros((len(order) + 1, 3, 3))  # x, y, 1 of a pixel to x, y of the photo and depth
    square = np.concatenate([there[order, :, :2], np.ones((len(order), 3, 1))], axis=-1)
    source = np.concatenate([here[order], there[order, :, 2:]], axis=-1)
    matrices[:-1] = np.swapaxes(np.linalg.solve(square, source), 1, 2)
    matrices[-1, [0, 1], [0, 1]] = 1  # what nothing covers stays
    y, x = np.mgrid[:height, :width]
    chosen = matrices[index]  # (H, W, 3, 3)
    mapped = chosen[..., 0] * x[..., None] + chosen[..., 1] * y[..., None] + chosen[..., 2]
    maps = mapped[..., :2].astype(np.float32)
    picture = cv2.remap(image, maps[..., 0], maps[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return picture, mapped[..., 2]


def area(triangles: np.ndarray) -> np.ndarray:
    """Twice the signed area of triangles ``(T, 3, 2)``."""
    a, b = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


# Heights in the head's frame, cm: at the nose and above the far outline is the cheek's, below the lips' and the chin's.
NOSE_CM, MOUTH_CM, CHEEK_CM = 2.0, 4.5, 2.9
CLIMB_CM = (0.4, 1.3)  # how far a point of the far outline climbs: at the ear, at the chin
TOWARDS_RING = 0.25
CHIN_BELOW, CHIN_FRONT = 152, 175


def turned_points(laid: Laid, degrees: float) -> np.ndarray:
    """Where the 68 points are after the turn, with their depth, ``(68, 3)``."""
    mesh, count = laid.mesh, len(laid.mesh.vertices)
    places = turn(laid, laid.places[:count], degrees)
    total = laid.pose.yaw + degrees
    side, ramp = np.sign(total) or 1.0, float(np.clip((abs(total) - 25) / 25, 0, 1))
    down = laid.pose.rotation[:2, 1] / np.linalg.norm(laid.pose.rotation[:2, 1])
    outwards = side * np.array([down[1], -down[0]])
    inner = turn(laid, np.column_stack([laid.points[17:], laid.places[mesh.inner, 2]]), degrees)
    jaw = turn(laid, np.column_stack([laid.points[:17], (mesh.jaw @ laid.places[:count])[:, 2]]), degrees)
    spots = mesh.jaw @ mesh.vertices
    ring = turn(laid, laid.ring, degrees)
    for point in range(17):
        x, height, _ = spots[point]
        if point in (7, 8, 9):
            jaw[point] += ramp * (places[CHIN_FRONT] - places[CHIN_BELOW])
        elif np.sign(x) == side:
            rank = abs(point - 8) / 8  # 1 at the ear
            climb = ramp * (CLIMB_CM[0] * rank + CLIMB_CM[1] * (1 - rank))
            limit = CHEEK_CM * float(np.clip((MOUTH_CM - height) / (MOUTH_CM - NOSE_CM), 0, 1))
            mixtures = mesh.slice_at(height - climb, side)
            mixtures = mixtures[mixtures @ mesh.vertices[:, 0] * side >= limit]
            along = mixtures @ places
            best = along[(along[:, :2] @ outwards).argmax()]
            if best[:2] @ outwards > jaw[point, :2] @ outwards or ramp > 0:
                jaw[point] = best
        else:
            weights = mesh.jaw[point, mesh.outline]
            jaw[point] += TOWARDS_RING * ramp * (weights @ ring - mesh.jaw[point] @ places)
    return np.vstack([jaw, inner])


def hidden(points: np.ndarray, depth: np.ndarray, tolerance: float) -> np.ndarray:
    """Which of the points, with their depth, ``(68, 3)``, lie behind what is seen there."""
    x, y = np.round(points[:, :2]).astype(int).T
    x, y = x.clip(0, depth.shape[1] - 1), y.clip(0, depth.shape[0] - 1)
    return points[:, 2] - depth[y, x] > tolerance


OWN_YAW, RESIDUAL = 20.0, 0.055  # a face that is turned further, or on which the mesh lies worse, is not used
TOTAL_YAW = (25.0, 65.0)
LARGEST = 400  # px, side of a picture


def cut(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """A square picture around a face, and its points there."""
    centre, side = (sample.box[:2] + sample.box[2:]) / 2, CUT * float((sample.box[2:] - sample.box[:2]).max())
    crop = crop_of_square(np.array([*centre, side]), min(LARGEST, round(side)))
    image = read_image(sample.image)
    picture = cv2.warpAffine(
        image, crop.matrix, (crop.size, crop.size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return picture, crop.to_crop(sample.points)


def mean_jaw(inner: np.ndarray, samples: list[Sample]) -> np.ndarray:
    """The jaw of faces that look ahead, centimetres in the head's frame, ``(17, 2)``: the median.

    ``inner`` are the inner points on the mesh, ``(51, 3)``.
    """
    found = []
    for sample in samples:
        pose = fit_pose(inner, sample.points[17:])
        if abs(pose.yaw) < 8:
            flat = (sample.points[:17] - pose.place) / pose.size
            found.append(flat @ pose.rotation[:2, :2])  # the tilt undone; yaw and pitch are small
    return np.median(found, axis=0)


@dataclass(frozen=True)
class Made:
    """A turned copy: picture, points with depth ``(68, 3)``, and which of them are hidden."""

    picture: np.ndarray
    points: np.ndarray
    hidden: np.ndarray


def copy_of(mesh: Mesh, sample: Sample, total: float) -> Made | None:
    """A copy whose head is turned by so many degrees to its own side; None where the mesh does not fit."""
    picture, points = cut(sample)
    laid = lay(mesh, points, len(picture))
    if abs(laid.pose.yaw) > OWN_YAW or laid.pose.residual > RESIDUAL:
        return None
    side = np.sign(laid.pose.yaw) if abs(laid.pose.yaw) > 4 else 1 - 2 * (zlib.crc32(sample.name.encode()) % 2)
    degrees = side * total - laid.pose.yaw
    picture, depth = draw(picture, laid, turned(laid, degrees))
    places = turned_points(laid, degrees)
    return Made(picture, places, hidden(places, depth, 0.5 * laid.pose.size))


def write_with_copies(mesh_file: Path, labels: Path, folder: Path, *, times: int) -> None:
    """Write ``folder/train.csv``: the faces of a label file, those that train several times, and a copy of each.

    Faces on which a training validates get no copies; a copy's photo is named as its source's, so it trains.
    """
    samples = read_dataset("csv", root=labels.parent, layout=LAYOUT, file=labels.name)[0]
    held_out = {
        sample.name
        for sample in read_dataset("csv", root=labels.parent, layout=LAYOUT, file=labels.name, validation="only")[0]
    }
    mesh = load_mesh(mesh_file, samples)
    rng = np.random.default_rng(0)
    listed: list[Sample] = []
    made = 0
    for number, sample in enumerate(samples):
        photo = Path(str(sample.image)).resolve()
        listed += [sample] * (1 if sample.name in held_out else times)
        total = rng.uniform(*TOTAL_YAW)
        copy = None if sample.name in held_out else copy_of(mesh, sample, total)
        if copy is None:
            continue
        file = folder / f"{number:05d}" / f"{photo.stem}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_image(file, copy.picture)
        places = np.where(copy.hidden[:, None], np.nan, copy.points[:, :2])
        listed.append(Sample(file, places, sample.name, box=tight_box(copy.points[:, :2])))
        made += 1
    write_labels(listed, folder / "train.csv")
    print(f"{len(samples)} faces, {len(held_out)} of them validate; {made} copies; {len(listed)} lines")


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("mesh", type=Path, metavar="MESH.npz")
    parser.add_argument("labels", type=Path, metavar="LABELS.csv")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--times", type=int, default=3, help="lines of each labelled face; default: %(default)s")
    options = parser.parse_args()
    write_with_copies(options.mesh, options.labels, options.folder, times=options.times)


if __name__ == "__main__":
    main()
