"""Quantum circuits that write the weights of ordinary neural networks.

The small core of the book *Circuits That Write Networks*.
"""

from .budget import Budget
from .circuits import Candidate, FixedCircuit
from .diagnosis import Diagnosis, diagnose, variance_decomposition
from .encoding import amplitude_encode, basis_bits, n_qubits_for
from .ensemble import CircuitEnsemble
from .errors import (
    CheckpointError,
    CircuitError,
    DataError,
    DependencyError,
    EncodingError,
    QuantumTrainError,
    SearchError,
    TargetError,
)
from .generator import GeneratedNetwork
from .mapping import AffineMapping, MLPMapping, log_channel
from .record import Run, Step
from .relaxed_circuit import RelaxedCircuit
from .search_space import SearchSpace, paper_space
from .strategies import Selection, select
from .training import fit, search

__all__ = [
    "AffineMapping",
    "Budget",
    "Candidate",
    "CheckpointError",
    "CircuitEnsemble",
    "CircuitError",
    "DataError",
    "DependencyError",
    "Diagnosis",
    "EncodingError",
    "FixedCircuit",
    "GeneratedNetwork",
    "MLPMapping",
    "QuantumTrainError",
    "RelaxedCircuit",
    "Run",
    "SearchError",
    "SearchSpace",
    "Selection",
    "Step",
    "TargetError",
    "amplitude_encode",
    "basis_bits",
    "diagnose",
    "fit",
    "log_channel",
    "n_qubits_for",
    "paper_space",
    "search",
    "select",
    "variance_decomposition",
]
