"""What may stand in a circuit's place, to see whether the circuit is what works (chapter 11).

Each of these gives a distribution of 2**n outcomes from trained numbers, as a circuit does, and a
:class:`.GeneratedNetwork` takes it as it takes a circuit. More controls need no class of their own:

* the mapping alone: ``FixedCircuit(n, 1, rotation="rx")``, which is uniform at every angle;
* a frozen circuit, or a frozen random vector: ``circuit.requires_grad_(False)``;
* a circuit without entanglement: ``FixedCircuit(n, n_layers, entangler="none")``;
* free gates of one qubit: layers of RZ, RY and RZ with one entangler for the three of them.

A checkpoint names none of them: pass ``circuit=`` to :meth:`.GeneratedNetwork.load`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from .circuits import FixedCircuit, check_angles
from .encoding import basis_bits
from .errors import CircuitError, EncodingError, check_whole
from .simulator import Layers
from .simulator.statevector import check_memory


class _Logits(nn.Module):
    """A distribution over 2**n outcomes by the softmax of 2**n numbers of order one."""

    theta: nn.Parameter

    def __init__(self, n_qubits: int) -> None:
        super().__init__()
        self.n_qubits = check_whole(EncodingError, 1, n_qubits=n_qubits)
        check_memory(self.n_qubits, 1, real=True)

    def logits(self, theta: Tensor) -> Tensor:
        """Turn the trained numbers into one number for each outcome, shape (2**n_qubits,)."""
        raise NotImplementedError

    def forward(self) -> Tensor:
        """Return a probability for each outcome: shape (2**n_qubits,), sum 1."""
        theta = check_angles(self.theta, self.theta.shape)
        with torch.autocast(theta.device.type, enabled=False):
            return self.logits(theta).softmax(0)

    def configuration(self) -> dict[str, Any]:
        """Return the arguments that build this again, trained numbers apart."""
        return {"n_qubits": self.n_qubits}


class FreeVector(_Logits):
    """A number of its own for each outcome: whatever a circuit could write, and all else.

    With its numbers frozen it is noise, of which only the mapping makes anything.

    Attributes:
        theta: The logarithms of the probabilities, up to a constant, drawn from N(0, 1), shape
            (2**n_qubits,).
    """

    def __init__(self, n_qubits: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__(n_qubits)
        self.theta = nn.Parameter(torch.randn(2**self.n_qubits, generator=generator))

    def logits(self, theta: Tensor) -> Tensor:
        """Return the numbers themselves."""
        return theta


class RandomSubspace(_Logits):
    """A few numbers times random directions (Li et al., arXiv 1804.08838).

    Attributes:
        theta: The trained numbers, drawn from N(0, 1), shape (n_numbers,).
        frozen: The directions, drawn from N(0, 1 / n_numbers), shape (n_numbers, 2**n_qubits).
    """

    frozen: Tensor

    def __init__(
        self, n_qubits: int, n_numbers: int, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(n_qubits)
        n_numbers = check_whole(CircuitError, 1, n_numbers=n_numbers)
        check_memory(self.n_qubits, n_numbers, real=True)
        self.theta = nn.Parameter(torch.randn(n_numbers, generator=generator))
        directions = torch.randn(n_numbers, 2**self.n_qubits, generator=generator)
        self.register_buffer("frozen", directions / math.sqrt(n_numbers))

    def logits(self, theta: Tensor) -> Tensor:
        """Add up the directions."""
        return theta @ self.frozen.to(theta)

    def configuration(self) -> dict[str, Any]:
        """Return the arguments that build this again, but for the numbers and the directions."""
        return super().configuration() | {"n_numbers": len(self.theta)}


class BitNetwork(_Logits):
    """A hypernetwork: a small network with one tanh layer turns an outcome's bits into a number.

    Attributes:
        theta: (n_qubits + 2) * hidden numbers from N(0, 1): the weights and biases of the hidden
            units and, times 1 / sqrt(hidden), what each of them adds.
    """

    bits: Tensor

    def __init__(
        self, n_qubits: int, hidden: int, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(n_qubits)
        self.hidden = check_whole(CircuitError, 1, hidden=hidden)
        size = (self.n_qubits + 2) * self.hidden
        self.theta = nn.Parameter(torch.randn(size, generator=generator))
        bits = basis_bits(self.n_qubits, 2**self.n_qubits)
        self.register_buffer("bits", bits, persistent=False)

    def logits(self, theta: Tensor) -> Tensor:
        """Run the small network on the bits of every outcome."""
        *weights, bias, out = theta.view(self.n_qubits + 2, self.hidden)
        units = torch.tanh(self.bits.to(theta) @ torch.stack(weights) + bias)
        numbers: Tensor = units @ out / math.sqrt(self.hidden)
        return numbers

    def configuration(self) -> dict[str, Any]:
        """Return the arguments that build this again, trained numbers apart."""
        return super().configuration() | {"hidden": self.hidden}


class PermutedCircuit(FixedCircuit):
    """A circuit whose entangler is a random order of the basis states, the same in every layer.

    No short list of CNOTs does that, so this is no circuit that anybody would build. It tells
    whether the ring is worth more than any other way to mix up the outcomes.

    Attributes:
        frozen: Amplitude i of the entangled state is amplitude ``frozen[i]`` of the state before
            it, shape (2**n_qubits,).
    """

    frozen: Tensor

    def __init__(
        self,
        n_qubits: int,
        n_layers: int,
        *,
        hadamard: bool = True,
        rotation: str = "ry",
        generator: torch.Generator | None = None,
    ) -> None:
        """Build the circuit; the arguments are those of :class:`.FixedCircuit`."""
        options: dict[str, Any] = {"hadamard": hadamard, "rotation": rotation}
        super().__init__(n_qubits, n_layers, entangler="none", **options, generator=generator)
        self.masks = None  # the shortcut of RX knows nothing of this entangler
        self.register_buffer("frozen", torch.randperm(2**self.n_qubits, generator=generator))

    def layers(self, theta: Tensor) -> Layers:
        """Turn angles, shape (n_layers, n_qubits), into what the simulator takes."""
        return super().layers(theta)._replace(permutations=self.frozen, signs=None, choice=None)

    def architecture(self) -> Any:
        """Refuse: no list of gates describes this circuit.

        Raises:
            CircuitError: always.
        """
        raise CircuitError("a random permutation is no entangler that a Candidate can name")

    def configuration(self) -> dict[str, Any]:
        """Return the arguments that build this again, angles and permutation apart."""
        found = super().configuration()
        return {name: found[name] for name in found if name != "entangler"}
