"""Any module as a target: the weights that are to be written, and the skeleton that is left.

A skeleton is a copy of the target without its weights. They are written anew on every call, and the
target's own values would only be counted, moved and saved for nothing.
"""

from __future__ import annotations

import copy
import math
from functools import partial
from operator import attrgetter

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from .errors import TargetError


def copy_target(target: nn.Module) -> nn.Module:
    """Copy a target; raise :class:`TargetError` if it is no module or cannot be copied."""
    if not isinstance(target, nn.Module):
        raise TargetError(f"the target must be an nn.Module, got {type(target).__name__}")
    try:
        return copy.deepcopy(target)
    except RuntimeError as error:
        raise TargetError(
            f"the target cannot be copied ({error}); old-style weight_norm and spectral_norm "
            f"cannot: use those of torch.nn.utils.parametrizations"
        ) from error


def tensors_to_write(target: nn.Module) -> dict[str, nn.Parameter]:
    """List the target's trainable parameters that hold any number, by name.

    Raises:
        TargetError: if there are none, or one has no values yet or cannot be written.
    """
    trainable = {name: p for name, p in target.named_parameters() if p.requires_grad}
    for name, parameter in trainable.items():
        if isinstance(parameter, UninitializedParameter):
            raise TargetError(f"call the target once before wrapping it: {name} has no shape yet")
        if parameter.is_meta:
            raise TargetError(f"{name} is on the meta device and has no values; initialise it")
        if parameter.is_complex():
            raise TargetError(f"{name} is complex, and only real weights can be written")
    for path, module in target.named_modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.sparse:
            raise TargetError(f"{path or 'the target'} gives sparse gradients; use sparse=False")
    tensors = {name: parameter for name, parameter in trainable.items() if parameter.numel()}
    if not tensors:
        raise TargetError(
            f"the target {type(target).__name__} has no trainable parameters to write; check "
            f"requires_grad"
        )
    return tensors


def initial_spread(tensors: dict[str, nn.Parameter], gain: float) -> tuple[Tensor, Tensor]:
    """Centre and deviation of each tensor to be written, from its own initial values.

    The values of one layer (a weight and its bias) are pooled, since a short bias alone would tell
    little about the deviation that it was drawn with. Constant tensors are left out of the pool.
    """
    if not isinstance(gain, int | float) or not (math.isfinite(gain) and gain > 0):
        raise TargetError(f"gain must be a finite number above 0, got {gain!r}")
    values = {name: tensor.detach().flatten().cpu().double() for name, tensor in tensors.items()}
    layers: dict[str, list[Tensor]] = {name.rpartition(".")[0]: [] for name in values}
    for name, value in values.items():
        if not value.isfinite().all():
            raise TargetError(f"{name} starts with values that are not finite; initialise it anew")
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


def parameter_paths(target: nn.Module, tensors: dict[str, nn.Parameter]) -> dict[str, str]:
    """Give the name of the tensor that is written to every place where one stands.

    Tied parameters stand in several places, and one module may be reached by several paths.
    """
    names = {id(parameter): name for name, parameter in tensors.items()}
    return {
        f"{path}.{key}".lstrip("."): names[id(parameter)]
        for path, module in target.named_modules()
        for key, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
        if id(parameter) in names
    }


def padding_rows(target: nn.Module, tensors: dict[str, nn.Parameter]) -> dict[str, int]:
    """Give the padding row of every embedding among the tensors.

    No gradient flows back from that row, so numbers that are written there could not be trained.
    """
    names = {id(parameter): name for name, parameter in tensors.items()}
    return {
        names[id(module.weight)]: module.padding_idx
        for module in target.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag)
        and module.padding_idx is not None
        and id(module.weight) in names
    }


def strip_weights(target: nn.Module, tensors: dict[str, nn.Parameter]) -> None:
    """Make a skeleton of a target: take these tensors' values out, and guard it against calls."""
    for parameter in tensors.values():
        parameter.data = parameter.new_empty(0)
        parameter.requires_grad_(False)
    target.register_forward_pre_hook(partial(_refuse, next(iter(tensors))))


def with_weights(skeleton: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    """Copy a skeleton and write weights into it, as ordinary trainable parameters."""
    plain = copy.deepcopy(skeleton)
    for key, hook in list(plain._forward_pre_hooks.items()):
        if isinstance(hook, partial) and hook.func is _refuse:
            del plain._forward_pre_hooks[key]
    for name, weight in weights.items():
        parameter = plain.get_parameter(name)
        parameter.data = weight.clone()
        parameter.requires_grad_(True)
    return plain


def _refuse(name: str, skeleton: nn.Module, _args: object) -> None:
    # Without weights, an LSTM would not fail but crash the interpreter.
    if attrgetter(name)(skeleton).numel() == 0:
        raise TargetError(
            "this is only the target's skeleton, without weights; call the GeneratedNetwork, or "
            "its export()"
        )
