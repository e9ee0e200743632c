"""Each simulator runs one workload forward and backward, in its own way and in its own process.

Circuits (hadamard, entangler, rotation) share the angles theta, shape (n_layers, n); several are
mixed by the softmax of logits. A builder returns a step, which gives [p, slope of theta, slope of
logits] for the loss sum(cotangent * p). All use one thread, and single precision if they have it.

The process talks by pickle: it says which versions it runs, reads a workload, answers with what a
step gives and how long the first one took, and from then on reads how many calls to time.
"""

import os
import pickle
import sys
import time
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from unittest.mock import MagicMock


def cnots(n, entangler):
    return [(wire, (wire + 1) % n) for wire in range(n if entangler == "ring" else n - 1)]


def mixture(parts, weights):
    """Mix what the circuits give; a single circuit has no weight."""
    if len(parts) == 1:
        return parts[0]
    return sum(weight * part for weight, part in zip(weights, parts, strict=True))


def torch_step(one, circuits, theta, logits, cotangent):
    """Make a step of a function that gives the p of one circuit, differentiable by torch."""
    import torch

    theta, logits = (torch.tensor(values, requires_grad=True) for values in (theta, logits))
    leaves, cotangent = [theta, logits][: min(2, len(circuits))], torch.tensor(cotangent)

    def step():
        theta.grad = logits.grad = None
        p = mixture([one(theta, *circuit) for circuit in circuits], torch.softmax(logits, 0))
        (p * cotangent).sum().backward()
        return [p.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)]

    return step


def ours(n, circuits, theta, logits, cotangent):
    import torch

    import qtdqas_lite

    n_layers, cotangent = len(theta), torch.tensor(cotangent)
    if len(circuits) == 1:
        choice = dict(zip(("hadamard", "entangler", "rotation"), circuits[0], strict=True))
        circuit = qtdqas_lite.FixedCircuit(n, n_layers, **choice)
        leaves = [circuit.theta]
    else:
        circuit = qtdqas_lite.CircuitEnsemble(qtdqas_lite.paper_space(n, n_layers))
        leaves = [circuit.theta, circuit.alpha["circuit"]]
    for leaf, values in zip(leaves, (theta, logits), strict=False):
        leaf.data = torch.tensor(values)

    def step():
        circuit.zero_grad()
        p = circuit()
        (p * cotangent).sum().backward()
        return [p.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)]

    return step


def pennylane_layers(n, theta, entangler, rotation):
    import pennylane as qml

    for angles in theta:
        for wires in cnots(n, entangler):
            qml.CNOT(wires)
        for wire in range(n):
            getattr(qml, rotation.upper())(angles[wire], wire)


def default_qubit(n, circuits, theta, logits, cotangent):
    """Backpropagate. A start in complex64 halves the time; after Hadamards it is complex128."""
    import pennylane as qml
    import torch

    start = torch.full((2**n,), 2 ** (-n / 2), dtype=torch.complex64)
    first = torch.zeros_like(start).index_fill(0, torch.tensor(0), 1)

    @qml.qnode(qml.device("default.qubit", wires=n), interface="torch", diff_method="backprop")
    def one(theta, hadamard, entangler, rotation):
        qml.StatePrep(start if hadamard else first, wires=range(n), validate_norm=False)
        pennylane_layers(n, theta, entangler, rotation)
        return qml.probs(wires=range(n))

    return torch_step(one, circuits, theta, logits, cotangent)


def lightning(n, circuits, theta, logits, cotangent):
    return adjoint(n, circuits, theta, logits, cotangent, device="lightning.qubit")


def kokkos(n, circuits, theta, logits, cotangent):
    return adjoint(n, circuits, theta, logits, cotangent, device="lightning.kokkos")


def default_adjoint(n, circuits, theta, logits, cotangent):
    options = {"device": "default.qubit", "device_vjp": True}
    return adjoint(n, circuits, theta, logits, cotangent, **options)


def adjoint(n, circuits, theta, logits, cotangent, *, device, **options):
    """Adjoint needs an observable: sum_i c_i p_i is the expectation of the diagonal matrix of c."""
    import numpy as np
    import pennylane as qml
    import scipy.sparse
    import torch

    def circuit(theta, hadamard, entangler, rotation, measure):
        for wire in range(n if hadamard else 0):
            qml.Hadamard(wire)
        pennylane_layers(n, theta, entangler, rotation)
        return qml.apply(measure)

    single = {"c_dtype": np.complex64} if device.startswith("lightning") else {}
    device = qml.device(device, wires=n, **single)
    node = qml.QNode(circuit, device, interface="torch", diff_method="adjoint", **options)
    matrix = scipy.sparse.diags([cotangent], [0], format="csr", dtype=np.complex64)
    value = qml.expval(qml.SparseHamiltonian(matrix, wires=range(n)))
    slopes = torch_step(lambda *at: node(*at, value), circuits, theta, logits, np.float32(1))
    with torch.no_grad():
        forward, probs = node.update(diff_method=None, device_vjp=None), qml.probs(wires=range(n))
        parts = [forward(torch.tensor(theta), *choice, probs) for choice in circuits]
        p = mixture(parts, torch.softmax(torch.tensor(logits), 0)).numpy()
    return lambda: [p, *slopes()[1:]]


def torchquantum(n, circuits, theta, logits, cotangent):
    import torch
    import torchquantum.functional as tqf
    from torchquantum import QuantumDevice

    start = torch.full((1, 2**n), 2 ** (-n / 2), dtype=torch.complex64)

    def one(theta, hadamard, entangler, rotation):
        device = QuantumDevice(n_wires=n)
        if hadamard:
            device.set_states(start)
        for angles in theta:
            for wires in cnots(n, entangler):
                tqf.cnot(device, wires)
            for wire in range(n):
                getattr(tqf, rotation)(device, wire, params=angles[wire])
        state = device.get_states_1d()[0]
        return state.real**2 + state.imag**2

    return torch_step(one, circuits, theta, logits, cotangent)


def tensorcircuit(n, circuits, theta, logits, cotangent):
    """Scan over the layers and compile; the loop over gates is then traced once per circuit."""
    import jax
    import tensorcircuit as tc
    from jax import numpy as jnp

    tc.set_backend("jax")
    tc.set_dtype("complex64")

    def one(theta, hadamard, entangler, rotation):
        def layer(state, angles):
            circuit = tc.Circuit(n, inputs=state)
            for wires in cnots(n, entangler):
                circuit.cnot(*wires)
            for wire in range(n):
                getattr(circuit, rotation)(wire, theta=angles[wire])
            return circuit.state(), None

        start = jnp.full(2**n, 2 ** (-n / 2)) if hadamard else jnp.zeros(2**n).at[0].set(1)
        state, _ = jax.lax.scan(layer, start.astype(jnp.complex64), theta)
        return state.real**2 + state.imag**2

    def loss(theta, logits):
        p = mixture([one(theta, *circuit) for circuit in circuits], jax.nn.softmax(logits))
        return (p * cotangent).sum(), p

    compiled = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))

    def step():
        (_, p), slopes = jax.block_until_ready(compiled(theta, logits))
        return [p, *slopes[: min(2, len(circuits))]]

    return step


def mindquantum(n, circuits, theta, logits, cotangent):
    """Its own gradient of the expectation of a diagonal matrix; its qubit 0 is our last wire."""
    import mindquantum
    import numpy as np
    import scipy.sparse
    from mindquantum.core import gates
    from mindquantum.core.circuit import Circuit
    from mindquantum.core.operators import Hamiltonian
    from mindquantum.simulator import Simulator

    ((hadamard, entangler, rotation),) = circuits
    circuit = Circuit()
    for wire in range(n if hadamard else 0):
        circuit += gates.H.on(wire)
    for layer in range(len(theta)):
        for control, target in cnots(n, entangler):
            circuit += gates.X.on(n - 1 - target, n - 1 - control)
        for wire in range(n):
            gate = getattr(gates, rotation.upper())
            circuit += gate(f"{layer}, {wire}").on(n - 1 - wire)
    matrix = scipy.sparse.diags([cotangent], [0], format="csr", dtype=np.complex128)
    simulator = Simulator("mqvector", n, dtype=mindquantum.complex64)
    value = Hamiltonian(matrix, dtype=mindquantum.complex64)
    gradient = simulator.get_expectation_with_grad(value, circuit)
    forward = Simulator("mqvector", n, dtype=mindquantum.complex64)
    forward.apply_circuit(circuit, theta.ravel())
    p = np.abs(forward.get_qs()) ** 2
    return lambda: [p, gradient(theta.ravel())[1].real.reshape(theta.shape)]


def qulacs(n, circuits, theta, logits, cotangent):
    """Backpropagate <bra|psi> for the bra c psi. Its angles have the opposite sign."""
    import numpy as np
    from qulacs import ParametricQuantumCircuit, QuantumState

    ((hadamard, entangler, rotation),) = circuits
    circuit = ParametricQuantumCircuit(n)
    for wire in range(n if hadamard else 0):
        circuit.add_H_gate(wire)
    for _ in theta:
        for control, target in cnots(n, entangler):
            circuit.add_CNOT_gate(n - 1 - control, n - 1 - target)
        for wire in range(n):
            getattr(circuit, f"add_parametric_{rotation.upper()}_gate")(n - 1 - wire, 0.0)
    psi, bra = QuantumState(n), QuantumState(n)

    def step():
        for number, angle in enumerate(theta.ravel()):
            circuit.set_parameter(number, -float(angle))
        psi.set_zero_state()
        circuit.update_quantum_state(psi)
        amplitudes = psi.get_vector()
        bra.load(cotangent * amplitudes)
        slopes = -2 * np.array(circuit.backprop_inner_product(bra))
        return [np.abs(amplitudes) ** 2, slopes.reshape(theta.shape)]

    return step


PACKAGES = {
    ours: ["qtdqas-lite", "torch"],
    default_qubit: ["pennylane", "torch"],
    default_adjoint: ["pennylane", "torch"],
    lightning: ["pennylane-lightning"],
    kokkos: ["pennylane-lightning-kokkos"],
    torchquantum: ["torchquantum", "torch"],
    tensorcircuit: ["tensorcircuit-ng", "jax"],
    mindquantum: ["mindquantum"],
    qulacs: ["qulacs"],
}


class StandIn(MetaPathFinder, Loader):
    """Stands in for what torchquantum imports for hardware, data and logging, and no gate uses."""

    names = "dill pathos qiskit qiskit_ibm_runtime qiskit_nature torchdiffeq torchpack torchvision"

    def find_spec(self, name, path=None, target=None):
        known = name.split(".")[0] in self.names.split()
        return ModuleSpec(name, self, is_package=True) if known else None

    def create_module(self, spec):
        return MagicMock(__file__="")

    def exec_module(self, module):
        pass


def turn(step, calls):
    """Time one of several calls; before them comes one that is not counted, to fill the caches."""
    if calls > 1:
        step()
    start = time.perf_counter()
    for _ in range(calls):
        step()
    return (time.perf_counter() - start) / calls


def main(build):
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get between the answers
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    if build is tensorcircuit and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # JAX: a thread for each core

    def answer(value):
        pickle.dump(value, answers)
        answers.flush()

    answer({name: version(name) for name in PACKAGES[build]})
    import numpy as np
    import torch

    torch.set_num_threads(1)
    sys.meta_path.append(StandIn())
    step = build(**pickle.load(sys.stdin.buffer))
    start = time.perf_counter()
    found = [np.array(part) for part in step()]
    answer((found, time.perf_counter() - start))
    while calls := pickle.load(sys.stdin.buffer):
        answer(turn(step, calls))


if __name__ == "__main__":
    main(globals()[sys.argv[1]])
