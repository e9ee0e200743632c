"""What writes the weights of a network, built and trained alike for every task."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..architect import Data, Method
from ..circuits import Candidate, FixedCircuit
from ..encoding import n_qubits_for
from ..ensemble import CircuitEnsemble
from ..errors import DataError, SearchError, TargetError, check_type, check_whole
from ..generator import GeneratedNetwork
from ..mapping import MLPMapping
from ..relaxed_circuit import RelaxedCircuit
from ..search_space import paper_space
from ..target import in_mode, tensors_to_write
from ..training import Run, fit, search

Kind = Literal["fixed", "frozen", "ensemble", "relaxed", "plain"]


@dataclass(frozen=True)
class Trained:
    """What a task has trained, and what it is worth.

    Attributes:
        row: One row of a table, plain values by name: the settings, what :func:`train` gives, and
            what was measured. A column ``discrete_...`` is of the test part right after the gates
            of an ensemble or a relaxed circuit are chosen, with no further training.
        run: The network, its history and how the training ended.
        data: What it was trained on.
    """

    row: dict[str, Any]
    run: Run = field(repr=False)
    data: Any = field(repr=False)


def build(
    kind: Kind | Candidate,
    target: nn.Module,
    n_layers: int = 15,
    *,
    hidden: int = 0,
    circuit: dict[str, Any] | None = None,
    network: dict[str, Any] | None = None,
    seed: int = 0,
) -> nn.Module:
    """Build a network to train, with as few qubits as its target needs.

    With ``mlp(784, 128, 64, 2)`` and 15 layers, ``"ensemble"`` trains the paper's 286 numbers:
    255 angles, 12 weights of circuits and 19 of the mapping.

    Args:
        kind: ``"fixed"``: one circuit (H, ring, RY by default); ``"frozen"``: the same, angles not
            trained, so that the mapping does all the work; ``"ensemble"``: the paper's weighted sum
            of twelve; ``"relaxed"``: one circuit with relaxed gates; ``"plain"``: the target
            itself, trained directly; or an architecture, such as a search has found.
        target: The network whose weights are to be written.
        n_layers: The number of layers of a circuit, at least 1.
        hidden: How many hidden units the mapping has; 0 for an affine one.
        circuit: More arguments of the circuit's class, such as ``{"rotation": "rx"}``.
        network: More arguments of :class:`~qtdqas_lite.GeneratedNetwork`.
        seed: Angles, logits and the mapping are drawn from it.

    Raises:
        SearchError: if the kind is unknown, or the seed is not a whole number of at least 0.
        QuantumTrainError: as :class:`~qtdqas_lite.GeneratedNetwork` and the circuit's class.
    """
    check_type(TargetError, nn.Module, target=target)
    check_type(SearchError, dict, type(None), circuit=circuit, network=network)
    check_type(SearchError, str, Candidate, kind=kind)
    if not isinstance(kind, Candidate) and kind not in get_args(Kind):
        kinds = list(get_args(Kind))
        raise SearchError(f"kind must be one of {kinds} or a Candidate, got {kind!r}")
    if kind == "plain":
        return target
    n = n_qubits_for(sum(tensor.numel() for tensor in tensors_to_write(target).values()))
    draw = torch.Generator().manual_seed(check_whole(SearchError, 0, 2**33, seed=seed))
    options = {**(circuit or {}), "generator": draw}
    if isinstance(kind, Candidate):
        made: nn.Module = kind.circuit(**options)
    elif kind == "ensemble":
        made = CircuitEnsemble(paper_space(n, n_layers), **options)
    elif kind == "relaxed":
        made = RelaxedCircuit(n, n_layers, **options)
    else:
        made = FixedCircuit(n, n_layers, **options).requires_grad_(kind == "fixed")
    hidden = check_whole(TargetError, 0, 10**6, hidden=hidden)
    mapping: Any = MLPMapping(n, hidden, generator=draw) if hidden else "affine"
    return GeneratedNetwork(target, made, mapping, generator=draw, **(network or {}))


def train(
    net: nn.Module,
    training: Data,
    validation: Data,
    *,
    method: Method = "joint",
    seed: int = 0,
    **options: Any,
) -> tuple[Run, dict[str, Any]]:
    """Train what :func:`build` has built: with a search if there is an architecture to search.

    Args:
        net: The network.
        training: Inputs and labels that it is trained on.
        validation: Inputs and labels that its logits, if it has any, are judged on.
        method: How the logits are moved, as for :func:`~qtdqas_lite.search`.
        seed: The batches follow from it.
        options: As for :func:`~qtdqas_lite.fit` and :func:`~qtdqas_lite.search`.

    Returns:
        The run, and columns of every task's table: ``method`` (``"fit"`` without a search),
        ``seed``, ``n_qubits`` and ``n_layers`` (0 for a plain network), ``steps``, ``ended``,
        ``seconds``, and what :func:`trained_numbers` counts.
    """
    circuit = net.circuit if isinstance(net, GeneratedNetwork) else None
    searched = isinstance(circuit, CircuitEnsemble | RelaxedCircuit)
    options = {"generator": torch.Generator().manual_seed(int(seed)), **options}
    started = time.perf_counter()
    if searched:
        run = search(net, training, validation, method=method, **options)
    else:
        run = fit(net, training, validation, **options)
    return run, {
        "method": method if searched else "fit",
        "seed": int(seed),
        "n_qubits": getattr(circuit, "n_qubits", 0),
        "n_layers": getattr(circuit, "n_layers", 0),
        "steps": len(run.history),
        "ended": run.ended,
        "seconds": time.perf_counter() - started,
        **trained_numbers(net),
    }


def trained_numbers(*nets: nn.Module) -> dict[str, int]:
    """Count ``trainables``, of these ``angles``, ``architecture``, ``mapping``, and ``weights``."""
    counts = [net.count() for net in nets if isinstance(net, GeneratedNetwork)]
    size = sum(p.numel() for net in nets for p in net.parameters() if p.requires_grad)
    kinds = "angles", "architecture", "mapping"
    sums = {kind: sum(getattr(count, kind) for count in counts) for kind in kinds}
    return {"trainables": size, **sums, "weights": sum(c.target for c in counts) or size}


def make_seeded(make_target: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Build a target whose initial values follow from a seed; torch's generator is left alone.

    Raises:
        SearchError: if the seed is not a whole number of at least 0.
        TargetError: if what is built is not a network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(check_whole(SearchError, 0, 2**32, seed=seed))
        target = make_target() if callable(make_target) else make_target
    check_type(TargetError, nn.Module, target=target)
    return target


@torch.no_grad()
def outputs(net: nn.Module, inputs: Tensor, n_outputs: int | None = None) -> Tensor:
    """Give the outputs of a network in eval mode; each of its modules keeps its own mode.

    Args:
        net: Maps inputs, shape (batch, ...), to outputs, shape (batch, n_outputs).
        inputs: A batch.
        n_outputs: How many there have to be for each example; any number by default.

    Raises:
        TargetError: if it is not a network, fails on these inputs, or gives another shape or NaN.
        DataError: if the inputs are not a tensor.
    """
    check_type(TargetError, nn.Module, net=net)
    check_type(DataError, Tensor, inputs=inputs)
    try:
        with in_mode(net, False):
            found = net(inputs)
    except RuntimeError as error:
        given = f"inputs of shape {tuple(inputs.shape)}"
        raise TargetError(f"{type(net).__name__} does not take {given}: {error}") from error
    shape = tuple(found.shape) if isinstance(found, Tensor) else (type(found).__name__,)
    some = shape[1] if n_outputs is None and len(shape) == 2 else n_outputs
    if not isinstance(found, Tensor) or shape != (len(inputs), some):
        raise TargetError(
            f"{type(net).__name__} gives outputs of shape {shape} for inputs of shape "
            f"{tuple(inputs.shape)}, and must give ({len(inputs)}, {some or 'any number'})"
        )
    if found.isnan().any():
        raise TargetError(f"{type(net).__name__} gives NaN; look for it in its weights and inputs")
    return found
