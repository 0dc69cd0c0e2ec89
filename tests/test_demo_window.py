"""The demo's window: on a screen of its own (Xvfb), with keys from xdotool; and the parts of it that need no screen."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.data import astronaut
from test_capture import wait_for, write_video

from experiments.motion import move, sway
from pipnet.demo import window
from pipnet.demo.window import Window

ROOT = Path(__file__).resolve().parent.parent
needs_a_screen = pytest.mark.skipif(
    not (shutil.which("Xvfb") and shutil.which("xdotool")), reason="Xvfb and xdotool are not installed"
)


@pytest.fixture
def screen() -> Iterator[str]:
    """A display of its own, by its name."""
    reading, writing = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-noreset", "-displayfd", str(writing), "-screen", "0", "1024x768x24", "-nolisten", "tcp"],
        pass_fds=[writing],
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    with os.fdopen(reading) as answer:
        name = f":{answer.readline().strip()}"
    yield name
    server.terminate()
    server.wait()


def close_as_a_mouse_does(display: str, number: int) -> None:
    """What a window manager sends when its cross is clicked: WM_DELETE_WINDOW."""

    class Event(ctypes.Structure):
        _fields_ = [
            ("type", ctypes.c_int),
            ("serial", ctypes.c_ulong),
            ("send_event", ctypes.c_int),
            ("display", ctypes.c_void_p),
            ("window", ctypes.c_ulong),
            ("message_type", ctypes.c_ulong),
            ("format", ctypes.c_int),
            ("data", ctypes.c_long * 5),
            ("rest", ctypes.c_long * 16),
        ]

    x11 = ctypes.CDLL("libX11.so.6")
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XInternAtom.restype = ctypes.c_ulong
    connection = ctypes.c_void_p(x11.XOpenDisplay(display.encode()))
    protocols, delete = (x11.XInternAtom(connection, name, 0) for name in (b"WM_PROTOCOLS", b"WM_DELETE_WINDOW"))
    event = Event(type=33, window=number, message_type=protocols, format=32)
    event.data[0] = delete
    x11.XSendEvent(connection, ctypes.c_ulong(number), 0, ctypes.c_long(0), ctypes.byref(event))
    x11.XCloseDisplay(connection)


@needs_a_screen
def test_window_keys_snapshot_and_the_mouse(screen, tmp_path):
    from PIL import ImageGrab

    path = sway(50, (224.0, 133.0), 1.5, fps=25.0, amplitude_px=40, period_s=2.0, size=(480, 360))
    pictures = [*move(astronaut(), path, size=(480, 360), border=(120, 120, 120))] * 6
    write_video(tmp_path / "clip.mp4", "mp4v", pictures)
    run = subprocess.Popen(
        [sys.executable, "-m", "pipnet.demo", "--video", "clip.mp4", "--device", "cpu", "--runtime", "onnxruntime"],
        cwd=tmp_path,
        env=os.environ | {"DISPLAY": screen, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def xdotool(*arguments: str) -> list[str]:
        found = subprocess.run(["xdotool", *arguments], env=os.environ | {"DISPLAY": screen}, capture_output=True)
        return found.stdout.decode().split()

    def looks() -> np.ndarray:
        return np.asarray(ImageGrab.grab(xdisplay=screen).convert("RGB"))[:360, :480]

    def press(key: str) -> None:
        xdotool("key", key)
        time.sleep(0.2)

    try:
        windows = wait_for(lambda: run.poll() is not None or xdotool("search", "--name", "^clip.mp4$"))
        assert run.poll() is None, run.communicate()
        number = int(windows[-1])
        xdotool("windowfocus", str(number))
        wait_for(lambda: looks().std() > 40)  # the portrait, no longer an empty window
        press("space")

        def stands_still() -> bool:
            before = looks()
            time.sleep(0.3)
            return np.array_equal(looks(), before)

        wait_for(stands_still)
        press("Left")  # of which OpenCV's waitKey makes a Q
        press("Right")
        press("s")
        press("p")
        press("c")
        press("s")
        first, second = (tmp_path / f"clip_snapshot_{i}.png" for i in (1, 2))
        wait_for(second.exists)
        drawn, bare = (cv2.imread(str(path)).astype(int) for path in (first, second))
        changed = np.abs(drawn - bare).max(axis=2) > 30
        assert 0.005 < changed.mean() < 0.2
        close_as_a_mouse_does(screen, number)
        printed, complaints = run.communicate(timeout=1200)
    finally:
        run.kill()
    assert run.returncode == 0, complaints
    assert re.search(r"frames? \(stopped in the window\)", printed)  # one, where space was quick
    said = [line for line in complaints.splitlines() if line.startswith("pipnet.demo")]
    assert said == [f"pipnet.demo: snapshot {path.name}" for path in (first, second)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", first.name, second.name]


class Screen:
    """OpenCV's user interface, without one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.keys: list[int] = []
        self.shown: list[np.ndarray] = []
        self.sizes: list[tuple[int, int]] = []
        self.open = True
        monkeypatch.setattr(window.cv2, "namedWindow", lambda title, flags: None)
        monkeypatch.setattr(window.cv2, "resizeWindow", lambda title, width, height: self.sizes.append((width, height)))
        monkeypatch.setattr(window.cv2, "imshow", lambda title, image: self.shown.append(image.copy()))
        monkeypatch.setattr(window.cv2, "waitKeyEx", lambda ms: self.keys.pop(0) if self.keys else -1)
        monkeypatch.setattr(window.cv2, "getWindowProperty", self.visible)
        monkeypatch.setattr(window.cv2, "destroyWindow", lambda title: setattr(self, "open", False))

    def visible(self, title: str, what: int) -> float:
        if not self.open:
            raise cv2.error("NULL guiReceiver (please create a window)")
        return 1.0


@pytest.fixture
def fake(monkeypatch) -> Screen:
    return Screen(monkeypatch)


def press(view: Window, fake: Screen, keys: str) -> None:
    fake.keys = [ord(key) for key in keys]
    for _ in keys:
        view.poll()


@pytest.mark.parametrize("key", ["q", "Q", "\x1b", ""])
def test_what_ends_it(key, fake):
    view = Window("a")
    press(view, fake, key)
    if not key:
        fake.open = False
        assert view.poll()
    assert view.closed
    assert not fake.open
    view.show(np.zeros((10, 10, 3), np.uint8), ("late",))
    assert fake.shown == []
    view.close()


def test_keys_that_switch(fake):
    view = Window("a")
    before = view.overlay
    press(view, fake, " s")
    assert (view.paused, view.snapshot_wanted) == (True, True)
    press(view, fake, " pcnbi")
    assert not view.paused
    after = view.overlay
    names = ("points", "contours", "scores", "boxes", "ids")
    assert [getattr(after, name) for name in names] == [not getattr(before, name) for name in names]
    press(view, fake, "pcnbi\xe9")
    assert view.overlay == before
    assert {key for keys, _ in window.KEYS for key in keys.split(", ")} == {*"qspcnbih", "Esc", "space"}


@pytest.mark.parametrize("modifier", [0, 0x100000], ids=["plain", "GTK with NumLock"])
def test_keys_without_a_letter_do_nothing(modifier, fake):
    """Their codes end with those of letters: left Q, right S, home P, insert c."""
    view = Window("a")
    before = view.overlay
    fake.keys = [modifier | code for code in (0xFF51, 0xFF53, 0xFF50, 0xFF63, 0xFFE1, ord("q"))]
    assert [view.poll() for _ in range(6)] == [False] * 5 + [True]
    assert (view.paused, view.snapshot_wanted, view.overlay) == (False, False, before)


@pytest.mark.parametrize(
    ("size", "shown"), [((640, 480), (640, 480)), ((160, 120), (480, 360)), ((2560, 960), (1280, 480))]
)
def test_the_picture_is_whole_and_the_bar_is_under_it(size, shown, fake):
    view = Window("a")
    picture = np.full((size[1], size[0], 3), (250, 100, 50), np.uint8)
    view.show(picture, ("30 frames/s   1 face   délai …", "ms: " + "network 7.1  " * 30))
    (plain,) = fake.shown
    assert plain.shape[1] == shown[0]
    assert (plain[: shown[1]] == (50, 100, 250)).all()
    bar = plain[shown[1] :]
    assert 0 < len(bar) < 0.3 * shown[0]
    assert bar.max() > 180  # there is text
    assert (bar[:, -4:] == bar[0, 0]).all()  # that does not run over the edge
    press(view, fake, "h")
    view.show(picture, ("30 frames/s", "ms"))
    assert len(fake.shown[1]) > len(plain)
    assert fake.sizes[-1] == fake.shown[1].shape[1::-1]
