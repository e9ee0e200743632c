"""The relaxed gate: mix RX, RY and RZ, and see the axis tilt on the Bloch sphere (chapter 05)."""

from __future__ import annotations

import math
from typing import Any

import torch
import traitlets

from ..relaxed_circuit import RelaxedCircuit
from ..simulator import rotation_quaternions
from .parts import BookWidget, Numbers, front_end

GATES = ("rx", "ry", "rz")


class RelaxedGate(BookWidget):
    """A slot that holds RX, RY and RZ at once: its weights, its axis and its matrix.

    Three logits and a temperature give the weights. The weighted sum of the three rotations is
    ``kappa`` times a rotation about a tilted axis, by another angle. The gate is that of
    :class:`~qtdqas_lite.RelaxedCircuit`.

    Every attribute is a trait: assign to it, ``observe`` it, ``link`` it. Assign a new list instead
    of changing one in place, which no observer could notice. A value of the wrong shape, or one
    that is not finite, raises ``traitlets.TraitError``, and the old one stays.

    Attributes:
        alpha: The logits of RX, RY and RZ, three numbers.
        temperature: The temperature of the softmax, above 0.
        theta: The angle in radians.
        weights: softmax(alpha / temperature), three numbers (read-only).
        axis: The axis of the mixture, a unit vector of three numbers (read-only).
        angle: The angle in radians by which the mixture turns (read-only).
        kappa: What the weighted sum has to be divided by to be unitary (read-only).
        deviation: How far G^dagger G is from the identity before that: 1 - kappa**2, in the
            largest entry (read-only).
        gate: The unitary matrix, 2 x 2 pairs of a real and an imaginary part (read-only).
    """

    _esm, _css = front_end("relaxed_gate")
    _dragged = ("alpha", "temperature", "theta")

    alpha = Numbers(3).tag(sync=True)
    temperature = Numbers(positive=True).tag(sync=True)
    theta = Numbers().tag(sync=True)
    weights: Any = traitlets.List(read_only=True).tag(sync=True)
    axis: Any = traitlets.List(read_only=True).tag(sync=True)
    angle = traitlets.Float(read_only=True).tag(sync=True)
    kappa = traitlets.Float(read_only=True).tag(sync=True)
    deviation = traitlets.Float(read_only=True).tag(sync=True)
    gate: Any = traitlets.List(read_only=True).tag(sync=True)

    def __init__(
        self,
        alpha: Any = (1.0, 0.5, 0.0),
        *,
        temperature: Any = 1.0,
        theta: Any = 0.6 * math.pi,
        **traits: Any,
    ) -> None:
        """Build a relaxed gate.

        Args:
            alpha: The logits of RX, RY and RZ; a tensor of three numbers will do.
            temperature: The temperature of the softmax, above 0.
            theta: The angle in radians.
            **traits: Values of other traits, such as ``layout``.

        Raises:
            traitlets.TraitError: if a value has the wrong shape or is not finite.
        """
        self._circuit = RelaxedCircuit(
            1,
            1,
            rotations=GATES,
            entanglers=("none",),
            hadamards=(False,),
            generator=torch.Generator(),  # alpha and theta are replaced; leave the global one alone
        ).double()
        values = {"alpha": alpha, "temperature": temperature, "theta": theta}
        super().__init__(**values, **traits)

    def __repr__(self) -> str:
        parts = [f"{w:.2f} {name.upper()}" for w, name in zip(self.weights, GATES, strict=True)]
        return f"RelaxedGate({' + '.join(parts)}, turns by {self.angle / math.pi:.2f} pi)"

    @traitlets.observe("alpha", "temperature", "theta")
    @torch.no_grad()
    def _mix(self, _change: Any) -> None:
        circuit = self._circuit
        circuit.alpha["rotation"].copy_(torch.tensor(self.alpha, dtype=torch.double))
        circuit.theta.fill_(self.theta)
        circuit.temperature = self.temperature
        mixture = circuit.mixture()
        gate = circuit.layers(circuit.theta, mixture).gates[0, 0]
        weights = mixture["rotation"][0, 0]
        parts = torch.stack([rotation_quaternions(name, circuit.theta[0, 0]) for name in GATES])
        total = weights @ parts
        axis = weights / weights.norm()
        kappa = total.norm()
        found = {
            "weights": weights.tolist(),
            "axis": axis.tolist(),
            "angle": 2 * torch.atan2(total[1:] @ axis, total[0]).item(),
            "kappa": kappa.item(),
            "deviation": (1 - kappa**2).item(),
            "gate": torch.view_as_real(gate).tolist(),
        }
        with self.hold_trait_notifications():  # whoever hears of one finds the others up to date
            for name, value in found.items():
                self.set_trait(name, value)
