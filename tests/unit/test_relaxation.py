import copy
import math

import pytest
import torch
from torch import nn

from qtdqas_lite import CircuitError
from qtdqas_lite.relaxation import Relaxation


def relaxation(logits, sampling="softmax", temperature=1.0):
    """A relaxation with one kind of slot, each with these logits."""
    found = Relaxation(temperature, sampling)
    found.alpha["slot"] = nn.Parameter(torch.as_tensor(logits, dtype=torch.double).clone())
    return found


def chi_square(drawn, expected):
    """Compare one-hot draws, shape (count, choices), with probabilities."""
    counts = drawn.sum(0).detach()
    expected = len(drawn) * expected
    return ((counts - expected) ** 2 / expected).sum().item()


LOGITS = torch.tensor([0.3, -0.5, 1.1, 0.0], dtype=torch.double)


@pytest.mark.parametrize("temperature", [0.4, 1, 3.0])
def test_weights_are_the_softmax(temperature):
    powers = (LOGITS / temperature).exp()
    expected = powers / powers.sum()
    for sampling in ("softmax", "gumbel"):
        slots = relaxation(LOGITS.view(1, 4), sampling, temperature).eval()
        torch.testing.assert_close(slots.mixture()["slot"][0].detach(), expected)
    for sampling in ("straight-through", "score-function"):
        slots = relaxation(LOGITS.view(1, 4), sampling, temperature).eval()
        assert slots.mixture()["slot"].tolist() == [[0, 0, 1, 0]]


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_draws_have_the_frequencies_that_they_should(temperature):
    torch.manual_seed(0)
    many = LOGITS.expand(20_000, 4)
    critical = 16.3  # of chi-square with three degrees of freedom, one in a thousand
    # Gumbel noise makes the largest logit a draw from the softmax, whatever the temperature.
    for sampling in ("gumbel", "straight-through"):
        weights = relaxation(many, sampling, temperature).mixture()["slot"]
        torch.testing.assert_close(weights.sum(-1), torch.ones(20_000).double())
        largest = nn.functional.one_hot(weights.argmax(-1), 4)
        assert chi_square(largest, LOGITS.softmax(-1)) < critical
        if sampling == "straight-through":
            torch.testing.assert_close(weights.detach(), largest.double())
    drawn = relaxation(many, "score-function", temperature).mixture()["slot"]
    assert not drawn.requires_grad
    assert set(drawn.unique().tolist()) == {0, 1}
    assert chi_square(drawn, (LOGITS / temperature).softmax(-1)) < critical


def test_gumbel_weights_have_logistic_odds():
    """For two choices, T log(w0 / w1) - (alpha0 - alpha1) is a difference of two Gumbels."""
    torch.manual_seed(0)
    pair, temperature = torch.tensor([0.7, -0.2], dtype=torch.double), 0.6
    weights = relaxation(pair.expand(20_000, 2), "gumbel", temperature).mixture()["slot"]
    odds = temperature * (weights[:, 0].log() - weights[:, 1].log()) - (pair[0] - pair[1])
    steps = torch.arange(1, 20_001) / 20_000
    distance = (odds.detach().sort().values.sigmoid() - steps).abs().max()
    assert distance < 1.95 / math.sqrt(20_000)  # Kolmogorov-Smirnov, one in a thousand


def test_straight_through_is_discrete_forwards_and_soft_backwards(generator):
    cotangent = torch.randn(5, 4, dtype=torch.double, generator=generator)
    slopes = []
    for sampling in ("gumbel", "straight-through"):
        slots = relaxation(LOGITS.expand(5, 4), sampling, 0.7)
        torch.manual_seed(3)
        (slots.mixture()["slot"] * cotangent).sum().backward()
        slopes.append(slots.alpha["slot"].grad)
    torch.testing.assert_close(*slopes)


def test_log_probability_is_that_of_what_was_drawn():
    torch.manual_seed(0)
    temperature = 0.8
    slots = relaxation(LOGITS.expand(3, 4), "score-function", temperature)
    slots.alpha["other"] = nn.Parameter(torch.tensor([[[0.0, 0.4]]], dtype=torch.double))
    drawn = slots.mixture()
    slots.mixture()  # a later draw is another one, and changes nothing
    expected, slopes = 0.0, {}
    for name, alpha in slots.alpha.items():
        p = (alpha.detach() / temperature).softmax(-1)
        expected += (drawn[name] * p.log()).sum()
        slopes[name] = (drawn[name] - p) / temperature
    found = slots.log_probability(drawn)
    torch.testing.assert_close(found, expected)
    found.backward()
    for name, alpha in slots.alpha.items():
        torch.testing.assert_close(alpha.grad, slopes[name])


def test_choices_that_cannot_be_drawn_leave_gradients_finite():
    slots = relaxation([[0.0, 2.0, -2.0]], "score-function", temperature=1e-3)
    slots.log_probability(slots.mixture()).backward()
    assert torch.equal(slots.alpha["slot"].grad, torch.zeros(1, 3).double())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_entropy_is_the_mean_over_slots_from_zero_to_one(temperature):
    slots = relaxation([[0.0, temperature * math.log(3)], [5.0, 5.0]], temperature=temperature)
    quarters = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert slots.entropy().item() == pytest.approx((quarters + 1) / 2)
    slots.alpha["other"] = nn.Parameter(torch.tensor([[[1e6, 0.0, 0.0]]], dtype=torch.double))
    assert slots.entropy().item() == pytest.approx((quarters + 1) / 3)
    assert relaxation([[2.0, 2.0, 2.0]]).entropy().item() == pytest.approx(1)
    assert Relaxation(1.0, "softmax").entropy() == 0
    slots.entropy().backward()
    assert slots.alpha["other"].grad.isfinite().all()


def test_the_temperature_is_saved_moved_and_copied():
    slots = relaxation([[0.0, 1.0]], temperature=0.3)
    again = relaxation([[5.0, 5.0]], temperature=2.0)
    again.load_state_dict(slots.state_dict())
    assert again.temperature == slots.temperature == pytest.approx(0.3)
    assert torch.equal(again.mixture()["slot"], slots.mixture()["slot"])
    copied = copy.deepcopy(slots)
    slots.temperature = 4
    assert copied.temperature == pytest.approx(0.3)
    assert slots.temperature == 4
    assert all(buffer.is_meta for buffer in slots.to("meta").buffers())


def test_a_damaged_temperature_is_seen():
    slots = relaxation([[0.0, 1.0]])
    for wrong in (-1.0, 0.0, math.nan):
        slots.load_state_dict({**slots.state_dict(), "_temperature": torch.tensor(wrong)})
        with pytest.raises(CircuitError, match="temperature are not finite"):
            slots.mixture()


@pytest.mark.parametrize("temperature", [0, -1.0, math.nan, math.inf, "1", None])
def test_a_temperature_that_is_none_is_refused(temperature):
    with pytest.raises(CircuitError, match="temperature must be a finite number above 0"):
        Relaxation(temperature, "softmax")
    slots = relaxation([[0.0, 1.0]])
    with pytest.raises(CircuitError, match="temperature must be a finite number above 0"):
        slots.temperature = temperature
    assert slots.temperature == 1


@pytest.mark.parametrize("sampling", ["softmax", "gumbel", "straight-through", "score-function"])
@pytest.mark.parametrize(("logit", "temperature"), [(math.nan, 1), (math.inf, 1), (1.0, 1e-310)])
def test_logits_that_are_not_finite_are_refused(sampling, logit, temperature):
    slots = relaxation([[0.0, logit]], sampling, temperature)
    for mode in (True, False):
        for use in (slots.train(mode).mixture, slots.entropy):
            with pytest.raises(CircuitError, match=r"alpha\['slot'\] / temperature are not finite"):
                use()
