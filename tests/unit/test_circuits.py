import copy
import json
import math

import pytest
import torch
from conftest import TWELVE, candidate_probabilities, pennylane_probabilities
from hypothesis import given
from hypothesis import strategies as st

from qtdqas_lite import (
    Candidate,
    CircuitError,
    EncodingError,
    FixedCircuit,
    RelaxedCircuit,
)
from qtdqas_lite.simulator import passes
from qtdqas_lite.simulator.gates import ENTANGLERS, ROTATIONS


def build(n, n_layers, choice, generator):
    hadamard, entangler, rotation = choice
    return FixedCircuit(
        n,
        n_layers,
        hadamard=hadamard,
        entangler=entangler,
        rotation=rotation,
        generator=generator,
    ).double()


@pytest.mark.parametrize("choice", TWELVE)
@pytest.mark.parametrize(("n", "n_layers"), [(1, 2), (2, 3), (3, 4), (5, 3)])
def test_probabilities_and_gradients_are_pennylanes(n, n_layers, choice, generator):
    circuit = build(n, n_layers, choice, generator)
    cotangent = torch.randn(2**n, generator=generator, dtype=torch.double)
    theta = circuit.theta.detach().clone().requires_grad_()
    expected = pennylane_probabilities(
        theta, hadamard=choice[0], entangler=choice[1], rotation=choice[2]
    )
    found = circuit()
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    (slope,) = torch.autograd.grad(found @ cotangent, circuit.theta)
    (expected_slope,) = torch.autograd.grad(expected @ cotangent, theta)
    torch.testing.assert_close(slope, expected_slope, atol=1e-12, rtol=0)


@st.composite
def architectures(draw):
    """Any architecture that a few qubits and layers can have."""
    n, n_layers = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    names = st.sampled_from([*ROTATIONS])
    rotations = st.lists(st.lists(names, min_size=n, max_size=n), min_size=n_layers)
    entanglers = st.lists(st.sampled_from([*ENTANGLERS]), min_size=n_layers)
    return Candidate(
        n, draw(st.booleans()), draw(entanglers)[:n_layers], draw(rotations)[:n_layers]
    )


@given(architectures(), st.integers(0, 99))
def test_every_architecture_is_pennylanes(candidate, seed):
    seed = torch.Generator().manual_seed(seed)
    circuit = candidate.circuit(generator=seed).double()
    expected = candidate_probabilities(candidate, circuit.theta.detach())
    torch.testing.assert_close(circuit().detach(), expected, atol=1e-12, rtol=0)
    assert circuit.architecture() == candidate == Candidate.from_json(candidate.to_json())
    again = FixedCircuit(**json.loads(json.dumps(circuit.configuration())))
    assert again.architecture() == candidate


def test_single_precision_is_close_and_normalised(generator):
    single = FixedCircuit(10, 20, generator=generator)
    p = single()
    assert p.dtype == torch.float32
    torch.testing.assert_close(p.sum().item(), 1.0, atol=1e-5, rtol=0)
    torch.testing.assert_close(p.double(), single.double()(), atol=1e-6, rtol=0)


def test_angles_start_anywhere_on_the_circle():
    circuit = FixedCircuit(8, 50)
    assert -math.pi <= circuit.theta.min() < -3
    assert 3 < circuit.theta.max() < math.pi


def test_defaults_are_the_books_circuit():
    circuit = FixedCircuit(8, 50)
    assert circuit.configuration() == {
        "n_qubits": 8,
        "n_layers": 50,
        "hadamard": True,
        "entangler": "ring",
        "rotation": "ry",
    }
    assert "entangler='ring'" in repr(circuit)


def test_configurations_are_as_short_as_can_be():
    options = {"entangler": ["ring", "none"], "rotation": ["rx", ["ry", "rz"]]}
    assert FixedCircuit(2, 2, **options).configuration().items() >= options.items()
    twice = FixedCircuit(2, 2, entangler=["ring", "ring"], rotation=["rx", "rx"]).configuration()
    assert (twice["entangler"], twice["rotation"]) == ("ring", "rx")


def test_other_angles_can_be_run(generator):
    circuit = build(3, 2, (False, "ring", "ry"), generator)
    theta = torch.randn(2, 3, dtype=torch.double, generator=generator)
    expected = candidate_probabilities(circuit.architecture(), theta)
    torch.testing.assert_close(circuit.run(theta), expected)
    for choice in [(False, "ring", "ry"), (False, "ring", "rx")]:
        circuit = build(3, 2, choice, generator)
        for shape in [(1, 3), (3, 2), (3, 3), (6,)]:
            with pytest.raises(CircuitError, match=r"shape \(2, 3\) and be real, got"):
                circuit.run(torch.zeros(shape).double())
        for wrong in (None, [[0.0] * 3] * 2, torch.zeros(2, 3, dtype=torch.long)):
            with pytest.raises(CircuitError, match="and be real, got"):
                circuit.run(wrong)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_qubits": 0}, EncodingError, "n_qubits must be at least 1"),
        ({"n_qubits": 2.0}, EncodingError, "whole number"),
        ({"n_layers": 0}, CircuitError, "n_layers must be at least 1"),
        ({"n_layers": "2"}, CircuitError, "whole number"),
        ({"rotation": "u3"}, CircuitError, r"one of .*'rx', 'ry', 'rz'"),
        ({"rotation": ("rx",)}, CircuitError, "rotation must be one name, or 2 of them"),
        ({"rotation": [["rx", "ry"], ["rx"]]}, CircuitError, r"or 2 of them .* got \['rx'\]"),
        ({"rotation": [["rx", "ry"], None]}, CircuitError, "or 2 of them .* got None"),
        ({"rotation": 3}, CircuitError, "rotation must be one name"),
        ({"entangler": "star"}, CircuitError, r"one of .*'chain', 'ring'"),
        ({"entangler": ["ring"] * 3}, CircuitError, "entangler must be one name, or 2 of them"),
        ({"entangler": {"ring", "none"}}, CircuitError, "entangler must be one name, or 2"),
        (
            {"generator": 0},
            CircuitError,
            "generator must be of type Generator",
        ),
        ({"hadamard": "no"}, CircuitError, "hadamard must be True or False"),
        ({"n_qubits": 50}, CircuitError, r"50 qubits need about .* GB"),
        ({"n_qubits": 5000}, CircuitError, "5000 qubits"),
        ({"n_qubits": 10**9}, CircuitError, "1000000000 qubits"),
        ({"n_layers": 10**9}, CircuitError, "2,000,000,000 angles; use fewer layers"),
    ],
)
def test_bad_circuits_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        FixedCircuit(**{"n_qubits": 2, "n_layers": 2, **arguments})


@pytest.mark.parametrize(
    ("megabytes", "build", "fits"),
    # 2**20 amplitudes: 4 bytes each if real, 8 if complex, of a state (a relaxed circuit: one for
    # each layer) and of four to work with, and 12 bytes of other things.
    [
        (40, lambda: FixedCircuit(20, 40, rotation="ry"), True),
        (30, lambda: FixedCircuit(20, 40, rotation="ry"), False),
        (40, lambda: FixedCircuit(20, 40, rotation="rx"), False),
        (60, lambda: FixedCircuit(20, 40, rotation="rx"), True),
        (60, lambda: RelaxedCircuit(20, 10), False),
        (140, lambda: RelaxedCircuit(20, 10), True),
        (140, lambda: RelaxedCircuit(20, 40), False),
    ],
)
def test_memory_is_counted(megabytes, build, fits, monkeypatch):
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 1e6, "SC_PHYS_PAGES": megabytes}.get)
    if fits:
        build()
    else:
        with pytest.raises(CircuitError, match="use fewer qubits"):
            build()


@pytest.fixture
def kept(monkeypatch):
    """The shape of what each forward pass keeps: states, planes, amplitudes."""
    shapes, forward = [], passes.forward

    def spy(arrays, kept, norms):
        shapes.append(kept.shape)
        return forward(arrays, kept, norms)

    monkeypatch.setattr(passes, "forward", spy)
    return shapes


def test_what_is_kept_for_the_gradient(kept):
    fixed, real, relaxed = (
        FixedCircuit(5, 9, rotation="rz"),
        FixedCircuit(5, 9),
        RelaxedCircuit(5, 9),
    )
    for circuit in (fixed, real, relaxed):
        circuit()
    assert kept == [(1, 2, 32), (1, 1, 32), (10, 2, 32)]
    kept.clear()
    with torch.no_grad():
        relaxed()
    assert kept == [(1, 2, 32)]


def test_memory_that_no_one_tells_is_not_counted(monkeypatch):
    monkeypatch.delattr("os.sysconf")
    FixedCircuit(2, 2)


def test_many_layers_are_built_in_one_pass():
    candidate = FixedCircuit(3, 20_000, rotation=["rx", "ry"] * 10_000).architecture()
    assert candidate.rotations[-1] == ("ry", "ry", "ry")


@pytest.mark.parametrize("angle", [math.nan, math.inf, 3e38, -1e5])
def test_angles_that_have_lost_their_digits_are_refused(angle):
    for rotation in ("ry", "rx"):
        circuit = FixedCircuit(3, 2, rotation=rotation, hadamard=False)
        circuit.theta.data[1, 2] = angle
        for call in (circuit, lambda circuit=circuit: circuit.run(circuit.theta)):
            with pytest.raises(CircuitError, match="finite angles of at most 10,000 radians"):
                call()


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
def test_reduced_precision_is_simulated_in_single(dtype, generator):
    circuit = FixedCircuit(6, 20, rotation=["rx", "rz"] * 10, generator=generator).to(dtype)
    p = circuit()
    assert p.dtype == torch.float32
    theta = circuit.theta.detach().double()
    expected = candidate_probabilities(circuit.architecture(), theta)
    torch.testing.assert_close(p.double(), expected, atol=1e-6, rtol=0)


def test_a_gate_that_is_redefined_changes_no_circuit_that_exists(monkeypatch, generator):
    circuit = FixedCircuit(3, 2, rotation=["ry", "rx"], generator=generator)
    expected = circuit()
    monkeypatch.setitem(ROTATIONS, "ry", ROTATIONS["rz"])
    monkeypatch.setitem(ENTANGLERS, "ring", ENTANGLERS["none"])
    for same in (circuit, copy.deepcopy(circuit)):
        assert torch.equal(same(), expected)
    other = FixedCircuit(3, 2, rotation=["ry", "rx"])
    other.load_state_dict(circuit.state_dict())
    assert not torch.allclose(other(), expected)


# --- Architectures as text

GOOD = {"n_qubits": 2, "hadamard": True, "entanglers": ["ring"], "rotations": [["ry", "rx"]]}


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ((True, ["ring"] * 3, [["ry", "ry"]] * 3), "H | 3 x (ring RY)"),
        ((False, ["none"], [["ry", "rx"]]), "0 | 1 x (none RY RX)"),
        ((True, ["ring", "chain"], [["ry", "ry"], ["rz", "rx"]]), "H | ring RY | chain RZ RX"),
    ],
)
def test_an_architecture_reads_well(choice, text):
    assert str(Candidate(2, *choice)) == text


@pytest.mark.parametrize(
    "change",
    [
        {"n_qubits": 3},
        {"n_qubits": 2.0},
        {"n_qubits": 10**30},
        {"n_qubits": -1},
        {"n_qubits": None},
        {"hadamard": 1},
        {"hadamard": "yes"},
        {"entanglers": []},
        {"entanglers": "ring"},
        {"entanglers": ["ring", "ring"]},
        {"entanglers": [["ring"]]},
        {"entanglers": ["__class__"]},
        {"entanglers": 7},
        {"rotations": []},
        {"rotations": [["ry"]]},
        {"rotations": [["ry", "rx"], ["ry"]]},
        {"rotations": ["ry"]},
        {"rotations": [[{}, "ry"]]},
        {"rotations": None},
    ],
)
def test_text_that_describes_no_circuit_is_refused(change):
    assert Candidate.from_json(json.dumps(GOOD)).circuit()().shape == (4,)
    with pytest.raises(CircuitError, match="this JSON describes no circuit"):
        Candidate.from_json(json.dumps({**GOOD, **change}))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"n_qubits": 3}, CircuitError),
        ({"n_qubits": 2.0}, EncodingError),
        ({"n_qubits": 0}, EncodingError),
        ({"hadamard": 1}, CircuitError),
        ({"entanglers": ()}, CircuitError),
        ({"entanglers": "ring"}, CircuitError),
        ({"entanglers": ("knot",)}, CircuitError),
        ({"rotations": (("ry", "spin"),)}, CircuitError),
        ({"rotations": ("ry",)}, CircuitError),
        ({"rotations": None}, CircuitError),
    ],
)
def test_no_candidate_is_made_that_no_circuit_can_be_built_from(change, error):
    assert Candidate(**GOOD).circuit()().shape == (4,)
    with pytest.raises(error):
        Candidate(**{**GOOD, **change})


@pytest.mark.parametrize("text", ["", "[]", "7", "null", "{", "[" * 100_000, "{}", None, b"\xff"])
def test_text_that_is_no_such_json_is_refused(text):
    with pytest.raises(CircuitError, match="this JSON describes no circuit"):
        Candidate.from_json(text)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["ring", "ry", "x"]),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=2), parts),
    max_leaves=6,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(GOOD, anything)))
def test_hostile_text_is_refused_or_builds_a_circuit(changes):
    try:
        candidate = Candidate.from_json(json.dumps({**GOOD, **changes}))
    except CircuitError:
        return
    assert candidate.circuit()().isfinite().all()
