"""Synthetic faces with distances that are easy to divide by, and a landmarker whose mistakes are known."""

from dataclasses import dataclass, field

import numpy as np

from pipnet.data.sample import Sample
from pipnet.inference.detections import Detections
from pipnet.landmarks import FaceLandmarks
from pipnet.layouts import get_layout

L68, L98 = get_layout("300w_68"), get_layout("wflw_98")


@dataclass
class FakeLandmarker:
    """Predicts what it is told. A photo's first pixel is the number of its face, so that it knows which one to tell."""

    layout: object
    predict: object  # (face number, box) -> points (N, 2)
    detector: object = None
    batches: list = field(default_factory=list)

    def predict_batch(self, images, boxes, batch_size=32):
        self.batches.append((len(images), batch_size))
        boxes = [box.boxes[0] if isinstance(box, Detections) else box for box in boxes]
        points = [self.predict(number(image), box) for image, box in zip(images, boxes, strict=True)]
        return FaceLandmarks(points, np.full((len(points), self.layout.num_points), 0.5), np.stack(boxes), self.layout)


def number(image):
    return int(image[0, 0, 0])


def photo(index, height=100, width=120):
    image = np.full((height, width, 3), 40, dtype=np.uint8)
    image[0, 0] = index
    return image


def face_68(x=20.0, y=30.0):
    """68 points: outer eye corners 40 px apart, pupils 30 px apart, tight box 64 x 36 px, so a box size of 48."""
    points = np.full((68, 2), [x + 32, y + 10])
    points[0] = [x, y]
    points[16] = [x + 64, y]
    points[8] = [x + 32, y + 36]
    points[36:42] = [x + 17, y + 10]
    points[36] = [x + 12, y + 10]
    points[39] = [x + 22, y + 10]
    points[42:48] = [x + 47, y + 10]
    points[42] = [x + 42, y + 10]
    points[45] = [x + 52, y + 10]
    return points


def faces(count, subsets=lambda index: ()):
    return [Sample(photo(i), face_68(x=10.0 + i % 20), f"face{i}", subsets(i)) for i in range(count)]


def shifted(samples, *offsets):
    """A landmarker that is off by one (x, y) in pixels, or by one a face."""
    per_face = np.broadcast_to(np.array(offsets, dtype=float), (len(samples), 2))
    return FakeLandmarker(L68, lambda face, box: samples[face].points + per_face[face])


def detector_of(boxes_of):
    calls = []

    def detect(image):
        calls.append(number(image))
        boxes = np.array(boxes_of(number(image)), dtype=np.float32).reshape(-1, 4)
        return Detections(boxes, np.ones(len(boxes)))

    detect.calls = calls
    return detect
