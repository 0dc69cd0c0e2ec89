"""What README.md, docs/ and the records say in passing is what was measured, and the records keep what was promised."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipnet.inference.detectors import RETINAFACE_CALIBRATION

ROOT = Path(__file__).resolve().parent.parent
RUNTIMES = ("onnxruntime", "openvino")
INT8 = ("onnxruntime int8", "openvino int8")


def record(name: str, file: str = "metrics.json") -> Any:
    return json.loads((ROOT / "experiments" / name / file).read_text(encoding="utf-8"))


def text(*paths: Path) -> str:
    """Pages as one line."""
    return " ".join(" ".join(path.read_text(encoding="utf-8") for path in paths).split())


def pages() -> str:
    return text(ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))


def found_in_scenes() -> tuple[float, float]:
    """Share of all known faces that the default detector finds, and share of its boxes that are wrong, in percent."""
    scenes = record("detectors")["parts"]["scenes"]
    default = scenes["settings"]["RetinaFace, 1,024 px, score 0.6"]
    wrong = default["no_face"] + default["misplaced"]
    return 100 * default["face"] / scenes["faces"], 100 * wrong / (default["face"] + wrong + default["unclear"])


def self_trained() -> list[float]:
    """The weights that ship against those they began with: WFLW-108, its change and its poses', Common-554; by box."""
    sets = record("cross_domain_full")["sets"]
    hard, pose, home = (
        sets[key]["figures"][part]["box"] for key, part in (("target", "all"), ("target", "pose"), ("source", "all"))
    )
    change = hard["change"]["mean"]["relative"]
    return [
        *(hard[row]["mean"]["value"] for row in ("before", "after")),
        *(-change[end] for end in ("value", "high", "low")),
        -pose["change"]["mean"]["relative"]["value"],
        *(home[row]["mean"]["value"] for row in ("before", "after")),
    ]


def benchmark(row: str, key: str, against: str, part: str = "all") -> dict[str, float]:
    """Relative change of the NME by box size in the benchmark of self-training: value, low, high."""
    table = record("cross_domain")["sets"][key]["figures"][part]["box"]["rows"]
    return table[row][f"to_{against}"]["mean"]["relative"]


def seed_0(name: str, key: str, row: str) -> float:
    """NME by box size of one training of that benchmark, once or with twice the images."""
    figures = record("cross_domain", name)["sets"][key]["figures"]["all"]["box"]
    return figures["rows"][row]["mean"]["seeds"][0]


ONCE, TWICE = "metrics.json", "metrics_300w_wflw_twice.json"


def gaps() -> list[float]:
    """How far STC, shortened, is above labels alone, with as many images and with twice as many, in percent."""
    return [
        100 * (seed_0(name, key, "paper_short") / seed_0(name, key, "labels") - 1)
        for key in ("target", "source")
        for name in (ONCE, TWICE)
    ]


def gain_of_labels() -> list[float]:
    return [100 * (1 - seed_0(TWICE, "target", "labels") / seed_0(ONCE, "target", "labels"))]


def at_every_angle(way: str, figure: str) -> list[float]:
    """Smallest and largest figure of Common-554 turned by 0 to 180 degrees."""
    figures = [ways[way][figure] for ways in record("roll")["turned"].values()]
    return [min(figures), max(figures)]


def one_crop(network: str) -> dict[str, dict[str, Any]]:
    """What was timed of a network with one crop on one thread, by runtime and precision."""
    rows = [row for row in record("speed", "benchmark.json")["cases"] if (row["threads"], row["batch"]) == (1, 1)]
    return {f"{row['runtime']} {row['precision']}": row for row in rows if row["model"] == network}


def fastest(network: str) -> dict[str, Any]:
    return max(one_crop(network).values(), key=lambda row: row["ratio"]["median"])


def start_of(network: str) -> dict[str, Any]:
    return next(row for row in record("speed", "benchmark.json")["starts"] if row["name"] == network)


def figure(path: str) -> float:
    """What stands in a record: ``RECORD/FILE.json/KEY/KEY``, with metrics.json where no file is named."""
    name, *keys = path.split("/")
    found = record(name, keys.pop(0)) if keys[0].endswith(".json") else record(name)
    for key in keys:
        found = found[int(key) if isinstance(found, list) else key]
    return found


def beside_each_other(file: str) -> list[float]:
    """Milliseconds of a face in each runtime, in the order of the page's table."""
    return [figure(f"efficiency/{file}/speed/{kind}/ms/median") for kind in KINDS]


KINDS = [f"shipped {kind}" for kind in ("torch fp32", "onnxruntime fp32", "openvino fp32", *INT8)]
SCORES, SHIPPED, FIVE = "scores/sets", "300w_mobilenet_v2", r" \| ([\d.]+)" * 5
# Sentences of README.md and docs/, or of a record, and the figures in them.
CLAIMS: dict[str, dict[str, list[str] | Callable[[], Any]]] = {
    "docs": {
        r"by 0 to 180° their error is ([\d.]+) to ([\d.]+) % in boxes of the labels, none above 10 %, and ([\d.]+) to "
        r"([\d.]+) % in the detector's, at most ([\d.]+) % of the faces above 10 %": lambda: [
            *at_every_angle("labels", "nme"),
            *at_every_angle("detector", "nme"),
            at_every_angle("detector", "fr_10")[1],
        ],
        r"while none is known: ([\d.]+) times in 100 frames": [
            "tracking/videos/one face, moving/detector_calls_per_100"
        ],
        r"before a noisy camera falls by (\d+) %": ["smoothing/test/still/still, noise 5/less"],
        r"right to within ([\d.]+) percent, .* \(rank correlation ([\d.]+); on WFLW-108 ([\d.]+), where point scores "
        r"are too high by (\d+) %\)": [
            f"{SCORES}/common/point/calibration_error",
            f"{SCORES}/common/face/rank_correlation/value",
            f"{SCORES}/wflw/face/rank_correlation/value",
            f"{SCORES}/wflw/point/calibration_error",
        ],
        r"skips (\d+) of the (\d+) faces with an error above 8 %": lambda: [
            (face := record("scores")["sets"]["common_jittered"]["face"])["failures_8"] - face["failures_8_kept"],
            face["failures_8"],
        ],
        r"augmenting a face takes ([\d.]+) ms on one core with `transform=modern`": [
            "data_path/milliseconds/modern/total"
        ],
        r"width and height × ([\d.]+) and ([\d.]+) about a centre moved down by ([\d.]+) of the height": lambda: [
            *RETINAFACE_CALIBRATION.scale,
            RETINAFACE_CALIBRATION.shift[1],
        ],
        r"off by ([\d.]+)° of yaw and ([\d.]+)° of pitch": [
            f"head_pose/made/by_setting/all three/median/{axis}" for axis in (0, 1)
        ],
        r"scenes it finds ([\d.]+) % of the faces that any tried detector found, (\d+) % of its boxes": found_in_scenes,
        r"WFLW-108 fell from ([\d.]+) to ([\d.]+) % of the box size \(by ([\d.]+) %, 95 % interval ([\d.]+) to "
        r"([\d.]+)\), on large poses by (\d+) %, and on Common-554 from ([\d.]+) to ([\d.]+) %": self_trained,
        r"images and 96 px, ours is ([\d.]+) % below \*STC, shortened\* there and level with labels alone": lambda: [
            -benchmark("ours", "target", "stc")["value"]
        ],
        r"Photos of 200 × 200 px become faces at (\d+) a second on one core": lambda: [
            run["photos_per_second"]
            for run in record("gathering")["runs"]
            if (run["photos"], run["processes"], run["known"]) == (4000, 1, False)
        ],
        r"Common; video of one face runs at (\d+) frames a second": ["demo_latency/cases/video/frames_per_second"],
        r"video of one face at (\d+) frames a second on two cores": ["demo_latency/cases/video/frames_per_second"],
        r"one face runs at (\d+) frames a second with the drawn video written, at (\d+) with nothing kept": [
            f"demo_latency/cases/{case}/frames_per_second" for case in ("video", "nothing kept")
        ],
        r"\| read \| detect \| crop \| network \| decode \| track \| draw \| write \| \|(?:---\|)+"
        r" \| ([\d.]+)" + r" \| ([\d.]+)" * 7: lambda: [
            part["median_ms"] for part in record("demo_latency")["cases"]["video"]["parts"].values()
        ],
        r"box size: ([\d.]+) on 16 WFLW faces with large pose, ([\d.]+) on 29 blurred ones, against ([\d.]+) on "
        r"Common-554 \| \| the jaw line \| ([\d.]+) % of the outer-eye distance on Common-554, where the eyes have "
        r"([\d.]+) %": [
            f"{SHIPPED}/wflw/subsets/pose/box/mean/value",
            f"{SHIPPED}/wflw/subsets/blur/box/mean/value",
            f"{SHIPPED}/common/all/box/mean/value",
            f"{SHIPPED}/common/parts/jaw/outer_eye/value",
            f"{SHIPPED}/common/parts/eye/outer_eye/value",
        ],
        r"milliseconds a face without VNNI" + FIVE: lambda: beside_each_other("accuracy.json"),
        r"milliseconds a face with VNNI" + FIVE: lambda: beside_each_other("accuracy_0.4.0.json"),
        r"NME on Common-554, %" + FIVE: [f"efficiency/accuracy.json/nme/{kind}" for kind in KINDS],
        r"takes ([\d.]+) times as long as the bare network \(OpenVINO ([\d.]+)\)": [
            f"frame_cost/frame.json/runtimes/{runtime}/ratio/median" for runtime in RUNTIMES
        ],
        r"([\d.]+) times as fast as PyTorch, ResNet-18 ([\d.]+) times, at (\d+) % of": lambda: [
            *(fastest(network)["ratio"]["median"] for network in ("shipped", "resnet18")),
            100 * fastest("resnet18")["share"],
        ],
        r"points come ([\d.]+) s after Python starts .*? (\d+) MiB .*? PyTorch ([\d.]+) s and (\d+) MiB": lambda: [
            figure
            for name in ("shipped onnxruntime int8", "shipped torch fp32")
            for figure in (statistics.median(start_of(name)["cold_s"]), max(start_of(name)["peak_mib"]))
        ],
        r"misses (\d+) of WFLW-108": ["efficiency/accuracy.json/sets/wflw/mediapipe-attention/missed"],
    },
    "cross_domain": {
        r"ours is ([\d.]+) % below \*STC, shortened\* on WFLW-108 \(([\d.]+) … ([\d.]+)\) and level with labels alone "
        r"\((\S+) %: (\S+) … \+([\d.]+)\), for ([\d.]+) % at home": lambda: [
            *(-benchmark("ours", "target", "stc")[end] for end in ("value", "low", "high")),
            *(benchmark("ours", "target", "first")[end] for end in ("value", "low", "high")),
            benchmark("ours", "source", "first")["value"],
        ],
        r"\*not\* below labels alone: ([\d.]+) and ([\d.]+) % above on WFLW-108, (\d+) and (\d+) % at home": lambda: [
            benchmark(row, key, "first")["value"]
            for key in ("target", "source")
            for row in ("paper_short", "none_short")
        ],
        r"large poses and the blurred \((\S+) and (\S+) %": lambda: [
            benchmark("ours", "target", "first", part)["value"] for part in ("pose", "blur")
        ],
    },
    "cross_domain_tried": {
        r"the gap falls from ([\d.]+) to ([\d.]+) % on WFLW-108 and from ([\d.]+) to ([\d.]+) % at home": gaps,
        r"Labels alone gain too, ([\d.]+) % on WFLW-108": gain_of_labels,
    },
    "cross_domain_full": {
        r"twice the images are worth ([\d.]+) % to labels alone": gain_of_labels,
    },
}


@pytest.mark.parametrize(("page", "sentence"), [(page, sentence) for page in CLAIMS for sentence in CLAIMS[page]])
def test_a_figure_in_passing_is_that_of_its_record(page: str, sentence: str):
    content = pages() if page == "docs" else text(ROOT / "experiments" / page / "README.md")
    found = re.search(sentence, content)
    assert found, f"the page does not say {sentence!r}"
    wanted = CLAIMS[page][sentence]
    values = map(figure, wanted) if isinstance(wanted, list) else wanted()
    for said, value in zip(found.groups(), values, strict=True):
        close = 0.5001 * 10 ** -len(said.partition(".")[2])
        assert abs(float(said.replace("−", "-")) - value) <= close, f"the page says {said}, the record {value}"


def test_the_table_of_the_readme_is_what_was_timed_and_measured_together():
    """One run of experiments/efficiency for the errors and the times without VNNI, another for those with it."""
    run, with_vnni = (record("efficiency", name) for name in ("accuracy.json", "accuracy_0.4.0.json"))
    rows = {
        "shipped onnxruntime int8": "as installed (ONNX Runtime, int8)",
        "shipped openvino int8": "with `openvino` (int8)",
        "shipped torch fp32": "on PyTorch",
        "dlib-68": "dlib 68",
        "mediapipe-attention": "MediaPipe attention mesh",
    }
    for key, title in rows.items():
        row = re.search(r"\| [^|]*" + re.escape(title) + r"[^|]*\|" + r" ([^| ]+) \|" * 6, pages())
        assert row, title
        sets = [run["sets"][name][key] for name in ("common", "wflw")]
        means = [figures.get(points, {}).get("mean") for figures in sets for points in ("68", "51")]
        expected = ["–" if mean is None else f"{mean['value']:.2f}" for mean in means]
        expected += [f"{of['speed'][key]['ms']['median']:.1f}" for of in (run, with_vnni)]
        assert list(row.groups()) == expected, title


# What was to be reached.


def test_self_training():
    rows = record("cross_domain")["rows"]
    assert {tuple(row["seeds"]) for row in rows.values()} == {(0, 1, 2)}
    assert {images for row in rows.values() for images in row["training_images"]} == {150_000}
    assert benchmark("ours", "target", "stc")["high"] < 0
    assert benchmark("ours", "source", "first")["value"] <= 2
    # It was to be below 0 as well. It isn't, and the page says so.
    assert benchmark("paper_short", "target", "first")["value"] > 0


def test_scores_know_the_worst_faces():
    """The worst-scored tenth holds at least half of the failures, and the order is worth a quarter of the error."""
    sets = record("scores")["sets"]
    face = sets["common_jittered"]["face"]
    assert face["failures_8"] > 50
    assert face["failures_8_kept"] / face["kept"] <= face["failures_8"] / face["faces"] / 2
    assert sets["common_detector"]["face"]["failures_8_kept"] == 0
    assert sets["wflw"]["face"]["area_ratio"]["value"] <= 0.75
    assert sets["common"]["point"]["calibration_error"] < 1.2  # 0.7 before self-training


def test_hidden_points_score_lower():
    metrics = record("scores")
    covered = metrics["synthetic_occluders"]
    assert covered["score"] < covered["score_uncovered"]
    assert covered["lower_than_uncovered"] > 89  # 92 before self-training
    alike = metrics["occlusion_attribute"]["alike"]
    assert alike["score"] < alike["score_others"]


def test_the_demo_keeps_sixty_frames_a_second_and_does_not_grow():
    video, memory = record("demo_latency")["cases"]["video"], record("demo_memory")
    assert video["frames_per_second"] >= 60
    assert video["frames"] >= 1500
    assert video["lost_share"] == 0
    assert memory["seconds"] >= 300
    assert memory["slope_mib_per_minute"] < memory["bar_mib_per_minute"] <= 1


def test_no_angle_is_much_worse_than_upright():
    """The bars: label boxes within 5 % of upright at every step, none above 10 %; nobody missed by more than it may."""
    steps = record("roll")["turned"]
    assert list(map(int, steps)) == list(range(0, 181, 15))
    upright = steps["0"]
    for angle, ways in steps.items():
        assert ways["labels"]["faces"] == 554
        assert ways["labels"]["nme"] <= 1.05 * upright["labels"]["nme"], angle
        assert ways["labels"]["fr_10"] == 0, angle
        for way in ("labels", "detector"):
            assert ways[way]["median"] <= 1.05 * upright[way]["median"], angle
            assert ways[way]["face_score"] >= upright[way]["face_score"] - 0.05, angle


def test_the_data_path_keeps_its_budget():
    """2.5 milliseconds a face at 256 px on one core, decoding included."""
    metrics = record("data_path")
    assert metrics["input_size"] == 256
    assert set(metrics["milliseconds"]) == {"none", "paper", "modern"}
    for name, figures in metrics["milliseconds"].items():
        assert figures["total"] <= 2.5, name
        parts = sum(figures[stage] for stage in ("read", "warp", "photometric", "rest"))
        assert abs(parts - figures["total"]) < 1e-6, name


def test_the_best_runtime_is_fast():
    """Medians of ratios within the same rounds, one crop of 256 px on one thread; and what the machine can do."""
    for network, bar in (("resnet18", 5.5), ("shipped", 4.5)):
        timed = one_crop(network)
        assert timed["torch fp32"]["ratio"]["median"] == 1
        assert {row["input_size"] for row in timed.values()} == {256}
        assert fastest(network)["ratio"]["median"] >= bar, network
    assert max(row["share"] for name, row in one_crop("resnet18").items() if name.endswith("int8")) >= 0.8


def test_a_cold_start_takes_less_than_a_second_and_no_torch():
    ours, torch = start_of("shipped onnxruntime int8"), start_of("shipped torch fp32")
    assert statistics.median(ours["cold_s"]) < 1
    assert (ours["torch"], torch["torch"]) == (False, True)
    assert max(ours["peak_mib"]) < min(torch["peak_mib"])


def test_the_head_costs_what_coordinate_regression_costs():
    """On the paper's backbone; the light one at 128 px has other shares, which its table says."""
    for name, column in record("heads", "cost_paper.json")["columns"].items():
        over = {head: of["times_l1"]["median"] for head, of in column.items()}
        assert over["pip"] <= 1.08, name
        assert over["baseline"] >= 1.5 * over["pip"], name


def test_pip_is_as_good_as_heatmaps_and_nearly_as_cheap_as_coordinates():
    """On one trunk at 128 px, three seeds each: what the record answers."""
    heads = record("heads")["heads"]
    to_pip = {name: heads[name]["sets"]["common"]["to_pip"] for name in ("alone", "l1", "wing", "baseline")}
    assert to_pip["baseline"]["low"] > 0
    assert to_pip["baseline"]["high"] < 0.1
    assert all(to_pip[name]["low"] > 0.8 for name in ("l1", "wing"))
    assert to_pip["alone"]["low"] > 0.2
    for of_set in ("wflw", "infants"):
        level = heads["baseline"]["sets"][of_set]["to_pip"]
        assert level["low"] < 0 < level["high"], of_set
    for name in ("pip", "alone", "l1", "wing", "baseline"):
        assert heads[name]["seeds"] == [0, 1, 2], name
        assert len(heads[name]["tries"]) == 3, name
    few, long = record("heads")["few_labels"]["pip"], record("heads")["long"]["l1"]
    unlucky = record("heads")["few_labels"]["l1"]["20"]["mean"]["value"]
    assert unlucky - record("heads")["few_labels_again"]["l1_1_20"]["value"] == pytest.approx(0.6, abs=0.01)
    assert few["5"]["mean"]["value"] - few["100"]["mean"]["value"] == pytest.approx(0.33, abs=0.005)
    assert long["after"]["images"] == 4 * long["before"]["images"]
    apart = {of_set: long["after"][of_set]["to_pip"] for of_set in ("common", "wflw", "infants")}
    assert apart["common"]["value"] / long["before"]["common"]["to_pip"]["value"] == pytest.approx(0.5, abs=0.02)
    assert [round(apart["common"][end], 2) for end in ("value", "low", "high")] == [0.48, 0.44, 0.52]
    assert all(of["low"] > 0 for of in apart.values())
    columns = record("heads", "cost.json")["columns"]
    machine = heads["pose_machine"]
    assert machine["sets"]["common"]["to_pip"]["high"] < 0
    assert heads["coarse_to_fine"]["sets"]["common"]["to_pip"]["high"] < -0.1
    assert heads["hourglass"]["sets"]["common"]["to_pip"]["high"] < -0.2
    for name in ("pyramid", "coarse_to_fine"):  # finer features are better than PIP's on all sets
        assert all(heads[name]["sets"][of_set]["to_pip"]["high"] < 0 for of_set in ("common", "wflw", "infants")), name
    for of_set in ("wflw", "infants"):
        assert (
            heads["hourglass"]["sets"][of_set]["to_pip"]["low"]
            < 0
            < heads["hourglass"]["sets"][of_set]["to_pip"]["high"]
        )
        assert heads["hrnet"]["sets"][of_set]["to_pip"]["low"] > 0, of_set
    for name in heads:  # that every best rate lies at an edge of what was tried is said
        assert heads[name]["learning_rate"] in (0.0005, 0.002), name
    assert heads["pip"]["parameters"] / machine["parameters"] == pytest.approx(7, abs=0.5)
    over_pip = {"pose_machine": 1.1, "coarse_to_fine": 3.7, "pyramid": 5.8, "hourglass": 3.2, "hrnet": 10.65}
    for column, over in (("onnxruntime", over_pip), ("onnxruntime_int8", {"pose_machine": 1.7, "pyramid": 4.8})):
        for name, times in over.items():
            measured = [columns[column][head]["times_l1"]["median"] for head in (name, "pip")]
            assert measured[0] / measured[1] == pytest.approx(times, abs=0.06), name
    for column, pip, heatmap in (("onnxruntime", 1.38, 4.88), ("onnxruntime_int8", 1.20, 10.6)):
        over = {head: columns[column][head]["times_l1"]["median"] for head in ("pip", "baseline")}
        assert over["pip"] == pytest.approx(pip, abs=0.01)
        assert over["baseline"] == pytest.approx(heatmap, abs=0.1)


def test_the_landmarker_adds_little_to_its_network():
    """And an upright face pays at most 3 percent for those that are not."""
    metrics, upright = (record("frame_cost", name) for name in ("frame.json", "roll_cost.json"))
    for runtime in RUNTIMES:
        assert metrics["runtimes"][runtime]["ratio"]["median"] <= 1.35, runtime
        assert upright["runtimes"][runtime]["ratio"]["median"] <= upright["bar"] == 1.03, runtime
    for width, figures in metrics["crop_ms"].items():
        assert figures["repeated"]["median"] < 0.6, width
        assert figures["in_place"]["median"] < 0.6, width


@pytest.mark.parametrize(("file", "processor"), [("accuracy.json", "(no VNNI)"), ("accuracy_vnni.json", "(VNNI)")])
def test_int8_keeps_the_accuracy(file: str, processor: str):
    metrics = record("efficiency", file)
    assert metrics["processor"].endswith(processor)
    for key, bar in (("common", 0.02), ("wflw", 0.10)):
        assert all(metrics["paired"][key][f"shipped {name}"]["68"]["value"] <= bar for name in INT8), key


def test_the_rounding_that_ships_is_the_one_that_was_best():
    """Over boxes that are good and boxes that are off; and it gives back most of what an overflow costs."""
    metrics = record("int8", "rounding.json")
    times = metrics.pop("times")
    for runtime in RUNTIMES:
        ways = {way: figures for way, figures in metrics.items() if isinstance(figures, dict)}
        moved = {way: sum(figures[runtime]["moved_px"]) for way, figures in ways.items()}
        assert min(moved, key=moved.__getitem__) == "shipped"
        assert moved["shipped"] < moved["nearest"] / 3
        assert all(of[runtime]["median"] >= 0.97 for of in times.values())  # as fast as before, up to 3 percent
