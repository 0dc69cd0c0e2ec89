"""What README.md and docs/ say in passing is what the records hold, and the records keep what was promised."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipnet.inference.detectors import RETINAFACE_CALIBRATION

ROOT = Path(__file__).resolve().parent.parent


def record(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "experiments" / name / "metrics.json").read_text(encoding="utf-8"))


def readme(folder: str) -> str:
    return " ".join((ROOT / folder / "README.md").read_text(encoding="utf-8").split())


def pages() -> str:
    """README.md and the pages of docs/, as one line."""
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))))
    return " ".join(" ".join(texts).split())


def found_in_scenes() -> tuple[float, float]:
    """Share of all known faces that the default detector finds, and share of its boxes that are wrong, in percent."""
    scenes = record("detectors")["parts"]["scenes"]
    default = scenes["settings"]["RetinaFace, 1,024 px, score 0.6"]
    wrong = default["no_face"] + default["misplaced"]
    return 100 * default["face"] / scenes["faces"], 100 * wrong / (default["face"] + wrong + default["unclear"])


def self_trained() -> list[float]:
    """The weights that ship against those they began with: WFLW-108, its change and its poses', Common-554; by box."""
    sets = json.loads((ROOT / "experiments/cross_domain/full_size.json").read_text(encoding="utf-8"))["sets"]
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


def at_every_angle(way: str, figure: str) -> list[float]:
    """Smallest and largest figure of Common-554 turned by 0 to 180 degrees."""
    figures = [ways[way][figure] for ways in record("roll")["turned"].values()]
    return [min(figures), max(figures)]


def weak_spots() -> list[float]:
    """NME of the shipped weights: by box size of large poses, of blurred faces and at home; of jaw and eyes at home."""
    wflw, common = (record("300w_mobilenet_v2")[key] for key in ("wflw", "common"))
    return [
        *(wflw["subsets"][name]["box"]["mean"]["value"] for name in ("pose", "blur")),
        common["all"]["box"]["mean"]["value"],
        *(common["parts"][name]["outer_eye"]["value"] for name in ("jaw", "eye")),
    ]


# A sentence of the README or of a page, and the figures in it.
CLAIMS = {
    r"by 0 to 180° their error is ([\d.]+) to ([\d.]+) % in boxes of the labels, none above 10 %, and ([\d.]+) to "
    r"([\d.]+) % in the detector's, at most ([\d.]+) % of the faces above 10 %": lambda: [
        *at_every_angle("labels", "nme"),
        *at_every_angle("detector", "nme"),
        at_every_angle("detector", "fr_10")[1],
    ],
    r"while none is known: ([\d.]+) times in 100 frames": lambda: [
        record("tracking")["videos"]["one face, moving"]["detector_calls_per_100"]
    ],
    r"before a noisy camera falls by (\d+) %": lambda: [
        record("smoothing")["test"]["still"]["still, noise 5"]["less"],
    ],
    r"right to within ([\d.]+) percent, .* \(rank correlation ([\d.]+); on WFLW-108 ([\d.]+), where point scores are "
    r"too high by (\d+) %\)": lambda: [
        record("scores")["sets"]["common"]["point"]["calibration_error"],
        record("scores")["sets"]["common"]["face"]["rank_correlation"]["value"],
        record("scores")["sets"]["wflw"]["face"]["rank_correlation"]["value"],
        record("scores")["sets"]["wflw"]["point"]["calibration_error"],
    ],
    r"skips (\d+) of the (\d+) faces with an error above 8 %": lambda: [
        (face := record("scores")["sets"]["common_jittered"]["face"])["failures_8"] - face["failures_8_kept"],
        face["failures_8"],
    ],
    r"augmenting a face takes ([\d.]+) ms on one core with `transform=modern`": lambda: [
        record("data_path")["milliseconds"]["modern"]["total"]
    ],
    r"width and height × ([\d.]+) and ([\d.]+) about a centre moved down by ([\d.]+) of the height": lambda: [
        *RETINAFACE_CALIBRATION.scale,
        RETINAFACE_CALIBRATION.shift[1],
    ],
    r"off by ([\d.]+)° of yaw and ([\d.]+)° of pitch": lambda: record("head_pose")["made"]["by_setting"]["all three"][
        "median"
    ][:2],
    r"scenes it finds ([\d.]+) % of the faces that any tried detector found, (\d+) % of its boxes": found_in_scenes,
    r"WFLW-108 fell from ([\d.]+) to ([\d.]+) % of the box size \(by ([\d.]+) %, 95 % interval ([\d.]+) to ([\d.]+)\), "
    r"on large poses by (\d+) %, and on Common-554 from ([\d.]+) to ([\d.]+) %": self_trained,
    r"training images and 96 px, ours is ([\d.]+) % below the paper's STC there and level with labels alone": lambda: [
        -benchmark("ours", "target", "stc")["value"]
    ],
    r"Photos of 200 × 200 px become faces at (\d+) a second on one core": lambda: [
        run["photos_per_second"]
        for run in record("gathering")["runs"]
        if (run["photos"], run["processes"], run["known"]) == (4000, 1, False)
    ],
    r"Common; video of one face runs at (\d+) frames a second": lambda: [
        record("demo_latency")["cases"]["video"]["frames_per_second"]
    ],
    r"video of one face at (\d+) frames a second on two cores": lambda: [
        record("demo_latency")["cases"]["video"]["frames_per_second"]
    ],
    r"box size: ([\d.]+) on 16 WFLW faces with large pose, ([\d.]+) on 29 blurred ones, against ([\d.]+) on Common-554 "
    r"\| \| the jaw line \| ([\d.]+) % of the outer-eye distance on Common-554, where the eyes have ([\d.]+) %": (
        weak_spots
    ),
    r"one face runs at (\d+) frames a second with the drawn video written, at (\d+) with nothing kept": lambda: [
        record("demo_latency")["cases"][case]["frames_per_second"] for case in ("video", "nothing kept")
    ],
}


@pytest.mark.parametrize("sentence", CLAIMS)
def test_a_figure_in_passing_is_that_of_its_record(sentence: str):
    check(sentence, CLAIMS[sentence](), pages())


def check(sentence: str, figures: list[float], page: str) -> None:
    found = re.search(sentence, page)
    assert found, f"the page does not say {sentence!r}"
    for text, value in zip(found.groups(), figures, strict=True):
        decimals = len(text.partition(".")[2])
        said = float(text.replace("−", "-"))
        assert abs(said - value) <= 0.5001 * 10**-decimals, f"the page says {text}, the record {value}"


def test_the_table_of_the_readme_is_what_was_timed_and_measured_together():
    """One run of experiments/efficiency for the errors and the times without VNNI, another for those with it."""
    folder = ROOT / "experiments" / "efficiency"
    run, with_vnni = (
        json.loads((folder / name).read_text(encoding="utf-8")) for name in ("accuracy.json", "accuracy_0.4.0.json")
    )
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
        common, wflw = (run["sets"][name][key] for name in ("common", "wflw"))
        means = [figures.get(points, {}).get("mean") for figures in (common, wflw) for points in ("68", "51")]
        expected = ["–" if mean is None else f"{mean['value']:.2f}" for mean in means]
        expected += [f"{of['speed'][key]['ms']['median']:.1f}" for of in (run, with_vnni)]
        assert list(row.groups()) == expected, title
    assert f"misses {run['sets']['wflw']['mediapipe-attention']['missed']} of WFLW-108" in pages()


def test_the_benchmark_of_self_training_says_what_it_measured():
    page = readme("experiments/cross_domain")
    stc, ours = (benchmark("ours", "target", against) for against in ("stc", "first"))
    behind = [benchmark(row, key, "first") for key in ("target", "source") for row in ("paper_short", "none_short")]
    check(
        r"ours is ([\d.]+) % below the paper's STC on WFLW-108 \(([\d.]+) … ([\d.]+)\) and level with labels alone "
        r"\((\S+) %: (\S+) … \+([\d.]+)\), for ([\d.]+) % at home",
        [
            *(-stc[end] for end in ("value", "low", "high")),
            *(ours[end] for end in ("value", "low", "high")),
            benchmark("ours", "source", "first")["value"],
        ],
        page,
    )
    check(
        r"\*not\* below labels alone: ([\d.]+) and ([\d.]+) % above on WFLW-108, (\d+) and (\d+) % at home",
        [figures["value"] for figures in behind],
        page,
    )
    check(
        r"large poses and the blurred \((\S+) and (\S+) %",
        [benchmark("ours", "target", "first", part)["value"] for part in ("pose", "blur")],
        page,
    )


def test_what_twice_the_images_changed():
    """By one seed: STC against labels alone, and labels alone against themselves."""

    def seed_0(name: str, key: str, row: str) -> float:
        file = ROOT / "experiments" / "cross_domain" / name
        figures = json.loads(file.read_text(encoding="utf-8"))["sets"][key]["figures"]["all"]["box"]
        return figures["rows"][row]["mean"]["seeds"][0]

    once, twice = "metrics.json", "metrics_300w_wflw_twice.json"
    gaps = [
        100 * (seed_0(name, key, "paper_short") / seed_0(name, key, "labels") - 1)
        for key in ("target", "source")
        for name in (once, twice)
    ]
    check(
        r"the gap falls from ([\d.]+) to ([\d.]+) % on WFLW-108 and from ([\d.]+) to ([\d.]+) % at home",
        gaps,
        page := readme("experiments/cross_domain"),
    )
    gain = 100 * (1 - seed_0(twice, "target", "labels") / seed_0(once, "target", "labels"))
    check(r"Labels alone gain too, ([\d.]+) % on WFLW-108", [gain], page)
    check(r"twice the images are worth ([\d.]+) % to labels alone", [gain], page)


def test_what_the_benchmark_of_self_training_was_to_show():
    """Three seeds and as many images for every row; ours below STC for sure, and within 2 % of labels alone at home."""
    rows = record("cross_domain")["rows"]
    assert list(rows) == ["labels", "none_short", "paper_short", "ours"]
    assert {tuple(row["seeds"]) for row in rows.values()} == {(0, 1, 2)}
    assert {images for row in rows.values() for images in row["training_images"]} == {150_000}
    assert benchmark("ours", "target", "stc")["high"] < 0
    assert benchmark("ours", "source", "first")["value"] <= 2
    # It was to be below 0 as well. It isn't, and the page says so.
    assert benchmark("paper_short", "target", "first")["value"] > 0


def test_the_times_of_the_parts_are_those_of_the_record():
    parts = record("demo_latency")["cases"]["video"]["parts"]
    names = ("read", "detect", "crop", "network", "decode", "track", "draw", "write")
    row = "| " + " | ".join(f"{parts[name]['median_ms']:.1f}" for name in names) + " |"
    assert f"| {' | '.join(names)} |" in pages()
    assert row in pages()


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


def test_smoothing_keeps_its_bars():
    """A still face calms by 60 percent; a moving one gains less than 0.5 % NME and lags less than a frame."""
    test = record("smoothing")["test"]
    assert all(still["less"] >= 60 for still in test["still"].values())
    for moving in test["moving"].values():
        assert moving["added"] < 0.5
        assert moving["lag"] < 1


def test_following_a_face_rarely_asks_the_detector():
    for name in ("one face, still", "one face, moving", "three faces, moving"):
        video = record("tracking")["videos"][name]
        assert video["detector_calls_per_100"] < 4
        assert video["lost_share"] == 0
        assert video["ids"] == video["faces"]


def test_the_demo_keeps_sixty_frames_a_second():
    """The default without a window: the drawn video is written."""
    metrics = record("demo_latency")
    assert metrics["cases"]["video"]["frames_per_second"] >= 60
    assert metrics["cases"]["video"]["frames"] >= 1500
    assert metrics["cases"]["video"]["lost_share"] == 0


def test_memory_does_not_grow():
    metrics = record("demo_memory")
    assert metrics["seconds"] >= 300
    assert metrics["slope_mib_per_minute"] < metrics["bar_mib_per_minute"] <= 1


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
        parts = sum(figures[stage] for stage in ("read", "warp", "paint", "rest"))
        assert abs(parts - figures["total"]) < 1e-6, name
