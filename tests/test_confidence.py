"""Scores: what they are made from, and that their fit finds what the data holds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit

from pipnet.data.sample import Sample
from pipnet.data.transforms import Augment
from pipnet.layouts import get_layout
from pipnet.model import checkpoint
from pipnet.model.codec import PIPOutput
from pipnet.model.confidence import TOLERANCE, Confidence, fit_confidence
from pipnet.model.pipnet import PIPNet
from pipnet.training.calibration import calibrate

MEAN_FACE = np.random.default_rng(0).uniform(0.2, 0.8, (68, 2))


def faces_of_a_known_law(rng, count=3000, n=4):
    """Errors drawn so that a point is right with a probability that is known."""
    spread = np.exp(rng.normal(-2.5, 1.0, (count, n)))
    peak = rng.uniform(0, 1.2, (count, n))
    bias = np.array([-3.0, -2.0, -1.0, 0.0])[:n]
    chance = expit(bias - 1.5 * np.log(spread + 0.01) + 0.8 * peak.clip(0, 1))
    error = np.where(rng.random(chance.shape) < chance, 0.5, 2.0) * TOLERANCE
    return spread, peak, error, chance


def test_the_fit_finds_the_law():
    rng = np.random.default_rng(1)
    spread, peak, error, chance = faces_of_a_known_law(rng)
    scores, _ = Confidence(4, fit_confidence(spread, peak, error))(torch.tensor(spread), torch.tensor(peak))
    assert np.abs(scores.numpy() - chance).mean() < 0.02


def test_unlabelled_points_are_left_out_and_no_face_is_wrong():
    rng = np.random.default_rng(2)
    spread, peak, error, _ = faces_of_a_known_law(rng)
    error[:, 0] = np.where(rng.random(len(error)) < 0.5, np.nan, error[:, 0])
    with_gaps = fit_confidence(spread, peak, error)
    assert np.isfinite(with_gaps["point_bias"]).all()
    spread = np.concatenate([spread, np.full((500, 4), 2.5)])
    peak, error = np.concatenate([peak, np.full((500, 4), 0.1)]), np.concatenate([error, np.full((500, 4), np.inf)])
    confidence = Confidence(4, fit_confidence(spread, peak, error))
    scores, face_scores = confidence(torch.tensor([[0.03] * 4, [2.5] * 4]), torch.tensor([[0.9] * 4, [0.1] * 4]))
    assert scores[0].min() > 0.7
    assert scores[1].max() < 0.2
    assert face_scores[1] < 0.1 < face_scores[0]


@pytest.mark.parametrize("error", [0.0, np.inf])
def test_nothing_to_tell_apart_is_refused(error):
    with pytest.raises(ValueError, match="calibrate on others"):
        fit_confidence(np.ones((5, 2)), np.ones((5, 2)), np.full((5, 2), error))


def test_without_calibration_scores_rank():
    scores, face_scores = Confidence(2)(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.9, 0.9]]))
    assert scores[0, 0] == pytest.approx(0.9)
    assert scores[0, 1] < scores[0, 0]
    assert face_scores.tolist() == pytest.approx([scores.mean().item()])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"point_bias": [0.0] * 3}, "3 biases for 68 points"),
        ({"peak": float("nan")}, "not finite"),
        ({}, "lacks 'peak'"),
    ],
)
def test_parameters_of_another_network_are_refused(change, message):
    parameters = {"point_bias": [0.0] * 68, "log_spread": -1.0, "face_bias": 0.0, "face_weight": 1.0}
    if change:
        parameters |= {"peak": 0.0, **change}
    with pytest.raises(ValueError, match=message):
        PIPNet(MEAN_FACE, "mobilenet_v3_small", num_neighbors=2, input_size=64, confidence=parameters)


def test_calibration_travels_with_the_checkpoint(tmp_path):
    net = PIPNet(MEAN_FACE, "mobilenet_v3_small", num_neighbors=2, input_size=64)
    assert "confidence" not in net.arguments
    before = net.eval().predict(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    parameters = {"point_bias": [0.25] * 68, "log_spread": -1.0, "peak": 0.5, "face_bias": 0.0, "face_weight": 1.0}
    net.calibrate(parameters)
    path = tmp_path / "net.pt"
    checkpoint.save(path, net, layout=get_layout("300w_68"), crop_scale=1.2, training={})
    loaded = checkpoint.load(path).net
    assert loaded.arguments["confidence"] == parameters
    after = loaded.predict(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    assert torch.equal(before.points_unit, after.points_unit)
    assert not torch.allclose(before.scores, after.scores)
    net.calibrate(None)
    assert "confidence" not in net.arguments


class EyesOnly(PIPNet):
    """Knows a face by its brightness: right with votes that agree where the crop is bright, else lost."""

    def forward(self, images):
        batch = len(images)
        bright = (images.mean(dim=(1, 2, 3)) > 0).float().view(batch, 1, 1, 1)
        n, c, grid = self.num_points, self.num_neighbors, self.grid
        mean = torch.tensor(MEAN_FACE * grid, dtype=torch.float32)
        corner = mean.floor()
        score = torch.zeros(batch, n, grid, grid)
        score[:, torch.arange(n), corner[:, 1].long(), corner[:, 0].long()] = 1.0
        offset = (mean - corner)[None, :, :, None, None].expand(batch, n, 2, grid, grid)
        near = mean[self.neighbors] - corner[:, None]  # (N, C, 2)
        wrong = 2.0 * torch.randn(batch, n, c, 2, generator=torch.Generator().manual_seed(0))
        near = near[None] + (1 - bright)[..., None].view(batch, 1, 1, 1) * wrong
        near = near[..., None, None].expand(batch, n, c, 2, grid, grid)
        return PIPOutput(score, offset[:, :, 0], offset[:, :, 1], near[:, :, :, 0], near[:, :, :, 1])


def test_calibrate_learns_what_a_network_knows():
    """Bright squares are faces, the dark rest of the photo is none."""
    layout = get_layout("300w_68")
    net = EyesOnly(MEAN_FACE, "mobilenet_v3_small", num_neighbors=6, input_size=64).eval()
    samples = []
    for index in range(12):
        image = np.zeros((120, 160, 3), np.uint8)
        image[10:74, 10:74] = 255
        box = np.array([15.0, 15.0, 69.0, 69.0])
        side = 1.2 * 54
        points = np.array([42.0, 42.0]) + (MEAN_FACE - 0.5) * side
        samples.append(Sample(image, points, f"face{index}", box=box))
    parameters = calibrate(net, samples, layout, crop_scale=1.2, augment=Augment(box_shift=0.02))
    net.calibrate(parameters)
    crops = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    crops[0] = 255
    scores = net.predict(crops)
    assert scores.scores[0].mean() > 0.6
    assert scores.scores[1].mean() < 0.3
    assert scores.face_scores[0] > 0.5 > scores.face_scores[1]
    with pytest.raises(ValueError, match="no face to calibrate"):
        calibrate(net, [], layout, crop_scale=1.2, augment=Augment())
