"""Facial landmarks with PIPNet (Jin, Liao, Shao, IJCV 2021, arXiv:2003.03771)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipnet.inference.landmarker import FaceLandmarker
    from pipnet.landmarks import FaceLandmarks

__version__ = "0.4.0"
__all__ = ["FaceLandmarker", "FaceLandmarks", "__version__"]


def __getattr__(name: str) -> Any:
    # Imported on first use (PEP 562): ``import pipnet`` stays cheap, without torch.
    if name == "FaceLandmarker":
        from pipnet.inference.landmarker import FaceLandmarker

        return FaceLandmarker
    if name == "FaceLandmarks":
        from pipnet.landmarks import FaceLandmarks

        return FaceLandmarks
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
