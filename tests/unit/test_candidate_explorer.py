"""The candidate explorer's Python side: the package's verdicts, PennyLane's probabilities."""

import pytest
import torch
import traitlets
from conftest import candidate_probabilities

from qtdqas_lite import diagnose, paper_space
from qtdqas_lite.simulator.gates import ENTANGLERS
from qtdqas_lite.widgets import CandidateExplorer

UNIFORM, CERTAIN = {1, 3, 4, 6}, {9, 12}


def of(candidate, **traits):
    return CandidateExplorer(
        hadamard=candidate.hadamard,
        entangler=candidate.entanglers[0],
        rotation=candidate.rotations[0][0],
        n_qubits=candidate.n_qubits,
        n_layers=candidate.n_layers,
        **traits,
    )


@pytest.mark.parametrize(("n_qubits", "n_layers"), [(3, 1), (4, 2), (5, 4)])
def test_the_papers_twelve(n_qubits, n_layers):
    space = paper_space(n_qubits, n_layers)
    for report in diagnose(space).reports:
        widget = of(report.candidate)
        shown = widget.number, widget.live, widget.reason, widget.rank
        assert shown == (report.number, report.live, report.reason, report.rank)
        assert widget.candidate == report.candidate
        number = report.number
        assert widget.live == (number not in UNIFORM | CERTAIN)
        assert ("equally likely" in widget.reason) == (number in UNIFORM)
        assert ("certain" in widget.reason) == (number in CERTAIN)


@pytest.mark.parametrize("rotation", ["rx", "ry", "rz"])
@pytest.mark.parametrize("entangler", list(ENTANGLERS))
@pytest.mark.parametrize("hadamard", [True, False])
def test_probabilities_are_pennylanes(hadamard, entangler, rotation):
    widget = CandidateExplorer(
        hadamard=hadamard, entangler=entangler, rotation=rotation, n_qubits=4, n_layers=3, seed=5
    )
    theta = torch.tensor(widget.theta, dtype=torch.double)[:, :3, :4]
    for draw, probabilities in zip(theta, widget.probabilities, strict=True):
        expected = candidate_probabilities(widget.candidate, draw)
        assert probabilities == pytest.approx(expected.tolist(), abs=1e-12)
    spread = max(max(column) - min(column) for column in zip(*widget.probabilities, strict=True))
    assert (spread > 1e-6) == widget.live


def test_knows_every_entangler():
    """An entangler that the package gains has to come to the widget, too."""
    assert list(ENTANGLERS) == CandidateExplorer.class_traits()["entangler"].values


def test_starts_with_number_one():
    widget = CandidateExplorer()
    assert repr(widget) == "CandidateExplorer(H | 2 x (chain RX), dead)"
    assert (widget.number, widget.live, widget.rank) == (1, False, 0)
    assert widget.theta == CandidateExplorer().theta != CandidateExplorer(seed=1).theta
    assert widget.probabilities[0] == pytest.approx([1 / 8] * 8)


def test_outside_of_the_paper():
    widget = CandidateExplorer(entangler="stride")
    assert widget.number is None
    assert widget.reason == diagnose([widget.candidate]).reports[0].reason


def test_a_choice_is_heard_with_all_that_follows_from_it():
    widget = CandidateExplorer()
    heard = []

    def hear(change):
        heard.append((change["name"], widget.live, widget.number, len(widget.probabilities[0])))

    widget.observe(hear, ["live", "number", "probabilities", "rank"])
    widget.rotation = "ry"
    assert {name for name, *_ in heard} == {"live", "number", "probabilities", "rank"}
    assert {tuple(rest) for _, *rest in heard} == {(True, 2, 8)}
    widget.n_qubits = 5
    assert len(widget.probabilities[3]) == 32


def test_the_same_angles_for_all():
    """Circuits are compared at the same angles; new ones are drawn when asked for."""
    widget = CandidateExplorer(rotation="ry")
    theta, before = widget.theta, widget.probabilities
    widget.n_layers, widget.entangler = 4, "ring"
    widget.n_layers, widget.entangler = 2, "chain"
    assert (widget.theta, widget.probabilities) == (theta, before)
    widget.redraw(seed=3)
    assert widget.theta == CandidateExplorer(seed=3).theta != theta
    assert widget.probabilities != before
    widget.reset()
    assert (widget.theta, widget.probabilities) == (theta, before)


def test_reset_goes_back_to_the_circuit():
    widget = CandidateExplorer(rotation="ry", entangler="ring", n_qubits=4)
    for name, value in (("hadamard", False), ("rotation", "rz"), ("n_qubits", 5), ("n_layers", 4)):
        setattr(widget, name, value)
    assert widget.number == 12
    widget.reset()
    assert widget.number == 5
    assert (widget.n_qubits, widget.n_layers) == (4, 2)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("entangler", "star", "entangler"),
        ("rotation", "identity", "rotation"),
        ("n_qubits", 2, "n_qubits"),
        ("n_qubits", 6, "n_qubits"),
        ("n_qubits", 3.5, "n_qubits"),
        ("n_layers", 0, "n_layers"),
        ("n_layers", 5, "n_layers"),
        ("hadamard", "yes", "hadamard"),
        ("theta", [[0.0]], r"shape \(4, 4, 5\)"),
        ("theta", torch.full((4, 4, 5), torch.nan), "finite"),
        ("probabilities", [], "read-only"),
        ("number", 3, "read-only"),
        ("live", True, "read-only"),
        ("reason", "", "read-only"),
        ("rank", 3, "read-only"),
    ],
)
def test_a_bad_value_leaves_the_old_one(name, value, text):
    widget = CandidateExplorer()
    before = widget.get_state()
    with pytest.raises(traitlets.TraitError, match=text):
        setattr(widget, name, value)
    assert widget.get_state() == before
    with pytest.raises(traitlets.TraitError, match=text):
        CandidateExplorer(**{name: value})


def test_a_message_of_the_front_end():
    """The button for number 11 sends three traits at once."""
    widget = CandidateExplorer()
    widget.set_state({"hadamard": False, "entangler": "ring", "rotation": "ry"})
    assert (widget.number, widget.live) == (11, True)
    theta = torch.zeros(4, 4, 5).long().tolist()  # JSON has no 0.0
    widget.set_state({"theta": theta})
    assert [p[0] for p in widget.probabilities] == pytest.approx([1] * 4)
