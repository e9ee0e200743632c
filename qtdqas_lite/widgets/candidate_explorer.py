"""The candidate explorer: choose a circuit's gates, see whether its angles matter (chapter 04)."""

from __future__ import annotations

import math
from typing import Any

import torch
import traitlets

from ..circuits import Candidate
from ..diagnosis import diagnose
from ..search_space import paper_space
from .parts import BookWidget, Numbers, front_end

DRAWS = 4
LAYERS = 4
QUBITS = (3, 5)


class CandidateExplorer(BookWidget):
    """A circuit to put together, what it gives at random angles, and whether it is live or dead.

    Choose its start, entangler, rotation, layers and qubits, or one of the paper's twelve by its
    number. Four charts show the outcomes' probabilities at four settings of random angles: those
    of a dead circuit stand still. The verdict is that of :func:`~qtdqas_lite.diagnose`.

    Every attribute is a trait: assign to it, ``observe`` it, ``link`` it. A value that does not fit
    raises ``traitlets.TraitError``, and the old one stays.

    Attributes:
        hadamard: Whether a Hadamard acts on every qubit before the first layer.
        entangler: ``"chain"``, ``"ring"``, ``"reversed"``, ``"stride"``, ``"cz-ring"`` or
            ``"none"``.
        rotation: ``"rx"``, ``"ry"`` or ``"rz"``.
        n_layers: The number of layers, 1 to 4.
        n_qubits: The number of qubits, 3 to 5.
        theta: The angles in radians of four draws, 4 x 4 x 5 numbers: draw, layer, qubit. A smaller
            circuit takes the first of them, so circuits are compared at the same angles.
        probabilities: The 2**n_qubits probabilities of each draw, four lists (read-only).
        number: The circuit's number among the twelve of :func:`~qtdqas_lite.paper_space`, or
            None (read-only).
        live: Whether the probabilities depend on any angle (read-only).
        reason: Why they do not; empty for a live circuit (read-only).
        rank: How many independent directions the angles move the probabilities in (read-only).
    """

    _esm, _css = front_end("candidate_explorer")
    _dragged = ("hadamard", "entangler", "rotation", "n_layers", "n_qubits", "theta")

    hadamard = traitlets.Bool(True).tag(sync=True)
    entangler = traitlets.Enum(
        ["chain", "ring", "reversed", "stride", "cz-ring", "none"], "chain"
    ).tag(sync=True)
    rotation = traitlets.Enum(["rx", "ry", "rz"], "rx").tag(sync=True)
    n_layers = traitlets.Int(2, min=1, max=LAYERS).tag(sync=True)
    n_qubits = traitlets.Int(3, min=QUBITS[0], max=QUBITS[1]).tag(sync=True)
    theta = Numbers(DRAWS, LAYERS, QUBITS[1]).tag(sync=True)
    probabilities: Any = traitlets.List(read_only=True).tag(sync=True)
    number = traitlets.Int(None, allow_none=True, read_only=True).tag(sync=True)
    live = traitlets.Bool(read_only=True).tag(sync=True)
    reason = traitlets.Unicode(read_only=True).tag(sync=True)
    rank = traitlets.Int(read_only=True).tag(sync=True)

    def __init__(self, *, seed: int = 0, **traits: Any) -> None:
        """Build an explorer; without arguments it shows number 1 of the paper's twelve.

        Args:
            seed: Where the random angles are drawn from.
            **traits: Values of traits, ``rotation="ry"`` for example.

        Raises:
            traitlets.TraitError: if one of ``traits`` does not fit.
        """
        super().__init__(**{"theta": _angles(seed), **traits})
        self._diagnose(None)

    @property
    def candidate(self) -> Candidate:
        """The circuit that is shown, for the functions of the package."""
        return Candidate(
            self.n_qubits,
            self.hadamard,
            (self.entangler,) * self.n_layers,
            ((self.rotation,) * self.n_qubits,) * self.n_layers,
        )

    def redraw(self, seed: int) -> None:
        """Draw new random angles, as the button does."""
        self.theta = _angles(seed)

    def __repr__(self) -> str:
        return f"CandidateExplorer({self.candidate}, {'live' if self.live else 'dead'})"

    @traitlets.observe("hadamard", "entangler", "rotation", "n_layers", "n_qubits")
    def _diagnose(self, change: Any) -> None:
        candidate = self.candidate
        (report,) = diagnose([candidate]).reports
        twelve = list(paper_space(self.n_qubits, self.n_layers))
        with self.hold_trait_notifications():  # whoever hears of one finds the others up to date
            self.set_trait("number", twelve.index(candidate) + 1 if candidate in twelve else None)
            for name in ("live", "reason", "rank"):
                self.set_trait(name, getattr(report, name))
            self._draw(change)

    @traitlets.observe("theta")
    def _draw(self, _change: Any) -> None:
        circuit = self.candidate.circuit(generator=torch.Generator()).double()
        theta = torch.tensor(self.theta, dtype=torch.double)[:, : self.n_layers, : self.n_qubits]
        with torch.no_grad():
            self.set_trait("probabilities", [circuit.run(draw).tolist() for draw in theta])


def _angles(seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    shape = (DRAWS, LAYERS, QUBITS[1])
    return (math.pi * (2 * torch.rand(shape, generator=generator) - 1)).tolist()
