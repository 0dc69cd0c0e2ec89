"""What following faces through a video cost and missed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class TrackingStatistics:
    """What tracking cost and missed so far.

    Attributes:
        frames: Frames seen.
        detector_calls: How often the detector ran.
        face_frames: Faces returned, summed over frames.
        faces_new: Ids given.
        faces_lost: How often a face was lost and not found again in the same frame. One that leaves the picture is
            not lost.
        lost_face_frames: Frames in which a lost face was missing, until it was found or forgotten, summed over faces.

    Example:
        >>> TrackingStatistics(frames=50, detector_calls=3, face_frames=95, lost_face_frames=5).lost_share
        0.05
    """

    frames: int = 0
    detector_calls: int = 0
    face_frames: int = 0
    faces_new: int = 0
    faces_lost: int = 0
    lost_face_frames: int = 0

    @property
    def detector_calls_per_100(self) -> float:
        """Detector calls per 100 frames; 0 before the first frame."""
        return 100 * self.detector_calls / max(self.frames, 1)

    @property
    def lost_share(self) -> float:
        """Share of the frames of known faces in which the face was lost; 0 before the first face."""
        return self.lost_face_frames / max(self.face_frames + self.lost_face_frames, 1)
