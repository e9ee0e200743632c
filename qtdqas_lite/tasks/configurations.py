"""What writes the weights of a network, built and trained alike for every task."""

from __future__ import annotations

import time
from typing import Any, Literal, get_args

import torch
from torch import nn

from ..architect import Data, Method
from ..circuits import Candidate, FixedCircuit
from ..encoding import n_qubits_for
from ..ensemble import CircuitEnsemble
from ..errors import SearchError
from ..generator import GeneratedNetwork
from ..ledger import ParameterCount
from ..mapping import MLPMapping
from ..relaxed_circuit import RelaxedCircuit
from ..search_space import paper_space
from ..target import tensors_to_write
from ..training import Run, fit, search

Kind = Literal["fixed", "frozen", "ensemble", "relaxed", "plain"]


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
        SearchError: if the kind is unknown.
        TargetError: as :class:`~qtdqas_lite.GeneratedNetwork`.
        CircuitError: as the circuit's class.
    """
    if not isinstance(kind, Candidate) and kind not in get_args(Kind):
        raise SearchError(
            f"kind must be one of {list(get_args(Kind))} or a Candidate, got {kind!r}"
        )
    if kind == "plain":
        return target
    if isinstance(kind, Candidate):
        n = kind.n_qubits
    else:
        n = n_qubits_for(sum(tensor.numel() for tensor in tensors_to_write(target).values()))
    draw = torch.Generator().manual_seed(seed)
    options = {**(circuit or {}), "generator": draw}
    if isinstance(kind, Candidate):
        made: nn.Module = kind.circuit(**options)
    elif kind == "ensemble":
        made = CircuitEnsemble(paper_space(n, n_layers), **options)
    elif kind == "relaxed":
        made = RelaxedCircuit(n, n_layers, **options)
    else:
        made = FixedCircuit(n, n_layers, **options).requires_grad_(kind == "fixed")
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
        The run, and the columns that every task's table begins with: ``method`` (``"fit"`` without
        a search), ``seed``, ``n_qubits`` and ``n_layers`` (0 for a plain network), ``steps``,
        ``ended``, ``seconds``, the numbers that are trained (``trainables``, of these ``angles``,
        ``architecture`` and ``mapping``), and ``weights``, those of the target.

    Raises:
        SearchError: as :func:`~qtdqas_lite.fit` and :func:`~qtdqas_lite.search`.
    """
    circuit = net.circuit if isinstance(net, GeneratedNetwork) else None
    searched = isinstance(circuit, CircuitEnsemble | RelaxedCircuit)
    options = {
        "generator": torch.Generator().manual_seed(seed),
        **options,
    }
    started = time.perf_counter()
    if searched:
        run = search(net, training, validation, method=method, **options)
    else:
        run = fit(net, training, validation, **options)
    seconds = time.perf_counter() - started
    size = sum(p.numel() for p in net.parameters() if p.requires_grad)
    plain = ParameterCount(angles=0, architecture=0, mapping=0, total=size, target=size, ratio=1.0)
    budget = net.count() if isinstance(net, GeneratedNetwork) else plain
    return run, {
        "method": method if searched else "fit",
        "seed": seed,
        "n_qubits": getattr(circuit, "n_qubits", 0),
        "n_layers": getattr(circuit, "n_layers", 0),
        "steps": len(run.history),
        "ended": run.ended,
        "seconds": seconds,
        "trainables": budget.total,
        "angles": budget.angles,
        "architecture": budget.architecture,
        "mapping": budget.mapping,
        "weights": budget.target,
    }
