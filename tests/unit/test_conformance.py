"""What every circuit must do: the package's, one of a reader's own, and a reader's own gates."""

import copy
import json
import pickle
from functools import partial

import pytest
import torch
from conftest import candidate_probabilities
from torch import nn
from torch.func import functional_call

from qtdqas_lite import (
    CircuitEnsemble,
    FixedCircuit,
    GeneratedNetwork,
    GrowingCircuit,
    RelaxedCircuit,
    SearchSpace,
    paper_space,
)
from qtdqas_lite.controls import BitNetwork, FreeVector, PermutedCircuit, RandomSubspace


class OwnCircuit(nn.Module):
    """A circuit as a reader might write it: RY on every qubit, in plain torch."""

    def __init__(self, n_qubits, *, generator=None):
        super().__init__()
        self.n_qubits = n_qubits
        self.theta = nn.Parameter(torch.randn(n_qubits, generator=generator))

    def forward(self):
        p = torch.ones_like(self.theta[:1])
        for angle in self.theta:
            p = torch.outer(p, torch.stack([angle.cos() + 1, 1 - angle.cos()]) / 2).flatten()
        return p

    def configuration(self):
        return {"n_qubits": self.n_qubits}


def fixed(**options):
    return lambda n, generator: FixedCircuit(n, 2, **options, generator=generator)


def relaxed(**options):
    return lambda n, generator: RelaxedCircuit(n, 2, **options, generator=generator)


def ensemble(space=paper_space, **options):
    return lambda n, generator: CircuitEnsemble(space(n, 2), **options, generator=generator)


def per_qubit(n, generator):
    names = ["rx", "ry", "identity", "rz"]
    rotations = [[names[(layer + wire) % 4] for wire in range(n)] for layer in range(2)]
    return FixedCircuit(n, 2, rotation=rotations, entangler="stride", generator=generator)


def growing(**options):
    def build_one(n, generator):
        circuit = GrowingCircuit(n, 4, **options, generator=generator)
        for number in range(0, circuit.is_open.numel(), 3):
            angle = 3 * torch.randn((), generator=generator).item()
            circuit.open(*circuit.slot(number), angle)
        return circuit

    return build_one


def mixed_pool(n, n_layers):
    pool = {"entanglers": ("reversed", "cz-ring"), "rotations": ("ry", "identity")}
    return SearchSpace(n, n_layers, **pool)


PLUGGED = {"rotations": ("tilted", "ry"), "entanglers": ("star", "ring")}
SAMPLED = ("gumbel", "straight-through", "score-function")
CIRCUITS = {
    "fixed": fixed(),
    "fixed complex": fixed(rotation="rx"),
    "fixed signs": fixed(rotation="rx", entangler="cz-ring"),
    "fixed per layer": fixed(rotation=("ry", "rz"), entangler=("reversed", "cz-ring")),
    "fixed per qubit": per_qubit,
    "fixed identity": fixed(rotation="identity"),
    "diagonal": fixed(rotation="rx", hadamard=False),
    **{f"relaxed {sharing}": relaxed(sharing=sharing) for sharing in ("global", "layer", "qubit")},
    "relaxed real": relaxed(rotations=("ry",), entanglers=("chain", "cz-ring")),
    "relaxed identity": relaxed(rotations=("rx", "ry", "rz", "identity"), sharing="layer"),
    "relaxed angles": relaxed(separate_angles=True, entanglers=("ring",), hadamards=(True,)),
    "relaxed nothing": relaxed(rotations=("ry",), entanglers=("ring",), hadamards=(False,)),
    "relaxed unitary": relaxed(entangler_mixture="unitary", entanglers=("ring", "cz-ring")),
    **{f"relaxed {way}": relaxed(sampling=way, sharing="qubit") for way in SAMPLED},
    "ensemble": ensemble(),
    "ensemble mixed": ensemble(mixed_pool),
    **{f"ensemble {way}": ensemble(sampling=way) for way in SAMPLED},
    "growing": growing(start="ht"),
    "growing random": growing(start="random", axes=("rz", "ry"), entangler="cz-ring"),
    "free vector": lambda n, generator: FreeVector(n, generator=generator),
    "random subspace": lambda n, generator: RandomSubspace(n, 5, generator=generator),
    "bit network": lambda n, generator: BitNetwork(n, 2, generator=generator),
    "permuted": lambda n, generator: PermutedCircuit(n, 2, generator=generator),
    "permuted complex": lambda n, generator: PermutedCircuit(
        n, 2, rotation="rx", hadamard=False, generator=generator
    ),
    "own": lambda n, generator: OwnCircuit(n, generator=generator),
    "growing plugged": growing(start="ht", axes=("tilted",), entangler="star"),
    "fixed plugged": fixed(rotation="tilted", entangler="star"),
    "relaxed plugged": relaxed(**PLUGGED, sharing="qubit"),
    "ensemble plugged": ensemble(partial(SearchSpace, **PLUGGED)),
}
every_circuit = pytest.mark.parametrize("name", CIRCUITS)
pytestmark = pytest.mark.usefixtures("plugged")


def build(name, n=3, seed=7):
    circuit = CIRCUITS[name](n, torch.Generator().manual_seed(seed))
    for number, parameter in enumerate(getattr(circuit, "alpha", {}).values()):
        draw = torch.Generator().manual_seed(seed + number)
        parameter.data += torch.randn(parameter.shape, generator=draw)  # weights that differ
    return circuit


def outcome(circuit, parameters=None):
    """Run a circuit, with the same draws every time; at other parameters if they are given."""
    torch.manual_seed(0)
    return circuit() if parameters is None else functional_call(circuit, parameters, ())


def smooth(name, circuit):
    """The parameters that a small change of the probabilities can be expected of."""
    discrete = "straight" in name or "score" in name
    return {k: p for k, p in circuit.named_parameters() if not (discrete and "alpha" in k)}


@every_circuit
@pytest.mark.parametrize("n", [1, 2, 4])
def test_gives_a_distribution(name, n):
    circuit = build(name, n)
    p = outcome(circuit)
    assert p.shape == (2**n,)
    assert p.dtype == torch.float32
    assert p.isfinite().all()
    assert p.min() >= 0
    torch.testing.assert_close(p.sum().item(), 1.0, atol=1e-5, rtol=0)
    double = outcome(circuit.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(p.double(), double, atol=1e-5, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(outcome(circuit), double.detach(), atol=1e-12, rtol=0)


@every_circuit
def test_slopes_of_both_orders_are_those_of_finite_differences(name, generator):
    circuit = build(name).double()
    cotangent = torch.randn(8, dtype=torch.float64, generator=generator)
    parameters = smooth(name, circuit)
    names, values = list(parameters), list(parameters.values())
    ways = [torch.randn(v.shape, dtype=torch.float64, generator=generator) for v in values]

    def slopes(step=0.0, **options):
        moved = [
            (v + step * w).detach().requires_grad_() for v, w in zip(values, ways, strict=True)
        ]
        value = outcome(circuit, dict(zip(names, moved, strict=True))) @ cotangent
        return value, torch.autograd.grad(value, moved, **options), moved

    def along(tensors):
        return sum((t * w).sum() for t, w in zip(tensors, ways, strict=True))

    def close(found, expected):
        torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-6)

    h = 1e-5
    (above, slope_above, _), (below, slope_below, _) = slopes(h), slopes(-h)
    _, slope, moved = slopes(create_graph=True)
    close(along(slope), (above - below) / (2 * h))
    second = torch.autograd.grad(along(slope), moved, materialize_grads=True)
    for found, up, down in zip(second, slope_above, slope_below, strict=True):
        close(found, (up - down) / (2 * h))


@every_circuit
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch, of itself
def test_transforms_and_batches_agree_with_one_at_a_time(name):
    circuit = build(name).double().eval()
    parameters = {k: p.detach() for k, p in circuit.named_parameters()}
    p, rows = circuit(), torch.eye(8, dtype=torch.float64)
    used = [v for v in circuit.parameters() if torch.autograd.grad(p[0], v, **QUIET)[0] is not None]
    batched = torch.autograd.grad(p, used, rows, is_grads_batched=True, **QUIET)
    jacobian = torch.func.jacrev(partial(functional_call, circuit), argnums=0)(parameters, ())
    named = {id(v): k for k, v in circuit.named_parameters()}
    for number, row in enumerate(rows):
        # A row cut out of a larger tensor, and one that is expanded: neither is contiguous.
        for cotangent in (torch.stack([row, row], 1)[:, 0], row):
            slopes = torch.autograd.grad(p, used, cotangent, **QUIET)
            for value, slope, many in zip(used, slopes, batched, strict=True):
                torch.testing.assert_close(slope, many[number])
                torch.testing.assert_close(slope, jacobian[named[id(value)]][number])
    two = {k: torch.stack([v, v.flip(-1) + 1]) for k, v in parameters.items()}
    many = torch.func.vmap(lambda values: functional_call(circuit, values, ()))(two)
    for number in range(2):
        one = functional_call(circuit, {k: v[number] for k, v in two.items()}, ())
        torch.testing.assert_close(many[number], one)


QUIET = {"retain_graph": True, "allow_unused": True}


@every_circuit
def test_seeds_repeat_and_leave_the_global_generator_alone(name):
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    one, two, other = build(name), build(name), build(name, seed=8)
    assert torch.equal(before, torch.random.get_rng_state())
    for (key, a), b, c in zip(
        one.named_parameters(), two.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(a, b), key
        assert not torch.equal(a, c), key
    one.eval()
    assert torch.equal(one(), one())
    assert torch.equal(before, torch.random.get_rng_state())


@every_circuit
def test_is_built_again_from_its_configuration_and_state(name):
    circuit = build(name).eval()
    configuration = json.loads(json.dumps(circuit.configuration()))
    again = type(circuit)(**configuration).eval()
    again.load_state_dict(circuit.state_dict(), strict=True)
    assert torch.equal(again(), circuit())
    assert again.configuration() == circuit.configuration()
    saved = {key for key, _ in circuit.named_parameters()}
    saved |= {"_temperature", "is_open", "frozen"} & {key for key, _ in circuit.named_buffers()}
    assert set(circuit.state_dict()) == saved


@every_circuit
def test_copies_are_whole_and_share_nothing(name):
    circuit = build(name)
    for copied in (copy.deepcopy(circuit), pickle.loads(pickle.dumps(circuit))):
        assert torch.equal(outcome(copied), outcome(circuit))
        for parameter in copied.parameters():
            parameter.data.zero_()
    assert all(parameter.any() for parameter in circuit.parameters())


@every_circuit
def test_writes_a_network(name):
    circuit = build(name)
    net = GeneratedNetwork(nn.Linear(3, 2), circuit)
    net(torch.ones(4, 3)).square().sum().backward()
    for key, parameter in circuit.named_parameters():
        if "score" in name and "alpha" in key:
            assert parameter.grad is None
        else:
            assert parameter.grad.isfinite().all()
    budget = net.count()
    assert budget.angles == getattr(circuit, "n_open", circuit.theta.numel())
    alpha = getattr(circuit, "alpha", {})
    assert budget.architecture == sum(logits.numel() for logits in alpha.values())
    assert budget.total == budget.angles + budget.architecture + budget.mapping
    net.eval()
    with torch.no_grad():
        assert torch.equal(net(torch.ones(1, 3)), net(torch.ones(1, 3)))


@every_circuit
def test_is_not_disturbed_by_modes_of_torch(name):
    circuit = build(name)
    expected = torch.autograd.grad(outcome(circuit)[5], circuit.theta)
    with torch.inference_mode():
        outcome(circuit)
    with torch.autocast("cpu", torch.bfloat16):
        p = outcome(circuit)
    assert p.dtype == torch.float32
    assert torch.equal(torch.autograd.grad(p[5], circuit.theta)[0], expected[0])


@every_circuit
def test_without_numbers_there_is_no_result(name):
    """A circuit on the meta device gives a tensor without values, or an error, and no numbers."""
    circuit = build(name).to("meta")
    try:
        assert circuit().is_meta
    except RuntimeError:
        assert name != "own"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_all_run_on_cuda():
    for name in CIRCUITS:
        circuit = build(name).eval()
        p = circuit()
        found = circuit.cuda()()
        assert found.is_cuda, name
        torch.testing.assert_close(found.cpu(), p, atol=1e-5, rtol=0)
        found[3].backward()
        assert circuit.theta.grad.is_cuda, name


@pytest.mark.parametrize("name", [k for k in CIRCUITS if k.startswith(("relaxed", "ensemble"))])
def test_discretize_gives_the_chosen_circuit(name, generator):
    """With the logits of one choice far above the others, nothing changes, and PennyLane agrees."""
    circuit = build(name).double()
    for alpha in circuit.alpha.values():
        best = torch.randint(alpha.shape[-1], alpha.shape[:-1], generator=generator)
        one_hot = nn.functional.one_hot(best, alpha.shape[-1]).double()
        alpha.data = 60 * one_hot
    discrete = circuit.discretize()
    assert discrete.architecture() == circuit.architecture()
    assert discrete.theta.dtype == torch.float64
    expected = candidate_probabilities(circuit.architecture(), discrete.theta.detach())
    torch.testing.assert_close(discrete().detach(), expected, atol=1e-12, rtol=0)
    if "gumbel" not in name:
        torch.testing.assert_close(outcome(circuit).detach(), expected, atol=1e-12, rtol=0)
