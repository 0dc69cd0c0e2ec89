"""The demo on videos and cameras: the shipped network follows the public-domain portrait along a known path."""

from __future__ import annotations

import csv
import json
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.data import astronaut
from test_capture import Device, write_video

from experiments.motion import move, moved, sway
from pipnet.demo import camera as camera_module
from pipnet.demo import command, main, output
from pipnet.demo import video as video_module
from pipnet.demo.camera import quiet_opencv
from pipnet.demo.output import Recording
from pipnet.inference import tracking
from pipnet.inference.landmarker import FaceLandmarker

ROOT = Path(__file__).resolve().parent.parent
FRAMES, FPS, SIZE = 24, 25.0, (320, 240)
NOSE = np.array([[224.0, 123.0]])  # tip of the nose in the portrait
PATH = sway(FRAMES, (224.0, 133.0), 1.0, fps=FPS, amplitude_px=30, degrees=5, period_s=1.8, size=SIZE)


@pytest.fixture(autouse=True)
def no_display_and_one_landmarker_for_all(monkeypatch, shipped):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    known = {name: getattr(shipped, name) for name in ("layout", "crop_scale", "mean_face")}

    def load(parser, options, boxes=None):
        return shipped if boxes is None else FaceLandmarker(shipped.runtime, detector=boxes, **known)

    monkeypatch.setattr(command, "load_landmarker", load)


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    return list(move(astronaut(), PATH, size=SIZE, border=(120, 120, 120)))


@pytest.fixture(scope="module")
def clip(frames, tmp_path_factory) -> Path:
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", "mp4v", frames)


def read_video(path: Path) -> tuple[list[np.ndarray], float]:
    video = cv2.VideoCapture(str(path))
    fps, found = video.get(cv2.CAP_PROP_FPS), []
    while (item := video.read())[0]:
        found.append(item[1][..., ::-1])
    video.release()
    return found, fps


def follow(video: Path | str, output: Path, *more: str) -> int:
    """The command on a video, without a window."""
    return main(["--video", str(video), "--output", str(output), "--no-window", "--device", "cpu", *more])


def test_video_to_video_json_and_csv(clip, frames, tmp_path, capsys):
    assert main(["--video", str(clip), "--output", str(tmp_path), "--json", "--csv", "--device", "cpu"]) == 0
    printed, complaints = capsys.readouterr()
    assert complaints == "pipnet.demo: there is no display; going on without a window\n"
    first, second, third = printed.splitlines()
    assert first.startswith(f"{clip}: {FRAMES} frames, {FRAMES} with a face, ")
    assert first.endswith("clip_landmarks.mp4, clip_landmarks.json and clip_landmarks.csv")
    assert "frames per second" in first
    calls = 100 * 1 / FRAMES  # at the start only
    assert second == (
        f"searches for faces: {calls:.1f} per 100 frames; known faces out of sight: 0.0 % of their frames; "
        "broken frames: 0"
    )
    assert third.startswith("milliseconds a frame (median): read ")
    for part in ("find faces", "cut out faces", "network", "read out points", "follow", "draw", "write"):
        assert f", {part} " in third
    assert " a search, " in third

    written, fps = read_video(tmp_path / "clip_landmarks.mp4")
    assert (len(written), fps, written[0].shape) == (FRAMES, FPS, (240, 320, 3))
    record = json.loads((tmp_path / "clip_landmarks.json").read_text())
    assert (record["video"], record["width"], record["height"], record["layout"]) == (str(clip), 320, 240, "300w_68")
    assert [frame["frame"] for frame in record["frames"]] == list(range(FRAMES))
    np.testing.assert_allclose([frame["time"] for frame in record["frames"]], np.arange(FRAMES) / FPS, atol=1e-3)
    points = np.array([frame["faces"][0]["points"] for frame in record["frames"]])
    assert {(len(frame["faces"]), frame["faces"][0]["id"]) for frame in record["frames"]} == {(1, 0)}
    assert np.linalg.norm(points[:, 30] - moved(NOSE, PATH)[:, 0], axis=1).max() < 6
    for number in (5, 20):  # drawn where the points are, and nowhere else
        difference = np.abs(written[number].astype(int) - frames[number]).max(axis=2)
        x, y = points[number].round().astype(int).T
        assert np.median(difference[y, x]) > 40
        assert np.median(difference[:40, :40]) < 15

    with (tmp_path / "clip_landmarks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["frame"]), int(row["face"]), int(row["id"])) for row in rows] == [(i, 0, 0) for i in range(FRAMES)]
    np.testing.assert_allclose([float(row["x_30"]) for row in rows], points[:, 30, 0], atol=1e-3)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".csv", ".json", ".mp4"]


def test_boxes_from_a_file(clip, tmp_path, capsys):
    """Boxes by frame; the record of a first run can be given back, and is not replaced by that of the second."""
    given = tmp_path / "clip_landmarks.json"
    given.write_text(json.dumps({"clip.mp4": {"0": [[110, 60, 210, 160]]}}))
    arguments = "--json", "--seconds", "0.4", "--detector", "boxes"
    assert follow(clip, tmp_path, *arguments, str(given)) == 0
    assert json.loads(given.read_text()) == {"clip.mp4": {"0": [[110, 60, 210, 160]]}}
    written = tmp_path / "clip_landmarks_2.json"
    record = json.loads(written.read_text())
    assert len(record["frames"]) == 10
    assert record["frames"][0]["faces"][0]["box"] == [110, 60, 210, 160]
    assert follow(clip, tmp_path / "again.avi", *arguments, str(written)) == 0
    assert read_video(tmp_path / "again.avi")[1] == FPS
    assert json.loads((tmp_path / "again.json").read_text())["frames"][0] == record["frames"][0]
    assert capsys.readouterr().err == ""
    given.write_text(json.dumps({"other.mp4": {"0": []}}))
    assert follow(clip, tmp_path, *arguments, str(given)) == 1
    assert "no boxes for" in capsys.readouterr().err


def test_a_damaged_video_is_done_to_its_end(frames, tmp_path, capsys):
    clip = write_video(tmp_path / "clip.avi", "XVID", frames * 2)
    content = bytearray(clip.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 8000] = bytes(8000)
    clip.write_bytes(content)
    assert follow(clip, tmp_path / "out.mp4") == 0
    printed, complaints = capsys.readouterr()
    assert complaints == ""
    broken = int(printed.splitlines()[1].rpartition("broken frames: ")[2])
    assert broken > 0
    lasts = len(read_video(tmp_path / "out.mp4")[0])
    assert 2 * FRAMES - broken <= lasts <= 2 * FRAMES  # the picture before stands for one that is broken


@pytest.mark.parametrize("when", ["while it plays", "at the end"])
def test_of_several_results_those_that_could_be_written_are_kept(when, clip, tmp_path, monkeypatch, capsys):
    method, calls = ("write", 9) if when == "while it plays" else ("finish", 0)
    real, left = getattr(output.Table, method), iter(range(calls))

    def failing(table, *arguments):
        if next(left, None) is None:
            raise OSError(28, f"{table.path} can't be written: No space left on device; free disk space")
        real(table, *arguments)

    monkeypatch.setattr(output.Table, method, failing)
    assert follow(clip, tmp_path, "--json", "--csv", "--seconds", "0.8") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"pipnet.demo: error: {tmp_path / 'clip_landmarks.csv'} can't be written: No space left on device; free disk "
        f"space; {tmp_path / 'clip_landmarks.mp4'} and clip_landmarks.json were kept, whole"
    )
    frames = json.loads((tmp_path / "clip_landmarks.json").read_text())["frames"]
    assert len(frames) == len(read_video(tmp_path / "clip_landmarks.mp4")[0]) == (10 if "while" in when else 20)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".mp4"]


def test_options_reach_the_tracker(clip, tmp_path, monkeypatch, capsys):
    seen = {}
    real = tracking.FaceTracker

    def remember(landmarker, **settings):
        seen.update(settings)
        return real(landmarker, **settings)

    monkeypatch.setattr(tracking, "FaceTracker", remember)
    arguments = "--csv", "--seconds", "0.03"
    assert follow(clip, tmp_path, *arguments, "--max-faces", "2", "--detect-every", "7", "--no-smoothing") == 0
    assert seen == {"max_faces": 2, "detect_every": 7, "smoothing": False}
    assert follow(clip, tmp_path, *arguments) == 0
    assert seen == {"max_faces": None, "detect_every": 30, "smoothing": True}
    # A single frame has no speed.
    assert capsys.readouterr().out.startswith(f"{clip}: 1 frame, 1 with a face, written to ")


def test_ctrl_c_keeps_what_was_done(frames, tmp_path):
    clip = write_video(tmp_path / "long.mp4", "mp4v", frames * 24)
    out = tmp_path / "out"
    arguments = [sys.executable, "-m", "pipnet.demo", "--video", str(clip), "--output", str(out), "--json", "--csv"]
    arguments += ["--runtime", "onnxruntime"]
    run = subprocess.Popen(
        arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    end = time.monotonic() + 600
    while not any(path.stat().st_size > 20_000 for path in out.glob(".long_landmarks*.csv")):
        assert time.monotonic() < end
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    printed, complaints = run.communicate(timeout=1200)
    assert run.returncode == 0, complaints
    assert "frames (stopped by Ctrl-C)" in printed
    assert "written to" in printed
    count = len(json.loads((out / "long_landmarks.json").read_text())["frames"])
    assert 0 < count < len(frames) * 24
    assert len(read_video(out / "long_landmarks.mp4")[0]) == count
    assert sorted(path.suffix for path in out.iterdir()) == [".csv", ".json", ".mp4"]


def test_a_camera_is_recorded_at_its_own_speed(frames, tmp_path, monkeypatch, capsys):
    """Of a camera at 20 frames a second that says 25, in a second, the video lasts as long."""
    device = Device(lambda number: np.ascontiguousarray(frames[number % FRAMES][..., ::-1]), every_s=0.05)
    device.properties = {cv2.CAP_PROP_FPS: FPS}
    monkeypatch.setattr(camera_module, "open_capture", device.open)
    monkeypatch.chdir(tmp_path)
    assert main(["--webcam", "--seconds", "1", "--json", "--output", "me.mp4", "--no-window", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    record = json.loads(Path("me.json").read_text())
    assert record["video"] == "webcam0"
    assert [frame["frame"] for frame in record["frames"]] == list(range(len(record["frames"])))
    assert printed.startswith(f"webcam0: {len(record['frames'])} frames, ")
    lasted = record["frames"][-1]["time"]
    assert lasted > 0.2
    assert abs(len(read_video(Path("me.mp4"))[0]) - (lasted * FPS + 1)) <= 1


def test_a_camera_without_a_window_or_files_is_told(monkeypatch, capsys):
    monkeypatch.setattr(camera_module, "open_capture", Device(every_s=0.02).open)
    assert main(["--webcam", "--seconds", "0.2", "--device", "cpu"]) == 0
    printed, complaints = capsys.readouterr()
    assert complaints.splitlines() == [
        "pipnet.demo: there is no display; going on without a window",
        "pipnet.demo: nothing is kept without --output, --json or --csv; Ctrl-C ends",
    ]
    assert " 0 with a face" in printed


@pytest.mark.parametrize(
    ("option", "what", "message"),
    [
        ("--video", "no.mp4", "no.mp4: no such video"),
        ("--video", "http://127.0.0.1:9/a.mp4", "is no video; check the address"),  # nothing answers
        ("--webcam", "7", "camera 7 can't be opened"),
    ],
)
def test_what_can_not_be_opened_is_one_sentence(option, what, message, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(camera_module, "camera_indices", list)
    assert main([option, what, "--output", "out"]) == 1
    *before, line = capfd.readouterr().err.splitlines()
    assert line.startswith("pipnet.demo: ")
    assert message in line
    assert not before or what.startswith("http")  # OpenCV says more of an address
    assert line.endswith("(a file: download it first, then give its path)") == what.startswith("http")
    assert not (tmp_path / "out").exists()


def noise(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, 240, 320, 3), dtype=np.uint8))


def write_all(record: Recording, pictures: list[np.ndarray]) -> None:
    for number, picture in enumerate(pictures):
        record.write(picture, number / FPS)
    record.finish()


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_a_recording_on_a_full_disk(suffix, tmp_path):
    """OpenCV's writer says nothing; the file tells. Nothing is left, an older file stays."""
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # a file can't grow beyond
    try:
        with quiet_opencv():
            record = Recording(path, SIZE, FPS)
            with pytest.raises(OSError, match=rf"a\{suffix} can't be written"):
                write_all(record, noise(30))
            record.discard()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_is_nearly_full_ends_the_video_and_keeps_it(clip, tmp_path, monkeypatch, capsys):
    real = shutil.disk_usage
    monkeypatch.setattr(output.shutil, "disk_usage", lambda folder: real(folder)._replace(free=1000))
    assert follow(clip, tmp_path / "a.mp4") == 1
    printed, complaints = capsys.readouterr()
    assert complaints == "pipnet.demo: error: stopped because the disk is nearly full; free some space\n"
    assert "a.mp4" in printed
    assert 0 < len(read_video(tmp_path / "a.mp4")[0]) < FRAMES


def test_an_encoder_that_does_not_open(tmp_path, monkeypatch, capfd, clip):
    monkeypatch.setitem(output.CODECS, ".mp4", ("ABCD",))
    assert follow(clip, tmp_path / "a.mp4") == 1
    complaint = capfd.readouterr().err
    assert "a.mp4 can't be written: this OpenCV has no encoder for .mp4 at 320 x 240" in complaint
    assert list(tmp_path.iterdir()) == []


def test_a_recording_by_time_repeats_and_leaves_out(tmp_path):
    """Too soon, on time, late, on time, after a long gap; and in another size, which is brought to the first."""
    path = tmp_path / "a.avi"
    record = Recording(path, SIZE, 10.0, longest_hold_s=1.0)
    times = [5.0, 5.01, 5.1, 5.4, 5.5, 60.0]
    for picture, time_s in zip(noise(len(times)), times, strict=True):
        record.write(picture, time_s)
    record.write(np.zeros((100, 100, 3), np.uint8), 60.1)
    record.finish()
    assert [picture.shape for picture in read_video(path)[0]] == [(240, 320, 3)] * (1 + 0 + 1 + 3 + 1 + 1 + 1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere a window that can't open is an exception")
def test_no_display_is_found_out_without_an_abort(monkeypatch):
    """Qt would end the whole process: it is a child that tries."""
    from pipnet.demo.window import DisplayProbe

    assert DisplayProbe(wanted=False).problem() == ""
    monkeypatch.setenv("DISPLAY", ":987")
    problem = DisplayProbe().problem()
    # A system without the libraries of X gets as far as that.
    assert problem in ("the display :987 can't be opened", "OpenCV can't open a window here")


def test_a_recording_without_a_picture_or_that_fails_replaces_nothing(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    Recording(path, SIZE, FPS).finish()
    record = Recording(path, SIZE, FPS)
    record.write(np.zeros((240, 320, 2), np.uint8), 0.0)  # no picture of two channels can be turned into BGR
    with pytest.raises(OSError, match=r"a\.mp4 can't be written"):
        record.finish()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_video_that_breaks_off_keeps_what_was_done(clip, tmp_path, monkeypatch, capsys):
    read = video_module.read_bgr
    left = iter(range(20))

    def failing(opened):
        if next(left, None) is None:
            raise MemoryError("no memory")
        return read(opened)

    monkeypatch.setattr(video_module, "read_bgr", failing)
    assert follow(clip, tmp_path / "a.mp4", "--json") == 1
    printed, complaints = capsys.readouterr()
    assert "can't be read any further (no memory)" in complaints
    assert "Traceback" not in complaints
    assert "a.mp4" in printed
    assert len(read_video(tmp_path / "a.mp4")[0]) == 20
    assert len(json.loads((tmp_path / "a.json").read_text())["frames"]) == 20


def test_a_camera_on_the_net_is_live(frames, tmp_path, capsys):
    """Motion JPEG over HTTP, which has no end: the newest frame only, like a webcam."""
    picture = cv2.imencode(".jpg", frames[0][..., ::-1])[1].tobytes()
    part = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture) + picture + b"\r\n"

    class Stream(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            with suppress(OSError):
                while True:
                    self.wfile.write(part)
                    time.sleep(0.02)

    with ThreadingHTTPServer(("127.0.0.1", 0), Stream) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/stream"
        assert follow(address, tmp_path, "--seconds", "1", "--json") == 0
        server.shutdown()
    assert "with a face" in capsys.readouterr().out
    record = json.loads((tmp_path / "stream_landmarks.json").read_text())
    assert record["frames"]
    assert all(len(frame["faces"]) == 1 for frame in record["frames"])
