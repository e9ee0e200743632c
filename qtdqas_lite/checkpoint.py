"""Checkpoints: one safetensors file with a JSON header. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from .circuits import CIRCUITS, Candidate
from .errors import MISFITS, CheckpointError
from .files import is_file, write_atomically
from .mapping import FEATURES, AffineMapping, MLPMapping
from .target import copy_target, tensors_to_write

SCHEMA = 3
_KEY, _DIGEST = "qtdqas_lite", "sha256"


class Checkpointed(nn.Module):
    """What lets a :class:`~qtdqas_lite.GeneratedNetwork` be written to a file and read back."""

    circuit: nn.Module
    mapping: nn.Module
    feature: Any
    shapes: dict[str, torch.Size]
    bits: Tensor
    scale: Tensor

    def save(self, path: str | PathLike[str]) -> None:
        """Save everything but the target's code to one safetensors file; see :meth:`load`.

        What the file held before stays whole until the new contents are complete.

        Raises:
            FileNotFoundError: if there is no such folder.
            CheckpointError: if the path is no file but a folder, a pipe or a device, or if the
                network holds something else than tensors.
            TargetError: if the weights are not finite.
        """
        circuit: dict[str, Any] = {"kind": "custom"}
        if type(self.circuit) in CIRCUITS.values():
            circuit = {"kind": type(self.circuit).__name__, **self.circuit.configuration()}  # type: ignore[operator]
        mappings = {AffineMapping: "affine", MLPMapping: "mlp"}
        header = {
            "circuit": circuit,
            "mapping": {"kind": mappings.get(type(self.mapping), "custom")},
            "feature": self.feature if isinstance(self.feature, str) else "custom",
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "trained": [name for name, p in self.named_parameters() if p.requires_grad],
            "training": self.training,
            "sample": self._sample(),
        }
        write_file(path, header, self.state_dict())

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        target: nn.Module,
        *,
        circuit: nn.Module | None = None,
        mapping: nn.Module | None = None,
        feature: Callable[[Tensor], Tensor] | None = None,
    ) -> Self:
        """Load a network that :meth:`save` wrote. Nothing in the file is executed.

        Args:
            path: The file.
            target: A module of the same class and shapes as the saved one; its values are not used.
            circuit: Needed only if the saved circuit was not one of this package's.
            mapping: Needed only if the saved mapping was a module of your own.
            feature: Needed only if the saved feature was a function of your own.

        Returns:
            A network that writes the same weights, in the same mode (train or eval).

        Raises:
            FileNotFoundError: if there is no such file.
            CheckpointError: if the file is damaged, is not a checkpoint of this package or of
                this schema, belongs to another target, or with the parts that were passed would
                not write the weights that were saved.
            TargetError: if the target could not be wrapped either.
        """
        header, tensors = read_file(path)
        here = tensors_to_write(copy_target(target))  # a copy, because that checks the target
        shapes = {name: list(p.shape) for name, p in here.items()}
        try:
            _check_shapes(shapes, header["shapes"], path)
            if circuit is None:
                circuit = _circuit(header["circuit"], tensors, path)
            if mapping is None:
                mapping = _mapping(header["mapping"], tensors, int(circuit.n_qubits), path)  # type: ignore[arg-type]
            if feature is None and header["feature"] not in FEATURES:
                raise CheckpointError(f"{path} holds a feature of your own: pass feature=...")
            net = cls(target, circuit, mapping, feature=feature or header["feature"])
            for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
                if name in tensors and tensors[name].is_floating_point():
                    tensor.data = tensor.data.to(tensors[name].dtype)
            net.bits = net.bits.to(net.scale.dtype)
            net.load_state_dict(tensors)
            for name, parameter in net.named_parameters():
                parameter.requires_grad_(name in header["trained"])
            net.train(header["training"])
            # The digest says nothing of a circuit, mapping or feature that was passed, nor of a
            # later version's arithmetic; the weights do.
            same = _agree(net._sample(), header["sample"])
        except CheckpointError:
            raise
        except MISFITS as error:
            raise CheckpointError(
                f"{path} does not fit its own description, or the circuit or mapping that was "
                f"passed: {error}"
            ) from error
        if not same:
            raise CheckpointError(
                f"{path} would give other weights than those saved: pass the circuit, mapping or "
                f"feature that it was saved with, and use the version of this package that saved it"
            )
        return net

    def _write(self) -> dict[str, Tensor]:
        raise NotImplementedError

    def _sample(self) -> list[float]:
        """Give the mean size of every tensor that is written; nothing if that is random."""
        devices = [self.bits.device] if self.bits.is_cuda else []
        with torch.no_grad(), torch.random.fork_rng(devices):  # saving changes nothing that follows
            sizes = ([w.double().abs().mean().item() for w in self._write().values()] for _ in "12")
            one, two = sizes
        return one if one == two else []


def _agree(sample: list[float], saved: list[float]) -> bool:
    if not sample or not saved:  # random, now or then
        return True
    return torch.allclose(torch.tensor(sample), torch.tensor(saved), rtol=1e-2, atol=1e-6)


def _check_shapes(
    shapes: dict[str, list[int]], saved: dict[str, list[int]], path: str | PathLike[str]
) -> None:
    if list(shapes.items()) != list(saved.items()):
        names = [n for n in sorted({*shapes, *saved}) if shapes.get(n) != saved.get(n)]
        different = ", ".join(names[:5]) or "the order of the parameters"
        raise CheckpointError(f"{path} was saved for another target; different here: {different}")


def _circuit(saved: dict[str, Any], tensors: dict[str, Tensor], path: str | PathLike[str]) -> Any:
    arguments = dict(saved)
    kind = arguments.pop("kind")
    if kind not in CIRCUITS:
        raise CheckpointError(f"{path} holds a circuit of your own: pass circuit=...")
    # The header could name any size, and is believed only where the saved angles have it.
    theta = tensors["circuit.theta"]
    candidates = [Candidate.from_json(text) for text in saved.get("space", ())]
    sizes = {(candidate.n_layers, candidate.n_qubits) for candidate in candidates}
    sizes = sizes or {(saved["n_layers"], saved["n_qubits"])}
    if not theta.numel() or not sizes <= {(size, theta.shape[-1]) for size in theta.shape[:-1]}:
        raise CheckpointError(f"{path} has angles of another shape than its circuit")
    return CIRCUITS[kind](**arguments)


def _mapping(
    saved: dict[str, Any], tensors: dict[str, Tensor], n_qubits: int, path: str | PathLike[str]
) -> nn.Module:
    if saved["kind"] == "affine":
        return AffineMapping(n_qubits)
    if saved["kind"] == "mlp":
        return MLPMapping(n_qubits, len(tensors["mapping.hidden_layer.bias"]))
    raise CheckpointError(f"{path} holds a mapping of your own: pass mapping=...")


def write_file(
    path: str | PathLike[str], header: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write tensors and a header of plain JSON values to one file, with a digest of both.

    Args:
        path: The file.
        header: What the tensors do not say, without the name ``schema``.
        tensors: By name, on any device. They may share memory.

    Raises:
        FileNotFoundError: if there is no such folder.
        CheckpointError: if there is something else than tensors, or the path is no file.
    """
    for name, value in tensors.items():
        if not isinstance(value, Tensor):  # a module's extra state can be anything
            raise CheckpointError(f"{name} is of type {type(value).__name__}, and only tensors fit")
    # Clones, because safetensors refuses tensors that share memory (tied, frozen parameters).
    clones = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    text = json.dumps({"schema": SCHEMA, **header})
    metadata = {_KEY: text, _DIGEST: _digest(text, clones)}
    write_atomically(CheckpointError, path, to_bytes(clones, metadata=metadata))


def read_file(path: str | PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what :func:`write_file` wrote. Nothing in the file is executed.

    Returns:
        The header and the tensors. Anyone can write a digest, so check what they say before
        something is built from it.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: if the file is a pickle, is damaged, or is of another origin or schema.
    """
    is_file(CheckpointError, path)
    with Path(path).open("rb") as opened:  # a missing file is the caller's FileNotFoundError
        start = opened.read(8)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        # Both forms of a pickle; a safetensors file starts with a small number in eight bytes.
        if start[:2] == b"PK" or (start[:1] == b"\x80" and start[2:] != bytes(6)):
            raise CheckpointError(
                f"{path} is a pickle (torch.save writes those), which could run any code when "
                f"opened; only files that this package has written are read"
            ) from error
        raise CheckpointError(
            f"{path} is damaged or is not a safetensors file ({error}); restore it from a copy"
        ) from error
    try:
        header = json.loads(metadata[_KEY])
        schema = header["schema"]
    except (KeyError, TypeError, ValueError, RecursionError):
        raise CheckpointError(f"{path} was not written by this package") from None
    if type(schema) is not int or schema != SCHEMA:
        raise CheckpointError(
            f"{path} has schema {schema!r}, and this version reads schema {SCHEMA}; install the "
            f"version of qtdqas-lite that wrote it"
        )
    if metadata.get(_DIGEST) != _digest(metadata[_KEY], tensors):
        raise CheckpointError(
            f"{path} is damaged or was changed after it was saved (its header and tensors have "
            f"another digest); restore it from a copy"
        )
    return header, tensors


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """Give the SHA-256 of a header's text and of contiguous tensors, in hexadecimal."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
