"""Any module as a target: the weights that are to be written, and the skeleton that is left.

A skeleton is a copy of the target without its weights. They are written anew on every call, and the
target's own values would only be counted, moved and saved for nothing.
"""

from __future__ import annotations

import copy
import dis
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .errors import TargetError, check_positive

#: Where tensors are written: path of a module -> {parameter's name there: the tensor's name}.
Places = dict[str, dict[str, str]]


def copy_target(target: nn.Module) -> nn.Module:
    """Copy a target.

    Raises:
        TargetError: if it is no module, gives sparse gradients, or a copy of it would not be whole.
    """
    if not isinstance(target, nn.Module):
        raise TargetError(f"the target must be an nn.Module, got {type(target).__name__}")
    advice = "old-style weight_norm, spectral_norm and pruning: use torch.nn.utils.parametrizations"
    for path, module in target.named_modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.sparse:
            raise TargetError(f"{path or 'the target'} gives sparse gradients; use sparse=False")
        for hook in module._forward_pre_hooks.values():
            if type(hook).__module__.startswith("torch.nn.utils."):
                raise TargetError(f"{path or 'the target'} cannot be copied once called: {advice}")
    _check_apart(target)
    try:
        copied = without_graphs(target)
    except (RuntimeError, TypeError) as error:
        raise TargetError(f"the target cannot be copied ({error}). Is this {advice}") from error
    originals = {id(part) for part in [*target.modules(), *target.parameters()]}
    for path, module in copied.named_modules():
        for name, value in vars(module).items():
            if _reaches(value, originals, set()):
                raise TargetError(
                    f"a function in {name} of {path or 'the target'} still refers to the module "
                    f"that was copied, whose weights are not written; make it a method of a class"
                )
    return copied


def without_graphs(module: nn.Module) -> nn.Module:
    """Copy a module, and tensors that its forward pass has left behind without their graph."""
    left = [value for part in module.modules() for value in vars(part).values()]
    graphs = [value for value in left if isinstance(value, Tensor) and value.grad_fn is not None]
    return copy.deepcopy(module, {id(value): value.detach().clone() for value in graphs})


def _check_apart(target: nn.Module) -> None:
    """Refuse tensors to be written whose memory is also another parameter's or buffer's."""
    spans = []
    for name, tensor in [*target.named_parameters(), *target.named_buffers()]:
        known = tensor.layout == torch.strided and not (is_lazy(tensor) or tensor.is_meta)
        if known and tensor.numel():
            sides = zip(tensor.shape, tensor.stride(), strict=True)
            reach = 1 + sum((size - 1) * step for size, step in sides)
            start = tensor.data_ptr()
            stop = start + reach * tensor.element_size()
            spans.append((start, stop, name, tensor.requires_grad))
    end, before, written = 0, "", False
    for start, stop, name, trains in sorted(spans):
        if start < end and (trains or written):
            raise TargetError(
                f"{before} and {name} share memory, and would be written as two; tie them by "
                f"assigning one Parameter to both, or compute one from the other in forward()"
            )
        if stop > end:
            end, before, written = stop, name, trains


def _reaches(value: Any, originals: set[int], seen: set[int]) -> bool:
    """Tell whether a value leads to one of the originals: copies share functions and weakrefs."""
    if id(value) in originals or id(value) in seen:
        return id(value) in originals
    seen.add(id(value))
    inside: Any = ()
    if isinstance(value, FunctionType):
        names = [
            step.argval for step in dis.get_instructions(value) if step.opname == "LOAD_GLOBAL"
        ]
        inside = [value.__globals__.get(name) for name in names]
        inside += [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        inside += [cell.cell_contents for cell in value.__closure__ or ()]
    elif isinstance(value, MethodType):
        inside = value.__self__, value.__func__
    elif isinstance(value, partial):
        inside = value.func, value.args, value.keywords
    elif isinstance(value, weakref.ref):
        inside = (value(),)
    elif isinstance(value, dict):
        inside = value.values()
    elif isinstance(value, list | tuple | set):
        inside = value
    return any(_reaches(part, originals, seen) for part in inside)


def tensors_to_write(target: nn.Module) -> dict[str, nn.Parameter]:
    """List the target's trainable parameters that hold any number, by name.

    Raises:
        TargetError: if there are none, or one has no values yet or cannot be written.
    """
    trainable = {name: p for name, p in target.named_parameters() if p.requires_grad}
    for name, parameter in trainable.items():
        if is_lazy(parameter):
            fault = "has no shape yet; call the target once before wrapping it"
        elif parameter.is_meta:
            fault = "is on the meta device and has no values; initialise it"
        elif parameter.is_complex():
            fault = "is complex, and only real weights can be written"
        else:
            continue
        raise TargetError(f"{name} {fault}")
    tensors = {name: p for name, p in trainable.items() if p.numel()}
    if not tensors:
        raise TargetError(
            f"the target {type(target).__name__} has no trainable parameters to write; "
            f"check requires_grad"
        )
    return tensors


def initial_spread(tensors: Mapping[str, Tensor], gain: float) -> tuple[Tensor, Tensor]:
    """Give the centre and the deviation of each tensor to be written, from its initial values.

    The values of one layer (a weight and its bias) are pooled, since a short bias alone would tell
    little about the deviation that it was drawn with. Constant tensors are left out of the pool.
    """
    check_positive(TargetError, gain=gain)
    values = {name: t.detach().flatten().cpu().double() for name, t in tensors.items()}
    pools: dict[str, list[Tensor]] = {}
    for name, value in values.items():
        if not value.isfinite().all():
            raise TargetError(f"{name} starts with values that are not finite")
        pool = pools.setdefault(name.rpartition(".")[0], [])
        if (value != value[0]).any():
            pool.append(value - value.mean())
    centres, scales = [], []
    for name, value in values.items():
        pool = pools[name.rpartition(".")[0]]
        # A single number was drawn with others that vary; alone, it is a constant.
        varies = bool((value != value[0]).any()) or (len(value) == 1 and bool(pool))
        if varies:
            centres.append(0.0)
            scales.append(gain * torch.cat(pool).square().mean().sqrt().item())
        else:
            centres.append(value[0].item())
            scales.append(0.1)
    return torch.tensor(centres), torch.tensor(scales)


def written_places(target: nn.Module, tensors: Mapping[str, nn.Parameter]) -> Places:
    """Say where each tensor is written: tied parameters stand in several places."""
    names = {id(parameter): name for name, parameter in tensors.items()}
    places = {
        path: {
            key: names[id(parameter)]
            for key, parameter in module._parameters.items()
            if id(parameter) in names
        }
        for path, module in target.named_modules()
    }
    return {path: here for path, here in places.items() if here}


def padding_rows(target: nn.Module, places: Places) -> dict[str, int]:
    """Give the padding row of every embedding whose weight is written.

    No gradient flows back from that row, so numbers that are written there could not be trained.
    """
    embeddings = [(target.get_submodule(path), here) for path, here in places.items()]
    return {
        here["weight"]: module.padding_idx
        for module, here in embeddings
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.padding_idx is not None
    }


def strip_weights(target: nn.Module, places: Places) -> None:
    """Make a skeleton of a target: take the weights out, and guard it and its parts against calls.

    An empty buffer takes the place of each. Unlike a parameter it cannot be trained or thawed, and
    it keeps the precision and the device that the weight has to have.
    """
    for path, here in places.items():
        module = target.get_submodule(path)
        for key in here:
            parameter = module.get_parameter(key)
            del module._parameters[key]
            parameter.data = parameter.data.new_empty(0)  # wherever else it is still held
            module.register_buffer(key, parameter.data)
    for path, module in target.named_modules():
        prefix = f"{path}." if path else ""
        inside = [f"{place}.{next(iter(here))}".lstrip(".") for place, here in places.items()]
        inside = [name.removeprefix(prefix) for name in inside if name.startswith(prefix)]
        if inside:
            module.register_forward_pre_hook(partial(refuse, inside[0]))


def refuse(name: str, module: nn.Module, _args: object) -> None:
    """Raise :class:`TargetError` if a module is called while its weights are taken out.

    Without them, an LSTM would not fail but crash the interpreter.
    """
    if attrgetter(name)(module).numel() == 0:
        raise TargetError(
            "this is only the target's skeleton, without weights; call the GeneratedNetwork, or "
            "its export()"
        )


@contextmanager
def holding(skeleton: nn.Module, places: Places, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Let a skeleton hold weights, where its parameters were, for as long as it is called."""
    held = [(module := skeleton.get_submodule(path), module._parameters) for path in places]
    try:
        for (module, parameters), here in zip(held, places.values(), strict=True):
            written = {key: weights[name] for key, name in here.items()}
            module._parameters = {**parameters, **written}  # type: ignore[dict-item]
        yield
    finally:
        for module, parameters in held:
            module._parameters = parameters


def with_weights(skeleton: nn.Module, places: Places, weights: Mapping[str, Tensor]) -> nn.Module:
    """Copy a skeleton and write weights into it, as ordinary trainable parameters."""
    plain = without_graphs(skeleton)
    for module in plain.modules():
        for number, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, partial) and hook.func is refuse:
                del module._forward_pre_hooks[number]
    parameters = {name: nn.Parameter(weight.clone()) for name, weight in weights.items()}
    for path, here in places.items():
        for key, name in here.items():
            setattr(plain.get_submodule(path), key, parameters[name])
    return plain


@contextmanager
def in_mode(net: nn.Module, training: bool) -> Iterator[None]:
    """Put a network that is not in this mode into it, and give every part its own mode back."""
    modes = [(module, module.training) for module in net.modules()]
    if net.training != training:
        net.train(training)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
