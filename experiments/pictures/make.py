"""Draw the pictures of the README: the public-domain portrait and synthetic faces, nothing else.

python experiments/pictures/make.py                            # all, a minute; needs the extra `dev`
python experiments/pictures/make.py --only tracking tools      # some
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import skimage.data
from PIL import Image, ImageDraw, ImageFont

from experiments.pictures import scene
from pipnet.data.report import contact_sheet
from pipnet.data.synthetic.dataset import draw_faces
from pipnet.files import replacing
from pipnet.geometry import affine_crop, tight_box
from pipnet.inference.drawing import draw_faces as draw_landmarks
from pipnet.inference.landmarker import FaceLandmarker
from pipnet.inference.tracking import FaceTracker
from pipnet.landmarks import FaceLandmarks
from pipnet.layouts import get_layout

HERE = Path(__file__).resolve().parent
_SEED = 4
_FACES = 6

_LOOP, _FPS = 110, 20  # frames of the tracking picture, and how many a second; GIF counts in hundredths
_CAMERA = 40  # frames a second that the tracker sees
_COLOURS = 128  # of the GIF's palette

_TILE, _GAP, _CAPTION = 320, 8, 66  # of the picture of tools, pixels
_PAPER, _INK, _FAINT = (255, 255, 255), (30, 38, 48), (96, 108, 120)


def portrait(size: int = 640, side: float = 232.0, angle: float = 0.0) -> np.ndarray:
    """The astronaut Eileen Collins (NASA, public domain), cut to her head, RGB ``(S, S, 3)``.

    Args:
        size: Pixels.
        side: Of the photo's square that is shown, its pixels.
        angle: Degrees she is turned clockwise.
    """
    crop = affine_crop(np.array([226.0, 118.0]), (side, side), size, angle=angle)
    photo = skimage.data.astronaut()
    return cv2.warpAffine(photo, crop.matrix, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def seen(landmarker: FaceLandmarker) -> np.ndarray:
    """The portrait and what the shipped weights see."""
    photo = portrait()
    return draw_landmarks(photo, landmarker(photo))


def drawn() -> np.ndarray:
    """Synthetic faces in both styles, and their labels, RGB."""
    layout = get_layout("300w_68")
    cartoon = draw_faces(_FACES, seed=_SEED, size=256)
    sketch = draw_faces(_FACES, seed=_SEED, size=256, style="sketch")
    labelled = [
        draw_landmarks(
            sample.image,
            FaceLandmarks(sample.points[None], np.ones((1, layout.num_points)), sample.box[None], layout),
        )
        for sample in cartoon
    ]
    tiles = [sample.image for sample in (*cartoon, *sketch)] + labelled
    return contact_sheet(tiles, columns=_FACES, tile=200, gap=2)


def tracking(landmarker: FaceLandmarker) -> list[np.ndarray]:
    """Drawn people who walk round each other, followed by the shipped weights: the frames of one loop, RGB.

    The tracker sees the loop twice and the second is shown, so that the picture runs on without a seam. It sees more
    frames than the picture has: a camera is faster than a GIF of three megabytes can be.
    """
    tracker = FaceTracker(landmarker)
    frames, steps = [], _LOOP * _CAMERA // _FPS
    for number in range(2 * steps):
        frame, _ = scene.picture(number % steps / steps)
        faces = tracker(frame, number / _CAMERA)
        if number >= steps and number % (_CAMERA // _FPS) == 0:
            # The tracker's boxes are those that the points were predicted from, a frame old; here they frame the faces.
            framed = replace(faces, boxes=tight_box(faces.points))
            frames.append(draw_landmarks(frame, framed, boxes=True, ids=True))
    print(f"tracking: {tracker.statistics}")
    return frames


def tools(landmarker: FaceLandmarker) -> np.ndarray:
    """What can be asked of a result, tile by tile, RGB: upright crop, head pose, openings, scores."""
    tilted = portrait(_TILE, side=250.0, angle=-28)
    faces = landmarker(tilted)
    turned = np.ascontiguousarray(portrait(_TILE, side=200.0, angle=-17)[:, ::-1])
    of_turned = landmarker(turned)
    yaw, pitch, roll = np.round(of_turned.head_pose((_TILE, _TILE))[0]) + 0.0  # no minus before a zero
    near = portrait(_TILE, side=130.0)
    of_near = landmarker(near)
    left, right = of_near.eye_opening()[0]
    hidden = _with_card(portrait(_TILE, side=175.0))
    of_hidden = landmarker(hidden)
    tiles = [
        (draw_landmarks(tilted, faces), "faces = landmarker(photo)", f"68 points, score {faces.face_scores[0]:.2f}"),
        (faces.align(tilted, _TILE)[0], f"faces.align(photo, {_TILE})", "upright, eyes in fixed places"),
        (
            draw_landmarks(turned, of_turned, points=False, contours=False, pose=True),
            f"faces.head_pose(({_TILE}, {_TILE}))",
            f"yaw {yaw:+.0f}°, pitch {pitch:+.0f}°, roll {roll:+.0f}°",
        ),
        (
            draw_landmarks(near, of_near),
            "eye_opening(), mouth_opening()",
            f"eyes {left:.2f} and {right:.2f}, mouth {of_near.mouth_opening()[0]:.2f}",
        ),
        (
            draw_landmarks(hidden, of_hidden, scores=True),
            "faces.scores",
            f"{of_hidden.scores.min():.2f} (hidden) to {of_hidden.scores.max():.2f}",
        ),
    ]
    return _captioned(tiles)


def _with_card(photo: np.ndarray) -> np.ndarray:
    """Something before the face, with its shadow."""
    scale = len(photo) / 480
    card = cv2.boxPoints(((250 * scale, 330 * scale), (120 * scale, 240 * scale), 30.0))
    shadow = np.zeros(photo.shape[:2], dtype=np.float32)
    cv2.fillPoly(shadow, [np.round(card + 7 * scale).astype(np.int32)], 0.35)
    shadow = cv2.GaussianBlur(shadow, (0, 0), 8 * scale)[..., None]
    photo = np.round(photo * (1 - shadow)).astype(np.uint8)
    cv2.fillPoly(photo, [np.round(card * 16).astype(np.int32)], (236, 232, 222), cv2.LINE_AA, 4)
    return photo


def _captioned(tiles: list[tuple[np.ndarray, str, str]]) -> np.ndarray:
    """Tiles in a row, each over a call and what it gave."""
    sheet = Image.new("RGB", (len(tiles) * (_TILE + _GAP) - _GAP, _TILE + _CAPTION), _PAPER)
    ink = ImageDraw.Draw(sheet)
    call, gave = ImageFont.load_default(21), ImageFont.load_default(18)
    for index, (tile, code, result) in enumerate(tiles):
        x = index * (_TILE + _GAP)
        sheet.paste(Image.fromarray(tile), (x, 0))
        ink.text((x + 2, _TILE + 8), code, _INK, call)
        ink.text((x + 2, _TILE + 37), result, _FAINT, gave)
    return np.asarray(sheet)


def write(name: str, picture: np.ndarray) -> None:
    """JPEG beside this file."""
    encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
    with replacing(HERE / name) as temporary:
        temporary.write_bytes(encoded.tobytes())


def write_animation(name: str, frames: list[np.ndarray]) -> None:
    """GIF beside this file, endless, all frames in one palette: one a frame would flicker."""
    some = Image.fromarray(np.vstack(frames[::8]))
    palette = some.quantize(_COLOURS, method=Image.Quantize.MEDIANCUT, kmeans=3)
    images = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    with replacing(HERE / name) as temporary:
        images[0].save(
            temporary,
            save_all=True,
            append_images=images[1:],
            duration=1000 // _FPS,
            loop=0,
            optimize=False,
            disposal=1,
        )


PICTURES = {
    "portrait": lambda landmarker: write("portrait.jpg", seen(landmarker)),
    "drawn": lambda landmarker: write("drawn.jpg", drawn()),
    "tracking": lambda landmarker: write_animation("tracking.gif", tracking(landmarker)),
    "tools": lambda landmarker: write("tools.jpg", tools(landmarker)),
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the pictures of the README.")
    parser.add_argument("--only", nargs="+", choices=PICTURES, default=list(PICTURES), help="which; default: all")
    cv2.setNumThreads(1)
    shipped = FaceLandmarker.load(device="cpu")
    for picture in parser.parse_args().only:
        PICTURES[picture](shipped)
