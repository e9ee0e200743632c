import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from conftest import candidate_probabilities

from qtdqas_lite import (
    Candidate,
    CircuitError,
    FixedCircuit,
    RelaxedCircuit,
    diagnose,
    diagnosis,
    paper_space,
)
from qtdqas_lite.score import angle_jacobian, angle_score
from qtdqas_lite.simulator import evolve
from qtdqas_lite.simulator.gates import ROTATIONS


def jacobian(candidate, theta):
    """The oracle: PennyLane's probabilities, and their derivatives as a numpy matrix."""
    function = partial(candidate_probabilities, candidate)
    table = torch.autograd.functional.jacobian(function, theta)
    return function(theta).numpy(), table.flatten(1).T.numpy()


def log_score(candidate, theta):
    p, slopes = jacobian(candidate, theta)
    logs = slopes * len(p) / (len(p) * p + 0.01)
    return np.linalg.slogdet(np.eye(len(logs)) + 10 / len(p) * logs @ logs.T)[1]


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return math.pi * (2 * torch.rand(*shape, generator=generator, dtype=torch.double) - 1)


def candidate(n, hadamard, *layers):
    """An architecture from its layers, each (entangler, rotation, rotation, ...)."""
    rows = [names * n if len(names) == 1 else names for _, *names in layers]
    return Candidate(n, hadamard, [entangler for entangler, *_ in layers], rows)


# --- The paper's circuits


def test_half_of_the_papers_circuits_are_dead():
    reports = diagnose(paper_space(4, 3)).reports
    assert [r.number for r in reports] == list(range(1, 13))
    assert [r.candidate for r in reports] == list(paper_space(4, 3))
    assert [r.number for r in reports if not r.live] == [1, 3, 4, 6, 9, 12]
    for report in reports:
        p = candidate_probabilities(report.candidate, draw(3, 4))
        if report.live:
            assert report.reason == ""
            continue
        assert report.rank == 0
        assert report.score == pytest.approx(0, abs=1e-12)
        assert len(report.dead) == 12
        uniform = report.number in (1, 3, 4, 6)
        expected = torch.full((16,), 1 / 16) if uniform else torch.eye(16)[0]
        torch.testing.assert_close(p, expected.double())
        assert ("equally likely" if uniform else "certain") in report.reason
        assert report.candidate.rotations[0][0].upper() in report.reason
    # All that are dead in the same way are the same; the others all differ.
    assert [r.duplicate_of for r in reports] == [*[None] * 2, 1, 1, None, 1, *[None] * 5, 9]
    distinct = [r.number for r in reports if r.live]
    assert diagnose(paper_space(4, 3)).distinct == [reports[i - 1].candidate for i in distinct]


@pytest.mark.parametrize("n", [2, 4])
def test_ranks_and_scores_are_those_of_pennylanes_jacobian(n):
    space = list(paper_space(n, 3))
    for report in diagnose(space, seed=5).reports:
        _, slopes = jacobian(report.candidate, draw(3, n, seed=11))
        assert report.rank == np.linalg.matrix_rank(slopes, tol=1e-9)
        scores = [log_score(report.candidate, theta) for theta in draw(3, 3, n, seed=5)]
        assert report.score == pytest.approx(np.mean(scores), abs=1e-9)
        moving = np.linalg.norm(slopes, axis=1) > 1e-9
        names = list(itertools.product(range(3), range(n)))
        assert report.dead == tuple(name for name, m in zip(names, moving, strict=True) if not m)


def test_on_one_qubit_all_entanglers_are_the_same():
    reports = diagnose(paper_space(1, 2)).reports
    assert [r.duplicate_of for r in reports[6:]] == [None, 7, None, 7, 7, 9]


# --- Angles without effect


@pytest.mark.parametrize(
    ("given", "dead", "rank"),
    [
        # An RZ in the last layer only turns phases.
        (candidate(2, True, ("ring", "ry"), ("ring", "rz", "ry")), [(1, 0)], 3),
        # RX leaves |+> as it is.
        (candidate(2, True, ("none", "rx", "ry"), ("none", "ry")), [(0, 0)], 2),
        # Two RY in a row add up.
        (candidate(2, False, ("none", "ry"), ("none", "ry")), [], 2),
        (candidate(2, False, ("none", "ry"), ("ring", "identity", "ry")), [(1, 0)], 3),
        (candidate(1, False, ("none", "identity")), [(0, 0)], 0),
    ],
)
def test_angles_that_do_nothing_are_found(given, dead, rank):
    (report,) = diagnose([given]).reports
    assert list(report.dead) == dead
    assert report.rank == rank
    assert report.live == (rank > 0)
    assert rank > 0 or report.reason == "its angles cancel out of every probability"


def test_the_same_candidate_twice_is_a_duplicate_but_not_with_other_angles():
    one, other = (candidate(2, False, *[("ring", "ry")] * n_layers) for n_layers in (1, 2))
    same = candidate(2, False, ("chain", "ry"), ("ring", "ry"))  # entanglers leave |00> alone
    reports = diagnose([other, one, same, one]).reports
    assert [r.duplicate_of for r in reports] == [None, None, 1, 2]
    assert diagnose([other, one, same, one]).distinct == [other, one]
    # All are certain of |00>, but at other numbers of angles.
    still = [candidate(2, False, *[("ring", "rz")] * n_layers) for n_layers in (1, 2)]
    assert [r.duplicate_of for r in diagnose(still).reports] == [None, None]
    assert diagnose([]).reports == ()


def test_the_table_names_what_is_wrong():
    table = str(diagnose([candidate(2, True, ("ring", "rx")), candidate(2, False, ("ring", "ry"))]))
    first, dead, live = table.splitlines()
    assert first.split() == ["no", "live", "same", "as", "angles", "rank", "score", "circuit"]
    assert dead.split()[:6] == ["1", "no", "2", "0", "0.0", "H"]
    assert dead.endswith(
        "1 x (ring RX): RX only multiplies |+> by a phase, so every outcome stays equally likely"
    )
    assert live.split()[:4] == ["2", "yes", "2", "2"]
    assert live.endswith("1 x (ring RY)")


def test_a_diagnosis_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    one, two = (diagnose(paper_space(2, 2), seed=s) for s in (1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert one == diagnose(paper_space(2, 2), seed=1) != two


def test_derivatives_that_would_not_fit_are_refused(monkeypatch):
    big = candidate(12, True, *[("ring", "ry")] * 20)
    # 2**12 amplitudes in complex128, for each of 240 angles in derivatives: 32 MB at least.
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 1e6, "SC_PHYS_PAGES": 20}.get)
    monkeypatch.setattr(diagnosis, "same_probabilities", None)  # nothing is run before that
    with pytest.raises(CircuitError, match=r"12 qubits need about"):
        diagnose([big])


@pytest.mark.parametrize("seed", ["x", None, 0.5, -1])
def test_a_seed_that_is_none_is_refused(seed):
    with pytest.raises(CircuitError, match="seed must be"):
        diagnose(paper_space(2, 1), seed=seed)


# --- The Jacobian itself


CHOICES = {
    "fixed": lambda: FixedCircuit(3, 2, entangler=("cz-ring", "ring"), rotation=("rx", "ry")),
    "real": lambda: FixedCircuit(3, 2, rotation="ry"),
    "groups": lambda: FixedCircuit(1, 2, rotation="rx", hadamard=False),
    "relaxed": lambda: RelaxedCircuit(3, 2, entanglers=("ring", "cz-ring", "none")),
    "sampled": lambda: RelaxedCircuit(3, 2, sampling="gumbel", sharing="qubit"),
    "identity": lambda: RelaxedCircuit(2, 2, rotations=("identity",)),
}


def frozen_layers(circuit):
    mixture = getattr(circuit, "mixture", None)
    return partial(circuit.layers, mixture=mixture()) if mixture else circuit.layers


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch, of itself
def test_the_jacobian_is_torchs_and_that_of_finite_differences(name):
    torch.manual_seed(0)
    circuit = CHOICES[name]().double()
    layers, theta = frozen_layers(circuit), circuit.theta.detach()
    squares, derivatives = angle_jacobian(layers, theta)
    shape = circuit.n_layers * circuit.n_qubits, 2**circuit.n_qubits

    def function(theta):
        return evolve(layers(theta)).abs() ** 2

    torch.testing.assert_close(squares, function(theta))
    table = torch.func.jacrev(function)(theta).flatten(1).T
    torch.testing.assert_close(derivatives, table)
    assert derivatives.shape == shape
    h = 1e-5 * torch.eye(shape[0], dtype=torch.double).view(-1, *theta.shape)
    differences = [(function(theta + step) - function(theta - step)) / 2e-5 for step in h]
    torch.testing.assert_close(derivatives, torch.stack(differences), atol=1e-8, rtol=0)
    single = angle_jacobian(frozen_layers(circuit.float().eval()), theta.float())[1]
    assert single.dtype == torch.float32


@pytest.mark.parametrize("entanglers", [("ring",), ("ring", "cz-ring")])
def test_the_score_can_be_differentiated_to_the_architecture(entanglers):
    torch.manual_seed(0)
    circuit = RelaxedCircuit(3, 2, entanglers=entanglers, sharing="layer").double()
    theta = circuit.theta.detach()
    names = list(circuit.alpha)

    def score(*alpha):
        values = dict(zip(names, alpha, strict=True))
        mixture = {name: value.softmax(-1) for name, value in values.items()}
        return angle_score(partial(circuit.layers, mixture=mixture), theta)

    alpha = [circuit.alpha[name].detach().clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(score, alpha)
    assert not angle_score(circuit.layers, theta).isnan()
    fixed = FixedCircuit(3, 2).double()
    assert not angle_score(fixed.layers, theta).requires_grad


def test_a_gate_without_an_angle_has_no_slope(monkeypatch):
    def turned(theta):
        return torch.tensor([0.6, 0.0, 0.8, 0.0]).to(theta).expand(*theta.shape, 4)

    monkeypatch.setitem(ROTATIONS, "turned", turned)
    circuit = FixedCircuit(2, 2, rotation="turned").double()
    squares, derivatives = angle_jacobian(circuit.layers, circuit.theta.detach())
    torch.testing.assert_close(squares, circuit().detach())
    assert derivatives.shape == (4, 4)
    assert not derivatives.any()


def test_layers_that_draw_are_asked_once():
    """Gates and entanglers then are of one draw; strictly one-hot, so that a mistake would show."""
    circuit = RelaxedCircuit(2, 3, sharing="layer", sampling="score-function").double()
    theta = circuit.theta.detach()
    for seed in range(5):
        torch.manual_seed(seed)
        found = angle_jacobian(circuit.layers, theta)[0]
        torch.manual_seed(seed)
        expected = candidate_probabilities(circuit.architecture(circuit.mixture()), theta)
        torch.testing.assert_close(found.detach(), expected)


def test_there_must_be_one_angle_for_each_gate():
    circuit = RelaxedCircuit(2, 2, separate_angles=True)
    with pytest.raises(CircuitError, match=r"one angle for each gate, \(2, 2\), got .*\(3, 2, 2\)"):
        angle_jacobian(circuit.layers, circuit.theta.detach())
