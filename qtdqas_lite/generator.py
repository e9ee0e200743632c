"""Networks whose weights are written by a quantum circuit (chapter 03)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import UninitializedParameter

from .encoding import basis_bits, n_qubits_for
from .errors import TargetError

Channel = Literal["log", "scaled", "raw"]


def log_channel(probabilities: Tensor) -> Tensor:
    """Turn probabilities into numbers of order one: log(2**n p + 0.01).

    The factor 2**n makes the mean of 2**n p 1, whatever the number of qubits; the logarithm brings
    outliers back; 0.01 keeps it and its gradient finite at p = 0.

    Args:
        probabilities: Shape (2**n,).

    Returns:
        Shape (2**n,), between log(0.01) and log(2**n + 0.01).
    """
    return torch.log(len(probabilities) * probabilities + 0.01)


CHANNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "log": log_channel,
    "scaled": lambda p: len(p) * p - 1,
    "raw": lambda p: p,
}


class AffineMapping(nn.Module):
    """One affine map from the bits and the channel of a basis state to a number.

    This is the mapping of arXiv 2505.09653, whose parameter counts fit n + 2 trained numbers.

    Attributes:
        bit_coefficients: Shape (n_qubits,), drawn from N(0, 0.1**2 / n_qubits).
        channel_coefficient: Shape (), starts at 1.
        bias: Shape (), starts at 0.
    """

    def __init__(self, n_qubits: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        draw = torch.randn(n_qubits, generator=generator)
        self.bit_coefficients = nn.Parameter(0.1 / math.sqrt(n_qubits) * draw)
        self.channel_coefficient = nn.Parameter(torch.ones(()))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, bits: Tensor, channel: Tensor) -> Tensor:
        """Map bits (M, n_qubits) and channel (M,) to numbers (M,)."""
        return bits @ self.bit_coefficients + self.channel_coefficient * channel + self.bias


class MLPMapping(nn.Module):
    """A small network with one hidden tanh layer, from bits and channel to a number.

    It has (n_qubits + 3) * hidden + 1 trained numbers. Unlike a stack of linear layers without
    activations, it is more than an affine map. Each hidden unit is centred over the weights: its
    mean would move all weights of the target at once, until every ReLU there is dead.
    """

    def __init__(
        self, n_qubits: int, hidden: int = 8, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.hidden_layer = nn.Linear(n_qubits + 1, hidden)
        self.output_layer = nn.Linear(hidden, 1)
        nn.init.normal_(self.hidden_layer.weight, std=1.0, generator=generator)
        nn.init.normal_(self.hidden_layer.bias, std=0.5, generator=generator)
        nn.init.normal_(self.output_layer.weight, std=hidden**-0.5, generator=generator)
        nn.init.zeros_(self.output_layer.bias)

    def forward(self, bits: Tensor, channel: Tensor) -> Tensor:
        """Map bits (M, n_qubits) and channel (M,) to numbers (M,)."""
        features = torch.cat([bits, channel[:, None]], dim=1)
        units = torch.tanh(self.hidden_layer(features))
        numbers: Tensor = self.output_layer(units - units.mean(0))
        return numbers[:, 0]


@dataclass(frozen=True)
class Budget:
    """What is trained against what is shipped.

    Attributes:
        angles: Trained angles of the circuit.
        architecture: Trained numbers that choose the architecture.
        mapping: Trained numbers of the mapping.
        total: Everything that is trained.
        target: The weights that are written, M.
        ratio: Weights written per trained number, target / total (infinite if nothing is trained).
    """

    angles: int
    architecture: int
    mapping: int
    total: int
    target: int
    ratio: float

    def __str__(self) -> str:
        rows = [
            ("angles of the circuit", self.angles),
            ("architecture", self.architecture),
            ("mapping", self.mapping),
            ("trained in all", self.total),
            ("weights written", self.target),
        ]
        lines = [f"{name:<24}{count:>10,}" for name, count in rows]
        return "\n".join([*lines, f"{'weights per trained':<24}{self.ratio:>10.1f}"])


class GeneratedNetwork(nn.Module):
    """An ordinary network whose weights are written by a circuit and a mapping.

    Weight number i is ``mapping(bits(i), channel(p_i))``, with p_i the probability of basis state
    i (Quantum-Train, arXiv 2405.11304). Only the circuit and the mapping are trained. The
    result is an ``nn.Module`` like any other: call it, train it with any optimiser, then
    :meth:`export` the plain network.

    The numbers of the mapping are standardised by their mean and deviation at the start. Each
    tensor of the target is then given ``gain`` times the deviation of its own initialiser, so that
    the generated network starts as the plain one would. A tensor that starts constant (in a
    normalisation layer, say) moves about its constant with deviation 0.1.

    Attributes:
        circuit: The circuit; ``circuit()`` gives the probabilities.
        mapping: The mapping; ``mapping(bits, channel)`` gives one number per weight.
        scale: Deviation of each generated tensor, shape (number of tensors,).
        centre: Centre of each generated tensor, shape (number of tensors,).
    """

    bits: Tensor
    scale: Tensor
    centre: Tensor
    raw_mean: Tensor
    raw_deviation: Tensor

    def __init__(
        self,
        target: nn.Module,
        circuit: nn.Module,
        mapping: Literal["affine", "mlp"] | nn.Module = "affine",
        *,
        channel: Channel | Callable[[Tensor], Tensor] = "log",
        gain: float = 2.0,
        generator: torch.Generator | None = None,
    ) -> None:
        """Wrap a target network.

        Args:
            target: Any module with trainable parameters. It is copied and left as it is. Frozen
                parameters and buffers keep their values, and tied parameters stay tied.
            circuit: A module with an attribute ``n_qubits``, whose ``forward()`` gives
                probabilities of shape (2**n_qubits,), such as :class:`~qtdqas_lite.FixedCircuit`.
            mapping: ``"affine"``, ``"mlp"``, or a module that maps bits of shape (M, n_qubits) and
                the channel, shape (M,), to numbers of shape (M,).
            channel: How probabilities (2**n,) become the mapping's input (2**n,): ``"log"``
                (:func:`log_channel`), ``"scaled"`` (2**n p - 1), ``"raw"`` (p) or a function.
            gain: How far weights spread, in units of the target's own initial deviation. For a
                linear layer, sqrt(6) = 2.45 would be He's initialisation.
            generator: Where the mapping's initial values are drawn from.

        Raises:
            TargetError: if the target has no trainable parameters, the circuit has too few qubits
                for them, or the mapping or channel is unknown or does not give M varying, finite
                numbers.
        """
        super().__init__()
        self.target = copy.deepcopy(target)
        trainable = {k: p for k, p in self.target.named_parameters() if p.requires_grad}
        lazy = [name for name, p in trainable.items() if isinstance(p, UninitializedParameter)]
        if lazy:
            raise TargetError(
                f"call the target once before wrapping it: {lazy[0]} has no shape yet"
            )
        if not (math.isfinite(gain) and gain > 0):
            raise TargetError(f"gain must be finite and above 0, got {gain!r}")
        self.shapes = {name: parameter.shape for name, parameter in trainable.items()}
        self.n_weights = sum(shape.numel() for shape in self.shapes.values())
        if self.n_weights == 0:
            raise TargetError(
                f"the target {type(target).__name__} has no trainable parameters to write; check "
                f"requires_grad"
            )
        n_qubits = getattr(circuit, "n_qubits", None)
        if not isinstance(circuit, nn.Module) or not isinstance(n_qubits, int):
            raise TargetError(
                f"the circuit must be a module with an attribute n_qubits, got "
                f"{type(circuit).__name__}; see FixedCircuit"
            )
        if 2**n_qubits < self.n_weights:
            raise TargetError(
                f"{n_qubits} qubits have {2**n_qubits:,} basis states, and the target has "
                f"{self.n_weights:,} weights; use n_qubits={n_qubits_for(self.n_weights)}"
            )
        self.circuit = circuit
        self.channel = channel
        if callable(channel):
            self._channel = channel
        elif channel in CHANNELS:
            self._channel = CHANNELS[channel]
        else:
            raise TargetError(f"channel must be one of {list(CHANNELS)}, got {channel!r}")
        if isinstance(mapping, nn.Module):
            self.mapping = mapping
        elif mapping == "affine":
            self.mapping = AffineMapping(n_qubits, generator)
        elif mapping == "mlp":
            self.mapping = MLPMapping(n_qubits, generator=generator)
        else:
            raise TargetError(f"mapping must be 'affine', 'mlp' or a module, got {mapping!r}")
        centre, scale = _initial_spread(self.target, self.shapes, gain)
        self.register_buffer("centre", centre)
        self.register_buffer("scale", scale)
        self.register_buffer("raw_mean", torch.zeros(()))
        self.register_buffer("raw_deviation", torch.ones(()))
        bits = basis_bits(n_qubits)[: self.n_weights].clone()
        self.register_buffer("bits", bits, persistent=False)
        # From here on the target is a form without content: its weights are written anew on every
        # call, and its own values would only be counted, moved and saved for nothing.
        for parameter in trainable.values():
            parameter.data = parameter.new_empty(0)
            parameter.requires_grad_(False)
        self._cache: tuple[Any, list[Tensor], dict[str, Tensor]] | None = None
        with torch.no_grad():
            raw = self._standardised()
            if raw.numel() > 1 and not raw.std() > 0:
                raise TargetError(
                    "the mapping gives the same number for every weight; make it depend on the "
                    "bits or on the channel"
                )
            self.raw_mean.copy_(raw.mean())
            if raw.numel() > 1:
                self.raw_deviation.copy_(raw.std(correction=0))

    def _standardised(self) -> Tensor:
        """Run circuit and mapping: M numbers with mean 0 and deviation 1 at the start."""
        probabilities = self.circuit()
        raw = self.mapping(self.bits, self._channel(probabilities)[: self.n_weights])
        if raw.shape != (self.n_weights,):
            raise TargetError(
                f"the mapping must give shape ({self.n_weights},), one number per weight, and it "
                f"gave {tuple(raw.shape)}"
            )
        if not torch.isfinite(raw).all():
            raise TargetError(
                "the generated weights are not finite; look for NaN in the circuit's angles and "
                "the mapping, and if training put it there, lower the learning rate or clip the "
                "gradient's norm"
            )
        numbers: Tensor = (raw - self.raw_mean) / self.raw_deviation
        return numbers

    def weights(self) -> dict[str, Tensor]:
        """Write the target's weights.

        With gradients off, the weights are written anew only after a parameter has changed.

        Returns:
            The tensors by their names in the target, with their shapes there, in the order of
            ``target.named_parameters()``. Treat them as read-only.

        Raises:
            TargetError: if the weights are not finite.
        """
        if torch.is_grad_enabled():
            return self._write()
        state = [v.detach() for k, v in self.state_dict().items() if not k.startswith("target.")]
        parts = (self.circuit, self.mapping)
        if self._cache is None or self._cache[0] != parts or not _equal(self._cache[1], state):
            self._cache = (parts, [tensor.clone() for tensor in state], self._write())
        return dict(self._cache[2])

    def _write(self) -> dict[str, Tensor]:
        counts = [shape.numel() for shape in self.shapes.values()]
        pieces = torch.split(self._standardised(), counts)
        return {
            name: (centre + scale * piece).view(shape).to(self.target.get_parameter(name).dtype)
            for (name, shape), piece, centre, scale in zip(
                self.shapes.items(), pieces, self.centre, self.scale, strict=True
            )
        }

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the target with its generated weights: same arguments, same result."""
        return functional_call(self.target, self.weights(), args, kwargs)

    def budget(self) -> Budget:
        """Count what is trained (every parameter that requires a gradient) and what is written."""
        chooses = set(getattr(self.circuit, "architecture_parameters", ()))
        angles = architecture = 0
        for name, parameter in self.circuit.named_parameters():
            if parameter.requires_grad and name in chooses:
                architecture += parameter.numel()
            elif parameter.requires_grad:
                angles += parameter.numel()
        total = sum(p.numel() for p in self.parameters() if p.requires_grad)
        ratio = self.n_weights / total if total else math.inf
        mapping = total - angles - architecture
        return Budget(angles, architecture, mapping, total, self.n_weights, ratio)

    def export(self) -> nn.Module:
        """Return the plain target with the weights written in: it needs nothing of this package.

        Returns:
            A module of the target's own class, in the same mode (train or eval) and on the same
            device, with ordinary trainable parameters. Its output is bitwise the same.
        """
        plain = copy.deepcopy(self.target)
        with torch.no_grad():
            weights = self.weights()
        # remove_duplicate=False, or the second name of a tied parameter would stay empty.
        names = {id(p): name for name, p in plain.named_parameters() if name in weights}
        written: dict[str, nn.Parameter] = {}
        for path, parameter in list(plain.named_parameters(remove_duplicate=False)):
            if id(parameter) in names:
                name = names[id(parameter)]
                if name not in written:
                    written[name] = nn.Parameter(weights[name].clone())
                owner, _, attribute = path.rpartition(".")
                setattr(plain.get_submodule(owner), attribute, written[name])
        return plain

    def save(self, path: str | PathLike[str]) -> None:
        """Save everything but the target's code to one safetensors file; see :meth:`load`."""
        from .checkpoint import save

        save(self, path)

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        target: nn.Module,
        *,
        circuit: nn.Module | None = None,
        mapping: nn.Module | None = None,
        channel: Callable[[Tensor], Tensor] | None = None,
    ) -> GeneratedNetwork:
        """Load a network that :meth:`save` wrote. Nothing in the file is executed.

        Args:
            path: The file.
            target: A module of the same class and shapes as the saved one; its values are not used.
            circuit: Needed only if the saved circuit was not one of this package's.
            mapping: Needed only if the saved mapping was a module of your own.
            channel: Needed only if the saved channel was a function of your own.

        Returns:
            A network that writes the same weights.

        Raises:
            FileNotFoundError: if there is no such file.
            CheckpointError: if the file is damaged, is not a checkpoint of this package or of
                this schema, or belongs to another target.
        """
        from .checkpoint import load

        return load(path, target, circuit=circuit, mapping=mapping, channel=channel)


def _equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(
        a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
        for a, b in zip(one, other, strict=True)
    )


def _initial_spread(
    target: nn.Module, shapes: dict[str, torch.Size], gain: float
) -> tuple[Tensor, Tensor]:
    """Centre and deviation of each tensor to be written, from the target's own initial values.

    The values of one layer (a weight and its bias) are pooled, since a short bias alone would tell
    little about the deviation that it was drawn with.
    """
    parameters = dict(target.named_parameters())
    layers: dict[str, list[Tensor]] = {}
    for name in shapes:
        value = parameters[name].detach().double().flatten()
        layers.setdefault(name.rpartition(".")[0], []).append(value)
    centres, scales = [], []
    for name in shapes:
        value = parameters[name].detach().double()
        layer = layers[name.rpartition(".")[0]]
        deviation = torch.cat([tensor - tensor.mean() for tensor in layer]).square().mean().sqrt()
        constant = bool((value == value.flatten()[0]).all()) and value.numel() > 1
        centres.append(value.mean() if constant else torch.zeros((), dtype=torch.double))
        scales.append(gain * deviation if deviation > 0 else torch.tensor(0.1).double())
    dtype = torch.get_default_dtype()
    return torch.stack(centres).to(dtype), torch.stack(scales).to(dtype)
