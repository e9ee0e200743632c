"""The growing circuit: gates are opened by hand, by their slopes or by chance (chapter 07)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import traitlets
from torch import Tensor, nn

from ..errors import TargetError
from ..generator import GeneratedNetwork
from ..growing_circuit import GrowingCircuit, Slot
from ..growth import MEMORY
from ..training import fit
from .parts import BookWidget, front_end

N_QUBITS, N_LAYERS, N_ANGLES = 6, 8, 12
N_CLASSES, N_EACH = 4, 15
STEPS_EACH = 10
LEARNING_RATE = 0.015
#: A derivative below this is 0 up to rounding. Adam would make steps of it, and where a gate has no
#: slope by symmetry they would grow, another way on every machine.
ROUNDING = 1e-10


class Slots(traitlets.TraitType):  # type: ignore[type-arg]  # not generic yet on Colab
    """Different numbers of slots, in a list of at most that length, or of just that length."""

    def __init__(self, at_most: int, *, exactly: bool = False) -> None:
        super().__init__()
        self.at_most = at_most
        self.at_least = at_most if exactly else 0

    def validate(self, obj: Any, value: Any) -> list[int]:
        """Return the numbers as a list; raise ``traitlets.TraitError`` if they do not fit."""
        numbers = value.tolist() if isinstance(value, Tensor) else value
        n_slots = obj.n_slots
        if not isinstance(numbers, list | tuple) or not all(
            type(number) is int and 0 <= number < n_slots for number in numbers
        ):
            raise traitlets.TraitError(
                f"{self.name} must list numbers of slots, from 0 to {n_slots - 1}, got {value!r}"
            )
        if len({*numbers}) != len(numbers):
            raise traitlets.TraitError(f"{self.name} must name no slot twice, got {value!r}")
        if not self.at_least <= len(numbers) <= self.at_most:
            how_many = "exactly" if self.at_least else "at most"
            raise traitlets.TraitError(
                f"{self.name} must list {how_many} {self.at_most} slots, got {len(numbers)}"
            )
        return list(numbers)


class CircuitGrower(BookWidget):
    """A network of 64 weights whose circuit grows under the reader's hand, and a rival beside it.

    The network is ``nn.Linear(16, 4, bias=False)`` on sixty images of 4 x 4 pixels, of four digits.
    Its circuit is a :class:`~qtdqas_lite.GrowingCircuit` of 6 qubits and 8 layers that starts in
    ``"ht"``. The mapping trains alone for ten steps; after each opening, all that is open trains
    for ten more, with all images in each step. The slopes, their average and the training are
    those of :func:`~qtdqas_lite.grow`, but for a learning rate that stays at 0.015, and derivatives
    below 1e-10, which count as 0. For the rival chance chooses, and nothing else is different. Loss
    and accuracy are those of the sixty images.

    Every attribute is a trait: assign to it, ``observe`` it, ``link`` it. Assign a new list instead
    of changing one in place, which no observer could notice. A value that does not fit raises
    ``traitlets.TraitError``, and the old one stays. A slot's number is its place in
    ``theta.flatten()``; :meth:`slot` names it.

    Attributes:
        choices: The slots that were opened, in that order, at most 12 numbers from 0 to 143.
        rival: The slots that chance opens, in that order: 12 numbers, of which the rival has opened
            as many as there are choices.
        slopes: The averaged slopes, 8 x 3 x 6 numbers: layer, axis, wire (read-only).
        theta: The angles in radians, of the same shape; 0 where closed (read-only).
        weights: The 64 weights, pixel by pixel for one class after the other (read-only).
        losses: The cross-entropy with 0, 1, 2, ... slots open, each after its ten steps
            (read-only).
        accuracies: The share of images that are read rightly, likewise (read-only).
        rival_weights: As ``weights``, of the rival (read-only).
        rival_losses: As ``losses``, of the rival (read-only).
        rival_accuracies: As ``accuracies``, of the rival (read-only).
        n_qubits: The number of qubits, 6 (read-only).
        n_layers: The number of layers, 8 (read-only).
        images: The grey values from 0 to 1, a flat list for each image (read-only).
        labels: The class of each image, 0 to 3 (read-only).
        class_names: The four digits (read-only).
        start: The mapping's first numbers and its standardisation, by name (read-only).
    """

    _esm, _css = front_end("growing_circuit")
    _dragged = ("choices", "rival")

    n_slots = N_LAYERS * 3 * N_QUBITS
    choices: Any = Slots(N_ANGLES).tag(sync=True)
    rival: Any = Slots(N_ANGLES, exactly=True).tag(sync=True)
    slopes: Any = traitlets.List(read_only=True).tag(sync=True)
    theta: Any = traitlets.List(read_only=True).tag(sync=True)
    weights: Any = traitlets.List(read_only=True).tag(sync=True)
    losses: Any = traitlets.List(read_only=True).tag(sync=True)
    accuracies: Any = traitlets.List(read_only=True).tag(sync=True)
    rival_weights: Any = traitlets.List(read_only=True).tag(sync=True)
    rival_losses: Any = traitlets.List(read_only=True).tag(sync=True)
    rival_accuracies: Any = traitlets.List(read_only=True).tag(sync=True)
    n_qubits = traitlets.Int(N_QUBITS, read_only=True).tag(sync=True)
    n_layers = traitlets.Int(N_LAYERS, read_only=True).tag(sync=True)
    images: Any = traitlets.List(read_only=True).tag(sync=True)
    labels: Any = traitlets.List(read_only=True).tag(sync=True)
    class_names: Any = traitlets.List(read_only=True).tag(sync=True)
    start: Any = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(
        self, *, class_names: Sequence[str] = ("0", "1", "2", "3"), seed: int = 0, **traits: Any
    ) -> None:
        """Build a network whose circuit has no gate open, unless ``choices`` names some.

        Args:
            class_names: Four different digits, of which scikit-learn has images.
            seed: Where the mapping, the target's deviation and the rival's slots are drawn from.
            **traits: Values of traits, ``choices=[7, 100]`` for example.

        Raises:
            TargetError: if ``class_names`` are not as described.
            traitlets.TraitError: if one of ``traits`` does not fit.
        """
        names = [str(name) for name in class_names]
        if len({*names}) != N_CLASSES or not {*names} <= {*"0123456789"}:
            raise TargetError(f"class_names must be four different digits, got {names}")
        images, labels = _images(names)
        generator = torch.Generator().manual_seed(seed)
        circuit = GrowingCircuit(N_QUBITS, N_LAYERS, start="ht")
        with torch.random.fork_rng(devices=[]):  # nn.Linear draws from the global generator
            torch.manual_seed(seed)
            target = nn.Linear(images.shape[1], N_CLASSES, bias=False).double()
        net = GeneratedNetwork(target, circuit, generator=generator).double()
        fixed = {
            "images": images.tolist(),
            "labels": labels.tolist(),
            "class_names": names,
            "start": {name: tensor.tolist() for name, tensor in _tensors(net).items()},
        }
        for name, value in fixed.items():
            self.set_trait(name, value)
        first = _Growing(net, (images, labels))
        self._grown: dict[str, dict[tuple[int, ...], _Growing]]
        self._grown = {which: {(): first} for which in ("", "rival_")}
        rival = torch.randperm(self.n_slots, generator=generator)[:N_ANGLES]
        super().__init__(**{"choices": [], "rival": rival, **traits})
        self._grow(None)

    @property
    def network(self) -> GeneratedNetwork:
        """A copy of the network as it is now, for the functions of the package."""
        return copy.deepcopy(self._grown[""][tuple(self.choices)].net)

    @property
    def steepest(self) -> Slot:
        """The closed slot with the steepest slope, which the rule would open next."""
        growing = self._grown[""][tuple(self.choices)]
        sizes = growing.mean.abs().masked_fill(growing.circuit.is_open, -1.0)
        return growing.circuit.slot(int(sizes.argmax()))

    def slot(self, number: int) -> Slot:
        """Name the slot of a number: its layer, axis and wire."""
        return self._grown[""][()].circuit.slot(number)

    def open_slot(self, layer: int, axis: str, wire: int) -> None:
        """Open a slot and train ten steps, as a hand on the widget does.

        Raises:
            traitlets.TraitError: if there is no such slot, it is open, or 12 are.
        """
        circuit = self._grown[""][()].circuit
        slots = [circuit.slot(number) for number in range(self.n_slots)]
        if (layer, axis, wire) not in slots:
            raise traitlets.TraitError(f"there is no slot {(layer, axis, wire)}")
        self.choices = [*self.choices, slots.index(Slot(layer, axis, wire))]

    def undo(self) -> None:
        """Take the last opening back, and the training after it."""
        self.choices = self.choices[:-1]

    def __repr__(self) -> str:
        return (
            f"CircuitGrower({len(self.choices)} of {self.n_slots} slots open, "
            f"loss {self.losses[-1]:.3f}, rival {self.rival_losses[-1]:.3f})"
        )

    @traitlets.observe("choices", "rival")
    def _grow(self, _change: Any) -> None:
        n_open = len(self.choices)
        found: dict[str, Any] = {}
        for which, slots in (("", self.choices), ("rival_", self.rival[:n_open])):
            line = self._line(which, slots)
            found |= {
                f"{which}losses": [growing.loss for growing in line],
                f"{which}accuracies": [growing.accuracy for growing in line],
                f"{which}weights": line[-1].weights,
            }
        last = self._grown[""][tuple(self.choices)]
        found |= {"slopes": last.mean.tolist(), "theta": last.circuit.theta.tolist()}
        with self.hold_trait_notifications():  # whoever hears of one finds the others up to date
            for name, value in found.items():
                self.set_trait(name, value)

    def _line(self, which: str, slots: list[int]) -> list[_Growing]:
        """Train what these slots need, and keep each stage: the next choice only adds to them."""
        kept, line = self._grown[which], list[_Growing]()
        for n_open in range(len(slots) + 1):
            key = tuple(slots[:n_open])
            line.append(kept.get(key) or line[-1].opened(slots[n_open - 1]))
        self._grown[which] = {tuple(slots[:n]): growing for n, growing in enumerate(line)}
        return line


class _Adam(torch.optim.Adam):
    """Adam, to which derivatives that are rounding alone are 0."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad[parameter.grad.abs() < ROUNDING] = 0.0
        return super().step(closure)


class _Growing:
    """A network between two openings, with all that its training remembers."""

    def __init__(self, net: GeneratedNetwork, data: tuple[Tensor, Tensor]) -> None:
        self.net, self.data = net, data
        self.optimizer = _Adam(net.parameters(), lr=LEARNING_RATE)
        self._average = torch.zeros_like(self.circuit.theta)
        self._steps = 0
        self._train()

    @property
    def circuit(self) -> GrowingCircuit:
        circuit = self.net.circuit
        assert isinstance(circuit, GrowingCircuit)
        return circuit

    @property
    def mean(self) -> Tensor:
        """The averaged slopes: that they started at 0 pulls all down by the same factor."""
        return self._average / (1 - MEMORY**self._steps)

    def opened(self, number: int) -> _Growing:
        """Copy the network, open a slot of the copy, and train it."""
        other = copy.deepcopy(self, {id(self.data): self.data})
        other.circuit.open(*other.circuit.slot(number))
        other._train()
        return other

    def _train(self) -> None:
        with self.circuit.slopes() as slopes:

            def average(_step: object) -> None:
                assert slopes.grad is not None
                self._average.lerp_(slopes.grad, 1 - MEMORY)
                slopes.grad = None

            fit(
                self.net,
                self.data,
                steps=STEPS_EACH,
                batch_size=len(self.data[0]),
                learning_rate=lambda _: LEARNING_RATE,
                optimizer=lambda *_, **__: self.optimizer,  # it remembers the steps before
                on_step=average,
                generator=torch.Generator(),
            )
        self._steps += STEPS_EACH
        images, labels = self.data
        with torch.no_grad():
            outputs = self.net(images)
            self.loss = nn.functional.cross_entropy(outputs, labels).item()
            self.accuracy = (outputs.argmax(1) == labels).double().mean().item()
            (written,) = self.net.weights().values()
            self.weights = written.flatten().tolist()


def _tensors(net: GeneratedNetwork) -> dict[str, Tensor]:
    """List the numbers that the front end starts from, by name."""
    return {
        **{name: parameter.detach() for name, parameter in net.mapping.named_parameters()},
        **{"raw_mean": net.raw_mean, "raw_deviation": net.raw_deviation},
        **{"centre": net.centre[0], "scale": net.scale[0]},
    }


def _images(names: list[str]) -> tuple[Tensor, Tensor]:
    """Take the first images of four of scikit-learn's digits, in turn, at 4 x 4 pixels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = torch.tensor(data.images).view(-1, 4, 2, 4, 2).mean((2, 4)).flatten(1) / 16
    digits = torch.tensor(data.target)
    chosen = torch.stack([pixels[digits == int(name)][:N_EACH] for name in names], dim=1)
    return chosen.flatten(0, 1), torch.arange(N_CLASSES).repeat(N_EACH)
