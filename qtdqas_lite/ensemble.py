"""The paper's relaxation: a weighted sum of the outputs of several circuits (chapter 05)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from functools import lru_cache, reduce
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .circuits import Candidate, FixedCircuit
from .diagnosis import same_probabilities
from .errors import CircuitError
from .gates import ENTANGLERS, ROTATIONS, entangler_pool
from .iqp import iqp_probabilities
from .relaxation import Relaxation, Sampling
from .statevector import (
    Layers,
    check_memory,
    evolve,
    probabilities,
    squares,
    transforms_active,
)


class CircuitEnsemble(Relaxation):
    """A weighted sum of the probabilities of several circuits (arXiv 2505.09653).

    Candidates whose probabilities do not depend on their angles cost nothing: they are found when
    the ensemble is built. With shared angles, candidates with the same probabilities are computed
    once, and those with the same gates are run together.

    Attributes:
        candidates: The circuits, in the order of the weights.
        theta: The angles in radians, uniform in [-pi, pi): shape (n_layers, n_qubits) if they are
            shared, else (n_candidates, n_layers, n_qubits).
        alpha: ``"circuit"``, shape (n_candidates,): logits from N(0, 0.01**2), or with
            ``weights="raw"`` the weights themselves, which start at 1 / n_candidates plus that.
    """

    constants: Tensor
    adds_to: Tensor

    def __init__(
        self,
        space: Iterable[Candidate | str],
        *,
        weights: Literal["softmax", "raw"] = "softmax",
        share_theta: bool = True,
        temperature: float = 1.0,
        sampling: Sampling = "softmax",
        generator: torch.Generator | None = None,
    ) -> None:
        """Build the ensemble.

        Args:
            space: The candidates, all with the same number of qubits and of layers: a
                :class:`~qtdqas_lite.SearchSpace`, such as ``paper_space(n, n_layers)``, or a list
                of them or of their JSON texts.
            weights: ``"softmax"``, or ``"raw"``: weights that may have any sign and sum, so that
                the result is no longer a distribution. It can be negative, which the channel
                ``"log"`` cannot take: give the network ``channel="scaled"``.
            share_theta: Whether all circuits have the same angles, as in the paper.
            temperature: Above 0; see :class:`.Relaxation`.
            sampling: See :class:`.Relaxation`; raw weights are never sampled.
            generator: Where angles and weights are drawn from; torch's global one by default.

        Raises:
            CircuitError: if there is no candidate, they differ in size, an argument is not as
                described, or the circuits' states would not fit into this machine's memory.
        """
        super().__init__(temperature, sampling)
        listed = list(itertools.islice(space, 1001))
        if len(listed) > 1000:
            raise CircuitError(
                "more than 1,000 circuits are too many to sum: take a sample of the space, or a "
                "RelaxedCircuit, which costs the same for any number"
            )
        self.candidates = tuple(Candidate.from_json(c) if isinstance(c, str) else c for c in listed)
        if not all(isinstance(candidate, Candidate) for candidate in self.candidates):
            raise CircuitError("space must be a SearchSpace or a list of candidates")
        sizes = {(c.n_qubits, c.n_layers) for c in self.candidates}
        if len(sizes) != 1:
            raise CircuitError(
                f"the candidates must share one number of qubits and of layers, got {sorted(sizes)}"
            )
        if weights not in ("softmax", "raw"):
            raise CircuitError(f"weights must be 'softmax' or 'raw', got {weights!r}")
        if weights == "raw" and sampling != "softmax":
            raise CircuitError("raw weights cannot be sampled from: leave sampling out")
        ((self.n_qubits, self.n_layers),) = sizes
        self.weights = weights
        self.share_theta = bool(share_theta)
        # Angles do not matter to what stands still, so the states of one circuit are the measure.
        check_memory(self.n_qubits, len(self.candidates), real=False)
        shape = (self.n_layers, self.n_qubits)
        angles = torch.rand(
            shape if share_theta else (len(self.candidates), *shape), generator=generator
        )
        self.theta = nn.Parameter(math.pi * (2 * angles - 1))
        draw = 0.01 * torch.randn(len(self.candidates), generator=generator)
        self.alpha["circuit"] = nn.Parameter(
            draw if weights == "softmax" else 1 / len(self.candidates) + draw
        )
        # With the gates themselves in the key: a name can be given to another one.
        gates = (*ROTATIONS.items(), *ENTANGLERS.items())
        self._verdict = _verdict(self.candidates, gates)
        still = [i for i, (first, live) in enumerate(self._verdict) if first == i and not live]
        with torch.no_grad():
            circuits = [self._circuit(i).double() for i in still]
            layers = [circuit.layers(circuit.theta) for circuit in circuits]
            rows = [squares(evolve(one)).to(self.theta) for one in layers]
        table = torch.stack(rows) if rows else torch.zeros(0, 2**self.n_qubits)
        self.register_buffer("constants", table, persistent=False)
        # The others are computed anew in every forward pass, those with the same gates together.
        groups: dict[Any, list[int]] = {}
        for i, (first, live) in enumerate(self._verdict):
            if live and (first == i or not share_theta):
                diagonal = self._circuit(i).masks is not None  # these have a faster way
                key = self.candidates[i].rotations, diagonal, None if share_theta else i
                groups.setdefault(key, []).append(i)
        self._groups = list(groups.values())
        self.together = nn.ModuleList(
            _Together([self._circuit(i) for i in group]) for group in self._groups
        )
        # Row r of adds_to marks the candidates whose weights add up on what is computed r-th.
        computed = [*still, *itertools.chain(*self._groups)]
        adds_to = torch.zeros(len(computed), len(self.candidates))
        for i, (first, live) in enumerate(self._verdict):
            adds_to[computed.index(i if live and not share_theta else first), i] = 1
        self.register_buffer("adds_to", adds_to, persistent=False)
        self._sizes = [len(still), *map(len, self._groups)]

    def _circuit(self, number: int) -> FixedCircuit:
        """Build a candidate; its angles are replaced, so the global generator is left alone."""
        return self.candidates[number].circuit(generator=torch.Generator())

    def forward(self) -> Tensor:
        """Return the weighted sum of the circuits' probabilities: shape (2**n_qubits,)."""
        with torch.autocast(self.theta.device.type, enabled=False):
            weights = self.mixture()["circuit"]
            of_constants, *of_groups = torch.split(self.adds_to @ weights, self._sizes)
            parts = [of_constants @ self.constants]
            for shares, group, circuits in zip(of_groups, self._groups, self.together, strict=True):
                drawn: Sequence[int] = range(len(shares))
                if not (shares.requires_grad or transforms_active()):  # some may have no weight
                    drawn = shares.nonzero().flatten().tolist()
                if drawn:
                    theta = self.theta if self.share_theta else self.theta[group[0]]
                    of_drawn = shares if len(drawn) == len(shares) else shares[list(drawn)]
                    parts.append(of_drawn @ circuits(theta, drawn))
            if len(parts) == 1:  # all that were drawn are dead; the angles' gradient is zero
                parts.append(0 * self.theta.sum())
            return reduce(torch.add, parts)

    def _weights(self, name: str, alpha: Tensor) -> Tensor:
        weights = super()._weights(name, alpha)  # which also refuses what is not finite
        return alpha if self.weights == "raw" else weights

    def entropy(self) -> Tensor:
        """Tell how undecided the weights are, from 0 to 1; of raw weights, their sizes count."""
        if self.weights == "softmax":
            return super().entropy()
        sizes = self.alpha["circuit"].abs()
        logs = (sizes / sizes.sum()).log()
        nats: Tensor = -(logs.exp() * logs).nansum()
        return nats / math.log(max(2, len(sizes)))

    def architecture(self) -> Candidate:
        """Return the candidate with the largest weight; it can be a dead one."""
        return self.candidates[int(self.alpha["circuit"].argmax())]

    def discretize(self) -> FixedCircuit:
        """Return the circuit of :meth:`architecture`, with the angles that it has here."""
        best = int(self.alpha["circuit"].argmax())
        circuit = self._circuit(best).to(self.theta)
        with torch.no_grad():
            circuit.theta.copy_(self.theta if self.share_theta else self.theta[best])
        return circuit

    def configuration(self) -> dict[str, Any]:
        """Return the arguments that build this ensemble again; plain JSON values."""
        return {
            "space": [candidate.to_json() for candidate in self.candidates],
            "weights": self.weights,
            "share_theta": self.share_theta,
            "temperature": self.temperature,
            "sampling": self.sampling,
        }


class _Together(nn.Module):
    """Circuits with the same gates and angles, run in one call."""

    permutations: Tensor
    signs: Tensor | None
    masks: Tensor | None

    def __init__(self, circuits: list[FixedCircuit]) -> None:
        super().__init__()
        self.circuits = nn.ModuleList(circuits)
        for circuit in circuits:
            del circuit.theta  # the ensemble's angles are used
        masks = [circuit.masks for circuit in circuits if circuit.masks is not None]
        self.register_buffer("masks", torch.stack(masks) if masks else None, persistent=False)
        entanglers = [circuit.architecture().entanglers for circuit in circuits]
        pool = list(dict.fromkeys(itertools.chain(*entanglers)))
        self._order = [[pool.index(name) for name in names] for names in entanglers]
        permutations, signs = entangler_pool(pool, circuits[0].n_qubits)
        self.register_buffer("permutations", permutations, persistent=False)
        self.register_buffer("signs", signs, persistent=False)

    def forward(self, theta: Tensor, drawn: Sequence[int]) -> Tensor:
        """Return the probabilities of some of the circuits: shape (len(drawn), 2**n_qubits)."""
        if self.masks is not None:
            every = len(drawn) == len(self.masks)
            return iqp_probabilities(theta, self.masks if every else self.masks[list(drawn)])
        circuits: Any = [self.circuits[i] for i in drawn]
        start = torch.stack([circuit.start(theta) for circuit in circuits])
        entanglers = self.permutations, self.signs, [self._order[i] for i in drawn]
        layers = circuits[0].layers(theta)
        return probabilities(Layers(start, layers.quaternions, *entanglers, layers.real))


@lru_cache(maxsize=32)
def _verdict(candidates: tuple[Candidate, ...], _gates: object) -> list[tuple[int, bool]]:
    return same_probabilities(candidates)
