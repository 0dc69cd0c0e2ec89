"""Evaluation with a landmarker whose mistakes are known, so that every figure can be worked by hand."""

import cv2
import numpy as np
import pytest
from known_faces import L68, L98, FakeLandmarker, detector_of, face_68, faces, photo, shifted

from pipnet.data.images import BadSampleError
from pipnet.data.sample import Sample
from pipnet.evaluation import faces as evaluated_faces
from pipnet.evaluation.evaluate import box_noise_curve, evaluate
from pipnet.evaluation.faces import jitter_boxes
from pipnet.evaluation.report import format_table, measure, write_report
from pipnet.geometry import tight_box
from pipnet.layouts import get_layout, layout_from_dict, map_points


def test_errors_by_every_norm():
    samples = faces(3)
    result = evaluate(shifted(samples, (3, 4)), samples, layout=L68)
    assert list(result.norms) == ["outer_eye", "pupil", "box"]
    for norm, distance in (("outer_eye", 40), ("pupil", 30), ("box", 48)):
        np.testing.assert_allclose(result.errors(norm), 5 / distance, rtol=1e-6)
    np.testing.assert_allclose(result.ious, 1.0)
    np.testing.assert_allclose(result.scores, 0.5)


def test_detector_boxes_and_missed_faces():
    samples = faces(4)
    tight = [sample.box for sample in samples]
    overlapping_by_a_third = tight[2] + [32, 0, 32, 0]  # half its width away: IoU 1/3
    overlapping_by_a_quarter = tight[3] + [38.4, 0, 38.4, 0]  # 40 % left: IoU 1/4
    boxes = [[tight[0] + 20, tight[0] + 1], [], [overlapping_by_a_third], [overlapping_by_a_quarter]]
    landmarker = FakeLandmarker(
        L68, lambda face, box: np.add(samples[face].points, [2, 0]), detector_of(lambda i: boxes[i])
    )
    result = evaluate(landmarker, samples, layout=L68, boxes="detector")
    assert result.missed.tolist() == [False, True, False, True]
    np.testing.assert_allclose(result.boxes[0], tight[0] + 1, rtol=1e-6)  # the greater overlap, not the first
    np.testing.assert_allclose(result.ious[2], 1 / 3, rtol=1e-5)
    np.testing.assert_allclose(result.errors(), [0.05, np.inf, 0.05, np.inf], rtol=1e-6)
    metrics = measure(result)
    figures = metrics["all"]["outer_eye"]
    assert (metrics["faces"], metrics["missed"], figures["found"]) == (4, 2, 2)
    assert figures["mean"]["value"] == pytest.approx(5, abs=1e-3)
    assert figures["fr_10"]["value"] == 50
    assert figures["auc_10"]["value"] == pytest.approx(25, abs=1e-3)


def test_a_detector_looks_once_at_a_photo_with_several_faces():
    shared = photo(0)
    samples = [Sample(shared, face_68(x=x), f"face{x}") for x in (5.0, 50.0)]
    detector = detector_of(lambda i: [sample.box for sample in samples])
    result = evaluate(
        FakeLandmarker(L68, lambda face, box: face_68(x=box[0]), detector), samples, layout=L68, boxes="detector"
    )
    assert detector.calls == [0]
    np.testing.assert_allclose(result.errors(), 0, atol=1e-6)


def face_98(seed=0):
    return np.random.default_rng(seed).uniform(20, 90, (98, 2))


def test_a_68_point_model_is_measured_on_98_point_truth():
    samples = [Sample(photo(i), face_98(i), f"wflw{i}") for i in range(3)]
    boxes = []

    def predict(face, box):
        boxes.append(box)
        return np.add(map_points(samples[face].points, L98, L68), [0, 2])

    result = evaluate(FakeLandmarker(L68, predict), samples, layout=L98)
    assert result.layout is L68
    mapped = map_points(np.stack([sample.points for sample in samples]), L98, L68)
    norm = np.linalg.norm(mapped[:, 36] - mapped[:, 45], axis=-1)
    np.testing.assert_allclose(result.errors(), 2 / norm, rtol=1e-5)
    np.testing.assert_allclose(boxes, tight_box(mapped))  # the boxes of the 68, not of the 98
    assert result.protocol == {"boxes": "labels", "model_layout": "300w_68", "data_layout": "wflw_98"}
    assert set(measure(result)["parts"]) == {"jaw", "brow", "nose", "eye", "mouth"}


def test_a_98_point_model_is_measured_on_68_point_truth():
    predicted = [face_98(i) for i in range(2)]
    samples = [Sample(photo(i), map_points(predicted[i], L98, L68) - [3, 0], f"face{i}") for i in range(2)]
    result = evaluate(FakeLandmarker(L98, lambda face, box: predicted[face]), samples, layout=L68)
    assert result.layout is L68
    np.testing.assert_allclose(result.errors(), 3 / result.norms["outer_eye"], rtol=1e-5)


def test_mapped_truth_is_unlabelled_only_where_it_rests_on_unlabelled_points():
    points = face_98()
    points[62] = np.nan  # the middle of the left upper lid: 300W's 37 and 38 take a third of it
    sample = Sample(photo(0), points, "one")
    result = evaluate(FakeLandmarker(L68, lambda face, box: np.zeros((68, 2))), [sample], layout=L98)
    assert np.flatnonzero(np.isnan(result.true[0]).any(axis=-1)).tolist() == [37, 38]
    assert np.isfinite(result.errors()).all()


def test_layouts_that_can_not_be_compared_are_both_named():
    with pytest.raises(ValueError, match=r"'300w_68'.*'cofw_29'.*no mapping"):
        evaluate(shifted(faces(1), (0, 0)), [Sample(photo(0), np.eye(29, 2), "c")], layout=get_layout("cofw_29"))
    other = layout_from_dict({"name": "300w_68", "num_points": 5})
    with pytest.raises(ValueError, match="'300w_68' has 68 points, the dataset's of the same name has 5"):
        evaluate(shifted(faces(1), (0, 0)), [Sample(photo(0), np.eye(5, 2), "c")], layout=other)


@pytest.mark.parametrize(
    ("samples", "settings", "message"),
    [
        ([], {}, "no face to measure"),
        (faces(1), {"boxes": "tight"}, "labels, jittered, detector; got 'tight'"),
        (faces(1), {"boxes": "jittered", "scale": 1.0}, "0 <= scale < 1"),
        ([Sample(photo(0), np.eye(5, 2), "five")], {}, "five: 5 points, but layout '300w_68' has 68"),
    ],
)
def test_wrong_calls_are_one_sentence(samples, settings, message):
    with pytest.raises(ValueError, match=message):
        evaluate(shifted(faces(1), (0, 0)), samples, layout=L68, **settings)


def test_jitter_stays_within_the_stated_amount_and_reaches_it():
    boxes = np.tile([[10.0, 20.0, 30.0, 60.0]], (4000, 1))
    moved = jitter_boxes(boxes, shift=0.1, scale=0.2, seed=3)
    centre_shift = (moved[:, :2] + moved[:, 2:]) / 2 - [20, 40]
    sizes = (moved[:, 2:] - moved[:, :2]) / [20, 40]
    assert 3.95 < np.abs(centre_shift).max() <= 4  # a tenth of the longer side, along both axes
    assert np.abs(centre_shift).max(axis=0).min() > 3.95
    assert 0.8 <= sizes.min() < 0.805
    assert 1.195 < sizes.max() <= 1.2
    np.testing.assert_allclose(sizes[:, 0], sizes[:, 1])  # the aspect stays
    np.testing.assert_array_equal(moved, jitter_boxes(boxes, shift=0.1, scale=0.2, seed=3))
    assert (moved != jitter_boxes(boxes, shift=0.1, scale=0.2, seed=4)).any()
    np.testing.assert_array_equal(jitter_boxes(boxes, shift=0, scale=0, seed=3), boxes)


def test_box_noise_curve_of_a_model_that_moves_with_its_box(tmp_path):
    samples = faces(50)
    centre = lambda box: (box[:2] + box[2:]) / 2  # noqa: E731
    follower = FakeLandmarker(L68, lambda face, box: samples[face].points + centre(box) - centre(samples[face].box))
    curve = box_noise_curve(follower, samples, layout=L68, levels=[0, 0.1, 0.2], seed=1)
    mean = [level.statistics["mean"].value for level in curve]
    draw = np.random.default_rng(1).uniform(-1, 1, (50, 3))[:, :2]
    assert mean[0] == pytest.approx(0, abs=1e-6)
    assert mean[1] == pytest.approx(np.linalg.norm(0.1 * 64 * draw, axis=1).mean() / 40, rel=1e-4)
    assert mean[2] == pytest.approx(2 * mean[1], rel=1e-4)  # the same directions at every level
    metrics = write_report(evaluate(follower, samples, layout=L68), tmp_path, noise=curve)
    assert [level["level"] for level in metrics["box_noise"]] == [0, 0.1, 0.2]
    assert metrics["box_noise"][2]["mean"]["value"] == pytest.approx(100 * mean[2], abs=1e-3)
    assert cv2.imread(str(tmp_path / "box_noise.png")) is not None
    with pytest.raises(ValueError, match=r"levels must lie in \[0, 1\), got 1.5"):
        box_noise_curve(follower, samples, layout=L68, levels=[1.5])


def test_photos_come_in_full_batches_but_never_all_at_once(monkeypatch):
    samples = faces(150)
    landmarker = shifted(samples, (1, 0))
    result = evaluate(landmarker, samples, layout=L68, batch_size=16)
    assert landmarker.batches == [(64, 16), (64, 16), (22, 16)]
    np.testing.assert_allclose(result.errors(), 1 / 40, rtol=1e-5)
    monkeypatch.setattr(evaluated_faces, "CHUNK_BYTES", 10 * 100 * 120 * 3)  # ten of these photos
    landmarker = shifted(samples, (1, 0))
    evaluate(landmarker, samples, layout=L68)
    assert max(count for count, _ in landmarker.batches) <= 12


def test_an_unreadable_photo_stops_or_is_listed(tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(cv2.imencode(".png", photo(1))[1].tobytes()[:200])
    samples = [*faces(1), Sample(broken, face_68(), "bad one"), Sample(photo(2), face_68(), "face2")]
    landmarker = FakeLandmarker(L68, lambda face, box: np.add(samples[face].points, [4, 0]))
    with pytest.raises(BadSampleError, match=r"bad one: .*broken\.png"):
        evaluate(landmarker, samples, layout=L68)
    result = evaluate(landmarker, samples, layout=L68, on_bad="skip")
    assert [sample.name for sample in result.samples] == ["face0", "face2"]
    np.testing.assert_allclose(result.errors(), 0.1, rtol=1e-5)
    metrics = write_report(result, tmp_path / "report", unread=["c.pts: 67 points"])
    assert len(metrics["skipped"]) == 2
    assert "broken.png" in metrics["skipped"][1]
    with pytest.raises(ValueError, match="all 1 were skipped, the first because bad one"):
        evaluate(landmarker, samples[1:2], layout=L68, on_bad="skip")


def test_crop_space_of_the_authors_by_hand():
    # The tight box is 64 x 36, their crop 70.4 x 39.6. An x error of 4 px over eye corners 40 px apart is 10 % in
    # either space; a y error of 4 px is 4 / 39.6 over 40 / 70.4 = 17.78 %.
    samples = faces(2)
    result = evaluate(shifted(samples, (4, 0), (0, 4)), samples, layout=L68, crop_space=True)
    np.testing.assert_allclose(result.errors(), [0.1, 0.1], rtol=1e-5)
    np.testing.assert_allclose(result.crop_space_errors(), [0.1, 4 / 39.6 / (40 / 70.4)], rtol=1e-5)
    metrics = measure(result)
    assert metrics["all"]["crop_space"]["mean"]["value"] == pytest.approx((10 + 17.7778) / 2, abs=1e-3)
    assert metrics["protocol"]["crop_space_scale"] == 1.1
    # It ends where the photo ends: of a tight box x 0..64 theirs starts at 0, not at -3.2, so it is 67.2 wide.
    sample = Sample(photo(0), face_68(x=0.0), "at the border")
    result = evaluate(shifted([sample], (0, 4)), [sample], layout=L68, crop_space=True)
    np.testing.assert_allclose(result.crop_space_errors(), 4 / 39.6 / (40 / 67.2), rtol=1e-5)


def test_label_boxes_other_than_the_tight_box_are_a_norm_of_their_own():
    aflw = get_layout("aflw_19")
    points = np.random.default_rng(0).uniform(30, 70, (19, 2))
    sample = Sample(photo(0), points, "aflw", box=np.array([20.0, 20.0, 84.0, 100.0]))
    result = evaluate(FakeLandmarker(aflw, lambda face, box: np.add(points, [3, 4])), [sample], layout=aflw)
    assert result.main_norm == "label_box"
    np.testing.assert_allclose(result.errors(), 5 / np.sqrt(64 * 80), rtol=1e-5)
    assert "label box size" in format_table(measure(result))
    tight = Sample(photo(0), points, "aflw")
    assert evaluate(FakeLandmarker(aflw, lambda face, box: points), [tight], layout=aflw).main_norm == "box"
