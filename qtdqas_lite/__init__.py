"""Quantum circuits that write the weights of ordinary neural networks.

The small core of the book *Circuits That Write Networks*.
"""

from .circuits import Candidate, FixedCircuit
from .diagnosis import Diagnosis, diagnose
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
from .growing_circuit import GrowingCircuit
from .growth import Growth, grow
from .ledger import ParameterCount
from .mapping import AffineMapping, MLPMapping, log_feature
from .relaxation import anneal
from .relaxed_circuit import RelaxedCircuit
from .search_space import SearchSpace, paper_space
from .selection import Selection, select
from .statistics import variance_decomposition
from .training import Run, Step, fit, search

__all__ = [
    "AffineMapping",
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
    "GrowingCircuit",
    "Growth",
    "MLPMapping",
    "ParameterCount",
    "QuantumTrainError",
    "RelaxedCircuit",
    "Run",
    "SearchError",
    "SearchSpace",
    "Selection",
    "Step",
    "TargetError",
    "amplitude_encode",
    "anneal",
    "basis_bits",
    "diagnose",
    "fit",
    "grow",
    "log_feature",
    "n_qubits_for",
    "paper_space",
    "search",
    "select",
    "variance_decomposition",
]
