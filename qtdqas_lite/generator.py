"""Networks whose weights are written by a quantum circuit (chapter 03)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from threading import RLock
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .cache import Cache, held_tensors, plain_attributes
from .checkpoint import Checkpointed
from .encoding import basis_bits, n_qubits_for
from .errors import TargetError, check_type, check_whole
from .ledger import ParameterCount, count_choice, count_parameters
from .mapping import Feature, feature_function, make_mapping
from .simulator.statevector import transforms_active
from .target import (
    copy_target,
    holding,
    initial_spread,
    padding_rows,
    strip_weights,
    tensors_to_write,
    with_weights,
    written_places,
)


class GeneratedNetwork(Checkpointed):
    """An ordinary network whose weights are written by a circuit and a mapping.

    Weight number i is ``mapping(bits(i), feature(p_i))``, with p_i the probability of basis state
    i (Quantum-Train, arXiv 2405.11304). Only the circuit and the mapping are trained. The
    result is an ``nn.Module`` like any other: call it, train it with any optimiser, then
    :meth:`export` the plain network.

    The numbers of the mapping are standardised by their mean and deviation at the start. Each
    tensor of the target is then given ``gain`` times the deviation of its own initialiser, so that
    the generated network starts much as the plain one would. A tensor that starts constant (in a
    normalisation layer, or a bias of zeros) moves about its constant with deviation 0.1. The
    padding row of an embedding, through which no gradient flows, is zero.

    Threads may share a network: the target's own code runs in one of them at a time.

    Attributes:
        target: The target's skeleton, without weights. It cannot be called itself: call the
            network, or :meth:`export` the target.
        circuit: The circuit; ``circuit()`` gives the probabilities.
        mapping: The mapping; ``mapping(bits, feature)`` gives the numbers of each basis state.
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
        feature: Feature | Callable[[Tensor], Tensor] = "log",
        gain: float = 2.0,
        generator: torch.Generator | None = None,
    ) -> None:
        """Wrap a target network.

        Args:
            target: Any module with trainable, real parameters. It is copied and left as it is.
                Frozen parameters and buffers keep their values, and tied parameters stay tied.
            circuit: A module with an attribute ``n_qubits``, whose ``forward()`` gives
                probabilities of shape (2**n_qubits,), such as :class:`~qtdqas_lite.FixedCircuit`.
            mapping: ``"affine"``, ``"mlp"``, or a module that maps the bits and the feature of
                the first M basis states, shapes (M, n_qubits) and (M,), to M numbers.
            feature: How probabilities (2**n,) become the mapping's input (2**n,): ``"log"``
                (:func:`log_feature`), ``"scaled"`` (2**n p - 1), ``"raw"`` (p) or a function.
            gain: How far weights spread, in units of the target's own initial deviation. For a
                linear layer, sqrt(6) = 2.45 would be He's initialisation.
            generator: Where the mapping's initial values are drawn from. The target's own values
                count too (their deviation is measured): to repeat a run, seed torch before the
                target is built.

        Raises:
            TargetError: if the target has no trainable parameters or cannot be copied whole, the
                circuit has too few qubits or does not give 2**n_qubits real numbers, or the mapping
                or feature is unknown or does not give M varying, finite numbers.
        """
        super().__init__()
        check_type(TargetError, torch.Generator, type(None), generator=generator)
        self.target = copy_target(target)
        tensors = tensors_to_write(self.target)
        self.shapes = {name: tensor.shape for name, tensor in tensors.items()}
        self.n_weights = sum(shape.numel() for shape in self.shapes.values())
        check_type(TargetError, nn.Module, circuit=circuit)
        n_qubits = check_whole(TargetError, 1, n_qubits=getattr(circuit, "n_qubits", None))
        if 2 ** min(n_qubits, 60) < self.n_weights:
            raise TargetError(
                f"{n_qubits} qubits have {2**n_qubits:,} basis states, one for each weight, and "
                f"the target has {self.n_weights:,}; use n_qubits={n_qubits_for(self.n_weights)}"
            )
        self.circuit = circuit
        self.feature = feature
        self.mapping = make_mapping(mapping, n_qubits, generator=generator)
        centre, scale = initial_spread(tensors, gain)
        self.register_buffer("centre", centre)
        self.register_buffer("scale", scale)
        self.register_buffer("raw_mean", torch.zeros(()))
        self.register_buffer("raw_deviation", torch.ones(()))
        self.register_buffer("bits", basis_bits(n_qubits, self.n_weights), persistent=False)
        self._places = written_places(self.target, tensors)
        self._padding = padding_rows(self.target, self._places)
        strip_weights(self.target, self._places)
        self._cache, self._lock = Cache(), _Lock()
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
                    "bits or on the feature"
                )
            self.raw_mean.copy_(raw.mean())
            if raw.numel() > 1:
                self.raw_deviation.copy_(raw.std(correction=0))

    def _raw(self) -> Tensor:
        """Run circuit, feature and mapping: shape (M,)."""
        n_weights, n_qubits = self.bits.shape
        probabilities = checked_part("circuit", self.circuit(), (2**n_qubits,))
        feature = feature_function(self.feature)(probabilities)
        feature = checked_part("feature", feature, (2**n_qubits,))
        if self.bits.dtype.itemsize < 4:  # circuits have no such precision
            feature = feature.to(self.bits.dtype)
        try:
            raw = self.mapping(self.bits, feature[:n_weights])
        except RuntimeError as error:
            raise TargetError(f"the mapping failed on {n_qubits} bits: {error}") from error
        return checked_part("mapping", raw, (n_weights,))

    def weights(self) -> dict[str, Tensor]:
        """Write the target's weights.

        With gradients off, the weights are written anew only after something has changed: a
        parameter or buffer of the circuit or the mapping, a number or name among their attributes
        (such as train and eval mode), these modules themselves, or the feature. What a circuit or
        mapping draws from torch's global generator is drawn every time.

        Returns:
            The tensors by their names in the target, with their shapes there, in the order of
            the target's ``named_parameters()``. Treat them as read-only.

        Raises:
            TargetError: if the weights are not finite.
        """
        if torch.is_grad_enabled() or transforms_active():
            return self._write()
        state = [self.centre, self.scale, self.raw_mean, self.raw_deviation, self.bits]
        key: list[Any] = [self.feature, torch.is_inference_mode_enabled()]
        for part in (self.circuit, self.mapping):
            state += held_tensors(part)
            key += part, plain_attributes(part)
        return self._cache.get(key, state, self._write)

    def _write(self) -> dict[str, Tensor]:
        """Write the weights anew."""
        weights = {}
        # Under autocast the affine part would be rounded, and the cache would keep that.
        with torch.autocast(self.bits.device.type, enabled=False):
            numbers = (self._raw() - self.raw_mean) / self.raw_deviation
            pieces = torch.split(numbers, [shape.numel() for shape in self.shapes.values()])
            spread = zip(self.shapes.items(), pieces, self.centre, self.scale, strict=True)
            for (name, shape), piece, centre, scale in spread:
                dtype = self.target.get_buffer(name).dtype
                weights[name] = (centre + scale * piece).view(shape).to(dtype)
        for name, row in self._padding.items():
            index = torch.tensor([row], device=weights[name].device)
            weights[name] = weights[name].index_fill(0, index, 0.0)
        return finite_weights(weights)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the target with its generated weights: same arguments, same result."""
        weights = self.weights()
        with self._lock.held, holding(self.target, self._places, weights):
            return self.target(*args, **kwargs)

    def count(self) -> ParameterCount:
        """Count what is trained (every parameter that requires a gradient) and what is written."""
        return count_choice(count_parameters(self, self.circuit, self.n_weights), self.circuit)

    def discretize(self) -> GeneratedNetwork:
        """Return this network with its circuit's choices made: a copy that shares nothing with it.

        The circuit of the copy is ``circuit.discretize()``. Mapping, standardisation and target
        are as they are here, so that only the choices change the weights.

        Raises:
            TargetError: if the circuit leaves nothing open, and so has no ``discretize()``.
        """
        choose = getattr(self.circuit, "discretize", None)
        if not callable(choose):
            raise TargetError(
                f"{type(self.circuit).__name__} has no discretize(): only a circuit that holds "
                f"choices open can make them"
            )
        circuit = copy.deepcopy(choose()).train(self.circuit.training)
        # deepcopy puts in place of the circuit what its memo names for it.
        with self._lock.held:
            network = copy.deepcopy(self, {id(self.circuit): circuit})
        network._cache.clear()
        return network

    def export(self) -> nn.Module:
        """Return the plain target with the weights written in: it needs nothing of this package.

        Returns:
            A module of the target's own class, in the same mode (train or eval) and on the same
            device, with ordinary trainable parameters: the same weights, bit for bit.
        """
        with torch.no_grad(), self._lock.held:
            return with_weights(self.target, self._places, self.weights())


def finite_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights, or raise :class:`TargetError` if they are not finite."""
    if not transforms_active() and not all(w.isfinite().all() for w in weights.values()):
        raise TargetError(
            "the generated weights are not finite; look for NaN in the circuit's angles and the "
            "mapping, and if training put it there, lower the learning rate or clip the "
            "gradient's norm; a circuit of your own with negative probabilities needs another "
            "feature than 'log'"
        )
    return weights


class _Lock:
    """A lock that a copy or a pickle of a network has anew: the target's code runs under it."""

    def __init__(self) -> None:
        self.held = RLock()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Lock, ()


def checked_part(part: str, value: Any, shape: tuple[int, ...]) -> Tensor:
    """Return what a part of the network gave, if it is a real tensor of this shape."""
    if not isinstance(value, Tensor) or value.shape != shape or not value.is_floating_point():
        dtype, found = getattr(value, "dtype", ""), getattr(value, "shape", ())
        raise TargetError(
            f"the {part} must give shape {shape} of real numbers, and it gave "
            f"{type(value).__name__} {dtype} {tuple(found)}"
        )
    return value
