"""Cameras and video files, as the demo reads them: cameras are made up here, files are written and then damaged."""

from __future__ import annotations

import socket
import threading
import time
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

SIZE = (64, 48)


class FakeCamera:
    """A device that gives a frame every so often, numbered by its brightness, and can be unplugged."""

    def __init__(self, every_s: float = 0.002) -> None:
        self.every_s = every_s
        self.plugged = True
        self.given = 0
        self.opened = 0
        self.set_to: dict[int, float] = {}
        self.readers: set[str] = set()

    def open(self, source: int | str) -> FakeCapture:
        return FakeCapture(self, source == 0)


class FakeCapture:
    """What ``cv2.VideoCapture`` is to a camera."""

    def __init__(self, camera: FakeCamera, right_index: bool) -> None:
        self.camera, self.is_open = camera, right_index and camera.plugged
        camera.opened += self.is_open

    def isOpened(self) -> bool:  # noqa: N802
        return self.is_open

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.camera.readers.add(threading.current_thread().name)
        time.sleep(self.camera.every_s)
        if not self.camera.plugged:
            return False, None
        self.camera.given += 1
        return True, np.full((SIZE[1], SIZE[0], 3), (self.camera.given % 256, 1, 2), dtype=np.uint8)

    def set(self, what: int, value: float) -> bool:
        self.camera.set_to[what] = value
        return True

    def get(self, what: int) -> float:
        return 0.0

    def release(self) -> None:
        self.is_open = False


def wait_for(what, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.005)


def test_a_slow_consumer_gets_the_newest_frame_only():
    """Somebody who takes every twentieth frame of a camera: the delay must not grow."""
    device = FakeCamera()
    camera = Camera(0, opener=device.open)
    behind, numbers = [], []
    for _ in range(12):
        read = device.given
        frame = camera.take(10.0)
        behind.append(read - 1 - frame.number)
        numbers.append(frame.number)
        assert frame.image[0, 0].tolist() == [2, 1, (frame.number + 1) % 256]  # RGB, and the picture is the number's
        wait_for(lambda read=device.given: device.given >= read + 20)
    camera.close()
    assert max(behind) <= 1, behind  # the one that is on its way out of the camera
    assert numbers == sorted(numbers)
    assert numbers[-1] > 11 * 18
    assert camera.untaken >= numbers[-1] - 11
    assert not camera._thread.is_alive()


def test_a_quick_consumer_gets_each_frame_once():
    camera = Camera(0, opener=FakeCamera(every_s=0.02).open)
    frames = [camera.take(1.0) for _ in range(10)]
    assert camera.take(0.0) is None
    camera.close()
    assert [frame.number for frame in frames] == list(range(10))
    assert all(b.time_s > a.time_s for a, b in pairwise(frames))


def test_an_unplugged_camera_is_picked_up_again(monkeypatch):
    monkeypatch.setattr(camera_module, "PAUSE_S", 0.02)
    device = FakeCamera()
    camera = Camera(0, opener=device.open)
    assert camera.take(1.0) is not None
    device.plugged = False
    wait_for(lambda: camera.trouble is not None)
    assert camera.trouble == "camera 0 gives no picture; waiting for it to come back"
    camera.take(0.0)  # what was left
    assert camera.take(0.05) is None
    assert not camera.ended
    before = device.given
    device.plugged = True
    frame = camera.take(2.0)
    assert frame is not None
    assert frame.number >= before
    assert camera.trouble is None
    assert camera.returned == 1
    assert device.opened == 2
    camera.close()
    assert camera.ended


def test_close_while_the_camera_is_gone_does_not_wait_for_it(monkeypatch):
    monkeypatch.setattr(camera_module, "PAUSE_S", 600.0)
    device = FakeCamera()
    camera = Camera(0, opener=device.open)
    device.plugged = False
    wait_for(lambda: camera.trouble is not None)
    camera.close()
    assert not camera._thread.is_alive()


def test_a_missing_camera_names_those_that_open(monkeypatch):
    monkeypatch.setattr(camera_module, "camera_indices", lambda: [0, 1, 3])
    with pytest.raises(CaptureError) as error:
        Camera(3, opener=FakeCamera().open)
    assert str(error.value) == "camera 3 can't be opened; these can: 0 (--webcam 0)"
    gone = FakeCamera()
    gone.plugged = False
    with pytest.raises(CaptureError, match="camera 0 can't be opened, and no other camera was found"):
        Camera(0, opener=gone.open)


def test_size_is_asked_for_and_mirror_turns_around():
    class Gradient(FakeCapture):
        def read(self):
            time.sleep(0.005)
            return True, np.tile(np.arange(64, dtype=np.uint8)[None, :, None], (48, 1, 3))

    device = FakeCamera()
    camera = Camera(0, size=(1280, 720), mirror=True, opener=lambda source: Gradient(device, True))
    frame = camera.take(1.0)
    camera.close()
    assert (device.set_to[cv2.CAP_PROP_FRAME_WIDTH], device.set_to[cv2.CAP_PROP_FRAME_HEIGHT]) == (1280, 720)
    assert frame.image[0, :, 0].tolist() == list(range(63, -1, -1))


def test_a_camera_that_throws_is_a_camera_without_a_picture():
    class Throwing(FakeCapture):
        def read(self):
            raise cv2.error("driver")

    with pytest.raises(CaptureError):
        Camera(0, opener=lambda source: Throwing(FakeCamera(), True))


class ThenStrange(FakeCapture):
    """Three pictures, then what a picture can't be, or an error that is none of OpenCV's."""

    def __init__(self, strange: object) -> None:
        super().__init__(FakeCamera(), True)
        self.strange, self.reads = strange, 0

    def read(self):
        self.reads += 1
        if self.reads <= 3:
            return super().read()
        if isinstance(self.strange, Exception):
            raise self.strange
        return True, self.strange

    def get(self, what):
        return {cv2.CAP_PROP_FRAME_COUNT: 9.0, cv2.CAP_PROP_FPS: 25.0}.get(what, 0.0)


def take_to_the_end(source: Camera | VideoFile, seconds: float = 120.0) -> int:
    """How many frames there are, against the clock."""
    count, end = 0, time.monotonic() + seconds
    while not source.ended:
        count += source.take(0.05) is not None
        assert time.monotonic() < end, "waits for a frame that can't come"
    source.take(0.0)
    return count


@pytest.mark.parametrize("kind", ["camera", "video"])
def test_an_error_on_the_thread_ends_the_waiting(kind):
    capture_ = ThenStrange(MemoryError("no memory"))
    if kind == "camera":
        source, called = Camera(0, opener=lambda index: capture_), "camera 0"
    else:
        source, called = VideoFile("http://x/a.mp4", opener=lambda address: capture_), "http://x/a.mp4"
    with pytest.raises(CaptureError, match=rf"{called} can't be read .*\(no memory\)"):
        take_to_the_end(source)
    source.close()
    assert not capture_.is_open


def test_pictures_of_every_kind_become_rgb_or_count_as_broken():
    for channels, strange in (
        (1, np.full((48, 64), 7, np.uint8)),
        (1, np.full((48, 64, 1), 7, np.uint8)),
        (4, np.full((48, 64, 4), (3, 2, 1, 9), np.uint8)),
    ):
        video = VideoFile("http://x/a.png", opener=lambda address, strange=strange: ThenStrange(strange))
        image = [video.take(5.0) for _ in range(4)][3].image
        video.close()
        assert image.shape == (48, 64, 3)
        assert image[0, 0].tolist() == {1: [7, 7, 7], 4: [1, 2, 3]}[channels]
    for strange in (np.zeros((48, 64, 2), np.uint8), np.zeros((48, 64, 3), np.uint16)):
        video = VideoFile("http://x/a.mp4", opener=lambda address, strange=strange: ThenStrange(strange))
        assert take_to_the_end(video) == 3
        assert video.broken == 6


def test_files_of_a_stream_have_a_name_without_folders_and_passwords():
    camera = Camera(
        "rtsp://me:secret@camera.local/live/door.sdp", opener=lambda address: FakeCapture(FakeCamera(), True)
    )
    camera.close()
    assert camera.name == "door"


def test_a_read_that_hangs_does_not_keep_the_demo(monkeypatch):
    monkeypatch.setattr(video_module, "JOIN_S", 0.1)
    go = threading.Event()

    class Hanging(ThenStrange):
        def read(self):
            if self.reads == 3:
                go.wait(60)
            return super().read()

    hanging = Hanging(np.zeros(0))
    video = VideoFile("http://x/a.mp4", opener=lambda address: hanging)
    wait_for(lambda: hanging.reads == 3)
    closer = threading.Thread(target=video.close, daemon=True)
    closer.start()
    closer.join(10)
    came_back = not closer.is_alive()
    go.set()
    assert came_back
    assert video.ended
    assert video.take(0.0) is None


def test_frames_after_the_user_ended_it_are_not_broken():
    class Stuck(ThenStrange):
        """Damage from the fourth frame on, in which the user quits."""

        def read(self):
            if self.reads == 3:
                self.quit.wait(10)
            return super().read()

    stuck = Stuck(np.zeros(0))
    stuck.quit = threading.Event()
    video = VideoFile("http://x/a.mp4", opener=lambda address: stuck)
    wait_for(lambda: stuck.reads == 3)
    video._closing.set()
    stuck.quit.set()
    video.close()
    assert video.broken == 0


def write_video(path: Path, codec: str, frames: int = 60, fps: float = 25.0) -> Path:
    """Numbered pictures with something in them: brightness is 4 times the frame's number."""
    noise = np.random.default_rng(0).integers(0, 30, (120, 160, 3), dtype=np.uint8)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (160, 120))
    assert writer.isOpened()
    for number in range(frames):
        writer.write(noise // 2 + np.uint8(4 * number))
    writer.release()
    return path


def read_all(path: Path, seconds: float = 120.0) -> tuple[list, VideoFile]:
    """All frames, against the clock."""
    with quiet_opencv():
        video = VideoFile(str(path))
        frames, end = [], time.monotonic() + seconds
        while not video.ended:
            frame = video.take(0.05)
            frames += [] if frame is None else [frame]
            assert time.monotonic() < end, "the video does not end"
        video.close()
    return frames, video


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "MJPG"), ("a.mp4", "mp4v"), ("a.mkv", "mp4v")])
def test_a_whole_video(name, codec, tmp_path):
    frames, video = read_all(write_video(tmp_path / name, codec))
    assert [frame.number for frame in frames] == list(range(60))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(60) / 25, atol=1e-3)
    brightness = np.array([frame.image.mean() for frame in frames])
    np.testing.assert_allclose(brightness, 7 + 4 * np.arange(60), atol=3)
    assert (video.broken, video.count, video.fps, video.size) == (0, 60, 25.0, (160, 120))


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "MJPG"), ("a.avi", "XVID"), ("a.mp4", "mp4v")])
def test_a_damaged_video_plays_on_and_counts(name, codec, tmp_path):
    """A tenth of the file is overwritten in its middle: what comes after it is still seen."""
    path = write_video(tmp_path / name, codec)
    content = bytearray(path.read_bytes())
    middle, length = len(content) // 2, len(content) // 10
    content[middle : middle + length] = bytes(length)
    path.write_bytes(content)
    frames, video = read_all(path)
    assert video.broken > 0
    assert len(frames) + video.broken == 60
    assert len(frames) > 40
    assert abs(frames[-1].image.mean() - (7 + 4 * 59)) < 4
    times = [frame.time_s for frame in frames]
    assert all(b > a for a, b in pairwise(times))


@pytest.fixture(scope="module")
def small_videos(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("small")
    kinds = (("a.avi", "MJPG"), ("b.mp4", "mp4v"), ("c.mkv", "mp4v"))
    return [write_video(folder / name, codec, frames=12) for name, codec in kinds]


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
    complaint = None
    try:
        frames, video = read_all(path)
    except CaptureError as error:
        complaint = str(error)
    if complaint is not None:
        assert str(path) in complaint
        return
    assert frames
    assert all(frame.image.dtype == np.uint8 and frame.image.ndim == 3 for frame in frames)
    assert all(b.time_s > a.time_s for a, b in pairwise(frames))
    assert video.broken >= 0


def test_a_video_that_is_cut_off(tmp_path):
    path = write_video(tmp_path / "a.avi", "MJPG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames, video = read_all(path)
    assert 20 < len(frames) < 40
    assert len(frames) + video.broken == 60


def test_a_container_that_lies_about_its_length_ends(monkeypatch):
    """No frame after the tenth, though a hundred million are promised; and times that stand still."""

    class Liar:
        left = 10

        def isOpened(self):  # noqa: N802
            return True

        def read(self):
            self.left -= 1
            return (True, np.zeros((8, 8, 3), np.uint8)) if self.left >= 0 else (False, None)

        def get(self, what):
            return {cv2.CAP_PROP_FRAME_COUNT: 9e7, cv2.CAP_PROP_FPS: 50.0}.get(what, 0.0)

        def release(self):
            pass

    video = VideoFile("http://x/liar.mp4", opener=lambda source: Liar())
    frames = []
    while not video.ended:
        frame = video.take(0.05)
        frames += [] if frame is None else [frame]
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(10) / 50)


def test_frames_are_decoded_ahead_but_not_all(tmp_path):
    video = VideoFile(str(write_video(tmp_path / "a.avi", "MJPG")), ahead=4)
    wait_for(lambda: video._frames.full())
    time.sleep(0.05)
    assert video._number <= 6
    video.close()  # with the thread waiting for room
    assert not video._thread.is_alive()
    assert video.take(0.0) is None


def test_what_is_no_video_is_said(tmp_path):
    empty, text = tmp_path / "empty.mp4", tmp_path / "text.mp4"
    empty.write_bytes(b"")
    text.write_text("no video")
    with quiet_opencv():
        for source, message in (
            (tmp_path / "nowhere.mp4", "no such video"),
            (empty, "the file is empty"),
            (text, "not a video that OpenCV can read"),
            (tmp_path, "is a folder, not a video"),
        ):
            with pytest.raises(CaptureError, match=message) as error:
                VideoFile(str(source))
            assert str(source) in str(error.value)


def test_an_address_that_does_not_answer(monkeypatch):
    monkeypatch.setattr(camera_module, "OPEN_TIMEOUT_MS", 300)
    with socket.socket() as silent, quiet_opencv():
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(CaptureError, match="does not answer, or is no video"):
            VideoFile(f"http://127.0.0.1:{silent.getsockname()[1]}/a.mp4")


def test_a_video_without_one_good_frame():
    class Blind(FakeCapture):
        def read(self):
            return False, None

        def get(self, what):
            return {cv2.CAP_PROP_FRAME_COUNT: 3.0, cv2.CAP_PROP_FPS: 25.0}.get(what, 0.0)

    with pytest.raises(CaptureError, match=r"http://x/a\.mp4: not one frame of this video can be read"):
        VideoFile("http://x/a.mp4", opener=lambda source: Blind(FakeCamera(), True))


def test_the_bound_on_damage_is_kept(monkeypatch):
    monkeypatch.setattr(video_module, "PATIENCE", 3)

    class Endless:
        reads = 0

        def isOpened(self):  # noqa: N802
            return True

        def read(self):
            self.reads += 1
            return (True, np.zeros((8, 8, 3), np.uint8)) if self.reads == 1 else (False, None)

        def get(self, what):
            return -1.0

        def release(self):
            pass

    stream = Endless()
    video = VideoFile("http://x/stream", opener=lambda source: stream)
    while not video.ended:
        video.take(0.05)
    assert stream.reads == 5
    assert video.broken == 0
