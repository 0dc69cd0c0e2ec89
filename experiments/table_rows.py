"""Rows of the records' tables that are more than a part of a file: titles, sums, figures of several files.

Each function takes ``read``, which gives the content of a file in the record's folder, and returns what ``tables.py``
formats: titles to the values of the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeAlias

from experiments.tables import Cells

Read: TypeAlias = Callable[[str], Any]
Rows: TypeAlias = dict[str, Any]

# 300w_mobilenet_v2

SHIPPED_SETS = {
    "validation": "validation-202",
    "common": "Common-554",
    "common_detector": "Common-554, detector boxes",
    "wflw": "WFLW-108",
    "wflw_detector": "WFLW-108, detector boxes",
}


def shipped_sets(read: Read) -> Rows:
    metrics = read("metrics.json")
    return {title: metrics[key]["all"] | {"missed": metrics[key]["missed"]} for key, title in SHIPPED_SETS.items()}


def shipped_parts(read: Read) -> Rows:
    """Parts of the test sets, and of the face."""
    rows: Rows = {}
    for key in ("common", "wflw"):
        title, of_set = SHIPPED_SETS[key], read("metrics.json")[key]
        for name, of in of_set["subsets"].items():
            if name != "common":
                means = {norm: of[norm]["mean"] for norm in ("outer_eye", "box")}
                rows[f"{title}, {name}"] = means | {"faces": of["box"]["faces"]}
        rows |= {f"{title}: {name}": of | {"faces": of_set["faces"]} for name, of in of_set["parts"].items()}
    return rows


def shipped_box_noise(read: Read) -> Rows:
    return {f"±{100 * of['level']:g} %": of for of in read("metrics.json")["common"]["box_noise"]}


def shipped_beside_others(read: Read) -> Rows:
    """Other detectors as given, which may lack a figure, and the weights that ship."""
    rows = {row["name"]: row for row in read("peers.json")["rows"]}
    ours = {}
    for key in ("common", "wflw"):
        of = read("metrics.json")[key]["all"]
        ours[key] = {name: of["outer_eye"][name]["value"] for name in ("median", "fr_10", "auc_10")}
        ours[key] |= {"nme": of["outer_eye"]["mean"]["value"], "inner": of["inner"]["mean"]["value"]}
    rows["**pipnet**"] = ours
    for of in rows.values():
        for key in ("common", "wflw"):
            of[key] = dict.fromkeys(("nme", "inner", "median", "fr_10", "auc_10")) | of[key]
        missed = of["wflw"].get("missed")
        of["missed"] = f" ({missed} missed)" if missed else ""
    return rows


# ablation

VARIANTS = {
    "modern": "the yardstick: modern recipe, 10 neighbours, exact merge, stride 32, box noise",
    "no_neighbors": "trained without neighbours",
    "unmerged": "the yardstick's weights, own predictions only",
    "padded": "the yardstick's weights, the authors' padded merge",
    "paper": "paper recipe",
    "stride_16": "stride 16",
    "label_boxes": "trained on exact label boxes",
}


def beside_yardstick(read: Read) -> Rows:
    def cell(of: Any) -> str:
        form = "{nme[0]:.2f}, {difference:+.2f}" if "difference" in of else "{nme:.2f}"
        return Cells().format(form, **of)

    variants = read("metrics.json")["variants"]
    return {title: {key: cell(of) for key, of in variants[name].items()} for name, title in VARIANTS.items()}


# demo_latency, demo_memory


def demo_rates(read: Read) -> Rows:
    return {
        case: of | {"slowest": min(of["all_runs"]), "lost": 100 * of["lost_share"]}
        for case, of in read("metrics.json")["cases"].items()
    }


def demo_parts(read: Read) -> Rows:
    """Milliseconds of the parts that ran in some case; the others have none."""
    cases = [of["parts"] for of in read("metrics.json")["cases"].values()]
    none = {"median_ms": None, "p95_ms": None}
    names = dict.fromkeys(part for parts in reversed(cases) for part in parts)
    return {part: {"cases": [parts.get(part, none) for parts in cases]} for part in names}


def demo_memory(read: Read) -> Rows:
    metrics = read("metrics.json")
    late = [mib for seconds, mib in metrics["resident_mib"] if seconds >= metrics["after_warming_s"]]
    every = [mib for _, mib in metrics["resident_mib"]]
    seen = {"start": every[0], "warm": late[0], "end": late[-1], "most": max(every)}
    return {f"{metrics['seconds']:.0f}": metrics | seen}


# detector_boxes, detectors


def fitted_boxes(read: Read) -> Rows:
    return {
        f"{name}, {when} | {part['faces'] - part['missed']} / {part['faces']}": part[when]
        for name, part in read("metrics.json")["parts"].items()
        for when in ("before", "after")
    }


def five_points(read: Read) -> Rows:
    of = read("metrics.json")["five_points"]
    kinds = {"label": "box of the label", "now": "box, shifted and scaled (now)", "points": "box and five points"}
    none = dict.fromkeys(("shift_x", "shift_y", "log_size"))
    return {title: none | of["validation"].get(kind, {}) | of["nme"][kind] for kind, title in kinds.items()}


VERDICTS = ("no_face", "misplaced", "unclear")


def scenes(read: Read) -> Rows:
    part = read("metrics.json")["parts"]["scenes"]
    together = dict.fromkeys((*VERDICTS, "median_ms")) | {"face": part["faces"], "by_size": part["faces_by_size"]}
    rows = {"all settings together": together} | part["settings"]
    return {row: of | {"share": 100 * of["face"] / part["faces"]} for row, of in rows.items()}


def labelled_sets(read: Read) -> Rows:
    parts = read("metrics.json")["parts"]
    rows = {}
    for name in parts["common"]["settings"]:
        found = {key: parts[key]["settings"][name] for key in ("common", "wflw")}
        for key, of in found.items():
            of["missed"] = parts[key]["labelled"] - of["labelled"]
        rows[name] = found | {verdict: sum(of[verdict] for of in found.values()) for verdict in VERDICTS}
    return rows


# gathering


def ingested(read: Read) -> Rows:
    """Runs on new photos, each beside the one that knew them."""
    runs = read("metrics.json")["runs"]
    known = {(run["photos"], run["processes"]): run["photos_per_second"] for run in runs if run["known"]}
    rows = {}
    for run in runs:
        if not run["known"]:
            mib = {key: ", ".join(f"{value:.0f}" for value in run[key]) for key in ("start_mib", "peak_mib")}
            rows[run["photos"], run["processes"]] = run | mib | {"again": known[run["photos"], run["processes"]]}
    return rows


# roll


def by_way(of: Any) -> Rows:
    """Figures of each way of looking, the interval with its value."""
    return {way: figures | {"nme": [figures["nme"], *figures["interval"]]} for way, figures in of.items()}


def turned(read: Read) -> Rows:
    return {step: by_way(of) for step, of in read("metrics.json")["turned"].items()}


def infants(read: Read) -> Rows:
    of = read("metrics.json")["infants"]
    return {part: by_way({way: of[way][part] for way in of}) for part in of["labels"]}


def inner_points(read: Read) -> Rows:
    """Beside what other detectors were given with, for some steps."""
    steps, of = ("0", "30", "45", "60", "75", "90"), read("metrics.json")["turned"]
    rows = {
        title: [f"{of[step][way]['inner']:.2f} / {of[step][way]['inner_fr_10']:.1f}" for step in steps]
        for way, title in (("labels", "pipnet, label boxes"), ("detector", "pipnet, detector boxes"))
    }
    for name, given in read("given.json")["nme_and_fr_10"].items():
        cells = ["{} / {}".format(*given[step]) if step in given else "–" for step in steps]
        rows[f"{name} (given, 62 faces)"] = cells
    return {title: {"at": cells} for title, cells in rows.items()}


# scores

SCORED_SETS = {
    "common": "Common-554",
    "common_detector": "Common-554, detector boxes",
    "common_jittered": "Common-554, boxes off by up to 30 %",
    "wflw": "WFLW-108",
    "wflw_detector": "WFLW-108, detector boxes",
}


def scored_faces(read: Read) -> Rows:
    return {title: read("metrics.json")["sets"][key]["face"] for key, title in SCORED_SETS.items()}


def scored_points(read: Read) -> Rows:
    return {title: read("metrics.json")["sets"][key]["point"] for key, title in SCORED_SETS.items()}


def reliability(read: Read) -> Rows:
    sets, none = read("metrics.json")["sets"], {"count": 0, "right": None}
    found = {key: {of["from"]: of for of in sets[key]["point"]["reliability"]} for key in ("common", "wflw")}
    return {
        f"{low:.2f} … {high:.2f}": {key: of.get(low, none) for key, of in found.items()}
        for low, high in pairwise((0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 1.0))
    }


def ranked_by(read: Read) -> Rows:
    titles = {"calibrated": "calibrated", "spread": "vote spread alone", "peak": "score map's peak alone"}
    sets = read("metrics.json")["rankings"]
    return {title: {key: of[name] for key, of in sets.items()} for name, title in titles.items()}


def occluded(read: Read) -> Rows:
    rows = {}
    for name, title in (("all", "all faces"), ("alike", "without large pose and blur")):
        of = read("metrics.json")["occlusion_attribute"][name]
        others = {"score": of["score_others"], "lowest_fifth": of["lowest_fifth_others"], "others_higher": None}
        rows |= {f"{title}: occluded": of, f"{title}: not": others | {"faces": of["others"]}}
    return rows


# smoothing, tracking


def smoothing_curve(read: Read) -> Rows:
    def moving(of: Any, key: str) -> list[float]:
        return [figures[key] for figures in of["moving"].values()]

    return {
        f"{of['filter']} {of['factor']:g}": of["still"]["still, noise 5"]
        | {"blink_kept": of["blink_kept"], "lags": moving(of, "lag"), "adds": moving(of, "added")}
        for of in read("metrics.json")["curve"]
    }


def kept_above(read: Read) -> Rows:
    """Share of pictures whose score reaches each threshold."""
    return {
        picture: {"faces": of.pop("faces"), "shares": list(of.values())}
        for picture, of in read("metrics.json")["scores"].items()
    }
