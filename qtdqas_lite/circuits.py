"""Circuits whose outcome probabilities a network's weights are made from (chapters 02 and 03)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .errors import CircuitError, EncodingError, check_type, check_whole
from .simulator import Layers, entangler_gates, probabilities
from .simulator.gates import ROTATIONS, Rotation, entangler_pool, is_real
from .simulator.iqp import iqp_masks, iqp_probabilities
from .simulator.statevector import check_memory, transforms_active

MAX_ANGLES = 10**7  # of a circuit: more would only fill the memory

_Circuit = TypeVar("_Circuit", bound=nn.Module)


@dataclass(frozen=True)
class Candidate:
    """An architecture: all that there is to say about a fixed circuit but its angles.

    Attributes:
        n_qubits: The number of qubits n.
        hadamard: Whether a Hadamard acts on every qubit before the first layer.
        entanglers: The entangler of each layer.
        rotations: The rotation on each wire of each layer.

    Raises:
        EncodingError: if ``n_qubits`` is not a whole number of at least 1.
        CircuitError: if there are not as many gates as there have to be, or one is unknown.
    """

    n_qubits: int
    hadamard: bool
    entanglers: tuple[str, ...]
    rotations: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        """Check the fields; make tuples of lists, so that equal architectures have one hash."""
        n_qubits = check_whole(EncodingError, 1, n_qubits=self.n_qubits)
        entanglers = _tuple(self.entanglers, str)
        rotations = tuple(_tuple(layer, str) for layer in _tuple(self.rotations, Sequence))
        if not entanglers or len(entanglers) != len(rotations):
            raise CircuitError("there must be as many layers of rotations as of entanglers")
        if {len(layer) for layer in rotations} != {n_qubits}:
            raise CircuitError(f"each layer needs {n_qubits} rotations, one for each qubit")
        if not isinstance(self.hadamard, bool):
            raise CircuitError(f"hadamard must be True or False, got {self.hadamard!r}")
        for name in dict.fromkeys(entanglers):
            entangler_gates(name, n_qubits)
        if unknown := set().union(*rotations) - set(ROTATIONS):
            raise CircuitError(f"rotation must be one of {list(ROTATIONS)}, got {unknown}")
        object.__setattr__(self, "n_qubits", n_qubits)
        object.__setattr__(self, "entanglers", entanglers)
        object.__setattr__(self, "rotations", rotations)

    @property
    def n_layers(self) -> int:
        """The number of layers."""
        return len(self.entanglers)

    def circuit(self, *, generator: torch.Generator | None = None) -> FixedCircuit:
        """Build the circuit with random angles; see :class:`FixedCircuit`."""
        return FixedCircuit(
            self.n_qubits,
            self.n_layers,
            hadamard=self.hadamard,
            entangler=self.entanglers,
            rotation=self.rotations,
            generator=generator,
        )

    def to_json(self) -> str:
        """Write the architecture as JSON text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Candidate:
        """Read what :meth:`to_json` wrote.

        Raises:
            CircuitError: if the text is not such JSON, or no circuit can be built from it.
        """
        try:
            saved = json.loads(text)
            return cls(*(saved[field.name] for field in fields(cls)))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else error
            raise CircuitError(f"this JSON describes no circuit: {what}") from error

    def __str__(self) -> str:
        layers = [
            f"{entangler} {' '.join(rotations if len({*rotations}) > 1 else rotations[:1]).upper()}"
            for entangler, rotations in zip(self.entanglers, self.rotations, strict=True)
        ]
        if len(set(layers)) == 1:
            layers = [f"{len(layers)} x ({layers[0]})"]
        return " | ".join(["H" if self.hadamard else "0", *layers])


def _tuple(value: Any, kind: Any) -> tuple[Any, ...]:
    """Make a tuple of a list of names, or of lists of names."""
    good = isinstance(value, Sequence) and not isinstance(value, str)
    if not good or not all(isinstance(part, kind) for part in value):
        raise CircuitError(f"expected a list of names of gates for each layer, got {value!r}")
    return tuple(value)


#: The circuits that a checkpoint may name. Each has angles ``theta``, whose last size is n_qubits
#: and one of the others n_layers, and a ``configuration()``: the arguments that build it again, as
#: plain JSON values. A reader's own is passed to :meth:`.Checkpointed.load` instead.
CIRCUITS: dict[str, type[nn.Module]] = {}


def saved_by_name(circuit: type[_Circuit]) -> type[_Circuit]:
    """Let checkpoints name a class of circuits."""
    CIRCUITS[circuit.__name__] = circuit
    return circuit


@saved_by_name
class FixedCircuit(nn.Module):
    """A layered circuit with a fixed choice of gates: only its angles are trained.

    Every qubit starts in state 0, or in the equal superposition of 0 and 1 if ``hadamard``. Each
    layer is an entangler and then one rotation on every qubit. The twelve candidates of arXiv
    2505.09653 have one entangler (of two) and one rotation (of three) throughout.

    Not every choice depends on its angles. With Hadamards, ``"rx"`` and ``"rz"`` leave the
    probabilities uniform; without them, ``"rz"`` leaves the first outcome certain.

    Attributes:
        theta: The angles in radians, shape (n_layers, n_qubits), drawn uniformly from
            [-pi, pi).
        rotations: The rotations by their names, as they were defined when this was built.
        entanglers: The gates of each entangler by its name, as they were then.
    """

    rotation_numbers: Tensor
    permutations: Tensor
    signs: Tensor | None
    masks: Tensor | None

    def __init__(
        self,
        n_qubits: int,
        n_layers: int,
        *,
        hadamard: bool = True,
        entangler: str | Sequence[str] = "ring",
        rotation: str | Sequence[str] | Sequence[Sequence[str]] = "ry",
        generator: torch.Generator | None = None,
    ) -> None:
        """Build the circuit.

        Args:
            n_qubits: The number of qubits n, at least 1.
            n_layers: The number of layers, at least 1.
            hadamard: Whether a Hadamard acts on every qubit before the first layer.
            entangler: A name in :data:`.ENTANGLERS`, such as ``"chain"`` or ``"ring"``, or one name
                for each layer.
            rotation: A name in :data:`.ROTATIONS`, such as ``"rx"``, ``"ry"`` or ``"rz"``; or one
                for each layer; or for each layer, one for each qubit.
            generator: Where the initial angles are drawn from; torch's global one by default.

        Raises:
            EncodingError: if ``n_qubits`` is not a whole number of at least 1.
            CircuitError: if ``n_layers`` is not one either, there are not as many gates as layers
                or qubits, one is unknown, or the circuit would not fit into memory.
        """
        super().__init__()
        self.n_qubits = check_whole(EncodingError, 1, n_qubits=n_qubits)
        self.n_layers = check_whole(CircuitError, 1, n_layers=n_layers)
        check_type(CircuitError, torch.Generator, type(None), generator=generator)
        check_memory(self.n_qubits, 1, real=True)
        if self.n_qubits * self.n_layers > MAX_ANGLES:
            count = f"{self.n_qubits * self.n_layers:,} angles"
            raise CircuitError(f"{count}; use fewer layers: at most {MAX_ANGLES:,} can be held")
        entanglers = _repeated(entangler, self.n_layers, "entangler")
        rotations = tuple(
            _repeated(layer, self.n_qubits, "rotation")
            for layer in _repeated(rotation, self.n_layers, "rotation")
        )
        self._candidate = Candidate(self.n_qubits, hadamard, entanglers, rotations)
        # Gates are looked up here and not again: one that is redefined later changes nothing here.
        pool = dict.fromkeys(entanglers)
        self.entanglers = {name: entangler_gates(name, self.n_qubits) for name in pool}
        known = list(dict.fromkeys(chain.from_iterable(rotations)))
        self.rotations = {name: Rotation(name) for name in known}
        self.real = all(is_real(name) for name in self.rotations)
        check_memory(self.n_qubits, 1, real=self.real)
        angles = torch.rand(self.n_layers, self.n_qubits, generator=generator)
        self.theta = nn.Parameter(math.pi * (2 * angles - 1))
        numbers = torch.tensor([[known.index(name) for name in layer] for layer in rotations])
        self.register_buffer("rotation_numbers", numbers, persistent=False)
        self._choice = [list(pool).index(name) for name in entanglers]
        permutations, signs = entangler_pool(list(pool), self.n_qubits)
        self.register_buffer("permutations", permutations, persistent=False)
        self.register_buffer("signs", signs, persistent=False)
        diagonal = not hadamard and set(self.rotations) == {"rx"}
        masks = iqp_masks(entanglers, self.n_qubits) if diagonal else None
        self.register_buffer("masks", masks, persistent=False)

    def forward(self) -> Tensor:
        """Return the probabilities of all outcomes: shape (2**n_qubits,), sum 1."""
        return self.run(self.theta)

    def run(self, theta: Tensor) -> Tensor:
        """Return the probabilities at other angles, in radians, shape (n_layers, n_qubits).

        Angles of less than single precision are simulated in single precision.

        Raises:
            CircuitError: if the angles have another shape, or one is NaN or above 10,000 in size.
        """
        theta = check_angles(theta, self.rotation_numbers.shape)
        # Reduced precision would pass for 2**n probabilities and be wrong in the third digit.
        with torch.autocast(theta.device.type, enabled=False):
            if self.masks is not None:
                return iqp_probabilities(theta, self.masks)
            return probabilities(self.layers(theta))

    def layers(self, theta: Tensor) -> Layers:
        """Turn angles, shape (n_layers, n_qubits), into what the simulator takes."""
        first, *others = self.rotations.values()
        quaternions = first(theta)
        for number, rotation in enumerate(others, 1):
            here = (self.rotation_numbers == number)[..., None]
            quaternions = torch.where(here, rotation(theta), quaternions)
        entanglers = self.permutations, self.signs, self._choice
        return Layers(self.start(theta), quaternions, *entanglers, self.real)

    def start(self, theta: Tensor) -> Tensor:
        """Return the state before the first layer, in the precision of the angles: (2**n,)."""
        if self._candidate.hadamard:
            return theta.new_full((2**self.n_qubits,), 2 ** (-self.n_qubits / 2))
        state = theta.new_zeros(2**self.n_qubits)
        state[0] = 1
        return state

    def architecture(self) -> Candidate:
        """Return what there is to say about the circuit but its angles."""
        return self._candidate

    def configuration(self) -> dict[str, Any]:
        """Return the arguments that build this circuit again, angles apart; plain JSON values."""
        candidate = self._candidate
        rotations = [_collapsed(layer) for layer in candidate.rotations]
        return {
            "n_qubits": self.n_qubits,
            "n_layers": self.n_layers,
            "hadamard": candidate.hadamard,
            "entangler": _collapsed(candidate.entanglers),
            "rotation": _collapsed(rotations),
        }

    def extra_repr(self) -> str:
        """Show the architecture when the circuit is printed."""
        return ", ".join(f"{name}={value!r}" for name, value in self.configuration().items())


def _repeated(value: Any, count: int, what: str) -> tuple[Any, ...]:
    """Repeat one name, or check that there are as many as there have to be."""
    if isinstance(value, str):
        return (value,) * count
    if not isinstance(value, Sequence) or len(value) != count:
        each = f"{count} of them here (one for each layer, or for each qubit of a layer)"
        raise CircuitError(f"{what} must be one name, or {each}, got {value!r}")
    return tuple(value)


def _collapsed(names: Sequence[Any]) -> Any:
    """Undo :func:`_repeated`."""
    same = isinstance(names[0], str) and all(name == names[0] for name in names)
    return names[0] if same else list(names)


def check_angles(theta: Any, shape: torch.Size) -> Tensor:
    """Return angles that a circuit can be run at, in at least single precision.

    Raises:
        CircuitError: if they have another shape, or one is too large for its sine, or not finite.
    """
    if not isinstance(theta, Tensor) or theta.shape != shape or not theta.is_floating_point():
        found = theta.shape if isinstance(theta, Tensor) else theta
        raise CircuitError(f"theta must have shape {tuple(shape)} and be real, got {found!r}")
    if not (transforms_active() or theta.abs().max() <= 1e4):
        raise CircuitError(
            "theta must hold finite angles of at most 10,000 radians; if training has lost them, "
            "lower the learning rate or clip the gradient's norm"
        )
    return theta.float() if theta.dtype.itemsize < 4 else theta
