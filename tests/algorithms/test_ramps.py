"""Schedules at their end points and against NumPy in between."""

import numpy as np
import pytest

from ssl_guard.algorithms.ramps import linear_ramp, tsa_threshold
from ssl_guard.steps.optim import warmup_cosine


def test_warmup_then_cosine_to_a_fifth():
    rate = [float(warmup_cosine(s, peak=2.0, warmup_steps=4, total_steps=20)) for s in range(21)]
    np.testing.assert_allclose(rate[:4], [0.5, 1.0, 1.5, 2.0])
    np.testing.assert_allclose(rate[4], 2.0)
    np.testing.assert_allclose(rate[12], 2 * np.cos(7 / 16 * np.pi * 0.5), rtol=1e-6)
    np.testing.assert_allclose(rate[20], 2 * 0.19509, rtol=1e-4)


def test_no_warmup_starts_at_the_peak():
    assert float(warmup_cosine(0, peak=1.0, warmup_steps=0, total_steps=5)) == 1.0


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize(
    "schedule, start", [("linear", 0.0), ("log", 0.0), ("exp", np.exp(-5)), ("none", 1.0)]
)
def test_tsa_endpoints(schedule, start, classes):
    """eta(0) = 1/C (exp a little above), eta(T) = 1 (log 0.7% short), as in UDA's figure 2."""
    at = [float(tsa_threshold(p, schedule=schedule, num_classes=classes)) for p in (0.0, 1.0)]
    end = 1 - np.exp(-5) if schedule == "log" else 1.0
    expected = [a * (1 - 1 / classes) + 1 / classes for a in (start, end)]
    np.testing.assert_allclose(at, expected, rtol=1e-6)


def test_tsa_releases_log_first_and_exp_last():
    at = {s: float(tsa_threshold(0.4, schedule=s, num_classes=2)) for s in ("log", "linear", "exp")}
    assert at["log"] > at["linear"] > at["exp"]


def test_ramp():
    assert [float(linear_ramp(float(p), until=0.4)) for p in (0, 0.2, 0.4, 1)] == [
        0,
        0.5,
        1,
        1,
    ]
    assert float(linear_ramp(0.0, until=0.0)) == 1.0
