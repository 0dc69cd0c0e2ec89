"""Take the picture of the page in the browser that the README shows: the public-domain portrait before a fake camera.

python experiments/pictures/page.py        # needs Chromium, chromedriver and the extra `dev`
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import skimage.data
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from experiments.motion import move, sway
from pipnet.files import replacing

HERE = Path(__file__).resolve().parent
_WINDOW = (1180, 1010)
_FACE, _SCALE = (224.0, 133.0), 2.0  # where the face is in the portrait, and how much it is enlarged


def write_camera(path: Path) -> None:
    """Motion JPEG of the swaying portrait, which Chromium plays as a camera."""
    matrices = sway(90, _FACE, _SCALE, fps=30, amplitude_px=30, degrees=5, zoom=1.05, period_s=3.0, size=(640, 480))
    frames = move(skimage.data.astronaut(), matrices, size=(640, 480), border=(110, 110, 110))
    quality = [cv2.IMWRITE_JPEG_QUALITY, 92]
    path.write_bytes(b"".join(cv2.imencode(".jpg", frame[..., ::-1], quality)[1].tobytes() for frame in frames))


def browser(camera: Path) -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    options.add_argument(f"--window-size={_WINDOW[0]},{_WINDOW[1]}")
    for argument in ("--headless=new", "--no-sandbox", "--hide-scrollbars", "--use-fake-ui-for-media-stream"):
        options.add_argument(argument)
    options.add_argument("--use-fake-device-for-media-stream")
    options.add_argument(f"--use-file-for-fake-video-capture={camera}")
    return webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        camera = Path(folder) / "camera.mjpeg"
        write_camera(camera)
        command = [sys.executable, "-m", "pipnet.demo", "--web", "0"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        address = next(word for word in server.stdout.readline().split() if word.startswith("http://"))
        page = browser(camera)
        try:
            page.get(address)
            start = next(b for b in page.find_elements(By.TAG_NAME, "button") if b.text == "Start camera")
            start.click()
            # Some seconds, so that the figures are those of a camera that runs.
            WebDriverWait(page, 8, ignored_exceptions=()).until(lambda _: "#0" in page.page_source)
            page.execute_async_script("setTimeout(arguments[0], 5000)")
            shot = cv2.imdecode(np.frombuffer(page.get_screenshot_as_png(), np.uint8), cv2.IMREAD_COLOR)
        finally:
            page.quit()
            server.send_signal(signal.SIGINT)
            server.wait(20)
    encoded = cv2.imencode(".jpg", shot, [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
    with replacing(HERE / "page.jpg") as temporary:
        temporary.write_bytes(encoded.tobytes())


if __name__ == "__main__":
    main()
