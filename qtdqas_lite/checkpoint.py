"""Checkpoints: one safetensors file with a JSON header. Nothing is ever unpickled."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from .circuits import FixedCircuit
from .errors import CheckpointError
from .generator import GeneratedNetwork, tensors_to_write
from .mapping import CHANNELS, AffineMapping, MLPMapping

SCHEMA = 1
_KEY = "qtdqas_lite"
# The circuits that a checkpoint may name. A reader's own is passed to load() instead.
CIRCUITS: dict[str, type[nn.Module]] = {"FixedCircuit": FixedCircuit}


def save(net: GeneratedNetwork, path: str | PathLike[str]) -> None:
    """Write a network to a file; an older file stays whole until the new one is complete."""
    circuit: dict[str, Any] = {"kind": "custom"}
    if type(net.circuit) in CIRCUITS.values():
        circuit = {"kind": type(net.circuit).__name__, **net.circuit.architecture()}  # type: ignore[operator]
    mapping: dict[str, Any] = {"kind": "custom"}
    if type(net.mapping) is AffineMapping:
        mapping = {"kind": "affine"}
    elif type(net.mapping) is MLPMapping:
        mapping = {"kind": "mlp"}
    header = {
        "schema": SCHEMA,
        "circuit": circuit,
        "mapping": mapping,
        "channel": net.channel if isinstance(net.channel, str) else "custom",
        "shapes": {name: list(shape) for name, shape in net.shapes.items()},
        "trained": [name for name, p in net.named_parameters() if p.requires_grad],
        "training": net.training,
        "sample": _sample(net),
    }
    # Clones, because safetensors refuses tensors that share memory (tied, frozen parameters).
    tensors = {name: value.clone().contiguous() for name, value in net.state_dict().items()}
    path = Path(path).resolve()
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to save into")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(to_bytes(tensors, metadata={_KEY: json.dumps(header)}))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load(
    path: str | PathLike[str],
    target: nn.Module,
    *,
    circuit: nn.Module | None = None,
    mapping: nn.Module | None = None,
    channel: Callable[[Tensor], Tensor] | None = None,
) -> GeneratedNetwork:
    """Read a network from a file; see :meth:`GeneratedNetwork.load`."""
    header, tensors = _read(Path(path))
    shapes = {name: list(p.shape) for name, p in tensors_to_write(target).items()}
    saved_shapes = header["shapes"]
    if list(shapes.items()) != list(saved_shapes.items()):
        differing = [
            name
            for name in sorted({*shapes, *saved_shapes})
            if shapes.get(name) != saved_shapes.get(name)
        ] or ["the order of the parameters"]
        raise CheckpointError(
            f"{path} was saved for another target; different here: {', '.join(differing[:5])}"
        )
    try:
        if circuit is None:
            saved = dict(header["circuit"])
            kind = saved.pop("kind")
            if kind not in CIRCUITS:
                raise CheckpointError(f"{path} holds a circuit of your own: pass circuit=...")
            # Before anything of that size is built: the numbers that are there are the measure.
            if list(tensors["circuit.theta"].shape) != [saved["n_layers"], saved["n_qubits"]]:
                raise CheckpointError(f"{path} has angles of another shape than its circuit")
            circuit = CIRCUITS[kind](**saved)
        if mapping is None:
            mapping = _mapping(header["mapping"], tensors, int(circuit.n_qubits), path)  # type: ignore[arg-type]
        if channel is None and header["channel"] not in CHANNELS:
            raise CheckpointError(f"{path} holds a channel of your own: pass channel=...")
        net = GeneratedNetwork(target, circuit, mapping, channel=channel or header["channel"])
        for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
            if name in tensors and tensors[name].is_floating_point():
                tensor.data = tensor.data.to(tensors[name].dtype)
        net.bits = net.bits.to(net.scale.dtype)
        net.load_state_dict(tensors)
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(name in header["trained"])
        net.train(header["training"])
        # What the file says that it writes tells a wrong circuit, mapping or channel, or a flipped
        # bit, from the right one. Numbers that are not finite are refused here as well.
        sample, saved_sample = _sample(net), header["sample"]
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} does not fit its own description, or the circuit or mapping that was passed: "
            f"{error}"
        ) from error
    if (
        sample
        and saved_sample
        and not torch.tensor(sample).allclose(torch.tensor(saved_sample), rtol=1e-2, atol=1e-6)
    ):
        raise CheckpointError(
            f"{path} would give other weights than those saved: a circuit, mapping or channel "
            f"that was passed is another one, or the file is damaged"
        )
    return net


def _sample(net: GeneratedNetwork) -> list[float]:
    """Give the mean size of every tensor that the network writes; nothing if that is random."""
    with torch.no_grad():
        one, two = ([w.double().abs().mean().item() for w in net._write().values()] for _ in "12")
    return one if one == two else []


def _mapping(
    saved: dict[str, Any], tensors: dict[str, Tensor], n_qubits: int, path: str | PathLike[str]
) -> nn.Module:
    if saved["kind"] == "affine":
        return AffineMapping(n_qubits)
    if saved["kind"] == "mlp":
        return MLPMapping(n_qubits, hidden=len(tensors["mapping.hidden_layer.bias"]))
    raise CheckpointError(f"{path} holds a mapping of your own: pass mapping=...")


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with path.open("rb") as file:  # a missing file is the caller's FileNotFoundError
        start = file.read(8)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        # Both forms of a pickle; a safetensors file starts with a small number in eight bytes.
        if start[:2] == b"PK" or (start[:1] == b"\x80" and start[2:] != bytes(6)):
            raise CheckpointError(
                f"{path} is a pickle (torch.save writes those), which could run any code when "
                f"opened; only files written by GeneratedNetwork.save are read"
            ) from error
        raise CheckpointError(
            f"{path} is damaged or is not a safetensors file ({error}); restore it from a copy"
        ) from error
    try:
        header = json.loads(metadata[_KEY])
        schema = header["schema"]
    except (KeyError, TypeError, ValueError, RecursionError):
        raise CheckpointError(f"{path} was not written by GeneratedNetwork.save") from None
    if type(schema) is not int or schema != SCHEMA:
        raise CheckpointError(
            f"{path} has schema {schema!r}, and this version reads schema {SCHEMA}; install the "
            f"version of qtdqas-lite that wrote it"
        )
    kinds: dict[str, type] = {"circuit": dict, "mapping": dict, "channel": str, "shapes": dict}
    kinds |= {"trained": list, "training": bool, "sample": list}
    if any(type(header.get(key)) is not kind for key, kind in kinds.items()):
        raise CheckpointError(f"{path} has a damaged header; restore it from a copy")
    return header, tensors
