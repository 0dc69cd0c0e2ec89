"""Networks by name, as configs and checkpoints say it."""

from __future__ import annotations

from pipnet.model.network import LandmarkNet
from pipnet.model.pipnet import PIPNet
from pipnet.model.rivals.coordinate import CoordinateNet
from pipnet.model.rivals.maps import HRNet, SimpleBaseline
from pipnet.model.rivals.pyramids import CascadedPyramid, CoarseToFine
from pipnet.model.rivals.stages import Hourglass, PoseMachine

DEFAULT = "pipnet"  # of configs and files that name none
NETWORKS: dict[str, type[LandmarkNet]] = {
    DEFAULT: PIPNet,
    "coordinate": CoordinateNet,
    "simple_baseline": SimpleBaseline,
    "hourglass": Hourglass,
    "hrnet": HRNet,
    "pose_machine": PoseMachine,
    "coarse_to_fine": CoarseToFine,
    "cascaded_pyramid": CascadedPyramid,
}


def network_class(name: str) -> type[LandmarkNet]:
    """The class of a name; a ValueError lists the known ones."""
    if name not in NETWORKS:
        raise ValueError(f"no network {name!r}; known: {', '.join(NETWORKS)}")
    return NETWORKS[name]


def network_name(net: LandmarkNet) -> str:
    """The name of a network's class."""
    return next(name for name, kind in NETWORKS.items() if type(net) is kind)
