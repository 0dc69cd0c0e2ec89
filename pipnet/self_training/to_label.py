"""Photos to label, written with the network's points on them for people to correct in CVAT or Label Studio.

:mod:`pipnet.data.pre_annotations` reads what comes back.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from pipnet.console import as_text
from pipnet.data.images import BadSampleError, decode_image, header_size, photo_paths, read_bytes, write_image
from pipnet.data.pre_annotations import FIRST_PIXEL, MARK, PRE_ANNOTATIONS
from pipnet.data.report import contact_sheet, face_tile
from pipnet.files import making_folder
from pipnet.formats import coco_category, rounded
from pipnet.geometry import tight_box
from pipnet.layouts import PointLayout
from pipnet.model.checkpoint import LoadedModel
from pipnet.self_training.face_store import UnlabelledFaces, photo_digest
from pipnet.self_training.labelling import YAW_BINS, Chosen, Seen, choose, look, yaw_ranges
from pipnet.self_training.pseudo_labels import weights_digest

FOLDER = "to_label"
_AS_THEY_ARE = (".jpg", ".jpeg", ".png")  # what every browser shows; other photos become JPEG


def export_for_labelling(
    model: LoadedModel,
    faces: UnlabelledFaces,
    folder: Path,
    *,
    sources: Sequence[str | Path],
    count: int,
    seed: int,
    progress: bool = False,
) -> str:
    """Choose photos and write what it takes to label them, see ``docs/label_a_hundred.md``; whole or not at all.

    Args:
        model: Whose points people correct, and whose doubts choose.
        faces: Those found in the photos.
        folder: What is made. One that holds the same export already stays as it is.
        sources: Where the photos are, as they were ingested.
        count: How many photos.
        seed: Of the choice.
        progress: Show a bar.

    Returns:
        A summary of some lines.

    Raises:
        ValueError: Too few photos, a photo that has gone, names of points that CVAT can't tell apart, or the folder
            holds something else.
        OSError: The disk is full, or the folder can't be written.
    """
    layout = model.layout
    if len(set(layout.names)) < layout.num_points:
        raise ValueError(f"layout {layout.name} has a name of a point twice; CVAT and Label Studio need different ones")
    request = {"count": count, "seed": seed, "faces": faces.digest, "network": weights_digest(model.net)}
    if folder.exists():
        if exported(folder) != request:
            raise ValueError(
                f"{folder} holds another export, maybe with labels in it; choose another folder=FOLDER or move it away"
            )
        return f"already exported: {folder}"
    seen = look(model, faces, seed=seed, progress=progress)
    chosen = choose(seen, count, seed=seed)
    names = _names(faces, [int(seen.faces[one.face]) for one in chosen])
    paths = _find_photos(sources, faces, [int(seen.faces[one.face]) for one in chosen])
    with making_folder(folder) as made:
        (made / "images").mkdir()
        documents, tasks, rows, tiles = [], [], [], []
        for number, (one, name, path) in enumerate(zip(chosen, names, paths, strict=True), start=1):
            row, points, score = int(seen.faces[one.face]), seen.points[one.face], float(seen.scores[one.face])
            name = _copy(path, made / "images" / name).name
            validates, size = one.cluster is None, faces.photo_size(row)
            documents.append(_coco(number, name, size, points, score, validates))
            tasks.append(_label_studio(name, size, points, score, layout))
            yaw = seen.yaws[one.face]
            why = "random" if validates else "cluster"
            original = as_text(faces.in_photo(row, points)[0])
            figures = (
                "" if validates else one.cluster,
                one.size,
                f"{score:.3f}",
                "" if np.isnan(yaw) else f"{yaw:.1f}",
            )
            rows.append([name, original, "val" if validates else "train", why, *figures])
            tiles.append(_tile(faces, row, points))
        info = {
            "description": "points of a network, to be corrected; pixels count from the corner of the photo: the centre"
            " of the first pixel is 0.5, 0.5",
            MARK: request,
        }
        coco = {"licenses": [], "info": info, "categories": [coco_category(layout)]}
        coco |= {"images": [image for image, _ in documents], "annotations": [face for _, face in documents]}
        (made / PRE_ANNOTATIONS).write_text(json.dumps(coco), encoding="utf-8")
        (made / "cvat_labels.json").write_text(json.dumps([_skeleton(model)], indent=1), encoding="utf-8")
        (made / "label_studio.json").write_text(json.dumps(tasks), encoding="utf-8")
        (made / "label_studio.xml").write_text(_labelling_config(layout), encoding="utf-8")
        (made / "layout.yaml").write_text(json.dumps(layout.to_dict(), indent=1), encoding="utf-8")  # YAML as well
        with (made / "chosen.csv").open("w", newline="", encoding="utf-8") as file:
            head = ["image", "photo", "part", "why", "cluster", "of_faces", "face_score", "yaw"]
            csv.writer(file).writerows([head, *rows])
        captions = [f"{row[0].partition('_')[0]} {row[2]} {row[6]}" for row in rows]
        write_image(made / "contact_sheet.jpg", contact_sheet(tiles, columns=10, captions=captions))
        _write_rest(made / "rest.txt", sources, paths)
    return _summary(folder, seen, chosen)


def exported(folder: Path) -> Any:
    """What was asked for when a folder was exported; None where it is none."""
    try:
        return json.loads((folder / PRE_ANNOTATIONS).read_text(encoding="utf-8"))["info"][MARK]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _names(faces: UnlabelledFaces, rows: Sequence[int]) -> list[str]:
    """A name for each photo that is unique and that every program takes: its number, and its own in plain letters."""
    digits, names = len(str(len(rows))), []
    for number, row in enumerate(rows, start=1):
        own = Path(faces.in_photo(row, np.zeros(2))[0])
        plain = re.sub(r"[^A-Za-z0-9-]+", "_", own.stem).strip("_")[:60] or "photo"
        names.append(f"{number:0{digits}}_{plain}{own.suffix.lower()}")
    return names


def _find_photos(sources: Sequence[str | Path], faces: UnlabelledFaces, rows: Sequence[int]) -> list[Path]:
    """Where the photos of faces are. A store knows their bytes, and how they were called when it first met them."""
    wanted = {faces.name(row).partition("-")[0]: Path(faces.in_photo(row, np.zeros(2))[0]).name for row in rows}
    names, found = set(wanted.values()), {}
    for has_name in (True, False):  # those that may have been renamed last: each costs reading it
        for source in sources:
            for path in photo_paths(source):
                if len(found) == len(wanted):
                    break
                if (path.name in names) != has_name:
                    continue
                try:
                    digest = photo_digest(read_bytes(path))
                except BadSampleError:
                    continue
                if digest in wanted:
                    found.setdefault(digest, path)
    gone = [name for digest, name in wanted.items() if digest not in found]
    if gone:
        raise ValueError(f"the photo {gone[0]!r} was there when faces were found, and is gone; give the command again")
    return [found[digest] for digest in wanted]


def _copy(path: Path, to: Path) -> Path:
    """Copy a photo, byte by byte where every program shows it upright, else as an upright JPEG; returns its path."""
    data = read_bytes(path)
    if to.suffix in _AS_THEY_ARE and header_size(path)[1] is False:
        to.write_bytes(data)
        return to
    to = to.with_suffix(".jpg")
    write_image(to, decode_image(data, path))
    return to


def _coco(
    number: int, name: str, size: tuple[int, int], points: np.ndarray, score: float, validates: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Entry of ``images`` and of ``annotations``; points outside the photo are there, but marked as hidden."""
    visibility = np.where(_inside(points, size), 2, 1)
    flat = rounded(np.column_stack([points + FIRST_PIXEL, visibility]).ravel())
    flat[2::3] = visibility.tolist()
    x0, y0, x1, y1 = rounded(tight_box(points + FIRST_PIXEL))
    image = {"id": number, "file_name": name, "width": size[0], "height": size[1], "validation": validates}
    face = {"id": number, "image_id": number, "category_id": 1, "keypoints": flat, "num_keypoints": len(points)}
    face |= {"bbox": rounded([x0, y0, x1 - x0, y1 - y0]), "area": round((x1 - x0) * (y1 - y0), 3)}
    return image, face | {"iscrowd": 0, "segmentation": [], "score": round(score, 3)}


def _inside(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.all((points >= -0.5) & (points <= np.array(size) - 0.5), axis=1)


def _label_studio(
    name: str, size: tuple[int, int], points: np.ndarray, score: float, layout: PointLayout
) -> dict[str, Any]:
    """A task, with a region for each point inside the photo: Label Studio knows no others."""
    percent = (points + FIRST_PIXEL) / size * 100
    shared = {"from_name": "points", "to_name": "image", "type": "keypointlabels"}
    shared |= {"original_width": size[0], "original_height": size[1], "image_rotation": 0}
    result = [
        {"id": point, **shared, "value": {"x": float(x), "y": float(y), "width": 0.5, "keypointlabels": [point]}}
        for point, (x, y), inside in zip(layout.names, percent, _inside(points, size), strict=True)
        if inside
    ]
    prediction = {"model_version": "pipnet", "score": round(score, 3), "result": result}
    return {"data": {"image": f"/data/local-files/?d=images/{name}"}, "predictions": [prediction]}


def _labelling_config(layout: PointLayout) -> str:
    # By the index its own COCO export puts points in order.
    labels = "\n".join(
        f'    <Label value={quoteattr(name)} model_index="{index}"/>' for index, name in enumerate(layout.names)
    )
    return (
        '<View>\n  <Image name="image" value="$image" zoom="true" zoomControl="true"/>\n'
        f'  <KeyPointLabels name="points" toName="image" strokeWidth="3">\n{labels}\n  </KeyPointLabels>\n</View>\n'
    )


def _skeleton(model: LoadedModel) -> dict[str, Any]:
    """The label that a CVAT task needs, as its tab "Raw" takes it: nobody draws 68 points by hand."""
    category = coco_category(model.layout)
    places = np.array(model.net.arguments["mean_face"])
    low, high = places.min(axis=0), places.max(axis=0)
    places = 10 + 80 * (places - low) / max(float((high - low).max()), 1e-6)  # of a square of 100
    svg = [
        f'<line x1="{places[a - 1][0]:.2f}" y1="{places[a - 1][1]:.2f}" x2="{places[b - 1][0]:.2f}"'
        f' y2="{places[b - 1][1]:.2f}" data-type="edge" data-node-from="{a}" data-node-to="{b}"></line>'
        for a, b in category["skeleton"]
    ]
    svg += [
        f'<circle r="0.75" cx="{x:.2f}" cy="{y:.2f}" data-type="element node" data-element-id="{number}"'
        f' data-node-id="{number}" data-label-name={quoteattr(name)}></circle>'
        for number, ((x, y), name) in enumerate(zip(places, model.layout.names, strict=True), start=1)
    ]
    sublabels = [{"name": name, "type": "points", "attributes": []} for name in model.layout.names]
    skeleton = {"name": category["name"], "type": "skeleton", "attributes": [], "svg": "".join(svg)}
    return skeleton | {"sublabels": sublabels}


def _tile(faces: UnlabelledFaces, row: int, points: np.ndarray) -> np.ndarray:
    """The face with its points; cut from the store's crop, in whose pixels the points are."""
    (_, corners), image = faces.in_photo(row, np.array([[0.0, 0.0], [1.0, 1.0]])), faces.image(row)
    return face_tile(image, (points - corners[0]) / (corners[1] - corners[0]), size=160)


def _write_rest(file: Path, sources: Sequence[str | Path], chosen: Sequence[Path]) -> None:
    """The photos that were not chosen, as a list to self-train on, or to choose from the next time."""
    taken = {path.absolute() for path in chosen}
    paths = {path.absolute() for source in sources for path in photo_paths(source)} - taken
    with file.open("w", encoding="utf-8", errors="surrogateescape") as lines:
        # A list has a name a line, so it can't have one with a line break.
        lines.writelines(f"{path}\n" for path in sorted(paths) if not set("\r\n") & set(str(path)))


def _summary(folder: Path, seen: Seen, chosen: Sequence[Chosen]) -> str:
    """What was chosen, in words."""
    ranges = Counter(yaw_ranges(seen.yaws[[one.face for one in chosen]]).tolist())
    words = [*(f"below {edge:.0f}" for edge in YAW_BINS), f"from {YAW_BINS[-1]:.0f}", "not known"]
    yaws = ", ".join(f"{ranges[number]} {word}" for number, word in enumerate(words) if ranges[number])
    random = sum(one.cluster is None for one in chosen)
    return (
        f"to label: {len(chosen)} of {len(seen.faces)} photos, {random} of them at random, to validate on\n"
        f"yaw in degrees: {yaws}\n{folder}"
    )
