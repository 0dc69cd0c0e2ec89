"""The cases of a benchmark: networks × precisions × runtimes × threads × batches, and the error of each."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipnet.benchmark.machine import usable_cores
from pipnet.benchmark.timing import Timed
from pipnet.layouts import get_layout
from pipnet.metrics import mean_error

if TYPE_CHECKING:
    from pipnet.data.sample import Sample
    from pipnet.model.checkpoint import LoadedModel

_GRAPHS = (".onnx", ".xml")
_CALIBRATION_FACES = 4  # more would make int8 better, not faster
_NEIGHBORS = 10
_LAYOUT = "300w_68"
_CHUNK = 64  # faces between two looks at whether to stop


@dataclass(eq=False)
class Network:
    """One of ``--models``."""

    name: str  # as the user gave it; of a file its name without suffix
    folder: Path  # where files made for the benchmark go
    input_size: int  # S, side of the crops in pixels
    files: dict[str, Path]  # by precision; those that are made join them as fp32.onnx and int8.onnx
    load: Callable[[], LoadedModel] | None = None  # gives the network, where more files can be made of it
    trained: bool = True

    def file(self, runtime: str, precision: str) -> Path:
        """The file for a runtime and precision; made when it is first asked for.

        Raises:
            ValueError: PyTorch has no other precision than fp32.
            ImportError: Making it needs a package that isn't installed.
        """
        if runtime == "torch" and precision != "fp32":
            raise ValueError(f"PyTorch computes these networks in fp32, not in {precision}")
        given, made = self.files.get(precision), f"{precision}.onnx"
        if given and (self.load is None or (runtime == "torch") == (given.suffix.lower() not in _GRAPHS)):
            return given  # whether a lone graph fits, the runtime says
        if made not in self.files:
            from pipnet.model.onnx_graph import export_onnx

            assert self.load is not None
            path = self.folder / f"{self.name}_{made}"
            crops = sample_images(_CALIBRATION_FACES, self.input_size) if precision == "int8" else None
            export_onnx(self.load(), path, calibration=crops)
            self.files[made] = path
        return self.files[made]


def sample_images(count: int, size: int) -> np.ndarray:
    """The portrait that ships as crops, each shifted by a pixel more, RGB uint8 ``(count, size, size, 3)``."""
    import cv2

    from pipnet.data.images import portrait

    face = cv2.resize(portrait()[20:230, 110:320], (size, size), interpolation=cv2.INTER_AREA)
    return np.stack([np.roll(face, number, axis=1) for number in range(count)])


def find_network(text: str, folder: Path) -> Network:
    """What an entry of ``--models`` means: ``shipped``, a file, or a backbone, as ``resnet18`` or ``resnet18@128``.

    Files that have to be made go to ``folder``.

    Raises:
        ValueError: It means nothing; the message says what there is.
        FileNotFoundError: No such file.
        ImportError: It needs PyTorch, which isn't installed.
    """
    from pipnet.inference.landmarker import SHIPPED_GRAPH, SHIPPED_WEIGHTS

    path = Path(text)
    if text == "shipped":
        network = _of_graph(SHIPPED_GRAPH, folder)  # the int8 graph needs no PyTorch
        network.name, network.load = text, cache(lambda: _load(SHIPPED_WEIGHTS))
        network.files["fp32"] = SHIPPED_WEIGHTS
        return network
    if path.suffix.lower() in _GRAPHS:
        return _of_graph(path, folder)
    if path.suffix.lower() != ".pt" and not path.is_file():
        path = _random_weights(text, folder)
    loaded = _load(path)
    trained = loaded.training.get("weights") != "random"
    return Network(path.stem, folder, loaded.net.input_size, {"fp32": path}, lambda: loaded, trained)


def _of_graph(path: Path, folder: Path) -> Network:
    from pipnet.inference.runtimes import open_fastest

    if not path.is_file():
        raise FileNotFoundError(f"no network {path}; give the path of a .pt, .onnx or .xml file of pipnet")
    opened = open_fastest(path, "onnxruntime" if path.suffix.lower() == ".onnx" else "openvino", threads=1)
    return Network(path.stem, folder, opened.input_size, {str(opened.metadata.get("precision", "fp32")): path})


def _load(path: Path) -> LoadedModel:
    from pipnet.model import checkpoint

    return checkpoint.load(path)


def _random_weights(text: str, folder: Path) -> Path:
    """A checkpoint of a backbone's name, as ``resnet18@128``."""
    import torch

    from pipnet.inference.landmarker import SHIPPED_WEIGHTS
    from pipnet.model import checkpoint
    from pipnet.model.backbones import BACKBONES
    from pipnet.model.pipnet import PIPNet

    backbone, at, size = text.partition("@")
    if backbone not in BACKBONES or (at and not size.isdecimal()):
        there = f"shipped, a .pt, .onnx or .xml file, and {', '.join(BACKBONES)}, with @128 behind for crops of 128 px"
        raise ValueError(f"--models: no {text!r}; there are: {there}")
    shipped, path = _load(SHIPPED_WEIGHTS), folder / f"{text}.pt"
    torch.manual_seed(0)
    mean_face = shipped.net.arguments["mean_face"]
    net = PIPNet(mean_face, backbone, num_neighbors=_NEIGHBORS, input_size=int(size or 256)).eval()
    checkpoint.save(path, net, layout=shipped.layout, crop_scale=shipped.crop_scale, training={"weights": "random"})
    return path


@dataclass(frozen=True, eq=False)
class Case:
    """A network (its name) in a precision on a runtime, as one call with so many threads and so many crops."""

    model: str
    runtime: str
    precision: str
    threads: int
    batch: int
    call: Callable[[], object]
    file: Path
    measurable: bool = True  # whether its points mean anything

    @property
    def name(self) -> str:
        """Without threads and batch, which change no accuracy: ``shipped onnxruntime int8``."""
        return f"{self.model} {self.runtime} {self.precision}"

    @property
    def key(self) -> tuple[str, int, int]:
        """Of its times: name, threads, batch."""
        return self.name, self.threads, self.batch

    def timed(self) -> Timed:
        """For :func:`pipnet.benchmark.timing.time_interleaved`."""
        return Timed(self.key, self.call, partial(_set_torch_threads, self.threads))


@dataclass
class Suite:
    """What is timed, in the order of a round, and what is skipped: name and reason, a sentence."""

    cases: list[Case] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)


def build_cases(
    networks: Sequence[Network],
    *,
    runtimes: Sequence[str],
    precisions: Sequence[str],
    threads: Sequence[int],
    batches: Sequence[int],
    say: Callable[[str], object] = lambda text: None,
    stop: Callable[[], bool] = lambda: False,
) -> Suite:
    """Build all cases, the product of the arguments; each is called once, so that what can't run shows here.

    ``say`` is told what is built next; ``stop`` is asked before each, and true ends the building.
    """
    from pipnet.inference.runtimes import open_runtime

    cores = usable_cores()
    suite = Suite(skipped=[(f"threads={n}", f"there are {cores} cores to use") for n in threads if n > cores])
    for network in networks:
        crops = sample_images(max(batches), network.input_size)
        for precision in tuple(network.files) if network.load is None else precisions:
            for runtime in runtimes:
                name = f"{network.name} {runtime} {precision}"
                if stop():
                    return suite
                say(f"building {name}")
                try:
                    path = network.file(runtime, precision)
                    measurable = network.trained and precision in network.files  # int8 made here is for its speed
                    for number in (n for n in threads if n <= cores):
                        _set_torch_threads(number)
                        opened = open_runtime(path, runtime, threads=number)
                        for batch in batches:
                            call = partial(opened, crops[:batch])
                            call()
                            case = Case(network.name, runtime, precision, number, batch, call, path, measurable)
                            suite.cases.append(case)
                except (ValueError, OSError, ImportError, RuntimeError) as error:
                    reason = str(error).strip().partition("\n")[0]
                    suite.skipped.append((name, reason.replace(f"{network.folder}{os.sep}", "")))  # it is gone soon
    return suite


def _set_torch_threads(threads: int) -> None:
    # One setting for the whole process, so it is set again before each block of calls; other runtimes have their own.
    if sys.modules.get("torch") is not None:
        sys.modules["torch"].set_num_threads(threads)


def read_faces(root: Path, count: int | None = None) -> list[Sample]:
    """Faces of 300W's part ``common`` in ``root/300W``, all or ``count`` of them.

    Raises:
        FileNotFoundError: They are not there.
    """
    from pipnet.data.datasets import read_dataset

    samples, _ = read_dataset("300w", root=root / "300W", layout=get_layout(_LAYOUT), part="common")
    return samples[:: max(1, len(samples) // count)][:count] if count else samples


def measure_accuracy(
    cases: Sequence[Case],
    samples: Sequence[Sample],
    say: Callable[[str], object] = lambda text: None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[dict[str, float], list[tuple[str, str]]]:
    """NME in percent by case's name, in the boxes of the labels; and name and reason of what could not be measured.

    Args:
        cases: One of each name is measured, of those whose points mean anything.
        samples: Labelled faces of 68 points.
        say: Told what is measured next.
        stop: Asked now and then; true ends the measuring, and of the case under way nothing is kept.
    """
    from pipnet.evaluation.evaluate import evaluate
    from pipnet.inference.landmarker import FaceLandmarker

    found, failed = {}, []
    for name, case in {case.name: case for case in cases if case.measurable and samples}.items():
        say(f"NME of {name}")
        errors = []
        try:
            landmarker = FaceLandmarker.load(case.file, device="cpu", runtime=case.runtime, threads=case.threads)
            for start in range(0, len(samples), _CHUNK):
                if stop():
                    return found, failed
                chunk = samples[start : start + _CHUNK]
                errors.append(evaluate(landmarker, chunk, layout=get_layout(_LAYOUT)).errors())
            found[name] = 100 * float(mean_error(np.concatenate(errors)))
        except (ValueError, OSError, ImportError, RuntimeError) as error:
            failed.append((f"{name}, NME", str(error).strip().partition("\n")[0]))
    return found, failed
