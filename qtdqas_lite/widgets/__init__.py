"""Widgets for the chapters: everything a reader sees is computed in the browser.

The Python classes hold the state, check it, and keep derived numbers up to date, so that a teacher
can observe and link them. They answer in a page without a kernel as well.
"""

from .bilevel_landscape import BilevelLandscape
from .candidate_explorer import CandidateExplorer
from .episode_player import EpisodePlayer
from .growing_circuit import CircuitGrower
from .page import save_html
from .relaxed_gate import RelaxedGate
from .weight_writer import WeightWriter

__all__ = [
    "BilevelLandscape",
    "CandidateExplorer",
    "CircuitGrower",
    "EpisodePlayer",
    "RelaxedGate",
    "WeightWriter",
    "save_html",
]
