import functools
import math

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pennylane as qml
import pytest
import torch
from conftest import TWELVE
from matplotlib.patches import Circle, FancyBboxPatch
from torch import nn

from qtdqas_lite import Candidate, CircuitEnsemble, CircuitError, FixedCircuit, RelaxedCircuit
from qtdqas_lite.pennylane_bridge import draw_architecture, to_qnode
from qtdqas_lite.simulator import gates as package_gates

LAYERED = {"entangler": ("chain", "cz-ring", "none"), "rotation": ("rz", "rx", "ry")}
EACH_QUBIT = {
    "entangler": ("stride", "reversed", "ring"),
    "rotation": (("ry", "rx", "identity", "rz"), "rx", ("rz", "ry", "ry", "rx")),
}


@pytest.fixture
def tilted(monkeypatch):
    """A reader's own rotation: about an axis between x and y, twice as fast."""

    def quaternions(theta):
        c, s = torch.cos(theta), torch.sin(theta)
        return torch.stack([c, 0.6 * s, 0.8 * s, 0 * s], -1)

    monkeypatch.setitem(package_gates.ROTATIONS, "tilted", quaternions)


@pytest.fixture
def build(generator):
    def build(n_qubits, n_layers, kind=FixedCircuit, **options):
        return kind(n_qubits, n_layers, generator=generator, **options).double()

    return build


def assert_same(qnode, circuit, *, atol=1e-12):
    """Compare values, and the gradient of a random combination of them."""
    noise = torch.Generator().manual_seed(3)
    cotangent = torch.randn(2**circuit.n_qubits, generator=noise, dtype=torch.double)
    expected, theta = circuit(), circuit.theta.detach().clone().requires_grad_()
    found = qnode(theta)
    assert found.shape == expected.shape
    torch.testing.assert_close(found.detach(), expected.detach(), atol=atol, rtol=0)
    (slope,) = torch.autograd.grad(found @ cotangent, theta)
    (expected_slope,) = torch.autograd.grad(expected @ cotangent, circuit.theta)
    torch.testing.assert_close(slope, expected_slope, atol=atol, rtol=0)


@pytest.mark.parametrize("choice", TWELVE)
def test_the_twelve_candidates_and_their_gradients(choice, build):
    hadamard, entangler, rotation = choice
    circuit = build(3, 3, hadamard=hadamard, entangler=entangler, rotation=rotation)
    assert_same(to_qnode(circuit), circuit)


@pytest.mark.parametrize("hadamard", [True, False])
@pytest.mark.parametrize("names", [LAYERED, EACH_QUBIT])
def test_mixed_architectures_and_their_gradients(hadamard, names, build):
    circuit = build(4, 3, hadamard=hadamard, **names)
    assert_same(to_qnode(circuit), circuit)


@pytest.mark.parametrize("entangler", ["ring", "cz-ring", "stride"])
@pytest.mark.parametrize("n", [1, 2])
def test_few_qubits(n, entangler, build):
    circuit = build(n, 2, entangler=entangler, rotation=("ry", "rx"))
    assert_same(to_qnode(circuit), circuit)


def test_probabilities_are_those_of_a_dense_simulation(build):
    """Whole matrices, in numpy: wire 0 is the leftmost factor of the tensor product."""
    circuit = build(3, 2, entangler=("ring", "cz-ring"), rotation=(("rx", "ry", "rz"), "rx"))
    theta = circuit.theta.detach().numpy()
    x, y, z = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])

    def turn(pauli, angle):
        return math.cos(angle / 2) * np.eye(2) - 1j * math.sin(angle / 2) * pauli

    def controlled(pauli, control, target):
        off, on = [np.eye(2)] * 3, [np.eye(2)] * 3
        off[control], on[control], on[target] = np.diag([1, 0]), np.diag([0, 1]), pauli
        return functools.reduce(np.kron, off) + functools.reduce(np.kron, on)

    state = np.full(8, 8**-0.5)
    for layer, (pauli, paulis) in enumerate([(x, (x, y, z)), (z, (x, x, x))]):
        for wire in range(3):
            state = controlled(pauli, wire, (wire + 1) % 3) @ state
        turns = [turn(pauli, angle) for pauli, angle in zip(paulis, theta[layer], strict=True)]
        state = functools.reduce(np.kron, turns) @ state
    found = to_qnode(circuit)(circuit.theta).detach().numpy()
    np.testing.assert_allclose(found, np.abs(state) ** 2, atol=1e-12)


def test_wire_0_is_the_most_significant_and_layers_come_in_order():
    circuit = FixedCircuit(3, 2, hadamard=False, entangler=("none", "chain"), rotation="rx")
    theta = torch.tensor([[math.pi, 0, 0], [0, 0, math.pi]], dtype=torch.double)
    # 100, the chain makes it 111, and the last rotation 110.
    assert to_qnode(circuit)(theta).argmax() == 0b110
    first = FixedCircuit(3, 1, hadamard=False, entangler="none", rotation="rx")
    assert to_qnode(first)(theta[:1]).argmax() == 0b100


def test_a_candidate_that_went_through_json_converts_and_draws_the_same(build):
    circuit = build(4, 3, **EACH_QUBIT)
    candidate = Candidate.from_json(circuit.architecture().to_json())
    qnode, again = to_qnode(circuit), to_qnode(candidate)
    assert torch.equal(qnode(circuit.theta), again(circuit.theta))
    assert qml.draw(qnode)(circuit.theta) == qml.draw(again)(circuit.theta)
    assert np.array_equal(*(pixels(draw_architecture(c)[0]) for c in (circuit, candidate)))


@pytest.mark.parametrize("name", ["lightning.qubit", "default.mixed"])
def test_other_devices_agree(name, build, tilted):
    for rotation in ("ry", ("tilted", ("rx", "identity", "rz"))):
        circuit = build(3, 2, rotation=rotation)
        # PennyLane computes RZ in single precision on default.mixed.
        assert_same(to_qnode(circuit, device=name), circuit, atol=1e-6)


def test_a_built_device_can_have_wires_to_spare(build):
    circuit = build(3, 2)
    assert_same(to_qnode(circuit, device=qml.device("default.qubit", wires=5)), circuit)
    assert_same(to_qnode(circuit, device=qml.device("default.qubit")), circuit)


def test_diff_method_is_passed_on(build):
    circuit = build(2, 2)
    assert_same(to_qnode(circuit, diff_method="parameter-shift"), circuit)
    off = to_qnode(circuit, diff_method=None)
    assert off.diff_method is None


@pytest.mark.parametrize("name", ["default.qubit", "lightning.qubit", "default.mixed"])
def test_frequencies_converge_to_the_probabilities(name, build):
    circuit, shots = build(3, 3, rotation="ry"), 20_000
    p = circuit().detach()
    found = to_qnode(circuit, device=name, shots=shots, seed=5)(circuit.theta).detach()
    counts = shots * found
    torch.testing.assert_close(counts, counts.round(), atol=1e-6, rtol=0)
    # Seven degrees of freedom: chi-square is above 40 once in 800,000 times, below 0.05 once in
    # a million.
    assert 0.05 < (shots * (found - p) ** 2 / p).sum() < 40


def test_a_seed_makes_sampling_repeatable(build):
    circuit = build(3, 2)
    theta = circuit.theta.detach()
    first, again = (to_qnode(circuit, shots=100, seed=5) for _ in range(2))
    draws = [first(theta) for _ in range(3)]
    assert all(torch.equal(draw, again(theta)) for draw in draws)
    assert not torch.equal(draws[0], draws[1])
    other = to_qnode(circuit, shots=100, seed=6)
    assert not torch.equal(draws[0], other(theta))


def test_shots_can_be_set_later_and_gradients_are_estimated_from_them(build, tilted):
    circuit = build(2, 2, rotation=("ry", "tilted"))
    qnode = qml.set_shots(to_qnode(circuit, seed=5), shots=40_000)
    assert_same(qnode, circuit, atol=0.05)


@pytest.mark.parametrize("n_layers", [1, 3])
def test_depolarising_noise_pulls_towards_uniform_as_the_closed_form_says(n_layers, build):
    circuit = build(1, n_layers, hadamard=False, rotation="ry")
    strength = 0.1  # rho -> (1 - 4/3 strength) rho + 4/3 strength * I / 2
    model = qml.NoiseModel(
        {qml.noise.op_eq(qml.RY): qml.noise.partial_wires(qml.DepolarizingChannel, strength)}
    )
    noisy = qml.add_noise(to_qnode(circuit, device="default.mixed"), model)
    kept = (1 - 4 / 3 * strength) ** n_layers
    p = torch.cos(circuit.theta.detach().sum() / 2) ** 2
    expected = 0.5 + kept * (torch.stack([p, 1 - p]) - 0.5)
    torch.testing.assert_close(noisy(circuit.theta).detach(), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("entangler", "per_layer"), [("chain", 4), ("ring", 5), ("none", 0)])
def test_specs_counts_the_gates(entangler, per_layer, build):
    circuit = build(5, 3, entangler=entangler)
    resources = qml.specs(to_qnode(circuit))(circuit.theta)["resources"]
    expected = {"Hadamard": 5, "CNOT": 3 * per_layer, "RY": 15}
    assert resources.gate_types == {name: count for name, count in expected.items() if count}


def test_own_rotation_becomes_a_unitary_with_its_name(build, tilted):
    circuit = build(3, 2, rotation=("tilted", ("tilted", "identity", "ry")))
    qnode = to_qnode(circuit)
    assert_same(qnode, circuit)
    assert_same(to_qnode(circuit, diff_method="parameter-shift"), circuit, atol=1e-10)
    text = qml.draw(qnode)(circuit.theta)
    assert text.count("tilted") == 4
    assert text.count("RY(") == 1
    counts = qml.specs(qnode)(circuit.theta)["resources"].gate_types
    assert counts["QubitUnitary"] == 4


def test_a_gate_is_what_it_does_not_what_it_is_called(build, monkeypatch):
    rotations = package_gates.ROTATIONS
    monkeypatch.setitem(rotations, "mine", rotations["ry"])
    monkeypatch.setitem(rotations, "rx", lambda theta: rotations["rz"](theta / 2))
    circuit = build(2, 2, rotation=("mine", "rx"))
    qnode = to_qnode(circuit)
    assert_same(qnode, circuit)
    assert qml.draw(qnode)(circuit.theta).count("RY(") == 2


def test_a_circuit_keeps_the_gates_that_it_was_built_with(build, monkeypatch):
    circuit = build(3, 2, rotation=("ry", "rx"), entangler=("ring", "cz-ring"))
    expected = circuit().detach()
    monkeypatch.setitem(package_gates.ROTATIONS, "ry", package_gates.ROTATIONS["rz"])
    monkeypatch.setitem(package_gates.ENTANGLERS, "ring", package_gates.ENTANGLERS["none"])
    torch.testing.assert_close(to_qnode(circuit)(circuit.theta).detach(), expected)
    other = to_qnode(circuit.architecture())(circuit.theta).detach()
    assert not torch.allclose(other, expected)


def test_own_entangler(build, monkeypatch):
    gates = [("cz", 2, 0), ("cnot", 1, 0)]
    monkeypatch.setitem(package_gates.ENTANGLERS, "mine", lambda n: gates)
    circuit = build(3, 2, entangler="mine", rotation=("rx", "ry"))
    assert_same(to_qnode(circuit), circuit)


def test_plain_numbers_are_angles_too(build):
    circuit = build(2, 2)
    found = to_qnode(circuit)(circuit.theta.detach().numpy())
    np.testing.assert_allclose(found, circuit().detach(), atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"separate_angles": True}, {"sharing": "qubit"}])
@pytest.mark.parametrize("hadamards", [(True,), (False,), (True, False), (False, True)])
def test_relaxed_circuit_with_one_entangler(options, hadamards, build, tilted, generator):
    rotations = ("rx", "ry", "tilted")
    circuit = build(
        3,
        2,
        RelaxedCircuit,
        entanglers=("ring",),
        hadamards=hadamards,
        rotations=rotations,
        **options,
    )
    with torch.no_grad():
        for alpha in circuit.alpha.values():
            alpha.normal_(generator=generator)
    assert_same(to_qnode(circuit), circuit)


@pytest.mark.parametrize("sampling", ["straight-through", "score-function"])
def test_relaxed_circuit_with_hard_choices_is_taken_as_in_eval_mode(sampling, build):
    circuit = build(3, 3, RelaxedCircuit, sampling=sampling, sharing="layer")
    circuit()
    qnode = to_qnode(circuit)
    assert circuit.training
    assert_same(qnode, circuit.eval())


@pytest.mark.parametrize("entanglers", [("chain", "ring"), ("cz-ring", "none", "reversed")])
def test_relaxed_circuit_with_unitary_mixtures(entanglers, build, generator):
    options = {"entangler_mixture": "unitary", "entanglers": entanglers, "sharing": "layer"}
    circuit = build(3, 2, RelaxedCircuit, **options)
    with torch.no_grad():
        circuit.alpha["entangler"].normal_(generator=generator)
    for device in ("default.qubit", "lightning.qubit", "default.mixed"):
        assert_same(to_qnode(circuit, device=device), circuit, atol=1e-10)
    powers = circuit.mixture()["entangler"][0]
    assert f"{'CZ' if len(entanglers) == 3 else 'CNOT'}^{powers[0]:.2f}" in (
        qml.draw(to_qnode(circuit))(circuit.theta)
    )


def test_what_is_not_a_circuit_is_refused(build):
    relaxed = build(2, 2, RelaxedCircuit)
    with pytest.raises(CircuitError, match=r"sum of entanglers.*discretize\(\)"):
        to_qnode(relaxed)
    found = relaxed.discretize()
    assert_same(to_qnode(found), found)
    ensemble = CircuitEnsemble(
        [FixedCircuit(2, 2, rotation=r).architecture() for r in ("rx", "ry")]
    )
    with pytest.raises(CircuitError, match=r"CircuitEnsemble.*each of \.candidates"):
        to_qnode(ensemble)
    for candidate in ensemble.candidates:
        circuit = candidate.circuit().double()
        assert_same(to_qnode(candidate), circuit)
    with pytest.raises(CircuitError, match="Linear is not a single circuit"):
        to_qnode(nn.Linear(2, 2))


def test_other_errors(build):
    circuit = build(3, 2)
    with pytest.raises(CircuitError, match=r"shape \(2, 3\), got \(3, 2\)"):
        to_qnode(circuit)(circuit.theta.T)
    with pytest.raises(CircuitError, match="seed of its own"):
        to_qnode(circuit, device=qml.device("default.qubit", wires=3), seed=1)
    with pytest.raises(CircuitError, match="rotation must be one of"):
        to_qnode(Candidate(1, True, ("none",), (("ru",),)))(torch.zeros(1, 1))
    with pytest.raises(CircuitError, match="entangler must be one of"):
        draw_architecture(Candidate(1, True, ("knot",), (("rx",),)))
    with pytest.raises(CircuitError, match="Linear has no architecture"):
        draw_architecture(nn.Linear(2, 2))
    for wrong in (0, 1.5):
        with pytest.raises(CircuitError, match="max_layers must be"):
            draw_architecture(circuit, max_layers=wrong)


def pixels(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())


def labels(axes):
    return [text.get_text() for text in axes.texts]


def count(axes, kind):
    return sum(isinstance(patch, kind) for patch in axes.patches)


def test_drawing_has_every_gate_of_every_layer():
    figure, axes = draw_architecture(FixedCircuit(5, 2))
    found = labels(axes)
    assert (found.count("H"), found.count("RY")) == (5, 10)
    assert found[:5] == ["0", "1", "2", "3", "4"]
    assert found[-2:] == ["layer 1", "layer 2"]
    assert count(axes, FancyBboxPatch) == 15
    assert count(axes, Circle) == 2 * 5 * 2  # a control and a target for every CNOT
    assert len(axes.collections) == 2  # one line before each layer
    assert {patch.get_linewidth() for patch in axes.patches} == {1.0}
    assert figure is axes.figure


@pytest.mark.parametrize("n_layers", [1, 2])
def test_drawing_shows_wires_on_which_nothing_happens(n_layers):
    idle = FixedCircuit(3, n_layers, hadamard=False, entangler="none", rotation="identity")
    _, axes = draw_architecture(idle)
    assert labels(axes)[:3] == ["0", "1", "2"]
    assert len(axes.lines) == 3


def test_drawing_of_mixed_layers(tilted):
    rotations = (("tilted", "identity", "rx"), "rz")
    circuit = FixedCircuit(3, 2, hadamard=False, entangler=("cz-ring", "none"), rotation=rotations)
    _, axes = draw_architecture(circuit)
    assert labels(axes)[3:] == ["tilted", "RX", "RZ", "RZ", "RZ", "layer 1", "layer 2"]
    assert count(axes, Circle) == 6
    assert len(axes.collections) == 1


@pytest.mark.parametrize(
    ("n_layers", "max_layers", "entangler", "note"),
    [
        (10, 2, "ring", "8 alike"),
        (3, 1, ("ring", "chain", "chain"), "2 more"),
        (3, 2, ("ring", "chain", "chain"), "1 alike"),
        (3, 3, "ring", None),
        (2, 9, "ring", None),
    ],
)
def test_drawing_says_how_many_layers_follow(n_layers, max_layers, entangler, note):
    _, axes = draw_architecture(
        FixedCircuit(2, n_layers, entangler=entangler), max_layers=max_layers
    )
    found, drawn = labels(axes), min(n_layers, max_layers)
    assert found.count("RY") == 2 * drawn
    expected = [f"layer {i + 1}" for i in range(drawn)] + [note] * (note is not None)
    assert found[-len(expected) :] == expected
    assert found.count("...") == (0 if note is None else 2)


@pytest.mark.parametrize(
    ("n", "n_layers", "hadamard"), [(1, 3, False), (5, 2, True), (11, 10, True)]
)
def test_drawing_fits_its_figure_and_the_page(n, n_layers, hadamard):
    figure, axes = draw_architecture(FixedCircuit(n, n_layers, hadamard=hadamard))
    width, height = figure.get_size_inches()
    assert width <= 7.001
    # A unit is as long in both directions, or else circles are not round.
    across, down = np.ptp(axes.get_xlim()), np.ptp(axes.get_ylim())
    assert width / across == pytest.approx(height / down)
    figure.canvas.draw()
    texts = [text.get_window_extent() for text in axes.texts]
    for i, box in enumerate(texts):
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0
        assert box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in texts[:i])
    # In greyscale, and on a dark page: black on opaque white.
    image = pixels(figure)
    assert (image[..., 3] == 255).all()
    assert np.ptp(image[..., :3].astype(int), axis=-1).max() == 0


@pytest.mark.parametrize("build_relaxed", [RelaxedCircuit, None])
def test_drawing_of_what_is_relaxed_is_of_its_likeliest_choice(build_relaxed):
    if build_relaxed:
        relaxed = build_relaxed(3, 2, rotations=("rx", "rz"))
    else:
        relaxed = CircuitEnsemble([FixedCircuit(3, 2).architecture()])
    figures = [draw_architecture(c)[0] for c in (relaxed, relaxed.architecture())]
    assert np.array_equal(*map(pixels, figures))


def test_drawing_leaves_matplotlib_alone():
    plt.get_backend()  # which is looked for when it is first asked for, and then remains
    with mpl.rc_context({"lines.color": "red", "figure.facecolor": "black", "font.size": 20}):
        before = dict(mpl.rcParams)
        figure, _ = draw_architecture(FixedCircuit(2, 2))
        assert dict(mpl.rcParams) == before
        coloured = pixels(figure)
    assert plt.get_fignums() == []
    plain = pixels(draw_architecture(FixedCircuit(2, 2))[0])
    assert np.array_equal(plain, coloured)


def test_drawing_loads_the_backend_that_shows_figures_in_notebooks(monkeypatch):
    monkeypatch.setattr(plt, "_backend_mod", None)
    draw_architecture(FixedCircuit(2, 1))
    assert plt._backend_mod is not None
