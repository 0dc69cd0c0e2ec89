"""Contact sheets of every box that stands on no labelled face, to be judged by eye.

    python experiments/detectors/judge.py DATA_ROOT CACHE SHEETS

CACHE is what ``detect.py`` filled. SHEETS is a folder outside the repository (the photos may not be shown in it): pages
of cuts with the box drawn and a number, best score first, and ``boxes.json`` with photo and box of each number. What is
seen there goes by hand into ``judgement.json``: the boxes that hold no face, lie beside the faces they cover
(misplaced), or can't be told (unclear). Every box that is not listed there was seen to be a face.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from experiments.record import command_line

CELL, COLUMNS, ROWS, CAPTION = 132, 11, 8, 12
AROUND = 1.7  # side of the cut in longer sides of the box


def to_judge(cache: Path, root: Path) -> list[tuple[float, str, np.ndarray]]:
    """Score, photo and box of each unlabelled face, best first."""
    from experiments.detectors.faces import clusters, load_runs, tight_boxes

    runs, _ = load_runs(cache, root)
    found = []
    for part in ("scenes", "common", "wflw"):
        truth = {} if part == "scenes" else tight_boxes(root, part)
        for photo in runs["retinaface_1024"][part]["boxes"]:
            known = truth.get(photo, np.zeros((0, 4)))
            boxes = {name: run[part]["boxes"][photo] for name, run in runs.items()}
            faces, member = clusters(boxes, known)
            for index in range(len(known), len(faces)):
                # dlib's score has another scale; what only it found comes last.
                scores = [boxes[n][member[n] == index, 4].max(initial=0) for n in boxes if n != "dlib_hog"]
                found.append((float(max(scores)), photo, faces[index]))
    return sorted(found, key=lambda item: -item[0])


def cut(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The face and what is round it, with the box drawn: ``(CELL, CELL, 3)``."""
    scale = CELL / (max(box[2:] - box[:2]) * AROUND)
    centre = (box[:2] + box[2:]) / 2
    matrix = np.array([[scale, 0, CELL / 2 - scale * centre[0]], [0, scale, CELL / 2 - scale * centre[1]]])
    picture = cv2.warpAffine(image, matrix, (CELL, CELL), flags=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    corners = (box.reshape(2, 2) * scale + matrix[:, 2]).round().astype(int)
    return cv2.rectangle(picture, tuple(map(int, corners[0])), tuple(map(int, corners[1])), (0, 255, 0), 1)


def main() -> None:
    """Write all pages."""
    parser = command_line(__doc__)
    parser.add_argument("data_root", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("sheets", type=Path)
    options = parser.parse_args()
    options.sheets.mkdir(parents=True, exist_ok=True)
    items = to_judge(options.cache, options.data_root)
    for first in range(0, len(items), COLUMNS * ROWS):
        page = np.full((ROWS * (CELL + CAPTION), COLUMNS * CELL, 3), 30, dtype=np.uint8)
        for place, (_, photo, box) in enumerate(items[first : first + COLUMNS * ROWS]):
            row, column = divmod(place, COLUMNS)
            x, y = column * CELL, row * (CELL + CAPTION)
            page[y + CAPTION : y + CAPTION + CELL, x : x + CELL] = cut(cv2.imread(str(options.data_root / photo)), box)
            cv2.putText(page, str(first + place), (x + 2, y + 10), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (0, 255, 255), 1)
        cv2.imwrite(str(options.sheets / f"{first:05d}.png"), page)
    listed = [{"photo": photo, "box": box.round().astype(int).tolist()} for _, photo, box in items]
    (options.sheets / "boxes.json").write_text(json.dumps(listed), encoding="utf-8")


if __name__ == "__main__":
    main()
