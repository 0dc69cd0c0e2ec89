"""Cameras and video files, as the demo reads them: cameras are made up here, files are written and then damaged."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipnet.demo import camera as camera_module
from pipnet.demo import video as video_module
from pipnet.demo.camera import Camera, CaptureError, quiet_opencv
from pipnet.demo.video import VideoFile

VIDEO = "http://x/a.mp4"


def numbered(number: int) -> np.ndarray:
    return np.full((48, 64, 3), (number % 256, 1, 2), dtype=np.uint8)


class Device:
    """A camera or a video: what its reads give, by their number from 1. It can be unplugged.

    None is a read that fails, an exception is thrown.
    """

    def __init__(self, picture=numbered, properties=None, every_s: float = 0.002) -> None:
        self.picture, self.properties, self.every_s = picture, properties or {}, every_s
        self.plugged = True
        self.reads = self.opened = 0
        self.set_to: dict[int, float] = {}

    def open(self, source: int | str) -> Capture:
        return Capture(self, is_open=self.plugged and source in (0, VIDEO))


class Capture:
    """What ``cv2.VideoCapture`` is to a camera."""

    def __init__(self, device: Device, *, is_open: bool = True) -> None:
        self.device, self.is_open = device, is_open
        device.opened += is_open

    def isOpened(self) -> bool:  # noqa: N802
        return self.is_open

    def read(self) -> tuple[bool, object]:
        time.sleep(self.device.every_s)
        if not self.device.plugged:
            return False, None
        self.device.reads += 1
        picture = self.device.picture(self.device.reads)
        if isinstance(picture, Exception):
            raise picture
        return picture is not None, picture

    def set(self, what: int, value: float) -> bool:
        self.device.set_to[what] = value
        return True

    def get(self, what: int) -> float:
        return self.device.properties.get(what, 0.0)

    def release(self) -> None:
        self.is_open = False


def then(strange: object):
    """Three pictures, and from then on this."""
    return lambda number: numbered(number) if number <= 3 else strange


PROMISED = {cv2.CAP_PROP_FRAME_COUNT: 9.0, cv2.CAP_PROP_FPS: 25.0}


def wait_for(what, seconds: float = 120.0):
    end = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.005)
    return value


def runs(thread: str) -> bool:
    return any(other.name == thread for other in threading.enumerate())


def take_all(source: Camera | VideoFile, seconds: float = 120.0) -> list:
    """All frames, against the clock."""
    frames, end = [], time.monotonic() + seconds
    while not source.ended:
        frame = source.take(0.05)
        frames += [] if frame is None else [frame]
        assert time.monotonic() < end, "waits for a frame that can't come"
    source.take(0.0)
    return frames


def test_a_slow_consumer_gets_the_newest_frame_only():
    """Somebody who takes every twentieth frame of a camera: the delay must not grow."""
    device = Device()
    camera = Camera(0, opener=device.open)
    behind, numbers = [], []
    for _ in range(12):
        read = device.reads
        frame = camera.take(10.0)
        behind.append(read - 1 - frame.number)
        numbers.append(frame.number)
        assert frame.image[0, 0].tolist() == [2, 1, (frame.number + 1) % 256]  # RGB, and the picture is the number's
        wait_for(lambda read=device.reads: device.reads >= read + 20)
    camera.close()
    assert max(behind) <= 1, behind  # the one that is on its way out of the camera
    assert numbers == sorted(numbers)
    assert numbers[-1] > 11 * 18
    assert camera.untaken >= numbers[-1] - 11
    assert not runs("camera 0")


def test_a_quick_consumer_gets_each_frame_once():
    camera = Camera(0, opener=Device(every_s=0.02).open)
    frames = [camera.take(1.0) for _ in range(10)]
    assert camera.take(0.0) is None
    camera.close()
    assert [frame.number for frame in frames] == list(range(10))
    assert all(b.time_s > a.time_s for a, b in pairwise(frames))


def test_an_unplugged_camera_is_picked_up_again(monkeypatch):
    monkeypatch.setattr(camera_module, "PAUSE_S", 0.02)
    device = Device()
    camera = Camera(0, opener=device.open)
    assert camera.take(1.0) is not None
    device.plugged = False
    wait_for(lambda: camera.trouble is not None)
    assert camera.trouble == "camera 0 gives no picture; waiting for it to come back"
    camera.take(0.0)  # what was left
    assert camera.take(0.05) is None
    assert not camera.ended
    before = device.reads
    device.plugged = True
    frame = camera.take(2.0)
    assert frame.number >= before
    assert camera.trouble is None
    assert (camera.returned, device.opened) == (1, 2)
    monkeypatch.setattr(camera_module, "PAUSE_S", 600.0)
    device.plugged = False
    wait_for(lambda: camera.trouble is not None)
    camera.close()  # does not wait for it to come back
    assert camera.ended
    assert not runs("camera 0")


def test_a_missing_camera_names_those_that_open(monkeypatch):
    monkeypatch.setattr(camera_module, "camera_indices", lambda: [0, 1, 3])
    with pytest.raises(CaptureError) as error:
        Camera(3, opener=Device().open)
    assert str(error.value) == "camera 3 can't be opened; these can: 0 (--webcam 0)"
    gone = Device()
    gone.plugged = False
    for device in (gone, Device(lambda number: cv2.error("driver"))):
        with pytest.raises(CaptureError, match="camera 0 can't be opened, and no other camera was found"):
            Camera(0, opener=device.open)


def test_size_is_asked_for_mirror_turns_around_and_no_password_names_a_file():
    ramp = np.tile(np.arange(64, dtype=np.uint8)[None, :, None], (48, 1, 3))
    device = Device(lambda number: ramp.copy())
    address = "rtsp://me:secret@camera.local/live/door.sdp"
    camera = Camera(address, size=(1280, 720), mirror=True, opener=lambda source: Capture(device))
    frame = camera.take(1.0)
    camera.close()
    assert camera.name == "door"
    assert (device.set_to[cv2.CAP_PROP_FRAME_WIDTH], device.set_to[cv2.CAP_PROP_FRAME_HEIGHT]) == (1280, 720)
    assert frame.image[0, :, 0].tolist() == list(range(63, -1, -1))


@pytest.mark.parametrize(("kind", "source", "called"), [(Camera, 0, "camera 0"), (VideoFile, VIDEO, VIDEO)])
def test_an_error_on_the_thread_ends_the_waiting(kind, source, called):
    capture = Capture(Device(then(MemoryError("no memory")), PROMISED))
    opened = kind(source, opener=lambda source: capture)
    with pytest.raises(CaptureError, match=rf"{called} can't be read .*\(no memory\)"):
        take_all(opened)
    opened.close()
    assert not capture.is_open


@pytest.mark.parametrize(
    ("strange", "pixel"),
    [
        (np.full((48, 64), 7, np.uint8), [7, 7, 7]),
        (np.full((48, 64, 1), 7, np.uint8), [7, 7, 7]),
        (np.full((48, 64, 4), (3, 2, 1, 9), np.uint8), [1, 2, 3]),
        (np.zeros((48, 64, 2), np.uint8), None),
        (np.zeros((48, 64, 3), np.uint16), None),
    ],
)
def test_pictures_of_every_kind_become_rgb_or_count_as_broken(strange, pixel):
    device = Device(lambda number: then(strange)(number) if number <= 9 else None, PROMISED)
    video = VideoFile(VIDEO, opener=device.open)
    frames = take_all(video)
    video.close()
    if pixel is None:
        assert (len(frames), video.broken) == (3, 6)
    else:
        assert frames[3].image.shape == (48, 64, 3)
        assert frames[3].image[0, 0].tolist() == pixel


def test_a_read_that_hangs_does_not_keep_the_demo_and_what_it_gives_then_is_not_broken(monkeypatch):
    monkeypatch.setattr(video_module, "JOIN_S", 0.1)
    go = threading.Event()

    def picture(number):
        if number == 4:
            go.wait(60)
        return numbered(number) if number <= 3 else np.zeros(0)

    device = Device(picture, PROMISED)
    video = VideoFile(VIDEO, opener=device.open)
    wait_for(lambda: device.reads == 4)
    closer = threading.Thread(target=video.close, daemon=True)
    closer.start()
    closer.join(10)
    came_back = not closer.is_alive()
    go.set()
    assert came_back
    assert video.ended
    assert video.take(0.0) is None
    wait_for(lambda: not runs(f"video {VIDEO}"))
    assert video.broken == 0


def test_a_container_that_lies_about_its_length_ends(monkeypatch):
    """No frame after the tenth, though a hundred million are promised, and times that stand still; or no promise."""
    properties = {cv2.CAP_PROP_FRAME_COUNT: 9e7, cv2.CAP_PROP_FPS: 50.0}
    device = Device(lambda number: numbered(number) if number <= 10 else None, properties, every_s=0.0)
    frames = take_all(VideoFile(VIDEO, opener=device.open))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(10) / 50)
    monkeypatch.setattr(video_module, "PATIENCE", 3)
    device = Device(lambda number: numbered(number) if number == 1 else None)
    video = VideoFile(VIDEO, opener=device.open)
    take_all(video)
    assert (device.reads, video.broken) == (5, 0)


def test_frames_are_decoded_ahead_but_not_all():
    device = Device(properties={cv2.CAP_PROP_FRAME_COUNT: 60.0, cv2.CAP_PROP_FPS: 25.0})
    video = VideoFile(VIDEO, ahead=4, opener=device.open)
    wait_for(lambda: device.reads >= 5)  # four that wait, and one in hand
    time.sleep(0.05)
    assert device.reads == 5
    video.close()  # with the thread waiting for room
    assert not runs(f"video {VIDEO}")
    assert video.take(0.0) is None


def write_video(path: Path, codec: str, frames: Sequence[np.ndarray], fps: float = 25.0) -> Path:
    """RGB frames as a video."""
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return path


def growing_lighter(count: int = 60) -> list[np.ndarray]:
    """Numbered pictures with something in them: brightness is 4 times the frame's number."""
    noise = np.random.default_rng(0).integers(0, 30, (120, 160, 3), dtype=np.uint8)
    return [noise // 2 + np.uint8(4 * number) for number in range(count)]


def read_all(path: Path) -> tuple[list, VideoFile]:
    with quiet_opencv():
        video = VideoFile(str(path))
        frames = take_all(video)
        video.close()
    return frames, video


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "MJPG"), ("a.mp4", "mp4v"), ("a.mkv", "mp4v")])
def test_a_whole_video(name, codec, tmp_path):
    frames, video = read_all(write_video(tmp_path / name, codec, growing_lighter()))
    assert [frame.number for frame in frames] == list(range(60))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(60) / 25, atol=1e-3)
    brightness = np.array([frame.image.mean() for frame in frames])
    np.testing.assert_allclose(brightness, 7 + 4 * np.arange(60), atol=3)
    assert (video.broken, video.count, video.fps, video.size) == (0, 60, 25.0, (160, 120))


@pytest.mark.parametrize(
    ("name", "codec", "cut"),
    [("a.avi", "MJPG", False), ("a.avi", "XVID", False), ("a.mp4", "mp4v", False), ("a.avi", "MJPG", True)],
)
def test_a_damaged_video_plays_on_and_counts(name, codec, cut, tmp_path):
    """A tenth of the file is overwritten in its middle, and the rest still seen; or the second half is gone."""
    path = write_video(tmp_path / name, codec, growing_lighter())
    content = bytearray(path.read_bytes())
    middle, length = len(content) // 2, len(content) // 10
    if cut:
        del content[middle:]
    else:
        content[middle : middle + length] = bytes(length)
    path.write_bytes(content)
    frames, video = read_all(path)
    assert video.broken > 0
    assert len(frames) + video.broken == 60
    if cut:
        assert 20 < len(frames) < 40
    else:
        assert len(frames) > 40
        assert abs(frames[-1].image.mean() - (7 + 4 * 59)) < 4
    assert all(b.time_s > a.time_s for a, b in pairwise(frames))


@pytest.fixture(scope="module")
def small_videos(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("small")
    kinds = (("a.avi", "MJPG"), ("b.mp4", "mp4v"), ("c.mkv", "mp4v"))
    return [write_video(folder / name, codec, growing_lighter(12)) for name, codec in kinds]


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_video_file_holds_it_ends(small_videos, tmp_path, data):
    """Bytes overwritten, dropped, or cut off anywhere: frames and the end, or one sentence; no crash and no hang."""
    whole = data.draw(st.sampled_from(small_videos), "video")
    content = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 4), "damages")):
        place = data.draw(st.integers(0, len(content) - 1), "place")
        length = data.draw(st.integers(1, 2000), "length")
        if data.draw(st.booleans(), "drop"):
            del content[place : place + length]
        else:
            content[place : place + length] = data.draw(st.binary(max_size=length), "bytes")
        content = content or bytearray(b"x")
    path = tmp_path / whole.name
    path.write_bytes(content)
    try:
        frames, video = read_all(path)
    except CaptureError as error:
        assert str(path) in str(error)  # noqa: PT017
        return
    assert frames
    assert all(frame.image.dtype == np.uint8 and frame.image.ndim == 3 for frame in frames)
    assert all(b.time_s > a.time_s for a, b in pairwise(frames))
    assert video.broken >= 0


def test_what_is_no_video_is_said(tmp_path, monkeypatch):
    empty, text = tmp_path / "empty.mp4", tmp_path / "text.mp4"
    empty.write_bytes(b"")
    text.write_text("no video")
    monkeypatch.setattr(camera_module, "OPEN_TIMEOUT_MS", 300)
    with quiet_opencv(), socket.create_server(("127.0.0.1", 0)) as silent:
        for source, message in (
            (tmp_path / "nowhere.mp4", "no such video"),
            (empty, "the file is empty"),
            (text, "not a video that OpenCV can read"),
            (tmp_path, "is a folder, not a video"),
            (f"http://127.0.0.1:{silent.getsockname()[1]}/a.mp4", "does not answer, or is no video"),
        ):
            with pytest.raises(CaptureError, match=message) as error:
                VideoFile(str(source))
            assert str(source) in str(error.value)
    with pytest.raises(CaptureError, match=r"http://x/a\.mp4: not one frame of this video can be read"):
        VideoFile(VIDEO, opener=Device(lambda number: None, PROMISED).open)
