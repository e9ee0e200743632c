"""What is given in good faith and is of another type than it has to be: a sentence, not a crash."""

import pytest
import torch
from torch import nn

from qtdqas_lite import (
    CircuitEnsemble,
    CircuitError,
    DataError,
    FixedCircuit,
    GeneratedNetwork,
    GrowingCircuit,
    MLPMapping,
    QuantumTrainError,
    RelaxedCircuit,
    SearchError,
    SearchSpace,
    TargetError,
    bilevel,
    diagnose,
    fit,
    grow,
    log_feature,
    paper_space,
    search,
)
from qtdqas_lite.errors import refuses
from qtdqas_lite.experiments import read_table, sweep
from qtdqas_lite.pennylane_bridge import to_qnode
from qtdqas_lite.score import angle_jacobian
from qtdqas_lite.simulator import apply_gate, entangler_permutation, evolve, probabilities
from qtdqas_lite.simulator.gates import compose, rotation_quaternions
from qtdqas_lite.simulator.iqp import iqp_masks, walsh_hadamard
from qtdqas_lite.statistics import estimate, paired

DATA = torch.ones(4, 3), torch.zeros(4).long()
THETA = (torch.ones(2, requires_grad=True),)


def net(circuit=None):
    return GeneratedNetwork(nn.Linear(3, 2), circuit or FixedCircuit(3, 1))


def good(theta, alpha):
    return (theta[0] * alpha[0]).sum() ** 2


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: apply_gate([1, 0], torch.eye(2), 0), CircuitError, "of type list, Tensor, int"),
        (lambda: apply_gate(torch.ones(3), torch.eye(2), 0), CircuitError, "apply_gate"),
        (lambda: evolve(None), CircuitError, "evolve does not take .* NoneType"),
        (lambda: probabilities(1.5), CircuitError, "of type float"),
        (lambda: entangler_permutation(["ring"], 3), CircuitError, "of type list, int"),
        (lambda: rotation_quaternions("rx", 0.5), CircuitError, "of type str, float"),
        (lambda: compose(torch.ones(3), torch.ones(3)), CircuitError, "compose"),
        (lambda: iqp_masks(5, 3), CircuitError, "of type int, int"),
        (lambda: walsh_hadamard([1.0], 0), CircuitError, "of type list, int"),
        (lambda: RelaxedCircuit(3, 2)(mixture=[]), CircuitError, "of type RelaxedCircuit, list"),
        (lambda: RelaxedCircuit(3, 2).architecture(3), CircuitError, "architecture"),
        (lambda: RelaxedCircuit(3, 2).log_probability({}), CircuitError, "log_probability"),
        (lambda: CircuitEnsemble(paper_space(3, 1))(mixture=3), CircuitError, "int"),
        (lambda: SearchSpace(3, 2).sample(2, generator=3), CircuitError, "sample"),
        (lambda: SearchSpace(3, 2).candidate(True, (), ()), CircuitError, "candidate"),
        (lambda: diagnose(torch.tensor(1.0)), CircuitError, "list_candidates"),
        (lambda: GrowingCircuit(3, 2).open(0, "rx", 0, "far"), CircuitError, "open"),
        (lambda: GrowingCircuit(3, 2).slot("first"), CircuitError, "slot"),
        (lambda: GrowingCircuit(3, 2).angles(torch.ones(5)), CircuitError, "angles"),
        (lambda: GrowingCircuit(3, 2, axes=3), CircuitError, "_checked_axes|axes"),
        (lambda: angle_jacobian(3, torch.ones(2, 3)), CircuitError, "layers must be a function"),
        (lambda: to_qnode(FixedCircuit(2, 1), seed=torch.ones(0, 2)), CircuitError, "to_qnode"),
        (lambda: MLPMapping(3, generator=5), TargetError, "MLPMapping.__init__ does not take"),
        (lambda: entangler_permutation("ring", 10**9), CircuitError, "at most 10,000"),
        (
            lambda: angle_jacobian(FixedCircuit(3, 1).layers, 2),
            CircuitError,
            "Tensor, got int",
        ),
        (lambda: fit(net(), DATA, steps=10**30), SearchError, "steps must be at most"),
        (lambda: log_feature([0.5, 0.5]), TargetError, "log_feature"),
        (lambda: estimate({"a": 1}), SearchError, "of type dict"),
        (lambda: estimate(torch.ones(3), 10**30), SearchError, "comparisons must be at most"),
        (lambda: paired("ab", "cd"), SearchError, "of type str, str"),
        (lambda: read_table(3), DataError, "a path is text or a pathlib.Path, got 3"),
        (lambda: sweep(print, [], None), DataError, "a path is text"),
        (lambda: net().save(None), QuantumTrainError, "a path is text"),
        (lambda: GeneratedNetwork.load(4, nn.Linear(3, 2)), QuantumTrainError, "a path is text"),
        (lambda: fit("net", DATA), SearchError, "net must be of type Module"),
        (lambda: fit(net(), DATA, loss=3), SearchError, "loss must be a function, got 3"),
        (lambda: fit(net(), DATA, on_step=0), SearchError, "on_step must be a function"),
        (lambda: fit(net(), DATA, optimizer="Adam"), SearchError, "optimizer must be a function"),
        (lambda: search(3, DATA, DATA), SearchError, "net must be of type Module"),
        (
            lambda: grow(net(GrowingCircuit(3, 2)), DATA, n_angles=1, on_step=[]),
            SearchError,
            "on_step must be a function",
        ),
        (
            lambda: bilevel.hypergradient("joint", 3, good, THETA, THETA),
            SearchError,
            "train_loss must be a function",
        ),
        (
            lambda: bilevel.hypergradient({}, good, good, THETA, THETA),
            SearchError,
            "method must be one of",
        ),
    ],
)
def test_other_types_get_a_sentence(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_guard_hides_neither_the_cause_nor_other_errors():
    @refuses(CircuitError)
    def first(values, *, fault=None):
        """Give the first of some values."""
        if fault:
            raise fault
        return values[0]

    assert first([3]) == 3
    assert first.__doc__ == "Give the first of some values."
    with pytest.raises(
        CircuitError, match=r"first does not take .* of type list: list index"
    ) as found:
        first([])
    assert isinstance(found.value.__cause__, IndexError)
    for fault in (SearchError("mine"), FileNotFoundError("x"), torch.OutOfMemoryError("full")):
        with pytest.raises(type(fault)):
            first([3], fault=fault)
