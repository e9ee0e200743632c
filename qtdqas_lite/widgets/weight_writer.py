"""The weight writer: drag a circuit's angles and watch a network's weights change (chapter 03)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import traitlets
from torch import Tensor, nn

from ..circuits import FixedCircuit
from ..errors import CircuitError, TargetError
from ..generator import GeneratedNetwork
from ..mapping import AffineMapping, log_feature
from .parts import BookWidget, Numbers, as_tensor, front_end

MAX_QUBITS = 8
MAX_LAYERS = 4


class WeightWriter(BookWidget):
    """A circuit whose angles are sliders, the weights that it writes, and what they predict.

    Drag an angle or a coefficient: the outcomes' probabilities, the weights of ``nn.Linear(k, 1)``
    and the prediction on an image change at once, with or without a kernel. The weights are
    those of :class:`~qtdqas_lite.GeneratedNetwork` with the affine mapping and the log feature.

    Every attribute is a trait: assign to it, ``observe`` it, ``link`` it. Assign a new list instead
    of changing one in place, which no observer could notice. A value of the wrong shape, or one
    that is not finite, raises ``traitlets.TraitError``, and the old one stays.

    Attributes:
        theta: The angles in radians, n_layers lists of n_qubits numbers.
        bit_coefficients: The mapping's coefficient of every bit, n_qubits numbers; wire 0 first.
        feature_coefficient: The mapping's coefficient of the feature log(2**n p + 0.01).
        bias: The mapping's constant.
        hadamard: Whether a Hadamard acts on every qubit before the first layer.
        entangler: ``"chain"`` or ``"ring"``.
        rotation: ``"rx"``, ``"ry"`` or ``"rz"``.
        raw_mean: What is subtracted from the mapping's numbers.
        raw_deviation: What they are divided by then.
        centre: The centre of the weight tensor and of the bias tensor, two numbers.
        scale: The deviation of the two, two numbers.
        selected: The index of the image that is shown.
        n_qubits: The number of qubits (read-only).
        n_layers: The number of layers (read-only).
        images: Grey values from 0 to 1, a flat list for each image (read-only).
        labels: 0 or 1 for each image (read-only).
        class_names: What the labels 0 and 1 stand for (read-only).
        weights: The k weights and then the bias that the circuit writes now (read-only).
    """

    _esm, _css = front_end("weight_writer")
    _dragged = ("theta", "bit_coefficients", "feature_coefficient", "bias")

    theta = Numbers("n_layers", "n_qubits").tag(sync=True)
    bit_coefficients = Numbers("n_qubits").tag(sync=True)
    feature_coefficient = Numbers().tag(sync=True)
    bias = Numbers().tag(sync=True)
    hadamard = traitlets.Bool().tag(sync=True)
    entangler = traitlets.Enum(["chain", "ring"]).tag(sync=True)
    rotation = traitlets.Enum(["rx", "ry", "rz"]).tag(sync=True)
    raw_mean = Numbers().tag(sync=True)
    raw_deviation = Numbers(positive=True).tag(sync=True)
    centre = Numbers(2).tag(sync=True)
    scale = Numbers(2).tag(sync=True)
    selected = traitlets.Int(0).tag(sync=True)
    n_qubits = traitlets.Int(read_only=True).tag(sync=True)
    n_layers = traitlets.Int(read_only=True).tag(sync=True)
    images: Any = traitlets.List(read_only=True).tag(sync=True)
    labels: Any = traitlets.List(read_only=True).tag(sync=True)
    class_names: Any = traitlets.List(read_only=True).tag(sync=True)
    weights: Any = traitlets.List(read_only=True).tag(sync=True)

    def __init__(
        self,
        *,
        n_qubits: int = 7,
        n_layers: int = 2,
        hadamard: bool = True,
        entangler: str = "ring",
        rotation: str = "ry",
        images: Any = None,
        labels: Any = None,
        class_names: Sequence[str] = ("1", "5"),
        seed: int = 0,
        **traits: Any,
    ) -> None:
        """Build an untrained weight writer; :meth:`from_network` shows a network of yours.

        Args:
            n_qubits: The number of qubits, 1 to 8; 2**n_qubits must be at least side**2 + 1.
            n_layers: The number of layers, 1 to 4.
            hadamard: Whether a Hadamard acts on every qubit before the first layer.
            entangler: ``"chain"`` or ``"ring"``.
            rotation: ``"rx"``, ``"ry"`` or ``"rz"``.
            images: Square images with grey values from 0 to 1, shape (count, side, side) or
                (count, side**2). Without them, forty of scikit-learn's 8x8 digits are taken.
            labels: 0 or 1 for each image.
            class_names: What the labels 0 and 1 stand for; without images, two digits.
            seed: Where the first angles and coefficients are drawn from.
            **traits: Values of the other traits, ``theta`` for example.

        Raises:
            CircuitError: if the circuit is too large for the widget, or has a gate with an unknown
                name.
            TargetError: if the images and labels do not fit, or the circuit has too few qubits.
            traitlets.TraitError: if one of ``traits`` has the wrong shape or is not finite.
        """
        for name, count, most in (
            ("n_qubits", n_qubits, MAX_QUBITS),
            ("n_layers", n_layers, MAX_LAYERS),
        ):
            if isinstance(count, int) and count > most:
                raise CircuitError(
                    f"the weight writer draws circuits of {name} <= {most}, got {count}; a larger "
                    f"one would have more outcomes or sliders than a page can show"
                )
        if len(class_names) != 2:
            raise TargetError(f"class_names must be two names, got {list(class_names)}")
        if images is None:
            images, labels = _digits(class_names)
        pixels = _pixels(images)
        generator = torch.Generator().manual_seed(seed)
        circuit = FixedCircuit(
            n_qubits,
            n_layers,
            hadamard=hadamard,
            entangler=entangler,
            rotation=rotation,
            generator=generator,
        )
        with torch.random.fork_rng(devices=[]):  # nn.Linear draws from the global generator
            torch.manual_seed(seed)
            target = nn.Linear(pixels.shape[1], 1).double()
        self._net = GeneratedNetwork(target, circuit, generator=generator).double()
        fixed = {
            "n_qubits": circuit.n_qubits,
            "n_layers": circuit.n_layers,
            "images": pixels.tolist(),
            "labels": _checked_labels(labels, len(pixels)),
            "class_names": [str(name) for name in class_names],
        }
        for name, value in fixed.items():
            self.set_trait(name, value)
        architecture = {"hadamard": hadamard, "entangler": entangler, "rotation": rotation}
        super().__init__(**architecture, **{**_numbers(self._net), **traits})

    @classmethod
    def from_network(
        cls,
        net: GeneratedNetwork,
        images: Any,
        labels: Any,
        class_names: Sequence[str] = ("0", "1"),
        **traits: Any,
    ) -> WeightWriter:
        """Show a network, trained or not. It is copied: dragging leaves it as it is.

        Args:
            net: A network with a :class:`~qtdqas_lite.FixedCircuit` of at most 8 qubits and 4
                layers, the affine mapping, the log feature, and the target ``nn.Linear(k, 1)``
                with a bias, where k is the square of the images' side.
            images: Square images with grey values from 0 to 1, shape (count, side, side) or
                (count, side**2).
            labels: 0 or 1 for each image; 1 is the class whose probability is sigmoid(net(x)).
            class_names: What the labels 0 and 1 stand for.
            **traits: Values of other traits, ``selected`` for example.

        Raises:
            CircuitError: if the circuit is of another kind, or too large.
            TargetError: if the network is of another kind, or the images and labels do not fit.
        """
        if not isinstance(net, GeneratedNetwork):
            raise TargetError(f"expected a GeneratedNetwork, got {type(net).__name__}")
        if type(net.circuit) is not FixedCircuit:
            raise CircuitError(
                f"the weight writer draws a FixedCircuit, got {type(net.circuit).__name__}"
            )
        if type(net.mapping) is not AffineMapping:
            raise TargetError(
                f"the weight writer shows the mapping 'affine', got {type(net.mapping).__name__}"
            )
        if net.feature != "log" and net.feature is not log_feature:
            raise TargetError(f"the weight writer shows the feature 'log', got {net.feature!r}")
        circuit = net.circuit.configuration()
        if circuit["entangler"] not in ("chain", "ring") or circuit["rotation"] not in (
            "rx",
            "ry",
            "rz",
        ):
            raise TargetError(
                "the weight writer shows one entangler, 'chain' or 'ring', and one rotation, 'rx', "
                f"'ry' or 'rz', in all layers; this circuit is {net.circuit.architecture()}"
            )
        pixels = _pixels(images)
        wanted = {"weight": (1, pixels.shape[1]), "bias": (1,)}
        shapes = {name: tuple(shape) for name, shape in net.shapes.items()}
        if type(net.target) is not nn.Linear or shapes != wanted:
            raise TargetError(
                f"images of {pixels.shape[1]} pixels need the target nn.Linear("
                f"{pixels.shape[1]}, 1) with a bias, nothing frozen; this network writes {shapes} "
                f"of {type(net.target).__name__}"
            )
        return cls(
            images=pixels,
            labels=labels,
            class_names=class_names,
            **{**circuit, **_numbers(net), **traits},
        )

    def __repr__(self) -> str:
        return (
            f"WeightWriter({self.n_qubits} qubits, {self.n_layers} layers, "
            f"{len(self.weights)} weights, {len(self.images)} images)"
        )

    @traitlets.validate("selected")
    def _check_selected(self, proposal: Any) -> int:
        index = int(proposal["value"])
        if not 0 <= index < len(self.images):
            raise traitlets.TraitError(
                f"selected must be from 0 to {len(self.images) - 1}, got {index}"
            )
        return index

    @traitlets.observe("hadamard", "entangler", "rotation")
    def _rebuild(self, change: Any) -> None:
        self._net.circuit = FixedCircuit(
            self.n_qubits,
            self.n_layers,
            hadamard=self.hadamard,
            entangler=self.entangler,
            rotation=self.rotation,
            generator=torch.Generator(),  # its angles are replaced; leave the global one alone
        ).double()
        self._rewrite(change)

    @traitlets.observe(
        "theta",
        "bit_coefficients",
        "feature_coefficient",
        "bias",
        "raw_mean",
        "raw_deviation",
        "centre",
        "scale",
    )
    def _rewrite(self, _change: Any) -> None:
        with torch.no_grad():
            for name, tensor in _tensors(self._net).items():
                tensor.copy_(torch.tensor(getattr(self, name), dtype=torch.double))
            written = self._net.weights().values()
        self.set_trait("weights", torch.cat([tensor.flatten() for tensor in written]).tolist())


def _tensors(net: GeneratedNetwork) -> dict[str, Tensor]:
    """List the tensors that fix the weights, by the names of their traits."""
    circuit, mapping = net.circuit, net.mapping
    assert isinstance(circuit, FixedCircuit)
    assert isinstance(mapping, AffineMapping)
    return {
        "theta": circuit.theta,
        "bit_coefficients": mapping.bit_coefficients,
        "feature_coefficient": mapping.feature_coefficient,
        "bias": mapping.bias,
        "raw_mean": net.raw_mean,
        "raw_deviation": net.raw_deviation,
        "centre": net.centre,
        "scale": net.scale,
    }


def _numbers(net: GeneratedNetwork) -> dict[str, Any]:
    return {name: tensor.tolist() for name, tensor in _tensors(net).items()}


def _pixels(images: Any) -> Tensor:
    """Check images and flatten them: shape (count, side**2)."""
    try:
        pixels = as_tensor(images)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TargetError(f"images must be numbers, all of one size: {error}") from None
    shape = tuple(pixels.shape)
    if pixels.dim() < 2 or 0 in shape:
        raise TargetError(f"expected images of shape (count, side, side), got {shape}")
    pixels = pixels.flatten(1)
    side = math.isqrt(pixels.shape[1])
    if side * side != pixels.shape[1] or (len(shape) > 2 and shape[-1] != shape[-2]):
        raise TargetError(f"images must be square, got shape {shape}")
    if not bool(((pixels >= 0) & (pixels <= 1)).all()):
        raise TargetError(
            "grey values must lie between 0 and 1; divide the images by their largest value "
            "(scikit-learn's digits by 16)"
        )
    return pixels


def _checked_labels(labels: Any, count: int) -> list[int]:
    try:
        values = as_tensor([] if labels is None else labels).flatten().tolist()
    except (TypeError, ValueError, RuntimeError):
        raise TargetError(f"labels must be 0 or 1 for each image, got {labels!r}") from None
    if len(values) != count:
        raise TargetError(f"there are {count} images and {len(values)} labels")
    if not set(values) <= {0.0, 1.0}:
        raise TargetError(f"labels must be 0 or 1, got {sorted(set(values))[:5]}")
    return [int(value) for value in values]


def _digits(class_names: Sequence[str], count: int = 20) -> tuple[Tensor, list[int]]:
    """Take the first images of two of scikit-learn's digits, the one and the other in turn."""
    from sklearn.datasets import load_digits

    data = load_digits()
    chosen = [data.images[data.target.astype(str) == str(name)][:count] for name in class_names]
    if any(len(images) < count for images in chosen):
        raise TargetError(f"class_names must be two digits without images, got {class_names}")
    pairs = torch.stack([as_tensor(images) for images in chosen], dim=1)
    return pairs.flatten(0, 1) / 16, [0, 1] * count
