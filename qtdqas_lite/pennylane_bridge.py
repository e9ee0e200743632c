"""The circuits in PennyLane: on its devices, with shots and noise, and drawn (chapter 11).

Nothing else in the package imports this module, which needs PennyLane and matplotlib.
"""

from __future__ import annotations

import cmath
import copy
import itertools
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pennylane as qml
import torch
from matplotlib import pyplot, style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from .circuits import Candidate, FixedCircuit
from .errors import CircuitError, check_whole, refuses
from .growing_circuit import GrowingCircuit
from .relaxed_circuit import RelaxedCircuit
from .simulator import CNOT, entangler_gates
from .simulator.gates import quaternion_gates

_INK = dict.fromkeys(("lines.color", "patch.edgecolor", "text.color"), "#202020")
_THIN = dict.fromkeys(("lines.linewidth", "patch.linewidth"), 1.0)
_STYLE = {**_INK, **_THIN, "patch.facecolor": "white", "patch.force_edgecolor": True}


@refuses(CircuitError)
def to_qnode(
    circuit: Candidate | FixedCircuit | RelaxedCircuit | GrowingCircuit,
    *,
    device: Any = "default.qubit",
    shots: Any = None,
    seed: Any = None,
    diff_method: str = "best",
) -> Any:
    """Turn a circuit into a QNode of its angles, which returns the probabilities of all outcomes.

    The QNode takes angles in radians, a torch tensor of the shape of ``circuit.theta``, and gives
    shape (2**n,), wire 0 first. It is an ordinary QNode: ``qml.add_noise``, ``qml.set_shots``,
    ``qml.specs`` and ``qml.draw`` take it. Rotations that are RX, RY or RZ are written so, the
    identity is left out, and any other is a ``QubitUnitary`` that bears its name when drawn.

    A :class:`~qtdqas_lite.RelaxedCircuit` is taken with the weights that its logits give now, in
    eval mode. Its rotations, and powers of entanglers, become ``QubitUnitary``.

    Args:
        circuit: What to convert. A candidate takes angles of shape (n_layers, n_qubits).
        device: A name, such as ``"default.qubit"``, ``"lightning.qubit"`` or ``"default.mixed"``,
            or a PennyLane device with the wires 0, ..., n-1.
        shots: From how many samples the probabilities are estimated; by default they are exact.
        seed: Makes sampling repeatable, on a device given by name: from the same seed, the calls
            of one QNode after another give what they gave before.
        diff_method: How PennyLane differentiates.

    Returns:
        The ``qml.QNode``.

    Raises:
        CircuitError: if this is not a single circuit of the package, if it adds entanglers up and
            divides by the norm, or if a built device is given a seed. The QNode itself raises it
            for angles of another shape.
    """
    apply, n_qubits, shape = _plan(circuit)
    if isinstance(device, str):
        device = qml.device(device, wires=n_qubits, **({} if seed is None else {"seed": seed}))
    elif seed is not None:
        raise CircuitError("a built device has a seed of its own: leave seed out, or name a device")

    def outcomes(theta: Tensor) -> Any:
        if np.shape(theta) != shape:
            raise CircuitError(f"theta must have the shape {shape}, got {tuple(np.shape(theta))}")
        apply(theta)
        return qml.probs(wires=range(n_qubits))

    qnode = qml.QNode(outcomes, device, diff_method=diff_method)
    return qnode if shots is None else qml.set_shots(qnode, shots=shots)


def _plan(circuit: Any) -> tuple[Callable[[Tensor], None], int, tuple[int, ...]]:
    """Give what queues the circuit's gates at given angles, n, and the shape of the angles."""
    if isinstance(circuit, GrowingCircuit):
        plain, shape = circuit.discretize(), tuple(circuit.theta.shape)
        return lambda theta: _apply(plain, circuit.angles(theta)), plain.n_qubits, shape
    if isinstance(circuit, Candidate | FixedCircuit):
        fixed = (
            circuit
            if isinstance(circuit, FixedCircuit)
            else circuit.circuit(generator=torch.Generator())
        )
        shape = fixed.n_layers, fixed.n_qubits
        return lambda theta: _apply(fixed, theta), fixed.n_qubits, shape
    if not isinstance(circuit, RelaxedCircuit):
        raise CircuitError(
            f"{type(circuit).__name__} is not a single circuit of the package; an ensemble adds "
            f"the outputs of several: convert .discretize(), or each of .candidates"
        )
    n, space = circuit.n_qubits, circuit.space
    still = copy.copy(circuit)  # in eval mode nothing is drawn, and the circuit keeps its own mode
    still.training = False
    mixture = {name: weights.detach() for name, weights in still.mixture().items()}
    powers = mixture.get("entangler", torch.ones(1, 1)).expand(circuit.n_layers, -1).tolist()
    mixed = any(np.count_nonzero(layer) > 1 for layer in powers)
    if mixed and circuit.entangler_mixture == "renormalised":
        raise CircuitError(
            "a sum of entanglers, divided by its norm, is not a circuit: convert .discretize(), "
            "or build it with entangler_mixture='unitary'"
        )
    start = float(space.hadamards[0])
    if "hadamard" in mixture:
        start = mixture["hadamard"][0, space.hadamards.index(True)].item()

    def apply(theta: Tensor) -> None:
        gates = circuit.layers(torch.as_tensor(theta), mixture).gates
        _start(start, n)
        for layer, weights in zip(gates, powers, strict=True):
            for entangler, power in zip(space.entanglers, weights, strict=True):
                _entangle(entangler_gates(entangler, n), power)
            for wire, gate in enumerate(layer):
                qml.QubitUnitary(gate, wires=wire)

    return apply, n, tuple(circuit.theta.shape)


def _apply(circuit: FixedCircuit, theta: Tensor, drawn: int | None = None) -> None:
    """Queue a circuit's gates; to draw, only those of the first layers, with barriers."""
    n, candidate = circuit.n_qubits, circuit.architecture()
    rotate = {name: _rotation(name, rotation) for name, rotation in circuit.rotations.items()}
    _start(candidate.hadamard, n)
    layers = zip(theta, candidate.entanglers, candidate.rotations, strict=True)
    for i, (angles, entangler, rotations) in enumerate(itertools.islice(layers, drawn)):
        if drawn and (i or candidate.hadamard):
            qml.Barrier(wires=range(n))
        _entangle(circuit.entanglers[entangler])
        for wire, name in enumerate(rotations):
            rotate[name](angles[wire], wire)
    if drawn and drawn < candidate.n_layers:
        qml.Barrier(wires=range(n))


def _start(hadamard: float, n_qubits: int) -> None:
    for wire in range(n_qubits if hadamard else 0):
        if hadamard == 1:
            qml.Hadamard(wires=wire)
        else:
            qml.RY(hadamard * math.pi / 2, wires=wire)


def _entangle(gates: list[tuple[str, int, int]], power: float = 1.0) -> None:
    for kind, *wires in gates if power else ():
        gate = qml.CNOT if kind == CNOT else qml.CZ
        if power == 1:
            gate(wires=wires)
        else:  # a gate G with G G = 1 has the powers (1 + phase)/2 + (1 - phase)/2 G
            phase = cmath.exp(1j * math.pi * power)
            matrix = (1 + phase) / 2 * np.eye(4) + (1 - phase) / 2 * gate.compute_matrix()
            _unitary(f"{gate.__name__}^{power:.2f}")(matrix, wires=wires)


def _rotation(name: str, rotation: Callable[[Tensor], Tensor]) -> Callable[[Any, int], Any]:
    """Find PennyLane's gate for a rotation, by what it does: a reader may redefine a name."""
    probe = torch.linspace(-3.0, 3.0, 7, dtype=torch.float64)
    matrices = quaternion_gates(rotation(probe))
    for gate in (qml.RX, qml.RY, qml.RZ):
        if qml.math.allclose(gate.compute_matrix(probe), matrices):
            return lambda angle, wire: gate(angle, wires=wire)
    if qml.math.allclose(np.eye(2), matrices):
        return lambda angle, wire: None
    own = _unitary(name)
    return lambda angle, wire: own(quaternion_gates(rotation(torch.as_tensor(angle))), wires=wire)


@lru_cache(maxsize=64)
def _unitary(label: str) -> Any:
    """Make a QubitUnitary with a label; every device takes it for one."""
    return type("QubitUnitary", (qml.QubitUnitary,), {"label": lambda *args, **options: label})


def draw_architecture(circuit: Any, *, max_layers: int = 2) -> tuple[Figure, Axes]:
    """Draw an architecture, angles apart, in the book's style.

    Args:
        circuit: A :class:`~qtdqas_lite.Candidate`, or what has an ``architecture()``: of a
            relaxed circuit or an ensemble, that is its likeliest choice.
        max_layers: How many layers to draw, at least 1; the drawing says how many follow, and
            whether they are like the last one drawn.

    Returns:
        The figure and its axes. Pyplot does not know the figure: nothing is displayed by itself,
        and nothing has to be closed.

    Raises:
        CircuitError: if there is no architecture to draw, or ``max_layers`` is not a whole number
            of at least 1.
    """
    candidate = circuit.architecture() if hasattr(circuit, "architecture") else circuit
    if not isinstance(candidate, Candidate):
        raise CircuitError(f"{type(circuit).__name__} has no architecture to draw")
    n, layers = candidate.n_qubits, candidate.n_layers
    drawn = min(check_whole(CircuitError, 1, max_layers=max_layers), layers)
    fixed = circuit if isinstance(circuit, FixedCircuit) else candidate.circuit()
    tape = qml.tape.make_qscript(_apply)(fixed, torch.ones(layers, n), drawn)
    options = {"wire_order": range(n), "show_all_wires": True, "fontsize": 30, "style": "rcParams"}
    # This loads pyplot's backend, without which notebooks do not know how to show figures.
    pyplot.draw_if_interactive()  # type: ignore[no-untyped-call]
    with style.context(["qtdqas_lite.book", _STYLE, {"figure.constrained_layout.use": False}]):
        figure = Figure()
        FigureCanvasAgg(figure)
        _, axes = qml.drawer.tape_mpl(tape, fig=figure, **options)
        _finish(figure, axes, candidate, drawn)
    return figure, axes


def _finish(figure: Figure, axes: Any, candidate: Candidate, drawn: int) -> None:
    """Number the layers, say how many follow, and bring the drawing to the width of a page."""
    end = axes.get_xlim()[1] - 1
    for line in [*axes.collections[1::2]]:  # a barrier is two lines: one will do
        line.remove()
    edges = [line.get_segments()[0][0, 0] for line in axes.collections]
    edges = [*([] if candidate.hadamard else [-0.5]), *edges, end]
    notes = [(sum(pair) / 2, f"layer {i}") for i, pair in enumerate(itertools.pairwise(edges), 1)]
    if left := candidate.n_layers - drawn:
        layers = [*zip(candidate.entanglers, candidate.rotations, strict=True)]
        alike = len({*layers[drawn - 1 :]}) == 1
        notes[-1] = end + 0.5, f"{left} {'alike' if alike else 'more'}"
        for wire in range(candidate.n_qubits):
            axes.text(end + 0.5, wire, "...", fontsize=30, ha="center")
        end += 1.4
    for x, note in notes:
        axes.text(x, -0.9, note, fontsize=28, ha="center", va="center")
    axes.set(xlim=(-1.9, end + 0.1), ylim=(candidate.n_qubits - 0.4, -1.3))
    # PennyLane gives a column an inch, and text would not shrink by itself.
    width, height = end + 2.0, candidate.n_qubits + 0.9
    inch = min(0.42, max(0.2, 7 / width))
    figure.set_size_inches(inch * width, inch * height)
    for text in axes.texts:
        text.set_fontsize(inch * text.get_fontsize())
