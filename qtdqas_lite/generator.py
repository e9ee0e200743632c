"""Networks whose weights are written by a quantum circuit (chapter 03)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from os import PathLike
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import UninitializedParameter

from .encoding import basis_bits, n_qubits_for
from .errors import TargetError
from .mapping import CHANNELS, AffineMapping, Channel, MLPMapping
from .statevector import transforms_active


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
    the generated network starts much as the plain one would. A tensor that starts constant (in a
    normalisation layer, or a bias of zeros) moves about its constant with deviation 0.1.

    Attributes:
        target: The target's form, without weights. It cannot be called itself: call the network,
            or :meth:`export` the target.
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
            target: Any module with trainable, real parameters. It is copied and left as it is.
                Frozen parameters and buffers keep their values, and tied parameters stay tied.
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
            TargetError: if the target has no trainable parameters or cannot be copied, the circuit
                has too few qubits or does not give 2**n_qubits real numbers, or the mapping or
                channel is unknown or does not give M varying, finite numbers.
        """
        super().__init__()
        if not isinstance(target, nn.Module):
            raise TargetError(f"the target must be an nn.Module, got {type(target).__name__}")
        try:
            self.target = copy.deepcopy(target)
        except RuntimeError as error:
            raise TargetError(
                f"the target cannot be copied ({error}); old-style weight_norm and spectral_norm "
                f"cannot: use those of torch.nn.utils.parametrizations"
            ) from error
        trainable = tensors_to_write(self.target)
        unreal = [name for name, p in trainable.items() if p.is_complex()]
        if unreal:
            raise TargetError(f"{unreal[0]} is complex, and only real weights can be written")
        if not isinstance(gain, int | float) or not (math.isfinite(gain) and gain > 0):
            raise TargetError(f"gain must be a finite number above 0, got {gain!r}")
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
        if not callable(channel) and channel not in list(CHANNELS):
            raise TargetError(f"channel must be one of {list(CHANNELS)}, got {channel!r}")
        if isinstance(mapping, nn.Module):
            self.mapping = mapping
        elif mapping == "affine":
            self.mapping = AffineMapping(n_qubits, generator)
        elif mapping == "mlp":
            self.mapping = MLPMapping(n_qubits, generator=generator)
        else:
            raise TargetError(f"mapping must be 'affine', 'mlp' or a module, got {mapping!r}")
        centre, scale = _initial_spread(self.target, trainable, gain)
        self.register_buffer("centre", centre)
        self.register_buffer("scale", scale)
        self.register_buffer("raw_mean", torch.zeros(()))
        self.register_buffer("raw_deviation", torch.ones(()))
        bits = basis_bits(n_qubits)[: self.n_weights].clone()
        self.register_buffer("bits", bits, persistent=False)
        # Every place where a written tensor stands, once for each module: tied parameters have
        # several, and one module may be reached by several paths.
        names = {id(parameter): name for name, parameter in trainable.items()}
        self._places = {
            f"{path}.{key}".lstrip("."): names[id(parameter)]
            for path, module in self.target.named_modules()
            for key, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
            if id(parameter) in names
        }
        # From here on the target is a form without content: its weights are written anew on every
        # call, and its own values would only be counted, moved and saved for nothing.
        for parameter in trainable.values():
            parameter.data = parameter.new_empty(0)
            parameter.requires_grad_(False)
        guard = partial(_refuse_empty_form, next(iter(self.shapes)))
        self._guard = self.target.register_forward_pre_hook(guard).id
        self._cache: tuple[Any, list[Tensor], dict[str, Tensor]] | None = None
        for tensor in [*circuit.parameters(), *circuit.buffers()][:1]:
            self.to(tensor.device)
        with torch.no_grad():
            raw = self._raw()
            if not raw.isfinite().all():
                raise TargetError("the mapping gives numbers that are not finite")
            # Less than this is rounding noise, as of a circuit that does not vary.
            if raw.numel() > 1 and raw.max() - raw.min() <= 1e-4 * raw.abs().max():
                raise TargetError(
                    "the mapping gives the same number for every weight; make it depend on the "
                    "bits or on the channel"
                )
            self.raw_mean.copy_(raw.mean())
            if raw.numel() > 1:
                self.raw_deviation.copy_(raw.std(correction=0))

    def _raw(self) -> Tensor:
        """Run circuit, channel and mapping: shape (M,)."""
        probabilities = self.circuit()
        size = 2**self.circuit.n_qubits  # type: ignore[operator]
        if (
            not isinstance(probabilities, Tensor)
            or probabilities.shape != (size,)
            or probabilities.is_complex()
        ):
            dtype, shape = getattr(probabilities, "dtype", ""), getattr(probabilities, "shape", "")
            raise TargetError(
                f"the circuit must give a real tensor of {size} probabilities, and it gave "
                f"{type(probabilities).__name__} {dtype} {tuple(shape)}"
            )
        channel = (self.channel if callable(self.channel) else CHANNELS[self.channel])(
            probabilities
        )
        if channel.shape != (size,):
            raise TargetError(
                f"the channel must give shape ({size},), and it gave {tuple(channel.shape)}"
            )
        try:
            raw: Tensor = self.mapping(self.bits, channel[: self.n_weights])
        except RuntimeError as error:
            raise TargetError(
                f"the mapping failed on {self.bits.shape[1]} bits: {error}"
            ) from error
        if raw.shape != (self.n_weights,):
            raise TargetError(
                f"the mapping must give shape ({self.n_weights},), one number per weight, and it "
                f"gave {tuple(raw.shape)}"
            )
        return raw

    def weights(self) -> dict[str, Tensor]:
        """Write the target's weights.

        With gradients off, the weights are written anew only after something has changed: a
        parameter or buffer of the circuit or the mapping, these modules themselves, the channel,
        or train and eval mode. Other attributes of a circuit or mapping are not watched.

        Returns:
            The tensors by their names in the target, with their shapes there, in the order of
            ``target.named_parameters()``. Treat them as read-only.

        Raises:
            TargetError: if the weights are not finite.
        """
        if torch.is_grad_enabled() or transforms_active():
            return self._write()
        state = [v.detach() for k, v in self.state_dict().items() if not k.startswith("target.")]
        modes = (self.channel, self.training, torch.is_inference_mode_enabled())
        parts = (self.circuit, self.mapping, *modes)
        if self._cache is None or self._cache[0] != parts or not _equal(self._cache[1], state):
            self._cache = (parts, [tensor.clone() for tensor in state], self._write())
        return dict(self._cache[2])

    def _write(self) -> dict[str, Tensor]:
        # Under autocast the affine part would be rounded, and the cache would keep that.
        with torch.autocast(self.bits.device.type, enabled=False):
            numbers = (self._raw() - self.raw_mean) / self.raw_deviation
            pieces = torch.split(numbers, [shape.numel() for shape in self.shapes.values()])
            weights = {
                name: (centre + scale * piece).view(shape).to(self.target.get_parameter(name).dtype)
                for (name, shape), piece, centre, scale in zip(
                    self.shapes.items(), pieces, self.centre, self.scale, strict=True
                )
            }
        if not transforms_active() and not all(w.isfinite().all() for w in weights.values()):
            raise TargetError(
                "the generated weights are not finite; look for NaN in the circuit's angles and "
                "the mapping, and if training put it there, lower the learning rate or clip the "
                "gradient's norm"
            )
        return weights

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the target with its generated weights: same arguments, same result."""
        weights = self.weights()
        placed = {place: weights[name] for place, name in self._places.items()}
        return functional_call(self.target, placed, args, kwargs, tie_weights=False)

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
            device, with ordinary trainable parameters: the same weights, bit for bit.
        """
        plain = copy.deepcopy(self.target)
        del plain._forward_pre_hooks[self._guard]
        with torch.no_grad():
            weights = self.weights()
        for name, weight in weights.items():
            parameter = plain.get_parameter(name)
            parameter.data = weight.clone()
            parameter.requires_grad_(True)
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
            A network that writes the same weights, in the same mode (train or eval).

        Raises:
            FileNotFoundError: if there is no such file.
            CheckpointError: if the file is damaged, is not a checkpoint of this package or of
                this schema, belongs to another target, or with the parts that were passed would
                not write the weights that were saved.
        """
        from .checkpoint import load

        return load(path, target, circuit=circuit, mapping=mapping, channel=channel)


def tensors_to_write(target: nn.Module) -> dict[str, nn.Parameter]:
    """List the target's trainable parameters that hold any number, by name."""
    trainable = {k: p for k, p in target.named_parameters() if p.requires_grad}
    for name, parameter in trainable.items():
        if isinstance(parameter, UninitializedParameter):
            raise TargetError(f"call the target once before wrapping it: {name} has no shape yet")
    return {k: p for k, p in trainable.items() if p.numel()}


def _refuse_empty_form(name: str, form: nn.Module, _args: object) -> None:
    # Without weights, an LSTM would not fail but crash the interpreter.
    if attrgetter(name)(form).numel() == 0:
        raise TargetError(
            "this is only the target's form, without weights; call the GeneratedNetwork, or its "
            "export()"
        )


def _equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(
        a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
        for a, b in zip(one, other, strict=True)
    )


def _initial_spread(target: nn.Module, names: Iterable[str], gain: float) -> tuple[Tensor, Tensor]:
    """Centre and deviation of each tensor to be written, from the target's own initial values.

    The values of one layer (a weight and its bias) are pooled, since a short bias alone would tell
    little about the deviation that it was drawn with. Constant tensors are left out of the pool.
    """
    values = {name: target.get_parameter(name).detach().flatten().cpu().double() for name in names}
    layers: dict[str, list[Tensor]] = {name.rpartition(".")[0]: [] for name in values}
    for name, value in values.items():
        if (value != value[0]).any():
            layers[name.rpartition(".")[0]].append(value - value.mean())
    centres, scales = [], []
    for name, value in values.items():
        layer = layers[name.rpartition(".")[0]]
        # A single number beside others that vary was drawn with them; alone, it is a constant.
        varies = bool((value != value[0]).any()) or (len(value) == 1 and bool(layer))
        centres.append(0.0 if varies else value[0].item())
        scales.append(gain * torch.cat(layer).square().mean().sqrt().item() if varies else 0.1)
    return torch.tensor(centres), torch.tensor(scales)
