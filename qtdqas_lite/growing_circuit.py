"""Circuits with closed gates that can be opened one by one (chapter 07)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from .circuits import MAX_ANGLES, Candidate, FixedCircuit, check_angles, saved_by_name
from .errors import CircuitError, EncodingError, check_whole, refuses
from .simulator import Layers, probabilities
from .simulator.gates import Rotation, compose, entangler_pool
from .simulator.statevector import check_memory, product_state, transforms_active

#: How many layers of the scaffold a random start fills with frozen gates.
RANDOM_LAYERS = 4


class Slot(NamedTuple):
    """A place for a rotation: its layer and wire, both from 0, and its axis."""

    layer: int
    axis: str
    wire: int


@saved_by_name
class GrowingCircuit(nn.Module):
    """A deep scaffold of entanglers, with places for rotations that are closed until one is opened.

    Every qubit starts in T H|0>, the equal superposition with a phase of pi/4 on 1. Each layer is
    an entangler and then one slot for each axis on every wire. A closed slot is a rotation by 0 (in
    the first layers of a random start, by a fixed angle), so opening it changes nothing at first.
    What it would do is known all the same, because one backward pass gives the derivative with
    respect to every closed angle: its *slope*.

    Where a slot is open, ``frozen + theta`` acts; elsewhere ``frozen``, which no optimiser moves.

    Attributes:
        theta: The angles in radians, shape (n_layers, n_axes, n_qubits); 0 where closed.
        is_open: Which slots are open, of the same shape.
        frozen: Angles that are not trained; zero, but for the first layers of a random start.
    """

    is_open: Tensor
    frozen: Tensor
    state: Tensor | None
    permutations: Tensor
    signs: Tensor | None

    def __init__(
        self,
        n_qubits: int,
        n_layers: int = 32,
        *,
        axes: Sequence[str] = ("rx", "ry", "rz"),
        entangler: str = "ring",
        start: Literal["ht", "random"] | Tensor = "random",
        generator: torch.Generator | None = None,
    ) -> None:
        """Build the scaffold, with every slot closed.

        Args:
            n_qubits: The number of qubits n, at least 1.
            n_layers: The number of layers, at least 1. Depth is what makes slots differ: many
                layers on, a rotation of one qubit has become one about a product of Paulis.
            axes: Names in :data:`.ROTATIONS`, in a layer's order; at angle 0 each is the identity.
            entangler: A name in :data:`.ENTANGLERS`.
            start: ``"random"``: frozen random angles in all slots of the first 4 layers, without
                which hidden units of the target start alike. ``"ht"``: no frozen angles. Or a
                state of your own in place of T H|0>, real or complex, shape (2**n,), norm 1.
            generator: Where the frozen angles are drawn from; torch's global one by default.

        Raises:
            EncodingError: if ``n_qubits`` is not a whole number of at least 1.
            CircuitError: if another argument is not as described, or the circuit's states would
                not fit into this machine's memory.
        """
        super().__init__()
        self.n_qubits = check_whole(EncodingError, 1, n_qubits=n_qubits)
        self.n_layers = check_whole(CircuitError, 1, n_layers=n_layers)
        check_memory(self.n_qubits, 2, real=False)
        self.axes = _checked_axes(axes)
        check_whole(CircuitError, 0, MAX_ANGLES, n_slots=len(self.axes) * n_layers * n_qubits)
        self._rotations = [Rotation(name) for name in self.axes]  # as they are now
        self.entangler = entangler
        permutations, signs = entangler_pool([entangler], self.n_qubits)
        self.register_buffer("permutations", permutations, persistent=False)
        self.register_buffer("signs", signs, persistent=False)
        self.theta = nn.Parameter(torch.zeros(self.n_layers, len(self.axes), self.n_qubits))
        self.register_buffer("is_open", torch.zeros(self.theta.shape, dtype=torch.bool))
        frozen = torch.zeros(self.theta.shape)
        if isinstance(start, str) and start == "random":
            first = frozen[:RANDOM_LAYERS]
            first += math.pi * (2 * torch.rand(first.shape, generator=generator) - 1)
        self.register_buffer("frozen", frozen)
        self.start_name = start if isinstance(start, str) else "state"
        if self.start_name not in ("ht", "random", "state"):
            raise CircuitError(f"start must be 'ht', 'random' or a state, got {start!r}")
        state = None if isinstance(start, str) else _planes(start, self.n_qubits)
        self.register_buffer("state", state)
        self._probe: Tensor | None = None

    def forward(self) -> Tensor:
        """Return the probabilities of all outcomes: shape (2**n_qubits,), sum 1."""
        with torch.autocast(self.theta.device.type, enabled=False):
            return probabilities(self.layers(self.theta))

    def layers(self, theta: Tensor) -> Layers:
        """Turn angles, of the shape of ``theta``, into what the simulator takes."""
        theta = check_angles(theta, self.theta.shape)
        angles = self.frozen.to(theta) + torch.where(self.is_open, theta, 0.0)
        if self._probe is not None:
            angles = angles + self._probe
        quaternions, *later = (turn(angles[:, i]) for i, turn in enumerate(self._rotations))
        for one in later:
            quaternions = compose(one, quaternions)
        turning = None
        if not transforms_active():
            used = (self.is_open | (self.frozen != 0)).any(1).tolist()
            turning = [[wire for wire, here in enumerate(row) if here] for row in used]
        return Layers(
            self._start(theta), quaternions, self.permutations, self.signs, turning=turning
        )

    def _start(self, theta: Tensor) -> Tensor:
        if self.state is not None:
            return torch.complex(*self.state.to(theta))
        one = theta.new_full((2,), 0.5**0.5)
        phase = theta.new_tensor([0.0, math.pi / 4])
        return product_state(torch.polar(one, phase), self.n_qubits)

    @contextmanager
    def slopes(self) -> Iterator[Tensor]:
        """Add a zero to the angle of every slot, open or closed, for as long as the block lasts.

        Yields:
            The zeros, of the shape of ``theta``. After ``loss.backward()`` their ``grad`` holds
            the slopes: the derivatives of the loss with respect to all angles.
        """
        before, self._probe = self._probe, torch.zeros_like(self.theta, requires_grad=True)
        try:
            yield self._probe
        finally:
            self._probe = before

    @refuses(CircuitError)
    def open(self, layer: int, axis: str, wire: int, angle: float = 0.0) -> None:
        """Open a slot; with angle 0 nothing changes at first.

        Raises:
            CircuitError: if there is no such slot, it is open, or the angle is not finite.
        """
        place = self._place(layer, axis, wire)
        if self.is_open[place]:
            raise CircuitError(f"the slot {(layer, axis, wire)} is open")
        if not math.isfinite(angle):
            raise CircuitError(f"an angle is a finite number, got {angle}")
        with torch.no_grad():
            self.is_open[place], self.theta[place] = True, angle

    def close(self, layer: int, axis: str, wire: int) -> None:
        """Close a slot: its rotation is gone.

        Raises:
            CircuitError: if there is no such slot, or it is closed.
        """
        place = self._place(layer, axis, wire)
        if not self.is_open[place]:
            raise CircuitError(f"the slot {(layer, axis, wire)} is closed")
        with torch.no_grad():
            self.is_open[place], self.theta[place] = False, 0.0

    def _place(self, layer: int, axis: str, wire: int) -> tuple[int, int, int]:
        layer = check_whole(CircuitError, 0, layer=layer)
        wire = check_whole(CircuitError, 0, wire=wire)
        if axis not in self.axes or layer >= self.n_layers or wire >= self.n_qubits:
            raise CircuitError(
                f"there is no slot {(layer, axis, wire)}: layers are below {self.n_layers}, wires "
                f"below {self.n_qubits}, and the axes are {list(self.axes)}"
            )
        return layer, self.axes.index(axis), wire

    @property
    def n_open(self) -> int:
        """How many slots are open, and so how many angles are trained."""
        return int(self.is_open.sum())

    @property
    def choice_bits(self) -> float:
        """How many bits say which slots are open, once it is known how many."""
        return math.log2(math.comb(self.is_open.numel(), self.n_open))

    def open_slots(self) -> list[Slot]:
        """List the open slots, layer by layer."""
        return [self.slot(place) for place in self.is_open.flatten().nonzero()[:, 0].tolist()]

    @refuses(CircuitError)
    def slot(self, number: int) -> Slot:
        """Name the slot that has this number in ``theta.flatten()``."""
        rest, wire = divmod(number, self.n_qubits)
        layer, axis = divmod(rest, len(self.axes))
        return Slot(layer, self.axes[axis], wire)

    def architecture(self) -> Candidate:
        """Return the gates that are there as a plain circuit, which has no other slots.

        Its first layer has the gates T, written as RZ(pi/4). Each layer of the scaffold follows as
        one layer, or as several where a wire has gates about several axes.

        Raises:
            CircuitError: if the circuit starts in a state of your own.
        """
        entanglers, rotations = ["none"], [("rz",) * self.n_qubits]
        for entangler, places in self._rows():
            entanglers.append(entangler)
            names = ("identity" if p is None else self.slot(p).axis for p in places)
            rotations.append(tuple(names))
        return Candidate(self.n_qubits, True, tuple(entanglers), tuple(rotations))

    @refuses(CircuitError)
    def angles(self, theta: Tensor | None = None) -> Tensor:
        """Return the angles of :meth:`architecture`, shape (its n_layers, n_qubits)."""
        theta = self.theta if theta is None else theta
        acting = (self.frozen + torch.where(self.is_open, theta, 0.0)).flatten()
        acting = torch.cat([acting, acting.new_tensor([math.pi / 4, 0.0])])
        rows = [[-2] * self.n_qubits]
        rows += [[-1 if place is None else place for place in row] for _, row in self._rows()]
        return acting[torch.tensor(rows, device=acting.device)]

    def _rows(self) -> list[tuple[str, list[int | None]]]:
        """Give each layer of the plain circuit but the first: entangler, and each wire's slot."""
        if self.state is not None:
            raise CircuitError("a circuit that starts in a state of your own is no plain circuit")
        used = (self.is_open | (self.frozen != 0)).tolist()
        size, rows = self.n_qubits, []
        for layer, of_layer in enumerate(used):
            first = layer * len(self.axes) * size
            columns = [
                [first + axis * size + wire for axis, row in enumerate(of_layer) if row[wire]]
                for wire in range(size)
            ]
            for i in range(max(1, *map(len, columns))):
                row = [column[i] if i < len(column) else None for column in columns]
                rows.append(("none" if i else self.entangler, row))
        return rows

    def discretize(self) -> FixedCircuit:
        """Return the plain circuit of :meth:`architecture`, with the angles that act here."""
        circuit = self.architecture().circuit(generator=torch.Generator()).to(self.theta)
        with torch.no_grad():
            circuit.theta.copy_(self.angles())
        return circuit

    def configuration(self) -> dict[str, Any]:
        """Return the arguments that build this scaffold again; plain JSON values."""
        return {
            "n_qubits": self.n_qubits,
            "n_layers": self.n_layers,
            "axes": list(self.axes),
            "entangler": self.entangler,
            "start": self.start_name if self.state is None else self.state.tolist(),
        }

    def extra_repr(self) -> str:
        """Show the size when the circuit is printed."""
        size = f"{self.n_qubits} qubits, {self.n_layers} layers"
        return f"{size}, {self.n_open} of {self.is_open.numel()} slots open"


@refuses(CircuitError)
def _checked_axes(axes: Sequence[str]) -> tuple[str, ...]:
    listed = (axes,) if isinstance(axes, str) else tuple(axes)
    if not listed or len({*listed}) != len(listed):
        raise CircuitError(f"axes must be different names of rotations, got {axes!r}")
    for axis in listed:
        identity = Rotation(axis)(torch.zeros(()))
        if abs(identity[0]) < 1 - 1e-6:
            raise CircuitError(f"a closed slot is the identity, and {axis!r} at angle 0 is not")
    return listed


def _planes(start: Any, n_qubits: int) -> Tensor:
    """Check a state, and give its real and imaginary parts: shape (2, 2**n)."""
    try:
        state = torch.as_tensor(start)
        parts = torch.view_as_real(state).T if state.is_complex() else state
        parts = torch.stack([parts, torch.zeros_like(parts)]) if parts.dim() == 1 else parts
        sound = parts.shape == (2, 2**n_qubits) and abs(parts.square().sum().item() - 1) < 1e-4
    except (TypeError, ValueError, RuntimeError):
        sound = False
    if not sound:
        raise CircuitError(
            f"start must be 'ht', 'random', or a state of {2**n_qubits} amplitudes and norm 1"
        )
    return parts.to(torch.get_default_dtype()).contiguous()
