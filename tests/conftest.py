"""What holds for all tests."""

import os

import pytest


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked ``data`` skip by themselves where no real faces are at hand."""
    if item.get_closest_marker("data") and not os.environ.get("PIPNET_DATA"):
        pytest.skip("needs the real faces: PIPNET_DATA is not set")


@pytest.fixture(scope="session")
def shipped():
    """The landmarker with the weights that ship, loaded once."""
    from pipnet.inference.landmarker import FaceLandmarker

    return FaceLandmarker.load(device="cpu", threads=1)
