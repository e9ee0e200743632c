"""What `make shake` puts into a chapter's kernel: another rounding, and a record of its guards.

A start-up file of the kernel calls :func:`install`; the chapter and the package know nothing of it.
"""

from __future__ import annotations

import ast
import builtins
import json
import operator
import os
import traceback
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

SHIFT = 1e-6  # how far a parameter is moved, relative to its size
OPERATORS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


def move(run: int) -> RemovableHandle:
    """Have the parameters of every optimiser moved before its first step.

    The shift depends on the run and on a parameter's place alone. Two trainings that start alike
    still end alike, as a guard may say.
    """
    met: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()

    def first_step(descent: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if descent in met:
            return
        met.add(descent)
        if descent.state:  # a resumed training: this is not its first step
            return
        noise = torch.Generator().manual_seed(run)  # the chapter's own random numbers stay
        with torch.no_grad():
            for group in descent.param_groups:
                for parameter in group["params"]:
                    if parameter.is_floating_point():
                        shape = parameter.shape
                        u = 2 * torch.rand(shape, generator=noise, dtype=torch.float64) - 1
                        parameter.mul_((1 + SHIFT * u).to(parameter))

    return register_optimizer_step_pre_hook(first_step)


def array(value: Any) -> np.ndarray:
    """Get a value as an array of numbers."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    found = np.asarray(value)
    if found.dtype == object:  # a series of numbers may be stored so
        found = found.astype(float)
    if found.dtype.kind not in "biufc":
        raise TypeError(f"{found.dtype} is no number")
    return found


def numbers(value: Any) -> np.ndarray:
    """Get a value as an array of floats."""
    found = array(value)
    if found.dtype.kind == "c":
        raise TypeError("complex numbers have no order")
    return found.astype(float)


def short(value: Any) -> float | str:
    """Get a number as a float, and anything else as the beginning of its text."""
    try:
        return float(numbers(value))
    except (TypeError, ValueError):
        text = " ".join(repr(value).split())
        return text if len(text) <= 120 else text[:117] + "..."


class Record:
    """Writes a line for each guard that was met, and for each that was judged."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.sides: list[list[Any]] = []  # of the guard that is being judged

    def write(self, **line: Any) -> None:
        """Append one line to the file."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def judge(self, cell: int, guard: int, held: Any, message: Callable[[], Any]) -> None:
        """Say whether an assertion held, and raise nothing."""
        held = bool(held)  # may fail, as it would in an assertion
        sides, self.sides = self.sides, []
        error = None
        if not held:
            try:
                error = str(message())
            except Exception as problem:
                error = f"no message: {problem!r}"
        self.write(cell=cell, guard=guard, held=held, error=error or None, sides=sides)

    def failed(self, cell: int, guard: int) -> None:
        """Say that an assertion raised an error."""
        sides, self.sides = self.sides, []
        error = traceback.format_exc().strip().splitlines()[-1]
        self.write(cell=cell, guard=guard, held=False, error=error, sides=sides)

    def compare(self, operators: str, *operands: Any) -> Any:
        """Compare as Python does, and keep both sides."""
        signs = operators.split()
        result: Any = True
        for place, sign in enumerate(signs):
            left, right = operands[place], operands[place + 1]
            result = COMPARE[sign](left, right)
            self.keep(sign, left, right, result)
            if place < len(signs) - 1 and not result:
                break
        return result

    def keep(self, sign: str, left: Any, right: Any, result: Any) -> None:
        """Keep the two numbers; of two arrays, those that are nearest to breaking the guard."""
        if sign in ("==", "!="):
            self.sides.append([sign, short(left), short(right)])
            return
        try:
            a, b = np.broadcast_arrays(numbers(left), numbers(right))
        except (TypeError, ValueError):
            return
        if a.size == 0 or (a.ndim and isinstance(result, bool)):  # lists are compared otherwise
            return
        nearest = (b - a if sign.startswith("<") else a - b).argmin()
        self.sides.append([sign, float(a.flat[nearest]), float(b.flat[nearest])])

    def close(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call ``isclose`` or ``allclose``, and keep the difference and what is allowed."""
        result = function(*args, **kwargs)
        try:
            a, b = (array(value) for value in args[:2])
            if getattr(function, "__module__", "") == "math":
                relative = kwargs.get("rel_tol", 1e-9) * np.maximum(abs(a), abs(b))
                allowed = np.maximum(relative, kwargs.get("abs_tol", 0.0))
            else:
                allowed = kwargs.get("atol", 1e-8) + kwargs.get("rtol", 1e-5) * abs(b)
            self.keep("<=", abs(a - b), allowed, np.True_)
        except (TypeError, ValueError):
            pass
        return result


def call(name: str, *args: ast.expr, keywords: list[ast.keyword] | None = None) -> ast.expr:
    """Write a call of the record's method."""
    record = ast.Name("__shake__", ast.Load())
    method = ast.Attribute(record, name, ast.Load())
    return ast.Call(method, list(args), keywords or [])


def measured(test: ast.expr) -> ast.expr:
    """Have the comparisons that an assertion consists of keep their two sides."""
    if isinstance(test, ast.Compare):
        signs = [OPERATORS.get(type(sign), "") for sign in test.ops]
        if all(signs):
            return call("compare", ast.Constant(" ".join(signs)), test.left, *test.comparators)
    elif isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        test.values = [measured(value) for value in test.values]
    elif isinstance(test, ast.Call):
        name = getattr(test.func, "attr", getattr(test.func, "id", ""))
        if name in ("isclose", "allclose") and len(test.args) >= 2:
            return call("close", test.func, *test.args, keywords=test.keywords)
        if name == "all" and len(test.args) == 1 and not test.keywords:
            inner = test.args[0]
            if isinstance(inner, ast.GeneratorExp | ast.ListComp):
                inner.elt = measured(inner.elt)
            else:
                test.args = [measured(inner)]
        elif name == "all" and isinstance(test.func, ast.Attribute) and not test.args:
            test.func.value = measured(test.func.value)
    return test


class Guards(ast.NodeTransformer):
    """Turns the assertions of a cell into entries of the record."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.cell = self.guard = 0

    def next_cell(self, *_: Any) -> None:
        """Count a cell, also one that is no Python."""
        self.cell, self.guard = self.cell + 1, 0

    def leave(self, node: ast.AST) -> ast.AST:
        """Leave what is defined as it is: its assertions are part of the code."""
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = leave  # noqa: N815

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        """Judge the assertion, and go on."""
        self.guard += 1
        self.record.write(cell=self.cell, guard=self.guard, text=ast.unparse(node.test))
        where = [ast.Constant(self.cell), ast.Constant(self.guard)]
        no_arguments = ast.arguments([], [], None, [], [], None, [])
        message = ast.Lambda(no_arguments, node.msg or ast.Constant(""))
        judge = ast.Expr(call("judge", *where, measured(node.test), message))
        failed = ast.Expr(call("failed", *where))
        handler = ast.ExceptHandler(ast.Name("Exception", ast.Load()), None, [failed])
        return ast.copy_location(ast.Try([judge], [handler], [], []), node)


def install(shell: Any) -> None:
    """Shake this kernel, as the variables of its environment say."""
    run, threads = int(os.environ["SHAKE_RUN"]), int(os.environ["SHAKE_THREADS"])
    record = Record(os.environ["SHAKE_RECORD"])
    builtins.__shake__ = record  # type: ignore[attr-defined]
    guards = Guards(record)
    shell.ast_transformers.append(guards)
    shell.events.register("pre_run_cell", guards.next_cell)
    # A chapter asks for one thread; it gets as many as this run has.
    set_threads = torch.set_num_threads
    torch.set_num_threads = lambda nthreads: set_threads(threads)
    set_threads(threads)
    if run:
        move(run)
    record.write(kernel={"kernels": torch.backends.cpu.get_cpu_capability(), "threads": threads})
