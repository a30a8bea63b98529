"""Statistics against brute force and known values."""

import itertools

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, trim_mean

from nacre import stats


def rng(seed=0):
    return np.random.default_rng(seed)


def test_iqm_drops_a_quarter_at_each_end():
    values = np.array([[1.0, 2, 3, 4], [5, 6, 7, 1000]])  # keeps 3, 4, 5, 6
    assert stats.iqm(values) == 4.5
    assert stats.mean(values) == 128.5


@pytest.mark.parametrize("seeds, tasks", [(1, 1), (1, 2), (1, 3), (2, 5), (3, 7), (4, 8)])
def test_iqm_is_scipys_trimmed_mean_per_shot(seeds, tasks):
    values = rng(1).normal(size=(seeds, tasks, 4))
    np.testing.assert_allclose(stats.iqm(values), trim_mean(values.reshape(-1, 4), 0.25, axis=0))
    np.testing.assert_allclose(stats.mean(values), [values[..., k].mean() for k in range(4)])


def test_interval_of_two_tasks_by_hand():
    # four equally likely resamples of (0, 1): means 0, 1/2, 1/2, 1; so the 10 % and 90 % quantiles are 0 and 1
    np.testing.assert_allclose(stats.interval([[0.0, 1.0]], rng(), level=0.8), [0.0, 1.0])
    np.testing.assert_allclose(stats.interval([[0.0, 1.0]], rng(), level=0.4), [0.5, 0.5])


def test_crossed_interval_is_that_of_all_resamples():
    values = np.array([[0.0, 1, 5], [2, 2, 9]])
    every = [
        values[list(s)][:, list(t)].mean()
        for s in itertools.product(range(2), repeat=2)
        for t in itertools.product(range(3), repeat=3)
    ]
    expected = np.quantile(every * 200, [0.025, 0.975])  # repeated, so that interpolation does not matter
    np.testing.assert_allclose(stats.interval(values, rng(), resamples=20_000), expected, atol=0.15)


def test_stratified_interval_is_that_of_all_resamples():  # for users with a training run per task
    values = np.array([[0.0, 10], [1, 30]])
    every = [0.25 * (values[a, 0] + values[b, 0] + values[c, 1] + values[d, 1])
             for a, b, c, d in itertools.product(range(2), repeat=4)]  # fmt: skip
    found = np.array([draw.mean() for draw in stats.draws(values, rng(), "stratified", 20_000)])
    for value in sorted(set(every)):
        assert (found == value).mean() == pytest.approx(every.count(value) / 16, abs=0.015)
    ends = stats.interval(values, rng(), scheme="stratified", resamples=20_000)
    np.testing.assert_allclose(ends, np.quantile(every * 200, [0.025, 0.975]))


def test_where_tasks_are_all_there_are_whole_seeds_are_drawn():
    values = np.array([[0.0, 10], [1, 30], [5, 40]])
    every = [values[list(s)].mean() for s in itertools.product(range(3), repeat=3)]
    found = np.array([draw.mean() for draw in stats.draws(values, rng(), "seeds", 20_000)])
    for value in sorted(set(every)):
        assert np.isclose(found, value).mean() == pytest.approx(every.count(value) / 27, abs=0.015)
    np.testing.assert_allclose(stats.of_means(values, rng(), True), [values[0].mean(), values[2].mean()])
    # tasks that differ, in the same way for all seeds, leave nothing open
    np.testing.assert_array_equal(stats.of_means(np.array([[0.0, 9.0]] * 3), rng(), True), [4.5, 4.5])


def test_what_a_seed_does_to_all_tasks_does_not_average_out():
    """Coverage where seeds differ and tasks do not: that of a bootstrap over 8 numbers, not a fraction of it."""
    effects = [rng(seed).normal(size=(8, 1)) + np.zeros((1, 20)) for seed in range(200)]
    ends = [stats.of_means(values, rng(1), True, 300) for values in effects]
    assert 0.82 <= np.mean([low <= 0 <= high for low, high in ends]) <= 0.97


def test_improvement_where_tasks_are_all_there_are():
    x, y = np.array([[1.0, 0.0]] * 3), np.array([[0.0, 1.0]] * 3)  # better on one of two tasks, always
    np.testing.assert_array_equal(stats.improvement_interval(x, y, rng(), all_tasks=True), [0.5, 0.5])
    np.testing.assert_array_equal(stats.improvement_interval(x, y, rng()), [0.0, 1.0])


def test_seeds_and_tasks_are_both_drawn_and_stay_paired():
    seeds_differ, tasks_differ = np.array([[0.0] * 6, [1.0] * 6]), np.array([[0.0, 1] * 3] * 2)
    for values in (seeds_differ, tasks_differ):
        low, high = stats.interval(values, rng())
        assert low < 0.4 and high > 0.6
    means = {draw.mean(axis=1).tobytes() for draw in stats.draws(tasks_differ, rng(), "crossed", 50)}
    assert len(means) > 3  # tasks are drawn
    assert all(m[: len(m) // 2] == m[len(m) // 2 :] for m in means)  # the same tasks for both seeds


def test_one_seed_draws_tasks_only_and_shots_stay_apart():
    values = np.stack([np.full((1, 5), 3.0), rng().normal(size=(1, 5))], axis=-1)
    low, high = stats.interval(values, rng())
    assert low[0] == high[0] == 3.0
    assert low[1] < values[0, :, 1].mean() < high[1]


def test_coverage_of_the_mean_is_near_the_level():
    data = rng(2).normal(size=(200, 1, 30))
    covered = [low <= 0 <= high for low, high in (stats.interval(d, rng(3), resamples=300) for d in data)]
    assert 0.88 <= np.mean(covered) <= 0.98


def test_same_generator_same_interval():
    values = rng().normal(size=(2, 4))
    np.testing.assert_array_equal(stats.interval(values, rng(5)), stats.interval(values, rng(5)))
    assert (stats.interval(values, rng(5), resamples=50) != stats.interval(values, rng(6), resamples=50)).any()


def test_improvement_against_brute_force_and_mann_whitney():
    x, y = rng(1).integers(0, 5, (3, 4)).astype(float), rng(2).integers(0, 5, (2, 4)).astype(float)
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for n in range(4) for a in x[:, n] for b in y[:, n]]
    assert stats.improvement(x, y) == pytest.approx(np.mean(wins))
    assert stats.improvement(y, x) == pytest.approx(1 - np.mean(wins))
    per_task = [mannwhitneyu(x[:, n], y[:, n]).statistic / 6 for n in range(4)]
    assert stats.improvement(x, y) == pytest.approx(np.mean(per_task))
    assert stats.improvement(x, x) == 0.5


def test_improvement_interval_holds_the_estimate():
    x, y = rng(1).normal(0.5, 1, (4, 10)), rng(2).normal(0, 1, (3, 10))
    low, high = stats.improvement_interval(x, y, rng())
    assert 0 <= low < stats.improvement(x, y) < high <= 1
    np.testing.assert_array_equal(stats.improvement_interval(x + 100, y, rng()), [1.0, 1.0])


def test_difference_interval_is_blind_to_how_hard_tasks_are():
    hard = np.arange(50.0) * 1000
    x, y = hard + rng(1).normal(1, 1, (4, 50)), hard + rng(2).normal(0, 1, (3, 50))
    low, high = stats.difference_interval(x, y, rng())
    assert 0.6 < low < (x.mean() - y.mean()) < high < 1.4 and high - low > 0.2
    one = stats.difference_interval(x[:1], y[:1], rng())  # of a seed each, tasks alone are drawn
    apart = np.sqrt(np.var(x[0] - y[0], ddof=1) / 50)  # the error of the mean of paired differences
    assert one[1] - one[0] == pytest.approx(2 * 1.96 * apart, rel=0.15)
    only_seeds = stats.difference_interval(x + np.array([0, 5, 0, 5])[:, None], y, rng(), all_tasks=True)
    assert only_seeds[1] - only_seeds[0] > 3


@pytest.mark.parametrize("call, message", [
    (lambda: stats.interval([1.0, 2.0], rng()), r"\[seeds, tasks, \.\.\.\].*got shape \(2,\)"),
    (lambda: stats.interval(np.zeros((0, 3)), rng()), "at least one"),
    (lambda: stats.interval([[1.0, np.nan]], rng()), "got nan at seed 0, task 1"),
    (lambda: stats.interval([[1.0, 2.0]], rng(), level=95), "level must lie between 0 and 1, got 95"),
    (lambda: stats.interval([[1.0, 2.0]], rng(), resamples=0), "resamples must be at least 1"),
    (lambda: stats.interval([[1.0, 2.0]], rng(), scheme="stratified"), "at least 2, got 1"),
    (lambda: stats.interval([[1.0, 2.0]], rng(), scheme="paired"), "'seeds' or 'stratified', got 'paired'"),
    (lambda: stats.difference_interval(np.zeros((2, 3)), np.zeros((2, 4)), rng()), r"\(2, 3\) and \(2, 4\)"),
    (lambda: stats.improvement(np.zeros((2, 3)), np.zeros((2, 4))), r"\(2, 3\) and \(2, 4\)"),
])  # fmt: skip
def test_bad_input_says_what_was_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()
