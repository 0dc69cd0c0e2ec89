"""What ``--models`` names, as files that a runtime opens: given ones, the shipped ones, or made for the purpose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipnet.benchmark.work import Work, graph_work, network_work

if TYPE_CHECKING:
    from pipnet.model.checkpoint import LoadedModel

SHIPPED = "shipped"
GRAPH_SUFFIXES = (".onnx", ".xml")
_CALIBRATION_FACES = 32
_NEIGHBORS = 10


class NotAvailable(ValueError):  # noqa: N818  (a fact about a combination, not a mistake)
    """A network that isn't to be had for a runtime and precision; the message says why."""


@dataclass(eq=False)
class Network:
    """One of ``--models``.

    Attributes:
        name: As the user gave it; a file by its name.
        folder: Where files made for the benchmark go.
        input_size: S, side of the crops in pixels.
        box_scale: Side of the crop over the longer side of the face box.
        work: Of one face, in a graph.
        given: Files there are, by precision.
        trained: Whether its points mean anything.
        fixed: Whether there is nothing but the given files.
        load: Gives the network, where more files can be made from it.
    """

    name: str
    folder: Path
    input_size: int
    box_scale: float
    work: Work
    given: dict[str, Path]
    trained: bool
    fixed: bool = False
    load: Callable[[], LoadedModel] | None = None
    _made: dict[str, Path] = field(default_factory=dict)

    def file(self, runtime: str, precision: str) -> Path:
        """The file for a runtime and precision; made when it is first asked for.

        Raises:
            NotAvailable: There is none; the message says why.
            ImportError: Making it needs a package that isn't installed.
        """
        if runtime == "torch" and precision != "fp32":
            raise NotAvailable(f"PyTorch computes these networks in fp32, not in {precision}")
        given = self.given.get(precision)
        if given is not None and (runtime == "torch") == (given.suffix.lower() not in GRAPH_SUFFIXES):
            return given
        if self.fixed:
            if precision not in self.given:
                raise NotAvailable(f"the file is {' and '.join(self.given)}, not {precision}")
            return self.given[precision]  # whether it fits, the runtime says
        return self._graph(precision)

    def drawn_calibration(self, precision: str) -> bool:
        """Whether the file of a precision is made here with drawn faces, so that its points are not to be judged."""
        return precision == "int8" and precision not in self.given

    def _graph(self, precision: str) -> Path:
        if precision not in self._made:
            from pipnet.model.onnx_graph import export_onnx

            path = self.folder / f"{Path(self.name).stem}_{len(self._made)}_{precision}.onnx"
            calibration = self._calibration if precision == "int8" else None
            try:
                export_onnx(self._loaded, path, calibration=calibration)
            except ImportError as error:
                raise NotAvailable(f"a graph is written with a package that is missing ({error})") from error
            self._made[precision] = path
        return self._made[precision]

    @cached_property
    def _loaded(self) -> LoadedModel:
        assert self.load is not None
        return self.load()

    @cached_property
    def _calibration(self) -> np.ndarray:
        """Crops for int8, ``(K, S, S, 3)``."""
        from pipnet.data.synthetic.dataset import draw_faces

        return np.stack([face.image for face in draw_faces(_CALIBRATION_FACES, seed=0, size=self.input_size)])


def find_network(text: str, folder: Path) -> Network:
    """What an entry of ``--models`` means.

    Args:
        text: ``shipped``, a file, or a backbone, as ``resnet18`` or ``resnet18@128``.
        folder: For files that have to be made.

    Raises:
        ValueError: It means nothing; the message says what there is.
        FileNotFoundError: No such file.
    """
    from pipnet.inference.landmarker import SHIPPED_GRAPH, SHIPPED_WEIGHTS

    path = Path(text)
    if text == SHIPPED:
        return _of_checkpoint(SHIPPED, SHIPPED_WEIGHTS, folder, {"int8": SHIPPED_GRAPH})
    if path.suffix.lower() in GRAPH_SUFFIXES:
        return _of_graph(path, folder)
    if path.suffix.lower() == ".pt" or path.is_file():
        return _of_checkpoint(path.stem, path, folder, {})
    return _of_backbone(text, folder)


def _of_checkpoint(name: str, path: Path, folder: Path, graphs: dict[str, Path]) -> Network:
    from pipnet.model import checkpoint

    loaded = checkpoint.load(path)
    return Network(
        name,
        folder,
        loaded.net.input_size,
        loaded.box_scale,
        network_work(loaded.net),
        {"fp32": path, **graphs},
        trained=True,
        load=lambda: loaded,
    )


def _of_graph(path: Path, folder: Path) -> Network:
    from pipnet.inference.runtimes import open_fastest

    if not path.is_file():
        raise FileNotFoundError(f"no network {path}; give the path of a .pt, .onnx or .xml file of pipnet")
    opened = open_fastest(path, threads=1)
    precision = str(opened.metadata.get("precision", "fp32"))
    scale = float(opened.metadata["box_scale"])
    given = {precision: path}
    return Network(path.stem, folder, opened.input_size, scale, graph_work(path), given, trained=True, fixed=True)


def _of_backbone(text: str, folder: Path) -> Network:
    import torch

    from pipnet.inference.landmarker import SHIPPED_WEIGHTS
    from pipnet.model import checkpoint
    from pipnet.model.backbones import BACKBONES
    from pipnet.model.pipnet import PIPNet

    backbone, at, size = text.partition("@")
    if backbone not in BACKBONES or (at and not size.isdecimal()):
        raise ValueError(
            f"no model {text!r}; there are: {SHIPPED}, a .pt, .onnx or .xml file, and {', '.join(BACKBONES)}, "
            "with @128 behind for crops of 128 px"
        )
    shipped = checkpoint.load(SHIPPED_WEIGHTS)
    mean_face = shipped.net.arguments["mean_face"]
    torch.manual_seed(0)
    net = PIPNet(mean_face, backbone, num_neighbors=_NEIGHBORS, input_size=int(size or 256)).eval()
    path = folder / f"{text}.pt"
    checkpoint.save(path, net, layout=shipped.layout, box_scale=shipped.box_scale, training={"weights": "random"})
    loaded = checkpoint.load(path)
    return Network(
        text,
        folder,
        net.input_size,
        loaded.box_scale,
        network_work(net),
        {"fp32": path},
        trained=False,
        load=lambda: loaded,
    )
