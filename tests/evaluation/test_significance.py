"""Tests over the same users: the bootstrap against known answers, and Holm's adjustment against its definition."""

import itertools

import numpy as np
import pytest
from scipy import stats

from recvae import Metric, paired_bootstrap
from recvae.errors import InvalidDataError, InvalidParameterError
from recvae.evaluation.significance import holm


def test_paired_bootstrap_sees_a_difference_in_the_same_users():
    random = np.random.default_rng(0)
    common = random.random(400)
    better = Metric(common + 0.02 + 0.01 * random.normal(size=400))
    test = paired_bootstrap(better, Metric(common))
    assert test.p_value < 0.001
    assert test.low < 0.02 < test.high
    assert test.difference == pytest.approx(better.mean - common.mean())
    mirrored = paired_bootstrap(Metric(common), better)
    assert mirrored.difference == pytest.approx(-test.difference)
    assert mirrored.p_value == pytest.approx(test.p_value, abs=0.001)


def test_paired_bootstrap_agrees_with_the_t_test_on_many_users():
    random = np.random.default_rng(1)
    a, b = random.normal(0.03, 0.5, 900), random.normal(0, 0.5, 900)
    expected = stats.ttest_rel(a, b).pvalue
    assert paired_bootstrap(Metric(a), Metric(b)).p_value == pytest.approx(expected, abs=0.02)


def test_paired_bootstrap_keeps_its_level():
    """Without any difference, about one test in twenty is below .05."""
    random = np.random.default_rng(2)
    small = [
        paired_bootstrap(Metric(random.random(60)), Metric(random.random(60)), resamples=400, seed=i).p_value < 0.05
        for i in range(200)
    ]
    assert 2 <= sum(small) <= 22


def closed_testing(p_values):
    """Holm's procedure as a closed test: the largest Bonferroni p-value among all sets that a test is in."""
    m = len(p_values)
    sets = [s for size in range(1, m + 1) for s in itertools.combinations(range(m), size)]
    return [max(min(1, len(s) * min(p_values[j] for j in s)) for s in sets if i in s) for i in range(m)]


def test_holm_in_known_cases():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.02]) == [0.02]
    assert holm([]) == []
    assert holm([0.5, 0.9, 0.6]) == [1, 1, 1]
    for broken in ([0.1, 1.1], [-0.1], [float("nan")]):
        with pytest.raises(InvalidParameterError, match="Expected p-values"):
            holm(broken)


@pytest.mark.parametrize("seed", range(20))
def test_holm_is_the_closed_test_of_bonferroni(seed):
    p_values = np.random.default_rng(seed).random(6) ** 3
    p_values[seed % 6] = p_values[0]  # a tie
    assert holm(p_values) == pytest.approx(closed_testing(p_values))


def test_paired_bootstrap_at_the_edges():
    same = Metric(np.array([0.5, 0.2]))
    assert paired_bootstrap(same, same).p_value == 1
    assert paired_bootstrap(Metric(same.values + 1), same, resamples=99).p_value == pytest.approx(0.01)
    named = Metric(same.values, np.array(["ann", "bob"])), Metric(same.values, np.array(["ann", "eve"]))
    for pair in ((same, Metric(np.zeros(3))), named):
        with pytest.raises(InvalidDataError, match="over the same users"):
            paired_bootstrap(*pair)
    for values in ([0.5], [0.5, np.nan]):
        with pytest.raises(InvalidDataError, match="at least two users"):
            paired_bootstrap(Metric(np.array(values)), Metric(np.zeros(len(values))))
