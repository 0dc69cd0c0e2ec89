"""The page in real headless Chromium, with a camera fed from a video made here.

The video shows scikit-image's public-domain portrait, moved a little; its true points are what the landmarker says of
the photo itself.
"""

from __future__ import annotations

import io
import itertools
import json
import shutil
import time

import cv2
import numpy as np
import pytest
from PIL import Image

from experiments.motion import move, moved, sway
from pipnet.inference.detections import Detections
from pipnet.inference.landmarker import FaceLandmarker

pytest.importorskip("aiohttp.web", reason="the page needs aiohttp (extra web)")
webdriver = pytest.importorskip("selenium.webdriver", reason="a browser is driven by selenium")
skimage_data = pytest.importorskip("skimage.data", reason="the portrait comes with scikit-image")
DRIVER = shutil.which("chromedriver")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(not DRIVER or not BROWSER, reason="Chromium and chromedriver are not installed")

from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from web_page import Page, Server  # noqa: E402

FRAMES = 60
WIDTH, HEIGHT = 640, 480


@pytest.fixture(scope="module")
def scene(shipped):
    """A photo, and the true points of its face."""
    portrait = skimage_data.astronaut()
    return portrait, shipped(portrait).points[0]


@pytest.fixture(scope="module")
def path(scene):
    """How the face moves before the camera: 220 pixels high, left of the middle, some pixels to and fro."""
    _, points = scene
    low, high = points.min(axis=0), points.max(axis=0)
    scale = 220 / (high - low)[1]
    centre = (low + high) / 2 + (70 / scale, 0)
    return sway(FRAMES, tuple(centre), scale, amplitude_px=6.0, period_s=2.0, size=(WIDTH, HEIGHT))


@pytest.fixture(scope="module")
def camera_file(scene, path, tmp_path_factory):
    file = tmp_path_factory.mktemp("camera") / "camera.mjpeg"
    frames = move(scene[0], path, size=(WIDTH, HEIGHT), border=(90, 90, 90))
    pictures = [cv2.imencode(".jpg", f[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes() for f in frames]
    file.write_bytes(b"".join(pictures))
    return file


@pytest.fixture(scope="module")
def server(shipped):
    server = Server(shipped)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(camera_file, downloads):
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for switch in (
        "--headless=new",
        "--no-sandbox",  # Chromium's own does not work for root
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={camera_file}",
        "--window-size=1200,900",
    ):
        options.add_argument(switch)
    options.add_experimental_option(
        "prefs", {"download.default_directory": str(downloads), "download.prompt_for_download": False}
    )
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, server, downloads):
    for file in downloads.iterdir():
        file.unlink()
    browser.get(server.url)
    page = Page(browser, downloads)
    page.until(lambda: page.run("return document.documentElement.dataset.ready"), "the page is ready")
    browser.get_log("browser")  # empties it
    yield page
    browser.get("about:blank")  # lets go of the camera


def error_of(points, truth):
    """Mean distance in percent of the face's height, against the best of the frames ``truth``, (T, 68, 2)."""
    distance = np.linalg.norm(truth - np.asarray(points)[None], axis=2).mean(axis=1)
    return 100 * distance.min() / np.ptp(truth[0, :, 1])


def test_live_points_lie_on_the_face(page, scene, path, tmp_path):
    page.start_camera()
    name, content = page.download("live-json")
    result = json.loads(content)
    assert name.startswith("camera_")
    assert list(result) == ["image", "width", "height", "layout", "faces"]
    assert (result["width"], result["height"], result["layout"]) == (WIDTH, HEIGHT, "300w_68")
    (face,) = result["faces"]
    assert list(face) == ["id", "box", "angle", "score", "points", "scores"]
    assert face["score"] > 0.5
    assert error_of(face["points"], moved(scene[1], path)) < 4.0
    (tmp_path / "live.png").write_bytes(page.driver.get_screenshot_as_png())
    page.until(lambda: page["fps"].text not in ("", "–"), "the frame rate is shown")
    assert "ms" in page["delay"].text
    assert "Network" in page["parts"].text
    assert page["faces"].text.startswith("#0")
    assert page.severe() == []


def painted(page):
    """Left, top, right, bottom of what is painted over the video, as shares of the canvas; None where nothing is."""
    rows, columns = np.nonzero(page.pixels("live-canvas")[..., 3] > 40)
    if not len(rows):
        return None
    height, width = page.pixels("live-canvas").shape[:2]
    return np.array([columns.min() / width, rows.min() / height, columns.max() / width, rows.max() / height])


def test_the_switches_change_what_is_painted_over_the_video(page, scene, path):
    truth = moved(scene[1], path).mean(axis=0) / (WIDTH, HEIGHT)
    box = np.concatenate([truth.min(axis=0), truth.max(axis=0)])
    flipped = np.array([1 - box[2], box[1], 1 - box[0], box[3]])
    page.start_camera()
    free_picture(page)
    assert page["mirror"].is_selected()
    np.testing.assert_allclose(painted(page), flipped, atol=0.05)
    page["mirror"].click()
    np.testing.assert_allclose(painted(page), box, atol=0.05)
    both = (page.pixels("live-canvas")[..., 3] > 40).sum()
    page["show-contours"].click()
    dots = (page.pixels("live-canvas")[..., 3] > 40).sum()
    assert 0 < dots < both
    page["show-scores"].click()  # dots from red to green, and a label above the face
    colours = page.pixels("live-canvas")
    green = (colours[..., 1] > 180) & (colours[..., 0] < 140) & (colours[..., 2] < 120) & (colours[..., 3] > 200)
    assert green.sum() > 100
    assert painted(page)[1] < box[1] - 0.02
    page["show-scores"].click()
    page["show-points"].click()
    page.until(lambda: painted(page) is None, "nothing is painted with all switches off")
    page["in-step"].click()  # the picture itself is painted, with its points
    page.until(lambda: (page.pixels("live-canvas")[..., 3] == 255).all(), "the frame fills the canvas")


def free_picture(page):
    """The picture does not wait for its points, by the user's choice, whatever this machine's delay is."""
    page["in-step"].click()
    if page["in-step"].is_selected():
        page["in-step"].click()


def test_the_picture_waits_by_itself_where_points_come_late(page, shipped, monkeypatch):
    look = FaceLandmarker.__call__

    def slow(self, *arguments, **options):
        time.sleep(0.1)
        return look(self, *arguments, **options)

    monkeypatch.setattr(FaceLandmarker, "__call__", slow)
    assert not page["in-step"].is_selected()
    page.start_camera()
    page.until(page["in-step"].is_selected, "the picture waits")
    page.until(lambda: (page.pixels("live-canvas")[..., 3] == 255).all(), "the frame fills the canvas")
    page["in-step"].click()
    shown = "return document.getElementById('fps').textContent"
    page.run("document.getElementById('fps').textContent = ''; window.seen = 0;")
    page.run("new MutationObserver(() => window.seen++).observe(document.getElementById('fps'), {childList: true});")
    page.until(lambda: page.run("return window.seen") >= 12, f"three seconds of frames ({page.run(shown)})")
    assert not page["in-step"].is_selected()


def test_the_picture_does_not_flicker_between_waiting_and_not(page):
    script = """
        const [delays, done] = arguments;
        import("./readout.js").then(({ Waiting }) => {
            const waiting = new Waiting();
            done(delays.map((delay) => waiting.add(delay)));
        });
    """
    few, many = 10, 30
    delays = [50] * many + [80] * few + [50] * many + [80] * many + [50] * many + [30] * many
    waits = page.driver.execute_async_script(script, delays)
    changes = [i for i in range(1, len(waits)) if waits[i] != waits[i - 1]]
    slow, fast = 2 * many + few, 4 * many + few
    assert not waits[0]
    assert len(changes) == 2  # not by a few slow frames, and not between the two limits
    assert slow < changes[0] < slow + many
    assert fast < changes[1] < fast + many


def test_a_recording_has_the_form_of_the_command_line(page, scene, path):
    page.start_camera()
    page["record"].click()
    page.until(lambda: int(page["recording-text"].text.partition("· ")[2].partition(" ")[0] or 0) >= 6, "six rows")
    assert page["record"].text == "Stop and save points"
    name, content = page.download("record")
    record = json.loads(content)
    assert name.endswith("_landmarks.json")
    assert list(record) == ["video", "width", "height", "layout", "frames"]
    assert (record["video"], record["width"], record["height"]) == ("camera", WIDTH, HEIGHT)
    frames = record["frames"]
    assert [row["frame"] for row in frames] == list(range(len(frames)))
    times = [row["time"] for row in frames]
    assert times[0] == 0
    assert all(before < after for before, after in itertools.pairwise(times))
    assert {tuple(face["id"] for face in row["faces"]) for row in frames} == {(0,)}
    truth = moved(scene[1], path)
    assert max(error_of(row["faces"][0]["points"], truth) for row in frames) < 4.0
    assert page["record"].text == "Record points"


def test_the_saved_picture_is_what_is_seen(page, scene, path):
    page.start_camera()
    name, content = page.download("live-picture")
    picture = np.array(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    assert name.endswith(".png")
    assert picture.shape == (HEIGHT, WIDTH, 3)
    frames = [f.astype(int)[:, ::-1] for f in move(scene[0], path[::4], size=(WIDTH, HEIGHT), border=(90, 90, 90))]
    left, top = moved(scene[1], path).min(axis=(0, 1)).astype(int) - 20
    right, bottom = moved(scene[1], path).max(axis=(0, 1)).astype(int) + 20
    beside = np.ones((HEIGHT, WIDTH), dtype=bool)
    beside[max(top, 0) : bottom, WIDTH - right : WIDTH - left] = False

    def distance(frame):
        return np.abs(picture - frame)[beside].mean()

    nearest = min(frames, key=distance)
    assert distance(nearest) < 0.5 * distance(nearest[:, ::-1])  # mirrored, as on the page
    assert jaw_blue(picture) > jaw_blue(nearest) + 200


def jaw_blue(picture):
    """How many pixels have the colour of the jaw line."""
    return (np.abs(picture - (86, 204, 242)).max(axis=2) < 30).sum()


def test_photo_upload_shows_saves_and_is_turned_upright(page, shipped, tmp_path):
    face = skimage_data.astronaut()[:256, 100:356]
    upright = np.ascontiguousarray(np.hstack([face, face[:, ::-1]])[:, :500])
    exif = Image.Exif()
    exif[0x0112] = 6
    file = tmp_path / "two faces.jpg"
    page.upload(np.ascontiguousarray(np.rot90(upright)), file, quality=97, exif=exif)
    shown = page.pixels("photo-canvas")
    assert shown.shape[1] / shown.shape[0] == pytest.approx(500 / 256, rel=0.01)
    assert page["photo-name"].text == "two faces.jpg · 500 × 256"
    assert [line.split()[0] for line in page["faces"].text.splitlines() if "#" in line] == ["#0", "#1"]

    name, content = page.download("photo-json")
    result = json.loads(content)
    assert name == "two faces_landmarks.json"
    assert list(result) == ["image", "width", "height", "layout", "faces"]
    expected = shipped(upright)
    assert len(result["faces"]) == len(expected) == 2
    order = np.argsort([found["points"][30][0] for found in result["faces"]])
    points = np.array([result["faces"][i]["points"] for i in order])
    wanted = expected.points[np.argsort(expected.points[:, 30, 0])]
    assert np.linalg.norm(points - wanted, axis=2).mean() < 1.0

    name, content = page.download("photo-picture")
    picture = np.array(Image.open(io.BytesIO(content)).convert("RGB"))
    assert name == "two faces_landmarks.png"
    assert picture.shape == (256, 500, 3)
    assert page.severe() == []


def test_the_annotated_photo_differs_at_the_faces_only(page, tmp_path):
    portrait = skimage_data.astronaut()
    page.upload(portrait, tmp_path / "portrait.png")
    face = json.loads(page.download("photo-json")[1])["faces"][0]
    picture = np.array(Image.open(io.BytesIO(page.download("photo-picture")[1])).convert("RGB"))
    changed = (picture != portrait).any(axis=2)
    low, high = np.min(face["points"], axis=0).astype(int) - 8, np.max(face["points"], axis=0).astype(int) + 8
    inside = np.zeros_like(changed)
    inside[low[1] : high[1], low[0] : high[0]] = True
    assert changed[inside].mean() > 0.05
    assert not changed[~inside].any()


def test_doubtful_faces_are_counted_below_the_list(page, shipped, tmp_path, monkeypatch):
    portrait = skimage_data.astronaut()
    face = shipped.detector(portrait).boxes[0]
    found = Detections([[5.0, 5, 60, 60], [5.0, 70, 60, 130], face], [0.9, 0.8, 0.7])
    monkeypatch.setattr(FaceLandmarker, "detector", lambda self, image: found)
    portrait[:140, :70] = 128
    page.upload(portrait, tmp_path / "portrait.png")
    assert page["skipped"].text == "2 doubtful ones skipped."
    assert len(page["faces"].text.splitlines()) == 2  # a name and a score
    result = json.loads(page.download("photo-json")[1])
    assert (list(result)[-1], len(result["faces"])) == ("faces", 1)
    page["tab-camera"].click()
    assert not page["skipped"].is_displayed()


def test_what_is_no_photo_gets_the_servers_sentence_also_when_dropped(page, tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("some words")
    page["tab-photo"].click()
    page["file"].send_keys(str(file))
    page.until(lambda: "notes.txt: not an image" in page["message"].text, "the sentence")
    assert not page["photo-bar"].is_displayed()
    page["tab-camera"].click()
    assert not page["message"].is_displayed()
    drop = """
      const data = new DataTransfer();
      data.items.add(new File(["other words"], "dropped.jpg"));
      const event = (type) => new DragEvent(type, {dataTransfer: data, bubbles: true, cancelable: true});
      document.body.dispatchEvent(event("dragenter"));
      const offered = !document.getElementById("drop").hidden;
      document.body.dispatchEvent(event("drop"));
      return offered && document.getElementById("drop").hidden;"""
    assert page.run(drop)
    page.until(lambda: "dropped.jpg: not an image" in page["message"].text, "the sentence")
    assert page["panel-photo"].is_displayed()


@pytest.mark.parametrize(
    ("name", "words"),
    [("NotAllowedError", "blocked"), ("NotFoundError", "No camera found"), ("NotReadableError", "another program")],
)
def test_a_camera_that_does_not_open_is_explained(page, name, words):
    page.run(f"navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', '{name}'))")
    page["camera-start"].click()
    page.until(lambda: words in page["message"].text, "the reason")
    assert page["camera-start"].is_enabled()
    assert not page["live-bar"].is_displayed()


def test_of_two_cameras_asked_for_the_last_one_stays_and_the_first_is_let_go(page):
    """The first one opens last, as happens where somebody goes through the list of cameras by keyboard."""
    page.run("""
        const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        window.opened = [];
        navigator.mediaDevices.getUserMedia = async (wanted) => {
          const first = !window.asked;
          window.asked = true;
          const stream = await open(wanted);
          if (first) await new Promise((resolve) => (window.release = resolve));
          window.opened.push(stream);
          return stream;
        };
        document.getElementById("camera-start").click();
        document.getElementById("camera").dispatchEvent(new Event("change"));
    """)
    page.until(lambda: page.faces() == 1, "the second camera runs")
    page.run("window.release()")
    page.until(lambda: page.run("return window.opened.length") == 2, "the first one opened too")
    states = "return window.opened.map((stream) => stream.getVideoTracks()[0].readyState)"
    page.until(lambda: page.run(states)[1] == "ended", "it is let go")
    assert page.run(states) == ["live", "ended"]
    assert page.run("return document.getElementById('video').srcObject === window.opened[0]")


def test_a_server_that_goes_and_comes_back(page, server):
    page.start_camera()
    server.stop()
    try:
        page.until(lambda: "does not answer" in page["message"].text, "the page says so")
    finally:
        server.start()
    page.until(lambda: not page["message"].is_displayed(), "it resumes by itself")
    page.run("delete document.getElementById('live-canvas').dataset.faces")
    page.until(lambda: page.faces() == 1, "a face is found again")


def test_an_unplugged_camera_is_said(page):
    page.start_camera()
    page.run("document.getElementById('video').srcObject.getVideoTracks()[0].dispatchEvent(new Event('ended'))")
    page.until(lambda: "disconnected" in page["message"].text, "the page says so")
    page.run("navigator.mediaDevices.dispatchEvent(new Event('devicechange'))")  # as when it is plugged in again
    page.until(lambda: page["live-bar"].is_displayed(), "the camera runs again")


def test_nothing_is_cut_off_at_any_width(page, tmp_path):
    page.start_camera()
    try:
        for width in (360, 768, 1280):
            metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 700}
            page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            for tab in ("camera", "photo"):
                page[f"tab-{tab}"].click()
                assert page.run("return document.documentElement.scrollWidth") <= width
                (tmp_path / f"{tab}_{width}.png").write_bytes(page.driver.get_screenshot_as_png())
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_every_control_has_a_name_and_the_tabs_work_by_keyboard(page):
    nameless = [
        control.get_attribute("outerHTML")
        for control in page.driver.find_elements(By.CSS_SELECTOR, "button, input, select, canvas")
        if not control.accessible_name and not page.run("return arguments[0].closest('[hidden]')", control)
    ]
    assert nameless == []
    page["tab-camera"].send_keys(Keys.ARROW_RIGHT)
    assert page["panel-photo"].is_displayed()
    assert page.driver.switch_to.active_element == page["tab-photo"]
    page["tab-photo"].send_keys(Keys.ARROW_LEFT)
    assert page["panel-camera"].is_displayed()
    page["show-points"].send_keys(Keys.SPACE)
    assert not page["show-points"].is_selected()
