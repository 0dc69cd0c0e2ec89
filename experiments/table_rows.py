"""Rows of the records' tables that are more than a part of a file: titles, sums, figures of several files.

Each function takes the content of files in the record's folder, and returns titles and values of the rows.
"""

from __future__ import annotations

from itertools import pairwise
from statistics import median
from typing import Any, TypeAlias

from experiments.tables import Cells

Rows: TypeAlias = dict[Any, Any]

# 300w_mobilenet_v2

SHIPPED_SETS = {
    "validation": "validation-202",
    "common": "Common-554",
    "common_detector": "Common-554, detector boxes",
    "wflw": "WFLW-108",
    "wflw_detector": "WFLW-108, detector boxes",
}


def shipped_sets(metrics: Any) -> Rows:
    return {title: metrics[key]["all"] | {"missed": metrics[key]["missed"]} for key, title in SHIPPED_SETS.items()}


def shipped_parts(metrics: Any) -> Rows:
    """Parts of the test sets, and of the face."""
    rows: Rows = {}
    for key in ("common", "wflw"):
        title, of_set = SHIPPED_SETS[key], metrics[key]
        for name, of in of_set["subsets"].items():
            if name != "common":
                means = {norm: of[norm]["mean"] for norm in ("outer_eye", "box")}
                rows[f"{title}, {name}"] = means | {"faces": of["box"]["faces"]}
        rows |= {f"{title}: {name}": of | {"faces": of_set["faces"]} for name, of in of_set["parts"].items()}
    return rows


def shipped_box_noise(metrics: Any) -> Rows:
    return {f"±{100 * of['level']:g} %": of for of in metrics["common"]["box_noise"]}


def shipped_beside_others(metrics: Any, given: Any) -> Rows:
    """Other detectors as given, which may lack a figure, and the weights that ship."""
    rows = {row["name"]: row for row in given["rows"]}
    ours = {}
    for key in ("common", "wflw"):
        of = metrics[key]["all"]
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


def beside_yardstick(metrics: Any) -> Rows:
    def cell(of: Any) -> str:
        form = "{nme[0]:.2f}, {difference:+.2f}" if "difference" in of else "{nme:.2f}"
        return Cells().format(form, **of)

    variants = metrics["variants"]
    return {title: {key: cell(of) for key, of in variants[name].items()} for name, title in VARIANTS.items()}


# demo_latency, demo_memory


def demo_rates(metrics: Any) -> Rows:
    return {
        case: of | {"slowest": min(of["all_runs"]), "lost": 100 * of["lost_share"]}
        for case, of in metrics["cases"].items()
    }


def demo_parts(metrics: Any) -> Rows:
    """Milliseconds of the parts that ran in some case; the others have none."""
    cases = [of["parts"] for of in metrics["cases"].values()]
    none = {"median_ms": None, "p95_ms": None}
    names = dict.fromkeys(part for parts in reversed(cases) for part in parts)
    return {part: {"cases": [parts.get(part, none) for parts in cases]} for part in names}


def demo_memory(metrics: Any) -> Rows:
    late = [mib for seconds, mib in metrics["resident_mib"] if seconds >= metrics["after_warming_s"]]
    every = [mib for _, mib in metrics["resident_mib"]]
    seen = {"start": every[0], "warm": late[0], "end": late[-1], "most": max(every)}
    return {f"{metrics['seconds']:.0f}": metrics | seen}


# detector_boxes, detectors


def fitted_boxes(metrics: Any) -> Rows:
    return {
        f"{name}, {when} | {part['faces'] - part['missed']} / {part['faces']}": part[when]
        for name, part in metrics["parts"].items()
        for when in ("before", "after")
    }


def five_points(metrics: Any) -> Rows:
    of = metrics["five_points"]
    kinds = {"label": "box of the label", "now": "box, shifted and scaled (now)", "points": "box and five points"}
    none = dict.fromkeys(("shift_x", "shift_y", "log_size"))
    return {title: none | of["validation"].get(kind, {}) | of["nme"][kind] for kind, title in kinds.items()}


VERDICTS = ("no_face", "misplaced", "unclear")


def scenes(metrics: Any) -> Rows:
    part = metrics["parts"]["scenes"]
    together = dict.fromkeys((*VERDICTS, "median_ms")) | {"face": part["faces"], "by_size": part["faces_by_size"]}
    rows = {"all settings together": together} | part["settings"]
    return {row: of | {"share": 100 * of["face"] / part["faces"]} for row, of in rows.items()}


def labelled_sets(metrics: Any) -> Rows:
    parts = metrics["parts"]
    rows = {}
    for name in parts["common"]["settings"]:
        found = {key: parts[key]["settings"][name] for key in ("common", "wflw")}
        for key, of in found.items():
            of["missed"] = parts[key]["labelled"] - of["labelled"]
        rows[name] = found | {verdict: sum(of[verdict] for of in found.values()) for verdict in VERDICTS}
    return rows


# gathering


def ingested(metrics: Any) -> Rows:
    """Runs on new photos, each beside the one that knew them."""
    runs = metrics["runs"]
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


def turned(metrics: Any) -> Rows:
    return {step: by_way(of) for step, of in metrics["turned"].items()}


def infants(metrics: Any) -> Rows:
    of = metrics["infants"]
    return {part: by_way({way: of[way][part] for way in of}) for part in of["labels"]}


def inner_points(metrics: Any, given: Any) -> Rows:
    """Beside what other detectors were given with, for some steps."""
    steps, of = ("0", "30", "45", "60", "75", "90"), metrics["turned"]
    rows = {
        title: [f"{of[step][way]['inner']:.2f} / {of[step][way]['inner_fr_10']:.1f}" for step in steps]
        for way, title in (("labels", "pipnet, label boxes"), ("detector", "pipnet, detector boxes"))
    }
    for name, of_step in given["nme_and_fr_10"].items():
        cells = ["{} / {}".format(*of_step[step]) if step in of_step else "–" for step in steps]
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


def scored_faces(metrics: Any) -> Rows:
    return {title: metrics["sets"][key]["face"] for key, title in SCORED_SETS.items()}


def scored_points(metrics: Any) -> Rows:
    return {title: metrics["sets"][key]["point"] for key, title in SCORED_SETS.items()}


def reliability(metrics: Any) -> Rows:
    sets, none = metrics["sets"], {"count": 0, "right": None}
    found = {key: {of["from"]: of for of in sets[key]["point"]["reliability"]} for key in ("common", "wflw")}
    return {
        f"{low:.2f} … {high:.2f}": {key: of.get(low, none) for key, of in found.items()}
        for low, high in pairwise((0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 1.0))
    }


def ranked_by(metrics: Any) -> Rows:
    titles = {"calibrated": "calibrated", "spread": "vote spread alone", "peak": "score map's peak alone"}
    sets = metrics["rankings"]
    return {title: {key: of[name] for key, of in sets.items()} for name, title in titles.items()}


def occluded(metrics: Any) -> Rows:
    rows = {}
    for name, title in (("all", "all faces"), ("alike", "without large pose and blur")):
        of = metrics["occlusion_attribute"][name]
        others = {"score": of["score_others"], "lowest_fifth": of["lowest_fifth_others"], "others_higher": None}
        rows |= {f"{title}: occluded": of, f"{title}: not": others | {"faces": of["others"]}}
    return rows


# smoothing, tracking


def smoothing_curve(metrics: Any) -> Rows:
    def moving(of: Any, key: str) -> list[float]:
        return [figures[key] for figures in of["moving"].values()]

    return {
        f"{of['filter']} {of['factor']:g}": of["still"]["still, noise 5"]
        | {"blink_kept": of["blink_kept"], "lags": moving(of, "lag"), "adds": moving(of, "added")}
        for of in metrics["curve"]
    }


def kept_above(metrics: Any) -> Rows:
    """Share of pictures whose score reaches each threshold."""
    return {
        picture: {"faces": of.pop("faces"), "shares": list(of.values())} for picture, of in metrics["scores"].items()
    }


# efficiency: accuracy beside speed


def timed_and_measured(metrics: Any) -> Rows:
    rows = {}
    for name, title in metrics["titles"].items():
        sets = {}
        for key, of_set in metrics["sets"].items():
            of = of_set[name]
            figures = {statistic: of["51"][statistic]["value"] for statistic in ("median", "fr_10")}
            figures |= {"all": of["68"]["mean"] if "68" in of else None, "inner": of["51"]["mean"]}
            sets[key] = figures | {"missed": of["missed"]}
        rows[title] = metrics["speed"][name] | sets
    return rows


def less_torch(metrics: Any) -> Rows:
    return {
        metrics["titles"][name]: {
            key: {"all": of_set[name]["68"], "inner": of_set[name]["51"]} for key, of_set in metrics["paired"].items()
        }
        for name in metrics["paired"]["common"]
    }


# speed, frame_cost, int8

RUNTIMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


def in_percent(cases: Any) -> Rows:
    """Shares of the peak, at the median and of the fastest call, in percent."""
    return {index: of | {key: 100 * of[key] for key in ("share", "share_best")} for index, of in enumerate(cases)}


def starts(networks: Any) -> Rows:
    """Median, least and most of the starts in fresh processes."""
    rows = {}
    for of in networks:
        spread = {key: [median(of[key]), min(of[key]), max(of[key])] for key in ("cold_s", "warm_s")}
        rows[of["name"]] = spread | {"mib": max(of["peak_mib"], default=None), "torch": "yes" if of["torch"] else "no"}
    return rows


def by_runtime(runtimes: Any) -> Rows:
    return {title: runtimes[name] for name, title in RUNTIMES.items()}


def ranges(metrics: Any) -> Rows:
    titles = {
        "extremes": "smallest and largest value over all faces",
        "means": "mean over faces of each face's smallest and largest value",
        "stretched": "extremes, offsets stretched to one range",
        "shipped": "means, offsets stretched to one range (ships)",
    }
    exact = {name: {"moved_px": 0, "nme": metrics["nme_fp32"]} for name in RUNTIMES}
    return {"none: 32 bits": exact} | {title: metrics[way] for way, title in titles.items()}


def roundings(metrics: Any) -> Rows:
    titles = {
        "nearest": "to the nearest of 255 steps, as up to 0.4.0",
        "limited": "no sum of two products leaves 16 bits",
        "bias": "… and the error of the mean is taken off the bias",
        "made_up": "… and later weights make up for earlier ones",
        "shipped": "… and every second calibration face is in a box that is off (ships)",
    }
    exact = {name: {"moved_px": [0, 0], "nme": metrics["nme_fp32"]} for name in RUNTIMES}
    return {"not at all: 32 bits": exact} | {title: metrics[way] for way, title in titles.items()}


# heads

BENCH_SETS = ("common", "wflw", "infants")
RUNTIME_COLUMNS = ("torch", "onnxruntime", "openvino", "onnxruntime_int8", "openvino_int8")
BACKBONES = ("lite0", "resnet18", "mobilenet_v4")  # of PIP: rows of the costs alone


def heads_accuracy(heads: Any) -> Rows:
    """Figures of each set, and what lies between a head and PIP on the same faces."""
    rows = {}
    for name, of in heads.items():
        if name not in BACKBONES:
            seeds = len(of["seeds"])
            title = of["title"] + (f" ({seeds} seeds)" if seeds > 1 else "")
            rows[title] = {key: {"to_pip": None} | of["sets"][key] for key in BENCH_SETS}
            rows[title]["box_noise"] = of["box_noise"]
            rows[title]["seeds"] = " / ".join(f"{mean:.2f}" for mean in of["sets"]["common"]["by_seed"])
    return rows


def heads_cost(metrics: Any, cost: Any) -> Rows:
    """What a crop costs, beside the head's learning rate and size."""
    columns, rows = cost["columns"], {}
    for name, of in metrics["heads"].items():
        times = {"ms": [columns[column][name]["ms"]["median"] for column in RUNTIME_COLUMNS]}
        times["images"] = 1000 * cost["batch_of_training"] / columns["training"][name]["ms"]["median"]
        times["validation"] = of["sets"]["validation"]["by_seed"][0]
        rows[of["title"]] = of | times | {"gflop": cost["gflop"][name], "millions": of["parameters"] / 1e6}
    return rows


def heads_long(metrics: Any) -> Rows:
    """What becomes of a difference to PIP where both see more images."""
    return {metrics["heads"][name]["title"]: of for name, of in metrics["long"].items()}


def heads_decoders(heads: Any) -> Rows:
    """Of heatmaps with either shape of target, and of the pose machine's, of 16 x 16 cells; first seed."""
    titles = {
        "argmax": "argmax",
        "quarter": "a quarter of a pixel",
        "soft_argmax": "soft-argmax",
        "dark": "DARK",
        "cauchy": "Cauchy inverse",
    }
    kinds, none = {"baseline": "gauss", "cauchy": "cauchy", "pose_machine": "machine"}, {"common": None}
    return {
        title: {kind: heads[head]["decoders"][decoder] if head in heads else none for head, kind in kinds.items()}
        for decoder, title in titles.items()
    }


# few_labels, infants


def few_labels(metrics: Any) -> Rows:
    """Every row with its share of the labels and its seeds."""
    return {
        f"{of['title']}, {of['percent']} %": of["sets"]
        | {"images": of["images"], "seeds": " / ".join(f"{mean:.2f}" for mean in of["sets"]["common"]["by_seed"])}
        for of in metrics["rows"].values()
    }


def few_labels_apart(metrics: Any) -> Rows:
    """Paired differences, in percent of the second row's error, and in points of each seed alone."""
    titles = {name: f"{of['title']}, {of['percent']} %" for name, of in metrics["rows"].items()}
    rows = {}
    for name, of_sets in metrics["differences"].items():
        one, other = name.split(" - ")
        seeds = " / ".join(f"{apart:+.2f}" for apart in of_sets["common"]["by_seed"])
        rows[f"{titles[one]} − {titles[other]}"] = of_sets | {"seeds": seeds}
    return rows


def few_labels_ladder(metrics: Any) -> Rows:
    """Validation error over the images of labels alone."""
    ladder = metrics["ladder"]
    return {
        f"{int(rung):,}": {f"of_{share}": ladder[share].get(rung) for share in ladder}
        for rung in sorted({rung for of in ladder.values() for rung in of}, key=int)
    }


def few_labels_variants(metrics: Any) -> Rows:
    """Validation error of the variants of ours that were tried."""
    titles = {
        "ours_labels_last": "a third photos, labelled twice, then labels",
        "ours_online": "half photos, labelled by the average of the weights as it learns",
        "ours_online_photos": "the same, three quarters photos, then labels",
        "ours_photos": "three quarters photos, labelled three times, then labels",
        "ours_online_labels_last": "half photos, labelled as it learns, then labels",
        "ours_online_balanced": "the same, turned heads drawn more often",
        "large": "the pyramid itself, labels only",
        "ours_large_teacher": "three quarters photos, labelled by the pyramid, then labels",
    }
    return {titles[name]: value for name, value in metrics["variants"].items()}


def infants_learnt(metrics: Any) -> Rows:
    """As the weights ship, then by the number of labelled infants."""
    titles = {"labels": "fine-tuned", "ours": "and other infants", "portraits": "and portraits"}
    rows = {"as they ship": metrics["rows"]["shipped"]}
    for name, of in metrics["rows"].items():
        row, _, count = name.rpartition("_")
        if row:
            rows[f"{count} labelled, {titles[row]}"] = of
    return rows


# cross_domain, cross_domain_full, cross_domain_tried

SELF_TRAINED = {"paper_short": "STC, shortened", "ours": "ours"}
CURRICULA = {"labels": "labelled only", "none_short": "plain self-training"} | SELF_TRAINED
NORMS = {"outer_eye": "outer eyes", "box": "box size", "label_box": "published box"}
STATISTICS = {"mean": "NME", "median": "median", "fr_10": "FR@10", "auc_10": "AUC@10"}
BY_BOX = {"box": "all points", "nose_eyes": "nose and eyes", "without_offsets": "without constant offsets"}
SEEDS, COMPARED = 3, ("before", "after", "change")


def curricula(metrics: Any) -> Rows:
    """All rows on both sets, by both norms; with the number of seeds where some are missing."""
    rows = {}
    for faces in metrics["sets"].values():
        for norm, table in faces["figures"]["all"].items():
            for row, figures in table["rows"].items():
                seeds = len(figures["mean"]["seeds"])
                missing = "" if seeds >= SEEDS else f" ({seeds} of {SEEDS} seeds)"
                rows[f"{faces['title']}, by {NORMS[norm]} | {CURRICULA[row]}{missing}"] = figures
    return rows


def differences(metrics: Any) -> Rows:
    return {
        f"{faces['title']}, by {NORMS[norm]} | {CURRICULA[row]} − {CURRICULA[base]}": figures[key]
        for faces in metrics["sets"].values()
        for norm, table in faces["figures"]["all"].items()
        for key, base in (("to_first", "labels"), ("to_stc", "paper_short"))
        for row, figures in table["rows"].items()
        if key in figures
    }


def target_parts(metrics: Any) -> Rows:
    """Parts of the target set; behind the first row's figure the differences to it."""

    def cell(of: Any) -> str:
        form = "{mean[value]:.2f}, {to_first[mean]:+.2f}" if "to_first" in of else "{mean:.2f}"
        return Cells().format(form, **of)

    return {
        f"{part} | {table['faces']} | {NORMS[norm]}": {row: cell(of) for row, of in table["rows"].items()}
        for part, norms in metrics["sets"]["target"]["figures"].items()
        for norm, table in norms.items()
    }


def single_seeds(metrics: Any) -> Rows:
    rows = {}
    for row, about in metrics["rows"].items():
        images = " / ".join(f"{count:,}" for count in dict.fromkeys(about["training_images"]))
        rows[CURRICULA[row]] = {"seeds": ", ".join(map(str, about["seeds"])), "images": images}
        for key, faces in metrics["sets"].items():
            single = faces["figures"]["all"]["box"]["rows"][row]["mean"]["seeds"]
            rows[CURRICULA[row]][key] = " / ".join(f"{value:.2f}" for value in single)
    return rows


def before_and_after(metrics: Any) -> Rows:
    return {
        f"{faces['title']}, by {NORMS[norm]} | {title}": {key: table[key][name] for key in COMPARED}
        for faces in metrics["sets"].values()
        for norm, table in faces["figures"]["all"].items()
        if norm in NORMS
        for name, title in STATISTICS.items()
    }


def by_convention(metrics: Any) -> Rows:
    """By the box: of all points, of those that sets label alike, and without what points are off on average."""
    return {
        f"{faces['title']} | {title}": {key: faces["figures"]["all"][points][key]["mean"] for key in COMPARED}
        for faces in metrics["sets"].values()
        for points, title in BY_BOX.items()
    }


def parts_before_and_after(metrics: Any) -> Rows:
    return {
        f"{faces['title']}, {part} | {table['faces']} | {NORMS[norm]}": {key: table[key]["mean"] for key in COMPARED}
        for faces in metrics["sets"].values()
        for part, norms in faces["figures"].items()
        for norm, table in norms.items()
        if part != "all" and norm in NORMS
    }


def tried(metrics: Any) -> Rows:
    titles = {
        "labels": "labelled only",
        **SELF_TRAINED,
        "ours_half": "ours, but half of an epoch labelled instead of 70 %, from earlier on, three stages, eight views",
        "ours_unweighted": "ours, but every pseudo-label counts fully",
        "ours_one_look": "ours, but one view of each face instead of four",
        "ours_utkface": "ours, with the 4,000 chips of UTKFace besides",
        "ours_cosines": "the same, but the learning rate falls in each stage anew, from half the first's, half of the "
        "run on labels instead of 60 %, no face skipped (*)",
        "labels_paper": "labelled only, the paper's augmentation",
        "paper_uneven": "STC, shortened, the paper's augmentation, coarse stages of 8 % each, UTKFace besides",
    }
    return {
        titles[name]: of | {"stages": ", ".join(f"{value:.2f}" for value in of["validation"])}
        for name, of in metrics["rows"].items()
    }
