"""Ways to choose an architecture without sharing angles between architectures (chapters 04, 06)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from numbers import Real
from typing import Literal, get_args

import torch
from torch import Tensor

from .circuits import Candidate
from .errors import SearchError, check_positive, check_whole
from .relaxed_circuit import RelaxedCircuit
from .score import angle_score
from .search_space import SearchSpace, list_candidates

Strategy = Literal["random", "successive-halving", "score", "score-ascent"]
Train = Callable[[Candidate, int, int], float]


@dataclass(frozen=True)
class Trial:
    """One training: a candidate, for how many steps, with which seed, to which validation loss."""

    candidate: Candidate
    steps: int
    seed: int
    loss: float


@dataclass(frozen=True)
class Selection:
    """What a strategy chose, and what that cost.

    Attributes:
        candidate: The chosen architecture.
        trials: All trainings, in their order; empty if the strategy trains nothing.
        scores: The score of each candidate that was scored, in their order.
        spent: The cost, in training steps; a score costs ``score_cost`` of them.
    """

    candidate: Candidate
    trials: tuple[Trial, ...] = field(repr=False)
    scores: tuple[tuple[Candidate, float], ...] = field(repr=False)
    spent: float


def select(
    space: SearchSpace | Iterable[Candidate],
    train: Train | None,
    *,
    strategy: Strategy,
    budget: int,
    steps: int,
    score_cost: float = 1.0,
    generator: torch.Generator | None = None,
) -> Selection:
    """Choose an architecture within a budget; every strategy is given the same.

    - ``"random"`` trains budget / steps random candidates and takes the one with the lowest loss.
    - ``"successive-halving"`` trains many for steps / 4, the better half of these anew for
      steps / 2, and the better half of those for steps (Jamieson and Talwalkar, arXiv 1502.07943).
    - ``"score"`` takes the highest :func:`~qtdqas_lite.score.angle_score` of as many random
      candidates as the budget pays for; nothing is trained.
    - ``"score-ascent"`` ascends the expected score of a distribution over the space by the score
      function (Williams 1992), and takes its likeliest architecture; nothing is trained.

    Args:
        space: A search space; the first three also take a list of candidates.
        train: Called with a candidate, a number of steps and a seed; trains it from random angles
            and returns its validation loss. A loss that is not finite counts as the worst.
        strategy: One of the above.
        budget: How many training steps may be spent in all, at least 1.
        steps: How many steps make a full training, at least 1.
        score_cost: How many training steps a score costs, above 0: measure it.
        generator: Where candidates, angles and seeds are drawn from; torch's global one by default.

    Raises:
        SearchError: if an argument is not as described, or the budget does not pay for one
            training (or, where nothing is trained, for one score).
    """
    if strategy not in get_args(Strategy):
        raise SearchError(f"strategy must be one of {list(get_args(Strategy))}, got {strategy!r}")
    check_whole(SearchError, 1, budget=budget, steps=steps)
    check_positive(score_cost=score_cost)
    paid = _Paid(space, train, budget, score_cost, generator)
    if strategy == "random":
        trials = paid.train(paid.draw(budget // steps), steps)
    elif strategy == "successive-halving":
        trials = paid.halve(steps)
    elif strategy == "score":
        return paid.selection(paid.score(paid.draw(int(budget / score_cost)))[0])
    else:
        return paid.selection(paid.ascend())
    return paid.selection(trials[0].candidate)


def halving_rounds(count: int, steps: int) -> list[tuple[int, int]]:
    """List the rounds of successive halving: how many are trained, and for how many steps each."""
    return [(max(1, count // k), max(1, steps * k // 4)) for k in (1, 2, 4)]


class _Paid:
    """Draws, trains and scores candidates, and adds up what has been paid for that."""

    def __init__(
        self,
        space: SearchSpace | Iterable[Candidate],
        train: Train | None,
        budget: int,
        score_cost: float,
        generator: torch.Generator | None,
    ) -> None:
        if not isinstance(space, SearchSpace):
            space = list_candidates(space, limit=1_000_000)
        self.space = space
        self.train_one, self.budget, self.score_cost = train, budget, score_cost
        self.generator = generator
        self.trials: list[Trial] = []
        self.scores: list[tuple[Candidate, float]] = []

    @property
    def spent(self) -> float:
        return sum(t.steps for t in self.trials) + self.score_cost * len(self.scores)

    def selection(self, candidate: Candidate) -> Selection:
        return Selection(candidate, tuple(self.trials), tuple(self.scores), self.spent)

    def draw(self, count: int) -> list[Candidate]:
        """Draw different candidates, no more than there are."""
        if count < 1:
            raise SearchError(f"the budget of {self.budget} steps does not pay for one candidate")
        if isinstance(self.space, SearchSpace):
            count = min(count, self.space.n_architectures)
            return self.space.sample(count, generator=self.generator)
        order = torch.randperm(len(self.space), generator=self.generator)[:count]
        return [self.space[i] for i in order]

    def train(self, candidates: list[Candidate], steps: int) -> list[Trial]:
        """Train candidates; give their trials, the lowest loss first."""
        if not candidates:
            raise SearchError(f"the budget of {self.budget} steps does not pay for one training")
        if not callable(self.train_one):
            raise SearchError("this strategy trains candidates: pass a function as train")
        trials: list[Trial] = []
        for candidate in candidates:
            seed = int(torch.randint(2**31, (), generator=self.generator))
            loss = self.train_one(candidate, steps, seed)
            if not isinstance(loss, Real | Tensor):
                raise SearchError(f"train must return the validation loss, got {loss!r}")
            trials.append(Trial(candidate, steps, seed, float(loss)))
        self.trials += trials
        return sorted(trials, key=lambda t: t.loss if t.loss == t.loss else float("inf"))

    def halve(self, steps: int) -> list[Trial]:
        """Train as many as the budget pays for, in rounds; give the trials of the last round."""
        count = bisect_right(
            range(1, self.budget + 1),
            self.budget,
            key=lambda count: sum(n * n_steps for n, n_steps in halving_rounds(count, steps)),
        )
        trials: list[Trial] = []
        candidates = self.draw(count)
        for n_trained, n_steps in halving_rounds(len(candidates), steps):
            trials = self.train(candidates[:n_trained], n_steps)
            candidates = [trial.candidate for trial in trials]
        return trials

    def score(self, candidates: list[Candidate]) -> list[Candidate]:
        """Score candidates at random angles; give them back, the highest score first."""
        found = []
        for candidate in candidates:
            circuit = candidate.circuit(generator=self.generator).double()
            score = angle_score(circuit.layers, circuit.theta.detach()).item()
            found.append((candidate, score))
        self.scores += found
        return [candidate for candidate, _ in sorted(found, key=lambda pair: -pair[1])]

    def ascend(self) -> Candidate:
        """Ascend the expected score; every evaluation draws an architecture and new angles."""
        if not isinstance(self.space, SearchSpace):
            raise SearchError("this strategy needs a SearchSpace, not a list of candidates")
        circuit = RelaxedCircuit(
            **asdict(self.space), sampling="score-function", generator=self.generator
        ).double()
        if not list(circuit.alpha.values()) or self.budget < self.score_cost:
            raise SearchError("there is nothing to choose, or the budget does not pay for a score")
        optimizer = torch.optim.Adam(circuit.alpha.values(), lr=0.1)
        baseline: Tensor | None = None
        seed = int(torch.randint(2**62, (), generator=self.generator))
        with torch.random.fork_rng(devices=[]):  # the draws come from the global generator
            torch.manual_seed(seed)
            for _ in range(int(self.budget / self.score_cost)):
                theta = torch.pi * (2 * torch.rand_like(circuit.theta) - 1)
                mixture = circuit.mixture()
                with torch.no_grad():
                    score = angle_score(partial(circuit.layers, mixture=mixture), theta)
                before = score if baseline is None else baseline
                baseline = 0.9 * before + 0.1 * score
                optimizer.zero_grad()
                torch.autograd.backward((before - score) * circuit.log_probability(mixture))
                optimizer.step()
                self.scores.append((circuit.architecture(mixture), score.item()))
        return circuit.architecture()
