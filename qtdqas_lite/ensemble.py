"""The paper's relaxation: a weighted sum of the outputs of several circuits (chapter 05)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache, reduce
from typing import Any

import torch
from torch import Tensor, nn

from .circuits import Candidate, FixedCircuit, saved_by_name
from .diagnosis import same_probabilities
from .errors import CircuitError
from .relaxation import Relaxation, Sampling
from .search_space import list_candidates
from .simulator import ENTANGLERS, ROTATIONS, evolve
from .simulator.statevector import check_memory, squares, transforms_active


@saved_by_name
class CircuitEnsemble(Relaxation):
    """A weighted sum of the probabilities of several circuits (arXiv 2505.09653).

    All circuits have the same angles, as in the paper. Candidates whose probabilities do not depend
    on their angles cost nothing: they are found when the ensemble is built. Candidates with the
    same probabilities are computed once.

    Attributes:
        candidates: The circuits, in the order of the weights.
        theta: The angles in radians, uniform in [-pi, pi): shape (n_layers, n_qubits).
        alpha: ``"circuit"``, shape (n_candidates,): logits from N(0, 0.01**2).
    """

    constants: Tensor
    merge: Tensor

    def __init__(
        self,
        space: Iterable[Candidate | str],
        *,
        temperature: float = 1.0,
        sampling: Sampling = "softmax",
        generator: torch.Generator | None = None,
    ) -> None:
        """Build the ensemble.

        Args:
            space: The candidates, all with the same number of qubits and of layers: a
                :class:`~qtdqas_lite.SearchSpace`, such as ``paper_space(n, n_layers)``, or a list
                of them or of their JSON texts.
            temperature: Above 0; see :class:`.Relaxation`.
            sampling: See :class:`.Relaxation`.
            generator: Where angles and weights are drawn from; torch's global one by default.

        Raises:
            CircuitError: if there is no candidate or more than 1,000 (a RelaxedCircuit costs the
                same for any number), they differ in size, an argument is not as described, or the
                circuits' states would not fit into this machine's memory.
        """
        super().__init__(temperature, sampling)
        self.candidates = tuple(list_candidates(space))
        sizes = {(c.n_qubits, c.n_layers) for c in self.candidates}
        if len(sizes) != 1:
            raise CircuitError(
                f"the candidates must share one number of qubits and of layers, got {sorted(sizes)}"
            )
        ((self.n_qubits, self.n_layers),) = sizes
        check_memory(self.n_qubits, len(self.candidates), real=False)
        angles = torch.rand(self.n_layers, self.n_qubits, generator=generator)
        self.theta = nn.Parameter(math.pi * (2 * angles - 1))
        draw = torch.randn(len(self.candidates), generator=generator)
        self.alpha["circuit"] = nn.Parameter(0.01 * draw)
        # With the gates themselves in the key: a name can be given to another one.
        found = _compared(self.candidates, (*ROTATIONS.items(), *ENTANGLERS.items()))
        distinct = [i for i, (first, _) in enumerate(found) if first == i]
        dead = [i for i in distinct if not found[i][1]]
        live = [i for i in distinct if found[i][1]]
        # Their angles are replaced, so the global generator is left alone.
        circuits = {i: self.candidates[i].circuit(generator=torch.Generator()) for i in distinct}
        with torch.no_grad():
            layers = [circuits[i].double().layers(circuits[i].theta.double()) for i in dead]
            rows = [squares(evolve(one)).to(self.theta) for one in layers]
        table = torch.stack(rows) if rows else torch.zeros(0, 2**self.n_qubits)
        self.register_buffer("constants", table, persistent=False)
        self.live = nn.ModuleList(circuits[i] for i in live)
        for circuit in self.live:
            del circuit.theta  # the ensemble's angles are used
        # Row r of merge marks the candidates whose weights add up on what is computed r-th.
        computed = [*dead, *live]
        merge = torch.zeros(len(computed), len(self.candidates))
        for i, (first, _) in enumerate(found):
            merge[computed.index(first), i] = 1
        self.register_buffer("merge", merge, persistent=False)

    def forward(self, mixture: dict[str, Tensor] | None = None) -> Tensor:
        """Return the weighted sum of the circuits' probabilities: shape (2**n_qubits,).

        Args:
            mixture: What ``mixture`` gave; by default it is called.
        """
        with torch.autocast(self.theta.device.type, enabled=False):
            weights = self.merge @ self._given(mixture)["circuit"]
            of_dead, of_live = torch.split(weights, [len(self.constants), len(self.live)])
            parts = [of_dead @ self.constants]
            # Of drawn circuits only those drawn have a weight, and only those are run.
            every = of_live.requires_grad or transforms_active()
            circuits: Any = self.live
            for weight, circuit in zip(of_live, circuits, strict=True):
                if every or weight != 0:
                    parts.append(weight * circuit.run(self.theta))
            # If all that were drawn are dead, the gradient of the angles is zero.
            if len(parts) == 1:
                parts.append(0 * self.theta.sum())
            total: Tensor = reduce(torch.add, parts)
            return total

    @property
    def choice_bits(self) -> float:
        """How many bits say which candidate was chosen."""
        return math.log2(len(self.candidates))

    def architecture(self) -> Candidate:
        """Return the candidate with the largest weight; it can be a dead one."""
        return self.candidates[int(self.logits()["circuit"].argmax())]

    def discretize(self) -> FixedCircuit:
        """Return the circuit of :meth:`architecture`, with the angles that it has here."""
        circuit = self.architecture().circuit(generator=torch.Generator()).to(self.theta)
        with torch.no_grad():
            circuit.theta.copy_(self.theta)
        return circuit

    def configuration(self) -> dict[str, Any]:
        """Return the arguments that build this ensemble again; plain JSON values."""
        return {
            "space": [candidate.to_json() for candidate in self.candidates],
            "temperature": self.temperature,
            "sampling": self.sampling,
        }


@lru_cache(maxsize=32)
def _compared(candidates: tuple[Candidate, ...], _gates: object) -> list[tuple[int, bool]]:
    return same_probabilities(candidates)
