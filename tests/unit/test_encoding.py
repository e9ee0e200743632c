import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from qtdqas_lite import EncodingError, amplitude_encode, basis_bits, n_qubits_for


@given(st.integers(1, 2**40))
def test_n_qubits_is_the_smallest_that_suffices(count):
    n = n_qubits_for(count)
    assert 2**n >= count
    assert n == 1 or 2 ** (n - 1) < count


@pytest.mark.parametrize(("count", "n"), [(1, 1), (2, 1), (3, 2), (1781, 11), (108_866, 17)])
def test_n_qubits_of_the_papers_targets(count, n):
    assert n_qubits_for(count) == n


@pytest.mark.parametrize("count", [0, -1, 2.5, "8", None, float("nan")])
def test_n_qubits_refuses_what_cannot_be_counted(count):
    with pytest.raises(EncodingError, match="count must be"):
        n_qubits_for(count)


@pytest.mark.parametrize("n", [1, 3, 6])
def test_basis_bits_spell_their_row_number(n):
    expected = [[2 * int(bit) - 1 for bit in format(i, f"0{n}b")] for i in range(2**n)]
    assert basis_bits(n).tolist() == expected


def test_basis_bits_list_as_many_states_as_are_asked_for():
    assert torch.equal(basis_bits(6, 11), basis_bits(6)[:11])
    assert basis_bits(40, 2).tolist() == [[-1.0] * 40, [-1.0] * 39 + [1.0]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((40,), "40 qubits need about .* GB"),
        ((10**9,), "1000000000 qubits need"),
        ((3, 9), "n_states must be at most 8, got 9"),
        ((3, 0), "n_states must be at least 1"),
    ],
)
def test_basis_bits_refuses_what_there_is_not_or_does_not_fit(arguments, message):
    with pytest.raises(EncodingError, match=message):
        basis_bits(*arguments)


@pytest.mark.parametrize("n", [0, -2, 1.5, "3"])
def test_basis_bits_refuses_a_bad_number_of_qubits(n):
    with pytest.raises(EncodingError, match="n_qubits must be"):
        basis_bits(n)


@given(
    arrays.arrays(
        "float64", st.integers(1, 40), elements=st.floats(-1e300, 1e300, allow_subnormal=False)
    ).filter(lambda v: v.any())
)
def test_encoding_keeps_every_ratio_and_has_norm_one(vector):
    state = amplitude_encode(torch.from_numpy(vector))
    assert len(state) == 2 ** n_qubits_for(len(vector))
    assert math.isclose(float((state**2).sum()), 1, rel_tol=1e-12)
    assert not state[len(vector) :].any()
    # The direction is kept: dividing by the largest entry gives the same numbers on both sides.
    largest = abs(vector).argmax()
    expected = torch.from_numpy(vector / vector[largest])
    torch.testing.assert_close(state[: len(vector)] / state[largest], expected)


def test_encoding_keeps_phases_dtypes_and_counts_integers_as_floats():
    state = amplitude_encode(torch.tensor([3.0, 4.0j]))
    torch.testing.assert_close(state, torch.tensor([0.6, 0.8j]))
    assert amplitude_encode(torch.tensor([1, 1, 1])).tolist() == pytest.approx([3**-0.5] * 3 + [0])
    assert amplitude_encode(torch.ones(2, dtype=torch.double)).dtype == torch.double
    assert amplitude_encode(torch.tensor([1, 2])).dtype == torch.float32
    assert amplitude_encode([3, 4]).tolist() == pytest.approx([0.6, 0.8])


def test_encoding_survives_the_ends_of_the_range():
    huge = torch.tensor([3e38 + 3e38j, 0])
    torch.testing.assert_close(amplitude_encode(huge).abs(), torch.tensor([1.0, 0.0]))
    tiny = torch.full((4,), 1e-45)
    torch.testing.assert_close(amplitude_encode(tiny), torch.full((4,), 0.5))


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (torch.zeros(3), "zero vector"),
        (torch.tensor([1.0, math.nan]), "1 of 2 entries are NaN"),
        (torch.tensor([math.inf, 1.0]), "infinite"),
        (torch.ones(2, 2), "shape"),
        (torch.ones(0), "at least one entry"),
        (torch.tensor(1.0), "shape"),
        ("digits", "a vector of numbers, got 'digits'"),
        (None, "a vector of numbers, got None"),
        ([[1.0], [1.0, 2.0]], "a vector of numbers"),
    ],
)
def test_encoding_refuses_what_no_state_can_hold(vector, message):
    with pytest.raises(EncodingError, match=message):
        amplitude_encode(vector)
