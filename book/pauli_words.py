"""Growth with rotations about Pauli words, in plain tensor code: a rival of `growth_study.py`.

A word is a pair of masks, P = i^|x & z| X^x Z^z: bit b of a mask is that of 2^b in the number of a
basis state. Rotations exp(-i theta P / 2) follow a fixed state, and any word may come next.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from qtdqas_lite.growth import MEMORY
from qtdqas_lite.training import Step

Word = tuple[int, int]
MASKS = 64  # how many x, of all 2**n, are looked through for each choice


def parity(numbers: Tensor) -> Tensor:
    """Tell of each whole number below 2**32 whether it has an odd number of bits: 0 or 1."""
    for shift in (16, 8, 4, 2, 1):
        numbers = numbers ^ (numbers >> shift)
    return numbers & 1


def walsh_hadamard(values: Tensor) -> Tensor:
    """Sum values, shape (..., 2**n), with the signs (-1)^|z & k|: entry z of the result."""
    shape, size = values.shape, values.shape[-1]
    step = 1
    while step < size:
        pairs = values.reshape(*shape[:-1], size // (2 * step), 2, step)
        plus, minus = pairs[..., 0, :] + pairs[..., 1, :], pairs[..., 0, :] - pairs[..., 1, :]
        values = torch.stack([plus, minus], -2).reshape(shape)
        step *= 2
    return values


def word_slopes(state: Tensor, gradient: Tensor, masks: Tensor) -> Tensor:
    """Differentiate a loss by the angle, at 0, of a rotation about every word behind a state.

    Args:
        state: Amplitudes psi, shape (2**n,).
        gradient: Of the loss by the probabilities, shape (2**n,).
        masks: The x to consider, whole numbers, shape (count,).

    Returns:
        Shape (count, 2**n), a column for each z: Im <lambda| P |psi>, lambda_k = gradient_k psi_k.
    """
    places = torch.arange(len(state))
    crossed = (gradient * state).conj()[masks[:, None] ^ places] * state
    both = masks[:, None] & places
    ones = sum((both >> bit) & 1 for bit in range(len(state).bit_length() - 1))
    powers = state.new_tensor([1, 1j, -1, -1j])[ones % 4]
    return (powers * walsh_hadamard(crossed)).imag


class PauliWords(nn.Module):
    """A fixed state, and rotations about chosen words behind it.

    Attributes:
        theta: The angles, shape (n_words,); those of words not yet chosen do nothing.
        words: The words chosen so far.
        state: The state that the last call ended in, shape (2**n,).
        zeros: What is added to the probabilities, so that ``zeros.grad`` is the gradient by them.
    """

    def __init__(self, n_qubits: int, n_words: int, start: Tensor) -> None:
        """Take the state to start from, shape (2**n_qubits,) and norm 1; no word is chosen."""
        super().__init__()
        self.n_qubits = n_qubits
        self.theta = nn.Parameter(torch.zeros(n_words))
        self.start = self.state = start
        self.zeros = torch.zeros(2**n_qubits, requires_grad=True)
        self.words: list[Word] = []
        self._tables: list[tuple[Tensor, Tensor]] = []

    @property
    def choice_bits(self) -> float:
        """How many bits say which words were chosen, of all 4**n, and in which order they act."""
        return math.log2(math.perm(4**self.n_qubits, len(self.words)))

    def append(self, word: Word) -> None:
        """Choose the next word."""
        x, z = word
        moved = torch.arange(2**self.n_qubits) ^ x
        phase = 1j ** (x & z).bit_count()
        self.words.append(word)
        self._tables.append((moved, phase * (1 - 2 * parity(moved & z)).to(self.start)))

    def forward(self) -> Tensor:
        """Return the probabilities: shape (2**n_qubits,)."""
        state = self.start
        half = self.theta / 2
        for (moved, signs), cosine, sine in zip(self._tables, half.cos(), half.sin(), strict=False):
            state = cosine * state - 1j * sine * (signs * state[moved])
        self.state = state.detach()
        return state.real.square() + state.imag.square() + self.zeros


class WordGrowth:
    """Chooses a word every few steps: ``on_step`` of :func:`~qtdqas_lite.fit`."""

    def __init__(
        self,
        circuit: PauliWords,
        rule: Literal["slope", "random"],
        steps_each: int,
        generator: torch.Generator,
    ) -> None:
        self.circuit, self.rule = circuit, rule
        self.steps_each, self.generator = steps_each, generator
        self._start()

    def _start(self) -> None:
        size = 2**self.circuit.n_qubits
        # With x = 0 a word turns phases alone, and no probability changes.
        drawn = torch.randperm(size - 1, generator=self.generator)
        self.masks = 1 + drawn[:MASKS]
        self.mean = torch.zeros(len(self.masks), size)

    def __call__(self, step: Step) -> None:
        """Take the slopes of a step, and choose a word when it is time to."""
        circuit = self.circuit
        if len(circuit.words) == len(circuit.theta):
            return
        if self.rule == "slope" and circuit.zeros.grad is not None:
            slopes = word_slopes(circuit.state, circuit.zeros.grad, self.masks)
            self.mean.lerp_(slopes, 1 - MEMORY)
        circuit.zeros.grad = None
        if step.step % self.steps_each == 0:
            word = self._steepest() if self.rule == "slope" else self._drawn()
            circuit.append(word)
            self._start()

    def _steepest(self) -> Word:
        sizes = self.mean.abs()
        for x, z in self.circuit.words:
            sizes[self.masks == x, z] = 0
        row, z = divmod(int(sizes.argmax()), sizes.shape[1])
        return int(self.masks[row]), z

    def _drawn(self) -> Word:
        while True:
            z = torch.randint(self.mean.shape[1], (), generator=self.generator)
            word = int(self.masks[0]), int(z)
            if word not in self.circuit.words:
                return word
            self._start()
