"""A window on the screen: the picture, and a bar of text under it that covers no face; keys; whether one can open."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, replace

import cv2
import numpy as np

KEYS = (
    ("q, Esc", "quit"),
    ("space", "pause and go on"),
    ("s", "snapshot, as PNG"),
    ("p", "points"),
    ("c", "contours"),
    ("n", "scores"),
    ("b", "boxes"),
    ("i", "ids, with several faces"),
    ("h", "this help"),
)
_SWITCHES = {"p": "points", "c": "contours", "n": "scores", "b": "boxes", "i": "ids"}
_ESCAPE = 27

# Pictures are shown within these widths, so that text under them is legible and a large one shows quickly.
_NARROWEST, _WIDEST = 480, 1280
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_TEXT_WIDTH, _TEXT_SCALE = 640, 0.45  # width of the picture for which text has this scale and a line 20 pixels
_BACKGROUND, _PALE, _BRIGHT = (30, 24, 20), (190, 190, 190), (255, 255, 255)  # BGR


@dataclass(frozen=True)
class Overlay:
    """What is drawn on the faces."""

    points: bool = True
    contours: bool = True
    scores: bool = False
    boxes: bool = False
    ids: bool = True


class Window:
    """A window on the screen. Belongs to the main thread, as user interfaces do.

    Raises:
        cv2.error: No window can be opened (where that does not end the process, see :class:`DisplayProbe`).
    """

    def __init__(self, title: str) -> None:
        self.closed = False  # by a key or the mouse
        self.paused = False
        self.snapshot_wanted = False  # whoever saves it sets this back
        self.overlay = Overlay()
        self._help = False
        self._title = title
        self._canvas = np.empty((0, 0, 3), dtype=np.uint8)
        cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)

    def show(self, picture: np.ndarray, lines: tuple[str, ...]) -> None:
        """Show a picture, RGB uint8 ``(H, W, 3)``, with lines of text under it."""
        if self.closed:
            return
        height, width = picture.shape[:2]
        shown = min(max(width, _NARROWEST), _WIDEST)
        if shown != width:
            size = (shown, max(round(height * shown / width), 1))
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if shown < width else cv2.INTER_LINEAR)
            height = size[1]
        bar = self._bar(shown, lines)
        if self._canvas.shape != (height + len(bar), shown, 3):
            self._canvas = np.empty((height + len(bar), shown, 3), dtype=np.uint8)
            cv2.resizeWindow(self._title, shown, height + len(bar))
        cv2.cvtColor(picture, cv2.COLOR_RGB2BGR, dst=self._canvas[:height])
        self._canvas[height:] = bar
        cv2.imshow(self._title, self._canvas)

    def poll(self, wait_s: float = 0.0) -> bool:
        """Do what the user asks for by keys and mouse within ``wait_s``, a millisecond at least, to paint the window.

        Returns:
            Whether a key with a letter was pressed or the window closed.
        """
        if self.closed:
            return False
        # The lower 16 bits, over which GTK puts shift and the like. Arrows and other keys without a letter have codes
        # beyond 8 bits: cut to these, as waitKey does, the left arrow is a Q and quits.
        key = cv2.waitKeyEx(max(round(1000 * wait_s), 1)) & 0xFFFF
        try:
            visible = cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1
        except cv2.error:  # with the last window OpenCV's whole user interface is gone
            visible = False
        if not visible:
            self.closed = True
            return True
        if key > 0xFF:  # no key at all among them
            return False
        self._press(key)
        return True

    def close(self) -> None:
        """Take the window from the screen."""
        if not self.closed:
            self.closed = True
            with suppress(cv2.error):  # gone already
                cv2.destroyWindow(self._title)
                cv2.waitKey(1)

    def _press(self, key: int) -> None:
        letter = chr(key).lower()
        if key == _ESCAPE or letter == "q":
            self.close()
        elif letter == " ":
            self.paused = not self.paused
        elif letter == "s":
            self.snapshot_wanted = True
        elif letter == "h":
            self._help = not self._help
        elif letter in _SWITCHES:
            name = _SWITCHES[letter]
            self.overlay = replace(self.overlay, **{name: not getattr(self.overlay, name)})

    def _bar(self, width: int, lines: tuple[str, ...]) -> np.ndarray:
        """The bar, BGR ``(h, width, 3)``."""
        scale = width / _TEXT_WIDTH
        step, margin = round(20 * scale), round(8 * scale)
        keys = -(-len(KEYS) // 2) if self._help else 0  # rows, two keys in each
        bar = np.full((step * (len(lines) + keys) + margin, width, 3), _BACKGROUND, dtype=np.uint8)
        for row, text in enumerate(lines):
            _put_text(bar, text, margin, step * (row + 1), width - 2 * margin, _PALE if row else _BRIGHT)
        for number, (key, what) in enumerate(KEYS[: 2 * keys]):
            x, y = margin + number % 2 * width // 2, step * (len(lines) + number // 2 + 1)
            _put_text(bar, key, x, y, width // 8, _BRIGHT)
            _put_text(bar, what, x + width // 8, y, width // 2 - width // 8 - margin, _PALE)
        return bar


def _put_text(bar: np.ndarray, text: str, x: int, y: int, room: int, colour: tuple[int, int, int]) -> None:
    """Text on a line that ends at ``y``, smaller where it would not fit into ``room`` pixels."""
    text = text.encode("ascii", errors="replace").decode()  # OpenCV's own font has no other letters
    scale = bar.shape[1] / _TEXT_WIDTH
    size, stroke = _TEXT_SCALE * scale, max(round(scale), 1)
    size *= min(1.0, room / max(cv2.getTextSize(text, _FONT, size, stroke)[0][0], 1))
    cv2.putText(bar, text, (x, y - round(2 * scale)), _FONT, size, colour, stroke, cv2.LINE_AA)


_PROBE = "import cv2; cv2.namedWindow('pipnet'); cv2.destroyAllWindows()"
_PATIENCE_S = 20.0


class DisplayProbe:
    """Asks in the background, while the network loads, whether a window can be opened: Qt ends the process if not.

    Where none is ``wanted``, nothing is asked, and there is no reason why there is no window.
    """

    def __init__(self, wanted: bool = True) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._problem = None if wanted else ""
        if not wanted or not sys.platform.startswith("linux"):
            return  # elsewhere a window that can't open is an exception, see Window
        if not os.environ.get("DISPLAY") and not os.environ.get("WAYLAND_DISPLAY"):
            self._problem = "there is no display"
            return
        self._child = subprocess.Popen(
            [sys.executable, "-c", _PROBE], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    def problem(self) -> str | None:
        """Why no window can be opened, None where one can; empty where none is wanted. Waits for the answer."""
        if self._problem is None and cv2.currentUIFramework() == "":
            self._problem = "this OpenCV has no windows (opencv-python has, opencv-python-headless has not)"
        if self._child is not None:
            try:
                _, complaint = self._child.communicate(timeout=_PATIENCE_S)
                if self._child.returncode and self._problem is None:
                    self._problem = _reason(complaint.decode(errors="replace"))
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.communicate()
                self._problem = "the display does not answer"
            self._child = None
        return self._problem


def _reason(complaint: str) -> str:
    """What Qt wrote before it gave up, as half a sentence."""
    if "could not connect to display" in complaint:
        return f"the display {os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY')} can't be opened"
    return "OpenCV can't open a window here"
