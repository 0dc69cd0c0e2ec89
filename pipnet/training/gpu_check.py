"""A few minutes of training on a GPU: does it compute what a CPU does, how fast is it, and what does it need?"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipnet.data.dataset import FaceCrop, MixedFaces
from pipnet.files import replacing
from pipnet.model import checkpoint
from pipnet.training.distributed import Processes
from pipnet.training.setup import TrainingData, build_network, called, train_network
from pipnet.training.trainer import TrainingError

# How far the mean loss of the first steps may lie from the CPU's: float32 differs in the order of sums alone, TF32
# rounds to 10 bits, bfloat16 to 7.
TOLERANCES = {"float32": 0.002, "TF32": 0.01, "bfloat16": 0.05}
MIB = 2**20


@dataclass(frozen=True)
class GpuCheck:
    """What is tried: the key ``gpu_check`` of that experiment.

    Attributes:
        steps: Batches that are compared with the CPU.
        seconds: Of all measurements of speed together, about.
        workers: Loader processes in the measurement with such; null is one a processor core.
    """

    steps: int = 20
    seconds: float = 180.0
    workers: int | None = None


@dataclass(frozen=True)
class Way:
    """A way to compute: a precision, compiled or not, with loader processes or not."""

    title: str
    fit: Mapping[str, Any]
    tf32: bool = False


WAYS = (
    Way("float32", {"precision": "float32"}),
    Way("TF32", {"precision": "float32"}, tf32=True),
    Way("bfloat16", {"precision": "bfloat16"}, tf32=True),
)


def check_gpu(settings: dict[str, Any], training_data: TrainingData, processes: Processes) -> dict[str, Any]:
    """Train in every way, compare, and write ``gpu_check.json`` into the run's folder.

    Args:
        settings: The content of ``conf/train.yaml``; its ``gpu_check`` is :class:`GpuCheck`'s.
        training_data: Of the config's dataset.
        processes: This one, alone.

    Raises:
        ValueError: There is no GPU, and the config does not ask for the CPU by name; or several processes.
        TrainingError: The device computes something else than the CPU, or a resumed training ends elsewhere.
    """
    if processes.world_size > 1:
        raise ValueError("experiment=gpu_check measures one device; start it without torchrun")
    if processes.device.type == "cpu" and settings["device"] != "cpu":
        raise ValueError("there is no GPU here; device=cpu compares the CPU with itself, to try the check out")
    options = called(GpuCheck, "gpu_check", settings["gpu_check"])
    trial = _Trial(settings, training_data, Path(settings["folder"]), options.steps)
    device, on_cpu = processes, Processes(0, 1, torch.device("cpu"))
    reference = trial.train("cpu", on_cpu, WAYS[0])
    figures: dict[str, Any] = {"device": _named(device.device), "cores": os.cpu_count(), "torch": torch.__version__}
    figures["compared"], rate = {}, 0.0
    for way in WAYS:
        run = trial.train(way.title, device, way)
        figures["compared"][way.title] = of_way = _apart(run, reference)
        rate = max(rate, run.history[-1]["faces_per_second"])
        print(f"{way.title}: loss of {options.steps} steps off the CPU's by {100 * of_way['loss']:.3f} %", flush=True)
        if of_way["loss"] > TOLERANCES[way.title]:
            raise TrainingError(
                f"{way.title} on {figures['device']} is off the CPU by {100 * of_way['loss']:.2f} % of the loss, where"
                f" {100 * TOLERANCES[way.title]:g} % may be; use another fit.precision and report this machine"
            )
    figures["resumed"] = _apart(trial.resumed(device), trial.train("whole", device, WAYS[0], epochs=2))
    print(f"resumed: loss off by {100 * figures['resumed']['loss']:.4f} %", flush=True)
    if figures["resumed"]["loss"] > TOLERANCES["float32"]:
        raise TrainingError("a resumed training ended elsewhere than an uninterrupted one; report this machine")
    figures["speed"] = trial.speeds(device, options, rate)
    with replacing(trial.folder / "gpu_check.json") as temporary:
        temporary.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(f"{'':<24}{'images/s':>10}{'peak MiB':>10}")
    for title, of in figures["speed"].items():
        print(title if "error" in of else f"{title:<24}{of['images_per_second']:>10.0f}{of['peak_mib'] or 0:>10.0f}")
        if "error" in of:
            print(f"  {of['error']}")
    return figures


@dataclass
class _Trial:
    """Trainings of few steps that begin alike, each in a folder of its own."""

    settings: dict[str, Any]
    data: TrainingData
    folder: Path
    steps: int

    def train(
        self,
        name: str,
        processes: Processes,
        way: Way,
        *,
        epochs: int = 1,
        steps: int | None = None,
        resume: bool = False,
        break_after: int | None = None,
    ) -> _Run:
        """From the same start, in the same order, in a folder of the trial's; what is there is replaced but to resume.

        ``break_after`` so many faces no more can be had.
        """
        folder = self.folder / name.replace(" ", "_")
        for file in [] if resume else folder.glob("*.pt"):
            file.unlink()
        fit = {**self.settings["fit"], "workers": 0, "progress_bar": False, "validate_every": epochs, **way.fit}
        settings = {**self.settings, "fit": fit}
        faces: Any = MixedFaces(self.data.faces, None, length=(steps or self.steps) * fit["batch_size"])
        net = build_network(settings, self.data, seed=settings["seed"])
        start = {key: values.clone() for key, values in net.state_dict().items()}
        with _tf32(way.tf32), _peak(processes.device) as peak:
            result = train_network(
                settings,
                net,
                faces if break_after is None else _Breaking(faces, break_after),  # pyright: ignore[reportArgumentType]
                training_data=self.data,
                folder=folder,
                seed=settings["seed"],
                record={},
                processes=processes,
                epochs=epochs,
            )
        return _Run(result.history, checkpoint.load(result.last).net.state_dict(), start, peak.get("mib"))

    def resumed(self, processes: Processes) -> _Run:
        """Broken off in its second epoch, and given again."""
        batch = self.settings["fit"]["batch_size"]
        try:
            self.train("resumed", processes, WAYS[0], epochs=2, break_after=(self.steps + 1) * batch)
        except _BrokenOffError:
            return self.train("resumed", processes, WAYS[0], epochs=2, resume=True)
        raise AssertionError("the training was not broken off")

    def speeds(self, processes: Processes, options: GpuCheck, rate: float) -> dict[str, Any]:
        """Images a second of the second of two epochs, and the most memory, in each way; ``rate`` is a first guess."""
        workers = options.workers if options.workers is not None else os.cpu_count() or 1
        fast = WAYS[-1]
        ways = [
            *WAYS,
            Way("bfloat16, compiled", {**fast.fit, "compile": True}, tf32=True),
            Way(f"bfloat16, {workers} loaders", {**fast.fit, "workers": workers}, tf32=True),
        ]
        steps = max(self.steps, round(rate * options.seconds / len(ways) / 2 / self.settings["fit"]["batch_size"]))
        found: dict[str, Any] = {}
        for way in ways:
            try:
                run = self.train("speed", processes, way, epochs=2, steps=steps)
            except (RuntimeError, OSError) as error:  # no compiler for torch.compile, too little memory
                found[way.title] = {"error": str(error).splitlines()[0]}
                continue
            found[way.title] = {
                "images_per_second": round(run.history[-1]["faces_per_second"], 1),
                "peak_mib": run.peak_mib and round(run.peak_mib),
                "steps": steps,
            }
        return found


@dataclass(frozen=True)
class _Run:
    history: list[dict[str, float]]
    weights: dict[str, Tensor]
    start: dict[str, Tensor]
    peak_mib: float | None


def _apart(run: _Run, other: _Run) -> dict[str, float]:
    """Relative difference of the last epoch's mean loss; and of the weights, over how far they have moved."""
    loss, of_other = run.history[-1]["loss"], other.history[-1]["loss"]
    moved = apart = 0.0
    for name, values in other.weights.items():
        if values.is_floating_point():
            moved += float((values.cpu() - other.start[name].cpu()).square().sum())
            apart += float((values.cpu() - run.weights[name].cpu()).square().sum())
    return {"loss": abs(loss - of_other) / abs(of_other), "weights": (apart / max(moved, 1e-30)) ** 0.5}


class _BrokenOffError(Exception):
    """What stands for a kill."""


class _Breaking(Dataset[FaceCrop]):
    """Faces that can't be had any more after some were."""

    def __init__(self, faces: MixedFaces, after: int) -> None:
        self.faces, self.left = faces, after

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, key: Any) -> FaceCrop:
        self.left -= 1
        if self.left < 0:
            raise _BrokenOffError
        return self.faces[key]


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """Whether CUDA may round the factors of products of float32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@contextmanager
def _peak(device: torch.device) -> Iterator[dict[str, float]]:
    """Fills in the most memory that tensors took on a GPU."""
    peak: dict[str, float] = {}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    yield peak
    if device.type == "cuda":
        peak["mib"] = torch.cuda.max_memory_allocated(device) / MIB


def _named(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
