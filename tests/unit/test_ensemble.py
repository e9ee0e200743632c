import math

import pytest
import torch
from conftest import TWELVE, candidate_probabilities, pennylane_probabilities
from torch import nn

from qtdqas_lite import (
    Candidate,
    CircuitEnsemble,
    CircuitError,
    FixedCircuit,
    GeneratedNetwork,
    RelaxedCircuit,
    SearchSpace,
    paper_space,
)
from qtdqas_lite.simulator.gates import ROTATIONS


def scattered(space, seed=0, **options):
    """An ensemble with weights that are far from equal."""
    generator = torch.Generator().manual_seed(seed)
    ensemble = CircuitEnsemble(space, **options, generator=generator).double()
    alpha = ensemble.alpha["circuit"]
    alpha.data = torch.randn(alpha.shape, generator=generator).double()
    return ensemble


@pytest.fixture
def simulated(monkeypatch):
    """List the circuits that are simulated, in their order."""
    found, run = [], FixedCircuit.run

    def spy(circuit, theta):
        found.append(circuit.architecture())
        return run(circuit, theta)

    monkeypatch.setattr(FixedCircuit, "run", spy)
    return found


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_is_the_weighted_sum_of_pennylanes_twelve(n, temperature):
    ensemble = scattered(paper_space(n, 3), temperature=temperature)
    theta = ensemble.theta.detach()
    weights = (ensemble.alpha["circuit"].detach() / temperature).softmax(-1)
    expected = sum(
        weight * pennylane_probabilities(theta, hadamard=start, entangler=e, rotation=r)
        for weight, (start, e, r) in zip(weights, TWELVE, strict=True)
    )
    torch.testing.assert_close(ensemble().detach(), expected, atol=1e-13, rtol=0)


def test_is_the_weighted_sum_of_any_candidates():
    pools = {"entanglers": ("stride", "cz-ring", "none"), "rotations": ("ry", "identity")}
    space = [*SearchSpace(3, 2, **pools), *paper_space(3, 2), *SearchSpace(3, 2, **pools)]
    ensemble = scattered(space)
    theta = ensemble.theta.detach()
    shares = ensemble.alpha["circuit"].detach().softmax(-1)
    expected = sum(shares[i] * candidate_probabilities(one, theta) for i, one in enumerate(space))
    torch.testing.assert_close(ensemble().detach(), expected, atol=1e-13, rtol=0)
    (slope,) = torch.autograd.grad(ensemble()[2], ensemble.theta)
    leaf = theta.clone().requires_grad_()
    outcomes = [shares[i] * candidate_probabilities(one, leaf) for i, one in enumerate(space)]
    (reference,) = torch.autograd.grad(sum(outcomes)[2], leaf)
    torch.testing.assert_close(slope, reference, atol=1e-12, rtol=0)


def test_dead_candidates_cost_nothing_and_duplicates_cost_once(simulated):
    twelve = list(paper_space(4, 3))
    ensemble = scattered(twelve)
    simulated.clear()
    ensemble()
    assert simulated == [twelve[number - 1] for number in (2, 5, 7, 8, 10, 11)]
    ensemble = scattered(twelve[1:2] * 3 + twelve[:1] * 2)
    simulated.clear()
    ensemble()
    assert simulated == [twelve[1]]


def test_only_what_was_drawn_is_simulated(simulated):
    ensemble = scattered(paper_space(3, 2), sampling="score-function")
    theta = ensemble.theta.detach()
    seen = set()
    for seed in range(30):
        torch.manual_seed(seed)
        simulated.clear()
        p = ensemble()
        torch.manual_seed(seed)
        number = int(ensemble.mixture()["circuit"].argmax())
        seen.add(number)
        candidate = ensemble.candidates[number]
        torch.testing.assert_close(p.detach(), candidate_probabilities(candidate, theta))
        live = number + 1 in (2, 5, 7, 8, 10, 11)
        assert simulated == [candidate] * live
        p[0].backward()  # the angles have a gradient, if only zero
        assert ensemble.theta.grad.any() == live
        ensemble.theta.grad = None
    assert len(seen) > 6


def test_all_candidates_can_be_dead():
    ensemble = scattered([candidate for candidate in paper_space(2, 2) if "RZ" in str(candidate)])
    p = ensemble()
    (slope,) = torch.autograd.grad(p[0], ensemble.theta)
    assert not slope.any()
    assert p.sum().item() == pytest.approx(1)


def test_constants_are_as_exact_as_float32_can_hold_them():
    ensemble = CircuitEnsemble(paper_space(5, 4))
    assert ensemble.constants.dtype == torch.float32
    expected = torch.stack([torch.full((32,), 1 / 32), torch.eye(32)[0]])
    torch.testing.assert_close(ensemble.constants, expected, atol=1e-15, rtol=0)


def test_a_name_given_to_another_gate_is_looked_at_anew(monkeypatch):
    monkeypatch.setitem(ROTATIONS, "mine", ROTATIONS["identity"])
    space = [Candidate(2, False, ("ring",), (("mine", "mine"),))]
    assert CircuitEnsemble(space).constants.shape == (1, 4)
    monkeypatch.setitem(ROTATIONS, "mine", ROTATIONS["ry"])
    assert CircuitEnsemble(space).constants.shape == (0, 4)


def test_discretize_takes_the_angles_along():
    ensemble = scattered(paper_space(3, 2))
    ensemble.alpha["circuit"].data[7] = 9.0
    discrete = ensemble.discretize()
    assert discrete.architecture() == ensemble.architecture() == list(paper_space(3, 2))[7]
    assert torch.equal(discrete.theta, ensemble.theta)
    with torch.no_grad():
        discrete.theta.zero_()
    assert ensemble.theta.any()


def test_weights_and_angles_start_as_described():
    soft = CircuitEnsemble(paper_space(4, 30), generator=torch.Generator().manual_seed(1))
    assert 0.003 < soft.alpha["circuit"].std() < 0.03
    assert soft.theta.shape == (30, 4)
    assert -math.pi <= soft.theta.min() < -3
    assert 3 < soft.theta.max() < math.pi


def test_entropy_is_that_of_the_softmax():
    soft = scattered(paper_space(2, 2), temperature=0.5)
    p = (2 * soft.alpha["circuit"].detach()).softmax(-1)
    assert soft.entropy().item() == pytest.approx((-(p * p.log()).sum() / math.log(12)).item())
    assert CircuitEnsemble(list(paper_space(2, 2))[1:2]).entropy() == 0


def test_lists_and_json_will_do():
    written = {"n_qubits": 2, "hadamard": True, "entanglers": ["ring"], "rotations": [["ry", "rx"]]}
    one = Candidate(**written)
    assert hash(one) == hash(Candidate(2, True, ("ring",), (("ry", "rx"),)))
    assert CircuitEnsemble([one, one.to_json()]).candidates == (one, one)


@pytest.mark.parametrize(
    ("space", "arguments", "message"),
    [
        ([], {}, "must share one number of qubits and of layers"),
        ([*paper_space(2, 2), *paper_space(3, 2)], {}, r"got \[\(2, 2\), \(3, 2\)\]"),
        ([*paper_space(2, 2), *paper_space(2, 3)], {}, r"got \[\(2, 2\), \(2, 3\)\]"),
        ([1, 2], {}, "a SearchSpace or a list of candidates"),
        (["{}"], {}, "describes no circuit"),
        (paper_space(2, 2), {"sampling": "best"}, "sampling must be"),
        (paper_space(2, 2), {"temperature": -1}, "temperature must be"),
        (paper_space(45, 2), {}, "45 qubits need about"),
    ],
)
def test_bad_ensembles_are_refused(space, arguments, message):
    with pytest.raises(CircuitError, match=message):
        CircuitEnsemble(space, **arguments)


def test_weights_that_are_not_finite_are_refused():
    ensemble = CircuitEnsemble(paper_space(2, 2))
    ensemble.alpha["circuit"].data[3] = math.nan
    with pytest.raises(CircuitError, match=r"alpha\['circuit'\] / temperature are not finite"):
        ensemble()


@pytest.mark.parametrize("sampling", ["gumbel", "straight-through"])
def test_what_was_not_drawn_has_a_slope_too(sampling, generator):
    """The gradient of alpha needs the probabilities of every candidate, whatever ran forward."""
    ensemble = scattered(paper_space(3, 2), sampling=sampling)
    cotangent = torch.randn(8, dtype=torch.double, generator=generator)
    theta = ensemble.theta.detach()
    table = torch.stack([candidate_probabilities(c, theta) for c in ensemble.candidates])
    for seed in range(4):
        torch.manual_seed(seed)
        (found,) = torch.autograd.grad(ensemble() @ cotangent, ensemble.alpha["circuit"])
        torch.manual_seed(seed)
        mixed = ensemble.mixture()["circuit"] @ table
        (expected,) = torch.autograd.grad(mixed @ cotangent, ensemble.alpha["circuit"])
        torch.testing.assert_close(found, expected)
        assert expected.abs().min() > 1e-9


def test_the_bits_of_a_choice_are_counted():
    ensemble = CircuitEnsemble(paper_space(5, 2))
    net = GeneratedNetwork(nn.Linear(4, 3), ensemble)
    assert net.count().choice_bits == ensemble.choice_bits == pytest.approx(math.log2(12))
    # Each of two layers chooses one of two entanglers, and each wire in it one of three rotations.
    relaxed = RelaxedCircuit(5, 2, sharing="qubit")
    assert relaxed.choice_bits == pytest.approx(math.log2(2 * 4 * 3**10))
    assert GeneratedNetwork(nn.Linear(4, 3), relaxed.discretize()).count().choice_bits == 0
