"""The card of a network: what a person should know before using it. It travels in the exported file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipnet.model.checkpoint import LoadedModel


def card_of(loaded: LoadedModel, path: Path | None = None) -> str:
    """The text of ``STEM.md`` beside a checkpoint, or, without one, a short card made from its training record.

    Args:
        loaded: What the file holds.
        path: Of the checkpoint; None where there is no file.

    Raises:
        ValueError: The card beside the checkpoint is no text.
    """
    beside = None if path is None else path.with_suffix(".md")
    if beside is None or not beside.is_file():
        return _from_record(loaded, "network" if path is None else path.name)
    try:
        return beside.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{beside}, the card of the network, is no text in UTF-8; save it as such") from error


def _from_record(loaded: LoadedModel, name: str) -> str:
    net, record = loaded.net, loaded.training
    lines = [
        f"# {name}",
        "",
        f"PIPNet on {net.arguments['backbone']} at {net.input_size} px: {net.num_points} points (layout "
        f"{loaded.layout.name}), {net.num_neighbors} neighbours. Made from the training record; nobody wrote a card.",
        "",
    ]
    facts = _facts(record)
    lines += [f"* {fact}" for fact in facts] or ["The file holds no record of a training."]
    return "\n".join(lines) + "\n"


def _facts(record: Mapping[str, Any]) -> list[str]:
    """What a training record says, a line each; a record of another make may lack any of it."""
    config = _mapping(record.get("config"))
    facts = []
    if name := _mapping(config.get("dataset")).get("name"):
        facts.append(f"Dataset: {name}")
    if counts := _mapping(record.get("faces")):
        facts.append("Faces: " + ", ".join(f"{count} {part}" for part, count in counts.items()))
    if "licence" in record:
        facts.append(f"Licence of the data: {record['licence']}")
    facts += [
        f"{key.capitalize()}: {source[key]}" for source, key in ((config, "seed"), (record, "epoch")) if key in source
    ]
    metrics = _mapping(record.get("metrics"))
    figures = {"val_nme": "NME", "val_nme_box": "NME by box size"}
    facts += [
        f"Validation {figures[key]}: {metrics[key]:.2f} %"
        for key in figures
        if isinstance(metrics.get(key), int | float)
    ]
    if version := _mapping(record.get("versions")).get("pipnet"):
        facts.append(f"Trained with pipnet {version}")
    return facts


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
