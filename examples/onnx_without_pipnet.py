"""Points from an exported graph without pipnet: NumPy, OpenCV and ONNX Runtime are enough.

python examples/onnx_without_pipnet.py model.onnx photo.png X0 Y0 X1 Y1 [ANGLE]

X0 Y0 X1 Y1 is the tight box of the points, in pixels: from your face detector, or from the last frame. ANGLE says by
how many degrees the face, and its box about its own centre, is turned clockwise. docs/export.md explains every step.
"""

import json
import sys

import cv2
import numpy as np
import onnxruntime


def crop(image: np.ndarray, box: np.ndarray, angle: float, size: int, crop_scale: float) -> tuple[np.ndarray, ...]:
    """The upright crop (size, size, 3) of a face, and how its fractions become pixels: centre, and 2 x 2 matrix."""
    x0, y0, x1, y1 = box
    centre, side = np.array([x0 + x1, y0 + y1]) / 2, crop_scale * max(x1 - x0, y1 - y0)
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    turn = np.array([[cos, -sin], [sin, cos]])  # clockwise, as y points down
    k = max(int(side / size + 1e-6), 1)
    if k > 1:  # a large face is first averaged down by a whole factor
        bottom, right = -image.shape[0] % k, -image.shape[1] % k
        image = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        image = cv2.resize(image, (image.shape[1] // k, image.shape[0] // k), interpolation=cv2.INTER_AREA)
    to_crop = turn.T * size / side
    # Pixels are named by their centres, so the middle of the crop is (size - 1) / 2, and the middle of the first block
    # of k pixels is (k - 1) / 2.
    offset = (size - 1) / 2 - to_crop @ (centre - (k - 1) / 2)
    matrix = np.column_stack([to_crop * k, offset])
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR), centre, turn * side


def main() -> None:
    """Print points and scores as JSON."""
    graph, photo, *numbers = sys.argv[1:]
    *box, angle = map(float, numbers if len(numbers) == 5 else [*numbers, 0])
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["pipnet"])
    image = cv2.cvtColor(cv2.imread(photo), cv2.COLOR_BGR2RGB)
    crops, centre, to_photo = crop(image, np.array(box), angle, about["input_size"], about["crop_scale"])
    points_unit, scores, face_scores = session.run(["points_unit", "scores", "face_scores"], {"crops": crops[None]})
    points = centre + (points_unit[0] - 0.5) @ to_photo.T
    print(json.dumps({"points": points.tolist(), "scores": scores[0].tolist(), "face_score": float(face_scores[0])}))


main()
