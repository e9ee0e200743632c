import math
from typing import get_args

import numpy as np
import pytest
import scipy.stats
import torch

from qtdqas_lite import SearchError, SearchSpace, select, variance_decomposition
from qtdqas_lite.score import angle_score
from qtdqas_lite.selection import Strategy
from qtdqas_lite.statistics import estimate, paired

SPACE = SearchSpace(4, 2, entanglers=("ring", "cz-ring", "none"), sharing="layer")


def seeded(seed):
    return torch.Generator().manual_seed(seed)


class Trainer:
    """A training that costs nothing: the fewer RY, the higher the loss; long trainings help."""

    def __init__(self):
        self.calls = []

    def __call__(self, candidate, steps, seed):
        self.calls.append((candidate, steps, seed))
        n_ry = sum(row.count("ry") for row in candidate.rotations)
        return 10 - n_ry - 0.001 * steps - 0.0001 * candidate.hadamard


def chosen(strategy, train=None, space=SPACE, seed=0, **options):
    defaults = {"budget": 1200, "steps": 300, "score_cost": 5.0, "generator": seeded(seed)}
    return select(space, train, strategy=strategy, **{**defaults, **options})


def test_random_takes_the_best_that_the_budget_pays_for():
    train = Trainer()
    found = chosen("random", train, budget=300 * 20 + 299)
    assert [steps for _, steps, _ in train.calls] == [300] * 20
    assert len({candidate for candidate, _, _ in train.calls}) == 20
    assert len({seed for _, _, seed in train.calls}) == 20
    best = min(found.trials, key=lambda trial: trial.loss)
    assert found.candidate == best.candidate
    assert found.spent == 6000
    assert found.trials[3].candidate == train.calls[3][0]


def test_a_budget_for_more_than_there_is_trains_everything_once():
    train = Trainer()
    space = SearchSpace(2, 1)
    found = chosen("random", train, space=space, budget=10**6)
    assert len(train.calls) == 12
    assert found.candidate.rotations == (("ry", "ry"),)
    assert found.candidate.hadamard
    assert found.spent == 3600


def test_successive_halving_keeps_the_better_half():
    train = Trainer()
    found = chosen("successive-halving", train, budget=3600, steps=400)
    steps = [steps for _, steps, _ in train.calls]
    assert steps == [100] * 12 + [200] * 6 + [400] * 3
    first, second, third = found.trials[:12], found.trials[12:18], found.trials[18:]
    by_loss = sorted(first, key=lambda trial: trial.loss)
    assert {t.candidate for t in second} == {t.candidate for t in by_loss[:6]}
    assert {t.candidate for t in third} < {t.candidate for t in second}
    assert found.candidate == min(third, key=lambda trial: trial.loss).candidate
    assert found.spent == 3600


@pytest.mark.parametrize("strategy", get_args(Strategy))
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 80, 300])
def test_no_strategy_spends_more_than_its_budget(strategy, steps):
    for budget in (1, 2, 20, 60, 139, 140, 320):
        options = {"score_cost": 20.5}
        try:
            found = chosen(strategy, Trainer(), budget=budget, steps=steps, **options)
        except SearchError:
            continue
        assert 0 < found.spent <= budget


@pytest.mark.parametrize(("budget", "count"), [(140, 1), (139, 0), (179, 2), (180, 3), (320, 6)])
def test_successive_halving_trains_as_many_as_the_budget_pays_for(budget, count):
    """One candidate costs 20 + 40 + 80 steps, two 160, three 180, six 120 + 120 + 80."""
    train = Trainer()
    if not count:
        with pytest.raises(SearchError, match="does not pay for one candidate"):
            chosen("successive-halving", train, budget=budget, steps=80)
        return
    chosen("successive-halving", train, budget=budget, steps=80)
    assert [steps for _, steps, _ in train.calls].count(20) == count


def test_score_takes_the_highest_and_trains_nothing():
    found = chosen("score", budget=200)
    assert len(found.scores) == 40
    assert found.spent == 200
    assert not found.trials
    assert found.candidate == max(found.scores, key=lambda pair: pair[1])[0]
    only_rz = [score for c, score in found.scores if {*sum(c.rotations, ())} == {"rz"}]
    assert all(score < 1e-9 for score in only_rz)  # dead
    assert only_rz


def expected_score(candidate):
    circuits = [candidate.circuit(generator=seeded(i)).double() for i in range(8)]
    return sum(angle_score(c.layers, c.theta.detach()).item() for c in circuits) / 8


def test_score_ascent_beats_what_random_draws_average():
    space = SearchSpace(4, 3, entanglers=("ring", "none"), sharing="layer")
    average = sum(map(expected_score, space.sample(20, generator=seeded(1)))) / 20
    found = [chosen("score-ascent", space=space, budget=750, seed=s) for s in range(2)]
    assert all(f.spent == 750 and len(f.scores) == 150 and not f.trials for f in found)
    assert all(expected_score(f.candidate) > 1.3 * average for f in found)
    early, late = zip(*[(f.scores[:50], f.scores[-50:]) for f in found], strict=True)
    mean = [sum(score for part in parts for _, score in part) for parts in (early, late)]
    assert mean[1] > 1.2 * mean[0]


@pytest.mark.parametrize(
    "strategy",
    ["random", "successive-halving", "score", "score-ascent"],
)
def test_selections_repeat_and_leave_the_global_generator_alone(strategy):
    before = torch.random.get_rng_state()
    one, two = (chosen(strategy, Trainer(), budget=900) for _ in range(2))
    assert one == two
    assert one.spent <= 900
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_training_that_fails_counts_as_the_worst():
    found = chosen("random", lambda c, *_: math.nan if c.hadamard else 5.0, budget=300 * 20)
    assert not found.candidate.hadamard


def test_lists_of_candidates_will_do():
    candidates = list(SPACE)[:7]
    found = chosen("random", Trainer(), space=candidates, budget=10**4)
    assert {t.candidate for t in found.trials} == set(candidates)
    with pytest.raises(SearchError, match="needs a SearchSpace"):
        chosen("score-ascent", space=candidates)


@pytest.mark.parametrize(
    ("strategy", "options", "message"),
    [
        ("grid", {}, "strategy must be one of .*'random'"),
        ("random", {"budget": 0}, "budget must be at least 1"),
        ("random", {"steps": -1}, "steps"),
        ("score", {"score_cost": math.inf}, "score_cost"),
        ("random", {"budget": 299}, "does not pay for one candidate"),
        ("score", {"budget": 4}, "does not pay for one candidate"),
        ("score-ascent", {"budget": 4}, "does not pay for a score"),
    ],
)
def test_bad_arguments_are_refused(strategy, options, message):
    with pytest.raises(SearchError, match=message):
        chosen(strategy, Trainer(), **options)


def test_a_strategy_that_trains_needs_a_training():
    with pytest.raises(SearchError, match="pass a function as train"):
        chosen("random", None)
    with pytest.raises(SearchError, match="train must return the validation loss, got None"):
        chosen("random", lambda *_: None)


# --- Is there anything to find?


def test_shares_agree_with_the_analysis_of_variance():
    table = (
        torch.randn(9, 1, generator=seeded(0)) * 0.1 + torch.randn(9, 4, generator=seeded(1)) * 0.1
    )
    found = variance_decomposition(table)
    ratio = scipy.stats.f_oneway(*table.double().numpy()).statistic
    assert found.share == pytest.approx((ratio - 1) / (ratio - 1 + 4))
    assert found.seed_deviation**2 == pytest.approx(table.double().var(1).mean().item())
    total = found.architecture_deviation**2 + found.seed_deviation**2
    assert found.share == pytest.approx(found.architecture_deviation**2 / total)
    assert found.mean == pytest.approx(table.double().mean().item())
    assert found.best == pytest.approx(table.double().mean(1).max().item())


def test_seeds_alone_are_not_taken_for_architectures():
    shares = [
        variance_decomposition(torch.randn(12, 3, generator=seeded(s))).share for s in range(40)
    ]
    assert sum(shares) / 40 < 0.15  # negative estimates count as 0, so a little remains
    strong = torch.arange(12.0)[:, None] + 0.01 * torch.randn(12, 3, generator=seeded(0))
    assert variance_decomposition(strong).share > 0.999
    assert variance_decomposition(torch.ones(3, 3)).share == 0


@pytest.mark.parametrize(
    "table", [torch.zeros(3), torch.zeros(1, 5), torch.zeros(5, 1), torch.full((3, 3), math.nan)]
)
def test_bad_tables_are_refused(table):
    with pytest.raises(SearchError, match="at least 2 architectures and 2 seeds"):
        variance_decomposition(table)


@pytest.mark.parametrize(
    "table", ["x", None, [[1, "a"], [2, 3]], torch.full((3, 3), 1e200, dtype=torch.double)]
)
def test_tables_that_hold_no_numbers_or_too_large_ones(table):
    with pytest.raises(SearchError, match=r"results must be (a table of numbers|finite)"):
        variance_decomposition(table)


def test_paired_differences_have_students_interval():
    draw = np.random.default_rng(3)
    first, second = draw.normal(0.8, 0.1, 10), draw.normal(0.7, 0.1, 10)
    found = paired(torch.tensor(first), torch.tensor(second))
    interval = scipy.stats.ttest_rel(first, second).confidence_interval(0.95)
    assert found.mean == pytest.approx((first - second).mean())
    assert found.deviation == pytest.approx((first - second).std(ddof=1))
    assert found.interval == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([1.0], [2.0]),
        ([1.0, 2.0], [1.0]),
        ([[1.0], [2.0]], [[1.0], [2.0]]),
        ([1, math.nan], [1, 2]),
    ],
)
def test_only_results_of_the_same_seeds_are_paired(first, second):
    with pytest.raises(SearchError, match=r"the same seeds|must be finite"):
        paired(torch.tensor(first), torch.tensor(second))


def test_several_intervals_share_their_five_per_cent():
    results = np.random.default_rng(4).normal(size=7)
    shared = scipy.stats.ttest_1samp(results, 0).confidence_interval(1 - 0.05 / 12)
    found = estimate(torch.tensor(results), comparisons=12)
    assert found.interval == pytest.approx((shared.low, shared.high))
    with pytest.raises(SearchError, match="comparisons"):
        estimate(torch.tensor(results), comparisons=0)
