"""Photos chosen for labelling, written for CVAT and Label Studio, and read again when people have corrected them."""

import csv
import errno
import json
import logging
import os
import re
import shlex
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from small_self_training import config
from small_training import run_here

import pipnet.self_training.to_label as writing
from pipnet.__main__ import command
from pipnet.data.datasets import read_dataset
from pipnet.data.images import BadSampleError, portrait, read_image, write_image
from pipnet.data.pre_annotations import PRE_ANNOTATIONS
from pipnet.data.synthetic.dataset import draw_faces
from pipnet.layouts import get_layout
from pipnet.self_train import export, flag_as_key
from pipnet.self_training.labelling import Seen, choose, different, shares, yaw_ranges

ROOT = Path(__file__).resolve().parent.parent
LAYOUT = get_layout("300w_68")
COUNT = 8


def seen(yaws, scores=None, features=None, seed=0):
    """Faces that differ from one another in all that is not given."""
    random, count = np.random.default_rng(seed), len(yaws)

    def rows(width):
        values = random.normal(size=(count, width))
        return values / np.linalg.norm(values, axis=1, keepdims=True)

    scores = random.random(count) if scores is None else np.asarray(scores, float)
    features = rows(8) if features is None else np.asarray(features, float)
    return Seen(np.arange(count), np.zeros((count, 68, 2)), scores, np.asarray(yaws, float), features, rows(64))


def test_a_fifth_is_random_and_each_range_of_yaw_has_a_tenth():
    faces = seen([0.0] * 250 + [20.0] * 30 + [-45.0] * 12 + [70.0] * 3)
    chosen = choose(faces, 50, seed=0)
    assert chosen == choose(faces, 50, seed=0) != choose(faces, 50, seed=1)
    assert len({one.face for one in chosen}) == 50
    clustered = [one.face for one in chosen if one.cluster is not None]
    assert len(clustered) == 40
    counts = np.bincount(yaw_ranges(faces.yaws[clustered]), minlength=5)
    assert counts[1] == 5
    assert counts[2] >= 4  # of 12, some may be drawn at random
    assert 1 <= counts[3] <= 3
    assert counts[4] == 0
    assert len({one.cluster for one in chosen}) == 41


def test_the_random_part_is_uniform():
    """Not the odd ones: else validation would tell of other photos than the user has."""
    faces = seen(np.zeros(100), scores=np.arange(100) / 100)
    drawn = [one.face for seed in range(40) for one in choose(faces, 25, seed=seed) if one.cluster is None]
    assert len(drawn) == 200
    assert abs(np.mean(drawn) - 49.5) < 4 * 28.9 / np.sqrt(200)


def test_of_a_cluster_the_most_typical_of_the_uncertain_half():
    random = np.random.default_rng(0)
    features = np.repeat([[1.0, 0, 0], [0, 1.0, 0]], 10, axis=0) + random.normal(scale=0.1, size=(20, 3))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    faces = seen(np.zeros(20), scores=np.tile(np.arange(10) / 10, 2), features=features)
    chosen = [one for one in choose(faces, 3, seed=0) if one.cluster is not None]
    rest = [face for face in range(20) if face not in [one.face for one in choose(faces, 3, seed=0) if not one.cluster]]
    for one in chosen:
        cluster = [face for face in rest if face // 10 == one.face // 10]
        assert one.size == len(cluster)
        unsure = sorted(cluster, key=lambda face: faces.scores[face])[: (len(cluster) + 1) // 2]
        assert one.face == max(unsure, key=lambda face: (features[face] @ features[cluster].T).sum())
    assert sorted(one.face // 10 for one in chosen) == [0, 1]


def test_of_photos_that_are_nearly_the_same_one_is_kept():
    faces = seen(np.zeros(1200)).thumbnails
    again = faces[[3, 700]] + 0.01
    assert different(np.concatenate([faces, again / np.linalg.norm(again, axis=1, keepdims=True)])).tolist() == [
        *range(1200)
    ]


def test_shares_keep_to_what_there_is():
    assert shares([5, 5, 0], 10, 3) == [5, 5, 0]
    assert shares([100, 1, 1], 3, 1) == [1, 1, 1]
    assert sum(shares([37, 11, 5, 2, 0], 40, 5)) == 40


def test_too_few_photos_say_how_many_there_are():
    with pytest.raises(ValueError, match=r"no 9 photos to choose: 8 with a face .*; ask for fewer"):
        choose(seen(np.zeros(8)), 9, seed=0)


# The whole way, from photos.


def write_photos(folder):
    """Synthetic faces, and the portrait under a name and orientation that not every program takes."""
    for number, face in enumerate(draw_faces(22, seed=5, size=128)):
        write_image(folder / "a folder" / f"{number}.png", face.image)
    write_image(folder / "again.jpg", draw_faces(22, seed=5, size=128)[0].image)  # nearly the same photo
    shutil_like = np.ascontiguousarray(np.rot90(portrait()[0:300, 90:390]))  # stored lying on its side
    done, data = cv2.imencode(".jpg", shutil_like[..., ::-1])
    assert done
    exif = b"\xff\xe1\x00\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    data = data.tobytes()
    odd = os.fsencode(folder) + b"/caf\xe9 \n.jpg"
    Path(os.fsdecode(odd)).write_bytes(data[:2] + exif + data[2:])
    (folder / "broken.jpg").write_bytes(b"no photo")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    (folder / "a folder").mkdir()
    write_photos(folder)
    return folder


def settings(folder, photos, *more):
    """Of the command, for these photos, with the weights that ship."""
    own = (f"unlabelled=[{photos}]", f"export_for_labelling={COUNT}", "rules.min_score=0.6")
    return config(folder, *own, "fit.progress_bar=false", "teacher=shipped", *more)


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run_here(export, settings(folder, photos))
    return folder


@pytest.fixture(scope="module")
def made(run):
    return run / "to_label"


def table(folder):
    with (folder / "chosen.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def written(folder):
    return json.loads((folder / PRE_ANNOTATIONS).read_text())


def test_what_cvat_needs(made):
    coco = written(made)
    (category,) = coco["categories"]
    assert len(set(category["keypoints"])) == 68
    assert {point for line in category["skeleton"] for point in line} == set(range(1, 69))
    assert [image["id"] for image in coco["images"]] == list(range(1, COUNT + 1))
    for image, face in zip(coco["images"], coco["annotations"], strict=True):
        assert face["image_id"] == face["id"] == image["id"]
        assert (face["category_id"], face["iscrowd"], face["segmentation"]) == (category["id"], 0, [])
        points = np.reshape(face["keypoints"], (68, 3))
        outside = (points[:, :2] < 0).any(1) | (points[:, :2] > [image["width"], image["height"]]).any(1)
        assert (points[:, 2] == np.where(outside, 1, 2)).all()
        x, y, width, height = face["bbox"]
        np.testing.assert_allclose([x, y], points[:, :2].min(0), atol=2e-3)
        np.testing.assert_allclose([x + width, y + height], points[:, :2].max(0), atol=2e-3)
        assert read_image(made / "images" / image["file_name"]).shape == (image["height"], image["width"], 3)
        assert re.fullmatch(r"\d_[A-Za-z0-9_-]+\.(png|jpg)", image["file_name"])
    (skeleton,) = json.loads((made / "cvat_labels.json").read_text())
    assert (skeleton["name"], skeleton["type"]) == (category["name"], "skeleton")
    assert [label["name"] for label in skeleton["sublabels"]] == category["keypoints"]
    assert re.findall(r'data-label-name="(\w+)"', skeleton["svg"]) == category["keypoints"]


def test_what_label_studio_needs(made):
    config = (made / "label_studio.xml").read_text()
    assert re.findall(r'<Label value="(\w+)"', config) == list(LAYOUT.names)
    tasks = json.loads((made / "label_studio.json").read_text())
    for task, (image, points) in zip(tasks, by_name(made).values(), strict=True):
        assert task["data"]["image"] == f"/data/local-files/?d=images/{image['file_name']}"
        regions = {one["value"]["keypointlabels"][0]: one for one in task["predictions"][0]["result"]}
        size = image["width"], image["height"]
        for name, (x, y, visible) in zip(LAYOUT.names, points, strict=True):
            assert (name in regions) == (visible == 2)
            if name in regions:
                place = regions[name]["value"]
                np.testing.assert_allclose([place["x"], place["y"]], 100 * np.array([x, y]) / size, atol=1e-2)
                assert (regions[name]["original_width"], regions[name]["original_height"]) == size


def test_the_table_says_which_and_why(made, photos):
    rows = table(made)
    assert [row["image"] for row in rows] == [image["file_name"] for image in written(made)["images"]]
    assert [row["part"] == "val" for row in rows] == [image["validation"] for image in written(made)["images"]]
    assert [row["why"] for row in rows].count("random") == 2
    assert all((row["why"] == "random") == (row["part"] == "val") == (row["cluster"] == "") for row in rows)
    assert len({row["cluster"] for row in rows if row["cluster"]}) == COUNT - 2
    assert all(0 <= float(row["face_score"]) <= 1 and abs(float(row["yaw"])) <= 180 for row in rows)
    assert len({"again.jpg", "a folder/0.png"} & {row["photo"] for row in rows}) < 2
    chosen = [photos / row["photo"] for row in rows if "caf" not in row["photo"]]
    rest = (made / "rest.txt").read_text().splitlines()
    assert not set(rest) & set(map(str, chosen))
    assert len(rest) == 24 - len(chosen)
    assert str(photos / "broken.jpg") in rest
    assert yaml.safe_load((made / "layout.yaml").read_text())["name"] == "300w_68"
    assert get_layout(made / "layout.yaml") == LAYOUT


def test_an_odd_photo_gets_a_plain_name_and_stands_upright(photos, tmp_path, shipped):
    """A name that is no UTF-8 and has a line break, an EXIF orientation: all of it is gone in ``images``."""
    odd = next(path for path in photos.iterdir() if path.name.startswith("caf"))
    for name in (odd, photos / "a folder" / "3.png"):
        os.link(name, tmp_path / os.fspath(name.name))
    list_of = tmp_path / "photos"
    list_of.mkdir()
    for name in (odd.name, "3.png"):
        (tmp_path / name).rename(list_of / name)
    run_here(export, settings(tmp_path / "run", list_of, "export_for_labelling=2"))
    made = tmp_path / "run" / "to_label"
    (number,) = (n for n, row in enumerate(table(made)) if row["photo"] == "caf\\xe9 \n.jpg")
    image, face = written(made)["images"][number], written(made)["annotations"][number]
    assert re.fullmatch(r"\d_caf\.jpg", image["file_name"])
    upright = read_image(odd)
    difference = read_image(made / "images" / image["file_name"]).astype(int) - upright
    assert np.abs(difference).mean() < 3
    points = np.reshape(face["keypoints"], (68, 3))[:, :2] - 0.5
    np.testing.assert_allclose(points, shipped(upright).points[0], atol=3)  # the graph in int8, from the photo itself


def test_again_it_does_nothing_and_another_choice_is_refused(run, made, photos, capsys):
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    run_here(export, settings(run, photos))
    assert f"already exported: {made}" in capsys.readouterr().out
    with pytest.raises(ValueError, match="holds another export, maybe with labels in it; choose another folder=FOLDER"):
        run_here(export, settings(run, photos, "seed=1"))
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before
    (run / "other" / "to_label").mkdir(parents=True)
    with pytest.raises(ValueError, match="is there and no export; choose another folder"):
        run_here(export, settings(run / "other", photos))


def test_a_second_round_chooses_among_the_rest(run, made, tmp_path):
    more = ("export_for_labelling=4", f"face_store={run / 'face_store'}")
    run_here(export, settings(tmp_path, made / "rest.txt", *more))
    first, second = ({row["photo"] for row in table(folder)} for folder in (made, tmp_path / "to_label"))
    assert len(second) == 4
    assert not first & second


def test_a_full_disk_leaves_nothing_and_a_killed_export_is_swept_up(run, photos, tmp_path, monkeypatch):
    (tmp_path / ".to_label-killed").mkdir()
    shared = f"face_store={run / 'face_store'}"

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(writing, "write_image", full)
        with pytest.raises(
            OSError, match=r"to_label can't be written: No space left on device; free disk space"
        ) as error:
            run_here(export, settings(tmp_path, photos, shared))
    assert ".to_label" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["export_for_labelling=100"], r"no 100 photos to choose: \d+ with a face that passes the rules \(1 more are"),
        (["export_for_labelling=1"], "--export-for-labelling must be a whole number of photos from 2, got 1"),
        (["unlabelled=[]"], r"--export-for-labelling chooses among photos: set unlabelled=\[FOLDER\]"),
        (["rules.min_size=1000"], r"no face passed the rules: .* or loosen the rules"),
        (["teacher=none.pt"], "none.pt"),
    ],
)
def test_what_the_user_can_mend_is_one_sentence(run, photos, tmp_path, more, message):
    with pytest.raises((ValueError, OSError), match=message) as error:
        run_here(export, settings(tmp_path, photos, f"face_store={run / 'face_store'}", *more))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "to_label").exists()


@pytest.mark.parametrize("given", [["--export-for-labelling"], ["--export-for-labelling", "unlabelled=[a]"]])
def test_the_option_needs_a_number(given):
    assert flag_as_key(["--export-for-labelling=7", "a=b"]) == ["export_for_labelling=7", "a=b"]
    with pytest.raises(SystemExit, match="--export-for-labelling needs a number of photos, as"):
        flag_as_key(given)


# The way back.


def as_cvat(folder, change=lambda points, name: points):
    """What CVAT exports: other ids, photos in another order and in a folder, points in another order, two decimals."""
    coco = written(folder)
    order = np.random.default_rng(0).permutation(68)
    images, annotations = [], []
    for number, (image, face) in enumerate(reversed(list(zip(coco["images"], coco["annotations"], strict=True))), 40):
        points = change(np.reshape(face["keypoints"], (68, 3)).copy(), image["file_name"])
        images.append({"id": number, "file_name": f"default/{image['file_name']}", **_size(image), "license": 0})
        flat = points[order].round(2).ravel().tolist()
        more = {"bbox": face["bbox"], "attributes": {"occluded": False}, "iscrowd": 0, "segmentation": []}
        annotations.append({"id": 3 * number, "image_id": number, "category_id": 5, "keypoints": flat, **more})
    category = {"id": 5, "name": "face", "keypoints": [coco["categories"][0]["keypoints"][i] for i in order]}
    return {"info": {"description": ""}, "categories": [category], "images": images, "annotations": annotations}


def by_name(folder):
    """What was written of each photo: its entry, and points with visibility, ``(68, 3)``."""
    coco = written(folder)
    both = zip(coco["images"], coco["annotations"], strict=True)
    return {image["file_name"]: (image, np.reshape(face["keypoints"], (68, 3))) for image, face in both}


def _size(image):
    return {"width": image["width"], "height": image["height"]}


def as_label_studio(folder, move=0.0):
    """What Label Studio exports as JSON, submitted by a person who moves all points by a percentage."""
    tasks = json.loads((folder / "label_studio.json").read_text())
    for number, task in enumerate(tasks, start=7):
        result = task.pop("predictions")[0]["result"]
        for one in result:
            one["value"]["x"] += move
        cancelled = {"id": 1, "result": [], "was_cancelled": True, "updated_at": "2027"}
        task |= {"id": number, "annotations": [{"id": 2, "result": result, "updated_at": "2026"}, cancelled]}
    return tasks


def regions(tasks):
    return tasks[0]["annotations"][0]["result"]


@pytest.fixture
def back(made, tmp_path):
    """A copy of what was exported, into which labels can be put."""
    folder = tmp_path / "to_label"
    folder.mkdir()
    for name in (PRE_ANNOTATIONS, "layout.yaml", "chosen.csv", "label_studio.json"):
        (folder / name).write_bytes((made / name).read_bytes())
    (folder / "images").symlink_to(made / "images")
    (folder / "images_of_cvat").mkdir()
    (folder / "images_of_cvat" / "default").symlink_to(made / "images")
    return folder


def read(folder, content, **more):
    (folder / "train.json").write_text(json.dumps(content))
    more = {"file": "train.json", "images": "images", **more}
    return read_dataset("coco", root=folder, layout=get_layout(folder / "layout.yaml"), **more)[0]


def moved(points, name):
    points[:, :2] += [1.5, -0.75]
    return points


def test_from_cvat_by_name_whatever_the_numbers(back, caplog):
    samples = read(back, as_cvat(back, moved), images="images_of_cvat")
    assert len(samples) == COUNT
    expected = by_name(back)
    for sample in samples:
        _, points = expected[sample.image.name]
        np.testing.assert_allclose(sample.points, points[:, :2] + [1.5 - 0.5, -0.75 - 0.5], atol=6e-3)
    assert "no point was moved" not in caplog.text


def test_the_random_photos_validate(back):
    random = {row["image"] for row in table(back) if row["part"] == "val"}
    parts = {
        part: {sample.image.name for sample in read(back, as_cvat(back), images="images_of_cvat", validation=part)}
        for part in ("only", "exclude", "include")
    }
    assert parts["only"] == random
    assert parts["exclude"] == parts["include"] - random
    lines = ["image," + ",".join(f"x{i},y{i}" for i in range(68))]
    lines += [f"images/{row['image']}," + ",".join(map(str, range(136))) for row in table(back)]
    (back / "train.csv").write_text("\n".join(lines))
    read_csv = {"root": back, "layout": LAYOUT, "file": "train.csv"}
    samples, _ = read_dataset("csv", validation="only", **read_csv)
    assert {sample.image.name for sample in samples} == random
    np.testing.assert_array_equal(samples[0].points[0], [0, 1])  # a CSV counts as pipnet does


def test_faces_that_nobody_moved_are_named(back, caplog):
    first = table(back)[0]["image"]
    with caplog.at_level(logging.INFO):
        content = as_cvat(back, lambda points, name: points if name == first else moved(points, name))
        read(back, content, images="images_of_cvat")
    assert f"no point was moved in 1 of {COUNT} faces: default/{first}" in caplog.text
    assert f"{COUNT} corrected faces; {100 / COUNT:.0f} % of the points were never moved" in caplog.text


@pytest.mark.parametrize("part", ["eye", "all"])
def test_exchanged_sides_are_refused(back, part):
    mirror, indices = np.array(LAYOUT.mirror), LAYOUT.parts().get(part, list(range(68)))
    wrong = table(back)[2]["image"]

    def exchanged(points, name):
        points = moved(points, name)
        if name == wrong:
            points[indices] = points[mirror[indices]]
        return points

    with pytest.raises(BadSampleError, match=r"annotation \d+: left and right are exchanged in the part '\w+'"):
        read(back, as_cvat(back, exchanged), images="images_of_cvat")
    kept = read(back, as_cvat(back, exchanged), images="images_of_cvat", on_bad="skip")
    assert wrong not in {sample.image.name for sample in kept}
    assert len(kept) == COUNT - 1


def test_a_face_that_was_wrong_altogether_may_be_moved_far(back):
    """Correcting a bad prediction is what people are there for."""

    def far(points, name):
        points[:, :2] = points[:, :2] * 0.6 + [9, 20]
        return points

    assert len(read(back, as_cvat(back, far), images="images_of_cvat")) == COUNT


def test_photos_that_were_never_exported_are_said(back, caplog):
    content = as_cvat(back, moved)
    write_image(back / "images_of_cvat" / "more.png", np.zeros((300, 300, 3), np.uint8))
    content["images"][0] |= {"file_name": "more.png", "width": 300, "height": 300}
    sample = read(back, content, images="images_of_cvat")[0]
    assert "1 photos are not in" in caplog.text
    order = [content["categories"][0]["keypoints"].index(name) for name in LAYOUT.names]
    expected = np.reshape(content["annotations"][0]["keypoints"], (68, 3))[order, :2]
    np.testing.assert_array_equal(sample.points, expected)


def test_from_label_studio(back, caplog):
    samples = read(back, as_label_studio(back, move=1.0))
    assert len(samples) == COUNT
    images = by_name(back)
    for sample in samples:
        image, points = images[sample.image.name]
        points[points[:, 2] < 2, :2] = np.nan  # outside of the photo
        np.testing.assert_allclose(sample.points, points[:, :2] + [image["width"] / 100 - 0.5, -0.5], atol=6e-3)
    untouched = as_label_studio(back)
    untouched[0]["annotations"] = []
    assert len(read(back, untouched)) == COUNT - 1
    assert f"1 of {COUNT} tasks have no label yet" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tasks: regions(tasks).append(regions(tasks)[0]), "twice"),
        (lambda tasks: regions(tasks)[0]["value"].update(keypointlabels=["ear"]), "no point 'ear'"),
        (lambda tasks: tasks[0].pop("annotations"), r"nor Label Studio's JSON \(not JSON-MIN\)"),
        (lambda tasks: tasks.insert(0, 7), "nor Label Studio's JSON"),
    ],
)
def test_another_json_is_one_sentence(back, change, message):
    tasks = as_label_studio(back)
    change(tasks)
    with pytest.raises(ValueError, match=message) as error:
        read(back, tasks)
    assert "\n" not in str(error.value)


def test_a_file_that_cvat_wrote_under_that_name_is_no_export(back):
    """Somebody's own set may have its labels in a file of this name."""
    content = as_cvat(back, moved)
    (back / PRE_ANNOTATIONS).write_text(json.dumps(content))
    samples = read(back, content, file=PRE_ANNOTATIONS, images="images_of_cvat")
    order = [content["categories"][0]["keypoints"].index(name) for name in LAYOUT.names]
    expected = np.reshape(content["annotations"][0]["keypoints"], (68, 3))[order, :2]
    np.testing.assert_array_equal(samples[0].points, expected)


# The page.


def commands_of_the_page():
    text = (ROOT / "docs" / "label_a_hundred.md").read_text(encoding="utf-8")
    found = "\n".join(re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
    return [shlex.split(line) for line in found.splitlines() if line.startswith("pipnet")]


@pytest.mark.slow
def test_the_commands_of_the_page_run(tmp_path, monkeypatch, photos):
    """In their order, in a folder with photos; but for a hundred photos a few, and trainings of one epoch."""
    few = {"100": "8", "fit.batch_size=16": "fit.batch_size=4"}
    short = {
        "train": ["fit.epochs=1", "fit.validate_every=1", "fit.progress_bar=false"],
        "self-train": [
            "fit.progress_bar=false",
            "fit.validate_every=1",
            "curriculum.stages=[{name: labels, epochs: 1, pseudo: false}, {name: mixed, epochs: 1, start: teacher}]",
        ],
    }
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(photos)
    ran = []
    for _, name, *words in commands_of_the_page():
        words = [few.get(word, word) for word in words]
        if "--export-for-labelling" not in words:
            words += short.get(name, [])
        monkeypatch.setattr(sys, "argv", ["pipnet", name, *words])
        GlobalHydra.instance().clear()
        assert command(name, words) == 0
        ran.append(name)
        folder = tmp_path / "runs" / "hundred" / "to_label"
        if len(ran) == 1:  # people label
            (folder / "train.json").write_text(json.dumps(unfoldered(as_cvat(folder, moved))))
    assert ran == ["self-train", "inspect", "train", "self-train", "evaluate", "evaluate", "self-train"]
    assert len(table(tmp_path / "runs" / "second" / "to_label")) == 8


def unfoldered(coco):
    for image in coco["images"]:
        image["file_name"] = Path(image["file_name"]).name
    return coco
