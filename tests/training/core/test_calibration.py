"""Log-loss, calibration and temperature against closed forms."""

import math

import numpy as np
import pytest

from training.core.bootstrap import with_intervals
from training.core.calibration import calibration_curve, expected_calibration_error, fit_temperature, log_loss


def test_log_loss_and_ece_by_hand() -> None:
    margin = np.array([2.0, -1.0, 0.5])
    sigma = 1 / (1 + np.exp(-margin))
    assert log_loss(margin) == pytest.approx(-np.log(sigma).mean())
    assert log_loss(margin, 2.0) == pytest.approx(-np.log(1 / (1 + np.exp(-margin / 2))).mean())
    confidence = 1 / (1 + np.exp(-np.abs(margin)))  # 0.881, 0.731, 0.622: three bins of one pair each
    expected = (abs(1 - confidence[0]) + abs(0 - confidence[1]) + abs(1 - confidence[2])) / 3
    assert expected_calibration_error(margin) == pytest.approx(expected)


def test_calibrated_margins_have_no_calibration_error() -> None:
    margin = np.array([math.log(3)] * 3 + [-math.log(3)])  # σ = 0.75, and 3 of 4 are right
    assert expected_calibration_error(margin) == pytest.approx(0, abs=1e-12)
    assert fit_temperature(margin) == pytest.approx(1, abs=1e-9)


def test_the_curve_holds_the_bins_that_have_pairs_and_adds_up_to_the_ece() -> None:
    margin = np.array([0.1, -0.1, 2.0, 2.1, 9.0])
    curve = with_intervals(calibration_curve(margin, np.arange(5), groups=5), seed=0)
    assert [(one["from"], one["to"], one["pairs"]) for one in curve] == [
        pytest.approx(part) for part in [(0.5, 0.55, 2), (0.85, 0.9, 2), (0.95, 1.0, 1)]
    ]
    assert curve[0]["confidence"] == pytest.approx(1 / (1 + math.exp(-0.1)))
    assert [one["accuracy"]["value"] for one in curve] == [0.5, 1.0, 1.0]
    gaps = [one["pairs"] * abs(one["accuracy"]["value"] - one["confidence"]) for one in curve]
    assert sum(gaps) / 5 == pytest.approx(expected_calibration_error(margin))


@pytest.mark.parametrize(("size", "right"), [(1.0, 3), (5.0, 3), (0.2, 4)])
def test_the_temperature_is_the_margin_over_the_log_odds(size: float, right: int) -> None:
    margin = np.array([size] * right + [-size] * (5 - right))
    assert fit_temperature(margin) == pytest.approx(size / math.log(right / (5 - right)), rel=1e-9)


def test_no_temperature_fits_pairs_that_are_all_right_or_mostly_wrong() -> None:
    assert fit_temperature(np.array([1.0, 2.0])) is None
    assert fit_temperature(np.array([1.0, -1.0, -1.0])) is None
