"""Quantum circuits that write the weights of ordinary neural networks.

The small core of the book *Circuits That Write Networks*.
"""

from .circuits import FixedCircuit
from .encoding import amplitude_encode, basis_bits, n_qubits_for
from .errors import CheckpointError, CircuitError, EncodingError, QuantumTrainError, TargetError
from .generator import Budget, GeneratedNetwork
from .mapping import AffineMapping, MLPMapping, log_channel

__all__ = [
    "AffineMapping",
    "Budget",
    "CheckpointError",
    "CircuitError",
    "EncodingError",
    "FixedCircuit",
    "GeneratedNetwork",
    "MLPMapping",
    "QuantumTrainError",
    "TargetError",
    "amplitude_encode",
    "basis_bits",
    "log_channel",
    "n_qubits_for",
]
