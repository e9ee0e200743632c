import itertools
from collections import Counter

import pytest
import torch
from conftest import TWELVE
from hypothesis import given
from hypothesis import strategies as st

from qtdqas_lite import (
    CircuitEnsemble,
    CircuitError,
    EncodingError,
    RelaxedCircuit,
    SearchSpace,
    diagnose,
    paper_space,
)
from qtdqas_lite.search_space import list_candidates
from qtdqas_lite.simulator.gates import ENTANGLERS, ROTATIONS

POOLS = {"hadamards": (True,), "entanglers": ("ring", "none"), "rotations": ("rx", "ry", "rz")}


def test_the_papers_circuits_are_numbered_as_there():
    """1-6 with Hadamards: Ent-Rx, Ent-Ry, Ent-Rz, Cyc-Rx, Cyc-Ry, Cyc-Rz; 7-12 without."""
    assert [str(candidate) for candidate in paper_space(3, 4)] == [
        f"{start} | 4 x ({entangler} {rotation})"
        for start in "H0"
        for entangler in ("chain", "ring")
        for rotation in ("RX", "RY", "RZ")
    ]
    for candidate, (hadamard, entangler, rotation) in zip(paper_space(3, 4), TWELVE, strict=True):
        assert (candidate.n_qubits, candidate.n_layers) == (3, 4)
        assert candidate.hadamard is hadamard
        assert candidate.entanglers == (entangler,) * 4
        assert candidate.rotations == ((rotation,) * 3,) * 4


@pytest.mark.parametrize(
    ("sharing", "count"), [("global", 2 * 3), ("layer", 2**2 * 3**2), ("qubit", 2**2 * 3**4)]
)
def test_all_architectures_are_listed_once(sharing, count):
    space = SearchSpace(2, 2, **POOLS, sharing=sharing)
    everything = list(space)
    assert space.n_architectures == len(everything) == len(set(everything)) == count
    names = itertools.product(*[POOLS["rotations"]] * 4)
    tables = {((a, b), (c, d)) for a, b, c, d in names}
    if sharing != "qubit":
        tables = {t for t in tables if t[0][0] == t[0][1] and t[1][0] == t[1][1]}
    if sharing == "global":
        tables = {t for t in tables if t[0] == t[1]}
    pairs = itertools.product(POOLS["entanglers"], repeat=2)
    entanglers = {pair for pair in pairs if sharing != "global" or pair[0] == pair[1]}
    expected = {(e, t) for e in entanglers for t in tables}
    assert {(c.entanglers, c.rotations) for c in everything} == expected
    for candidate in everything:
        candidate.circuit()
    if sharing == "qubit":  # the last slot changes first
        assert everything[1].rotations == (("rx", "rx"), ("rx", "ry"))
        assert everything[3].rotations == (("rx", "rx"), ("ry", "rx"))


def test_counts_are_exact_however_large():
    space = SearchSpace(30, 100, sharing="qubit")
    assert space.n_architectures == 2 * 2**100 * 3**3000
    assert SearchSpace(30, 100, sharing="layer").n_architectures == 2 * 2**100 * 3**100


def test_samples_differ_and_have_equal_chances():
    space = SearchSpace(1, 3, **POOLS, sharing="layer")  # 216 architectures: all are listed
    generator = torch.Generator().manual_seed(0)
    counts = Counter()
    for _ in range(300):
        drawn = space.sample(36, generator=generator)
        assert len(set(drawn)) == 36
        counts.update(drawn)
    # Of 216, each is drawn 50 times on average, with deviation sqrt(300 / 6 * 5 / 6) = 6.5.
    assert len(counts) == 216
    assert sum((count - 50) ** 2 for count in counts.values()) / 216 < 60
    assert set(space.sample(216)) == set(space)
    assert space.sample(216, generator=generator) != list(space)


def test_a_large_space_is_sampled_slot_by_slot():
    space = SearchSpace(3, 4, **POOLS | {"hadamards": (True, False)}, sharing="qubit")
    assert space.n_architectures > 10**6
    drawn = space.sample(600, generator=torch.Generator().manual_seed(1))
    assert len(set(drawn)) == 600
    slots = Counter()
    for candidate in drawn:
        slots["start", candidate.hadamard] += 1
        slots.update(enumerate(candidate.entanglers))
        rows = itertools.product(range(4), range(3))
        slots.update((where, candidate.rotations[where[0]][where[1]]) for where in rows)
    assert len(slots) == 2 + 2 * 4 + 3 * 12
    for (where, name), count in slots.items():
        choices = 3 if isinstance(where, tuple) else 2
        assert abs(count - 600 / choices) < 60, (where, name)  # five deviations


@pytest.mark.parametrize("sharing", ["global", "qubit"])
def test_a_seed_repeats_a_sample(sharing):
    space = SearchSpace(4, 3, sharing=sharing)
    one, two, other = (
        space.sample(5, generator=torch.Generator().manual_seed(s)) for s in (3, 3, 4)
    )
    assert one == two != other
    torch.manual_seed(3)
    assert space.sample(5) == one  # torch's global generator, where none is given


@pytest.mark.parametrize("count", [0, -1, 13, 2.0, "3"])
def test_a_sample_of_that_size_is_refused(count):
    with pytest.raises(CircuitError, match=r"count must be (a whole number|at least 1|at most 12)"):
        paper_space(2, 2).sample(count)
    with pytest.raises(CircuitError, match="count must be at most 1,000,000 here"):
        SearchSpace(5, 5, sharing="qubit").sample(10**9)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_qubits": 0}, EncodingError, "n_qubits must be at least 1"),
        ({"n_qubits": 2.5}, EncodingError, "whole number"),
        ({"n_layers": 0}, CircuitError, "n_layers must be at least 1"),
        ({"n_layers": None}, CircuitError, "whole number"),
        ({"hadamards": ()}, CircuitError, "hadamards must be a tuple of at least one choice"),
        ({"hadamards": (1, 0)}, CircuitError, "True, False or both"),
        ({"hadamards": True}, CircuitError, "hadamards must be a tuple of at least one choice"),
        ({"entanglers": []}, CircuitError, "entanglers must be a tuple of at least one choice"),
        ({"entanglers": ("ring", "ring")}, CircuitError, "entanglers names a choice twice"),
        ({"entanglers": ("star",)}, CircuitError, "entangler must be one of"),
        ({"rotations": "rx"}, CircuitError, "rotations must be a tuple of at least one choice"),
        ({"rotations": ("rx", "ry", "rx")}, CircuitError, "rotations names a choice twice"),
        ({"rotations": ("u3",)}, CircuitError, "rotation must be one of"),
        ({"rotations": (["rx"], 1)}, CircuitError, "rotations must hold names"),
        ({"n_qubits": 10**9}, CircuitError, r"2 layers on 1,000,000,000 qubits have more than"),
        ({"n_layers": 10**9}, CircuitError, r"more than 10,000,000 rotations; use fewer of either"),
        ({"sharing": "wire"}, CircuitError, "'global', 'layer' or 'qubit', got 'wire'"),
    ],
)
def test_bad_spaces_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        SearchSpace(**{"n_qubits": 2, "n_layers": 2, **arguments})


def test_lists_and_other_whole_numbers_will_do():
    one = torch.tensor(1)
    space = SearchSpace(one, one, [True], ["ring"], ["ry"])
    assert space == SearchSpace(1, 1, (True,), ("ring",), ("ry",))
    assert type(space.n_qubits) is type(space.n_layers) is int


def test_a_space_too_large_to_list_says_so():
    space = SearchSpace(11, 6, sharing="layer")
    for build in (diagnose, CircuitEnsemble):  # before anything is built
        with pytest.raises(CircuitError, match=r"more than 1,000 circuits .* space\.sample\(100\)"):
            build(space)


@pytest.mark.parametrize("space", [None, 3, [3], ["ring"], "ring"])
def test_what_is_no_list_of_candidates_is_refused(space):
    for build in (diagnose, CircuitEnsemble):
        with pytest.raises(CircuitError, match=r"SearchSpace or a list|describes no circuit"):
            build(space)
    assert list_candidates([one.to_json() for one in paper_space(2, 1)]) == list(paper_space(2, 1))


pool = st.lists(st.sampled_from([*ROTATIONS]), min_size=1, max_size=3, unique=True)
entanglers = st.lists(st.sampled_from([*ENTANGLERS]), min_size=1, max_size=2, unique=True)
sharings = st.sampled_from(["global", "layer", "qubit"])


@given(st.integers(1, 4), st.integers(1, 3), pool, entanglers, sharings)
def test_every_sample_can_be_built_and_fits_a_relaxed_circuit(n, n_layers, rotations, names, share):
    space = SearchSpace(n, n_layers, entanglers=names, rotations=rotations, sharing=share)
    (candidate,) = space.sample(1, generator=torch.Generator().manual_seed(0))
    p = candidate.circuit(generator=torch.Generator())()
    assert p.shape == (2**n,)
    circuit = RelaxedCircuit(n, n_layers, entanglers=names, rotations=rotations, sharing=share)
    assert circuit.space == space
    assert circuit.architecture().rotations[0][0] in rotations
