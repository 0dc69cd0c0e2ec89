"""Videos that OpenCV only says it reads, names that are no text, rates of every kind; files are written here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_capture import Device, growing_lighter, read_all, take_all, write_video

from pipnet.demo import video as video_module
from pipnet.demo.camera import CaptureError, quiet_opencv
from pipnet.demo.output import Recording
from pipnet.demo.video import VideoFile, open_deinterlaced, open_stream
from pipnet.files import openable

SIZE = (160, 120)


def write_y4m(path: Path, grey: list[int], kind: str) -> Path:
    """Uncompressed frames, each of one grey; ``kind`` is t for interlaced, p for progressive."""
    plane = SIZE[0] * SIZE[1]
    head = f"YUV4MPEG2 W{SIZE[0]} H{SIZE[1]} F25:1 I{kind} A1:1 C420jpeg\n".encode()
    path.write_bytes(head + b"".join(b"FRAME\n" + bytes([g]) * plane + bytes([128]) * (plane // 2) for g in grey))
    return path


GREY = [60, 80, 100, 120, 140, 160, 180, 200]


@pytest.mark.parametrize("name", ["a.y4m", "it's, [o:d]; \\ =.y4m", os.fsdecode(b"caf\xe9.y4m")])
def test_interlaced_frames_are_decoded(name, tmp_path):
    path = write_y4m(tmp_path / name, GREY, "t")
    with quiet_opencv():
        filters = open_deinterlaced(str(path)).isOpened()
    if not filters and cv2.VideoCapture(str(path)).read()[1].mean() < 30:  # OpenCV 4.13: needs them, has none
        with quiet_opencv(), pytest.raises(CaptureError, match="interlaced"):
            VideoFile(str(path))
        return
    frames, video = read_all(path)
    shown = [frame.image.mean() for frame in frames]
    assert (len(frames), video.broken, video.size) == (len(GREY), 0, SIZE)
    assert (np.diff(shown) > 10).all()  # each frame its own, not what the memory held
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(len(GREY)) / 25, atol=1e-3)


def test_an_interlaced_stream_is_deinterlaced(tmp_path):
    grey = range(40, 240, 10)
    path = str(write_y4m(tmp_path / "a.y4m", [*grey], "t"))
    with quiet_opencv():
        if not open_deinterlaced(path).isOpened():
            pytest.skip("this OpenCV has no filters of FFmpeg")
        capture = open_stream(path)
        shown = [capture.read()[1].mean() for _ in range(5)]
    assert (np.diff(shown) > 5).all()


def test_a_video_that_stands_still_is_whole(tmp_path):
    """It shows the sign of frames that are not delivered, from its second frame or later."""
    for grey in ([60] * 20, [60, 80, 100, 100, 100, 120]):
        frames, video = read_all(write_y4m(tmp_path / "a.y4m", grey, "p"))
        shown = np.array([frame.image.mean() for frame in frames])
        np.testing.assert_allclose(shown, (np.array(grey) - 16) * 255 / 219, atol=4)  # video's grey is 16 to 235
        assert video.broken == 0
        np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(len(grey)) / 25, atol=1e-3)


def test_without_filters_frames_that_are_not_delivered_are_one_sentence(tmp_path, monkeypatch):
    """The OpenCV that says done, made here: one picture of whatever the memory holds, again and again."""
    path = write_y4m(tmp_path / "a.y4m", [90] * 10, "p")
    monkeypatch.setattr(video_module, "open_deinterlaced", lambda source, turned: cv2.VideoCapture())
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "avcodec:     YES (62.28.101)")
    with quiet_opencv():
        with pytest.raises(CaptureError, match=r"a\.y4m: this OpenCV can't decode these frames, which may be inter"):
            VideoFile(str(path))
        monkeypatch.setattr(cv2, "getBuildInformation", lambda: "avcodec:     YES (59.37.100)")
        assert len(read_all(path)[0]) == 10  # an older FFmpeg delivers, so that stands still


def test_names_that_are_no_utf_8_are_read_and_written(tmp_path):
    """In a process of its own: OpenCV by itself ends it with a segmentation fault."""
    videos = [tmp_path / os.fsdecode(name) for name in (b"caf\xe9.mp4", b"d\xe9/plain.mp4", b"d\xe9/caf\xe9.mp4")]
    (tmp_path / os.fsdecode(b"d\xe9")).mkdir()
    for video in videos:
        write_video(tmp_path / "a.mp4", "mp4v", growing_lighter(2)).rename(video)
    program = "import sys\nfrom pipnet.demo import main\n" + "".join(
        f"assert main(['--video', {str(video)!a}, '--output', {str(video.parent)!a}, *sys.argv[1:]]) == 0\n"
        for video in videos
    )
    options = ["--no-window", "--json", "--runtime", "onnxruntime", "--threads", "1"]
    done = subprocess.run([sys.executable, "-c", program, *options], capture_output=True, check=False, timeout=240)
    assert (done.returncode, done.stderr) == (0, b"")
    for video in videos:
        written = video.with_name(f"{video.stem}_landmarks.mp4")
        with openable(written) as there:
            assert cv2.VideoCapture(there).get(cv2.CAP_PROP_FRAME_COUNT) == 2
        assert b"\\\\xe9" in written.with_suffix(".json").read_bytes()
    assert done.stdout.count(b"\\xe9") >= 3


@pytest.mark.parametrize("fps", [0.5, 25.0, 960.0])
def test_a_written_video_lasts_as_long_as_its_source(fps, tmp_path):
    frames, video = read_all(write_video(tmp_path / "a.mp4", "mp4v", growing_lighter(12), fps=fps))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(12) / fps, rtol=0.01, atol=1e-3)
    assert lasts(frames, video, tmp_path / "b.mp4") == pytest.approx(12 / fps, rel=0.01)


def test_frames_at_uneven_times_are_written_at_their_times(tmp_path):
    """OpenCV says 30 frames a second; the frames come at 30, then at 5."""
    times = (0.0, 0.033, 0.067, 0.1, 0.3, 0.5, 3.5)

    class Stamped(dict):
        def get(self, what, default=0.0):
            stamp = 1000 * times[min(device.reads, len(times)) - 1]
            return {cv2.CAP_PROP_FPS: 30.0, cv2.CAP_PROP_POS_MSEC: stamp}.get(what, -1.0)

    device = Device(lambda number: np.full((120, 160, 3), 20 * number, np.uint8) if number <= len(times) else None)
    device.properties = Stamped()
    video = VideoFile("http://x/a.mp4", opener=device.open)
    frames = take_all(video)
    np.testing.assert_allclose([frame.time_s for frame in frames], times)
    assert lasts(frames, video, tmp_path / "b.mp4") == pytest.approx(3.5 + 1 / 30, abs=1 / 30)


def lasts(frames, video, path: Path) -> float:
    """Seconds of the video that the demo writes of these frames."""
    record = Recording(path, video.size, video.fps)
    for frame in frames:
        record.write(frame.image, frame.time_s)
    record.finish()
    written = cv2.VideoCapture(str(path))
    return written.get(cv2.CAP_PROP_FRAME_COUNT) / written.get(cv2.CAP_PROP_FPS)
