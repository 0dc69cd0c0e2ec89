"""Metrics against numbers worked by hand, against scipy, and against what must hold for any input."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.integrate import simpson

from pipnet.layouts import get_layout
from pipnet.metrics import (
    auc,
    bootstrap,
    ced,
    error_statistics,
    failure_rate,
    mean_error,
    median_error,
    nme,
    norm_distances,
    paired_bootstrap,
    point_distances,
)

INF, NAN = np.inf, np.nan

# Faces found with an error, and missed ones.
errors_of_faces = hnp.arrays(
    np.float64, st.integers(1, 30), elements=st.one_of(st.floats(0, 0.5, allow_subnormal=False), st.just(INF))
)


def test_nme_of_known_offsets():
    true = np.array([[[0.0, 0.0], [10.0, 0.0]], [[0.0, 0.0], [0.0, 20.0]]])
    pred = true + np.array([[[3.0, 4.0], [0.0, 0.0]], [[0.0, 1.0], [0.0, 3.0]]])
    # Face 0: (5 + 0) / 2 over 10. Face 1: (1 + 3) / 2 over 20.
    assert nme(pred, true, np.array([10.0, 20.0])).tolist() == [0.25, 0.1]


def test_unlabelled_points_are_left_out_of_the_mean():
    true = np.array([[[0.0, 0.0], [NAN, NAN], [10.0, 0.0]]])
    pred = np.array([[[0.0, 2.0], [500.0, 500.0], [10.0, 4.0]]])
    assert nme(pred, true, np.array([10.0])).tolist() == [0.3]


def test_missed_face_is_infinite_and_face_without_norm_is_nan():
    true = np.array([[[0.0, 0.0], [10.0, 0.0]]] * 3)
    pred = true.copy()
    pred[1] = NAN
    np.testing.assert_array_equal(nme(pred, true, np.array([10.0, 10.0, NAN])), [0.0, INF, NAN])
    true[:, 1] = NAN
    np.testing.assert_array_equal(point_distances(pred, true)[1], [INF, NAN])


@pytest.mark.parametrize(
    ("change", "norm", "message"),
    [
        (lambda pred: pred[:, :1], [1.0, 1.0], r"must both be \(F, N, 2\)"),
        (lambda pred: pred, [1.0], r"norm must be one number a face, \(2,\)"),
        (lambda pred: pred, [1.0, 0.0], "face 1: norm must be > 0"),
        (lambda pred: pred, [-1.0, 1.0], "face 0: norm must be > 0"),
        (lambda pred: np.where(np.arange(4).reshape(2, 2, 1) == 3, NAN, pred), [1.0, 1.0], "face 1: predicted point 1"),
    ],
)
def test_wrong_input_is_named(change, norm, message):
    true = np.zeros((2, 2, 2))
    with pytest.raises(ValueError, match=message):
        nme(change(true.copy()), true, np.array(norm))


def test_norms_of_a_68_point_face():
    true = np.zeros((1, 68, 2))
    true[0, 36:42] = [[10, 50], [12, 48], [16, 48], [20, 50], [16, 52], [12, 52]]
    true[0, 42:48] = [[40, 50], [42, 48], [46, 48], [50, 50], [46, 52], [42, 52]]
    true[0, 8] = [30, 90]
    norms = norm_distances(true, get_layout("300w_68"))
    # Corners 36 (10, 50) and 45 (50, 50). Pupils: mean x 86/6 and 266/6. Box: 50 wide, 90 high.
    assert norms["outer_eye"].tolist() == [40.0]
    assert norms["pupil"][0] == pytest.approx(30.0)
    assert norms["box"][0] == pytest.approx(np.sqrt(50 * 90))


def test_norms_that_a_face_or_a_layout_lacks():
    points = np.arange(68 * 2, dtype=float).reshape(1, 68, 2).repeat(3, axis=0)
    points[0, 36] = NAN  # a corner without a label
    points[1, 36] = points[1, 45]  # a profile whose corners coincide
    points[2] = NAN
    norms = norm_distances(points, get_layout("300w_68"))
    assert np.isnan(norms["outer_eye"]).all()
    assert np.isnan(norms["pupil"]).tolist() == [True, False, True]
    assert np.isnan(norms["box"]).tolist() == [False, False, True]
    assert list(norm_distances(np.zeros((1, 19, 2)), get_layout("aflw_19"))) == ["pupil", "box"]


@pytest.mark.parametrize(
    ("errors", "mean", "median", "fr_10", "auc_10"),
    [
        ([0.05], 0.05, 0.05, 0.0, 0.5),
        ([0.02, 0.04], 0.03, 0.03, 0.0, 0.7),
        ([0.02, 0.04, 0.12], 0.06, 0.04, 1 / 3, (0.8 + 0.6) / 3),
        ([0.02, 0.04, INF], 0.03, 0.03, 1 / 3, (0.8 + 0.6) / 3),  # missed: a failure, not in the mean
        ([0.10], 0.10, 0.10, 0.0, 0.0),  # exactly the threshold is no failure
        ([INF, INF], NAN, NAN, 1.0, 0.0),
        ([0.0], 0.0, 0.0, 0.0, 1.0),
    ],
)
def test_statistics_by_hand(errors, mean, median, fr_10, auc_10):
    errors = np.array(errors)
    got = [mean_error(errors), median_error(errors), failure_rate(errors, 0.1), auc(errors, 0.1)]
    np.testing.assert_allclose(got, [mean, median, fr_10, auc_10], atol=1e-12)


@pytest.mark.parametrize("statistic", error_statistics().values())
@pytest.mark.parametrize(("errors", "message"), [([], "no face"), ([0.1, NAN], "face 1"), ([-0.1], "face 0")])
def test_statistics_reject_what_is_no_error(statistic, errors, message):
    with pytest.raises(ValueError, match=message):
        statistic(np.array(errors))


@given(errors_of_faces, st.floats(0.01, 0.3))
def test_auc_is_the_area_under_the_curve(errors, threshold):
    x, y = ced(errors, threshold)
    area = (y[:-1] * np.diff(x)).sum() / threshold  # the staircase is flat between its corners
    assert auc(errors, threshold) == pytest.approx(area, abs=1e-9)
    assert failure_rate(errors, threshold) == pytest.approx(1 - y[-1])


@given(errors_of_faces)
def test_auc_differs_from_the_authors_by_less_than_their_grid(errors):
    grid = np.arange(0, 0.1 + 0.0001, 0.0001)
    share = np.array([np.count_nonzero(errors <= x) for x in grid]) / len(errors)
    assert abs(auc(errors, 0.1) - simpson(share, x=grid) / 0.1) < 0.0007


@given(hnp.arrays(np.float64, (4, 7), elements=st.one_of(st.floats(0, 0.5), st.just(INF))))
def test_statistics_of_many_resamples_equal_those_of_each(errors):
    for statistic in error_statistics().values():
        np.testing.assert_allclose(statistic(errors), [statistic(row) for row in errors])


def test_intervals_agree_with_scipy():
    errors = np.random.default_rng(1).gamma(4, 0.01, 300)
    ours = bootstrap(errors, error_statistics(), resamples=4000, seed=0)
    for name, statistic in error_statistics().items():
        theirs = scipy.stats.bootstrap(
            (errors,),
            lambda values, axis, statistic=statistic: statistic(np.moveaxis(values, axis, -1)),
            n_resamples=4000,
            method="percentile",
            vectorized=True,
            random_state=0,
        )
        assert ours[name].value == statistic(errors)
        step = 1 / len(errors) if name.startswith("fr") else 0  # a failure rate moves by whole faces
        np.testing.assert_allclose(
            (ours[name].low, ours[name].high),
            tuple(theirs.confidence_interval),
            atol=0.3 * float(theirs.standard_error) + 1.01 * step,  # two Monte Carlo runs of 4000
        )


def test_interval_of_the_mean_has_the_width_of_theory():
    errors = np.random.default_rng(2).normal(0.05, 0.01, 400)
    for level, z in ((0.95, 1.96), (0.68, 0.994)):
        interval = bootstrap(errors, {"mean": mean_error}, level=level)["mean"]
        assert (interval.high - interval.low) / 2 == pytest.approx(z * errors.std() / 20, rel=0.08)


def test_intervals_repeat_and_do_not_depend_on_how_resamples_are_blocked():
    errors = np.random.default_rng(3).gamma(4, 0.01, 5000)  # 5000 faces: blocks of 400 resamples
    first = bootstrap(errors, {"mean": mean_error}, resamples=1000, seed=5)
    assert first == bootstrap(errors, {"mean": mean_error}, resamples=1000, seed=5)
    assert first != bootstrap(errors, {"mean": mean_error}, resamples=1000, seed=6)
    rng = np.random.default_rng(5)
    means = [errors[rng.integers(0, 5000, 5000)].mean() for _ in range(1000)]
    assert first["mean"].low == pytest.approx(np.percentile(means, 2.5))


def test_interval_with_missed_faces():
    found = bootstrap(np.array([0.03, INF, INF]), error_statistics())
    assert (found["mean"].low, found["mean"].high) == (0.03, 0.03)  # resamples without a found face have no mean
    assert (found["fr_10"].low, found["fr_10"].high) == (0.0, 1.0)
    nothing = bootstrap(np.array([INF]), {"mean": mean_error})["mean"]
    assert np.isnan([nothing.value, nothing.low, nothing.high]).all()


def test_paired_interval_is_sharper_than_two_separate_ones():
    rng = np.random.default_rng(4)
    hard = rng.gamma(2, 0.02, 200)  # what makes faces hard is the same for both methods
    a, b = hard + rng.normal(0.0015, 0.002, 200).clip(0), hard
    paired = paired_bootstrap(a, b)
    separate_a, separate_b = (bootstrap(errors, {"mean": mean_error})["mean"] for errors in (a, b))
    assert paired.low > 0
    assert separate_a.low < separate_b.high
    assert paired.value == pytest.approx((a - b).mean())
    assert paired_bootstrap(b, a).value == pytest.approx(-paired.value)


def test_paired_mean_compares_faces_both_found_and_failure_rate_all():
    a = np.array([0.02, 0.02, INF, 0.02])
    b = np.array([0.01, 0.01, 0.50, INF])
    assert paired_bootstrap(a, b).value == pytest.approx(0.01)  # faces 0 and 1
    rate = paired_bootstrap(a, b, lambda errors: failure_rate(errors, 0.1))
    assert rate.value == pytest.approx(1 / 4 - 2 / 4)


def test_paired_vectors_must_belong_together():
    with pytest.raises(ValueError, match="the same faces, got 3 and 4"):
        paired_bootstrap(np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="no face"):
        paired_bootstrap(np.array([INF]), np.array([0.1]))
