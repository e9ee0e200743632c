"""Growth: what is opened, when, and what stays when it is interrupted."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn

from qtdqas_lite import FixedCircuit, GeneratedNetwork, GrowingCircuit, SearchError, grow
from qtdqas_lite.growth import Growth

INPUTS = torch.randn(20, 3, generator=torch.Generator().manual_seed(5))
LABELS = (INPUTS.sum(1) > 0).long()


def network(seed=0, n_layers=3, dtype=torch.float32, **options):
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    circuit = GrowingCircuit(3, n_layers, generator=generator, **options)
    return GeneratedNetwork(nn.Linear(3, 2), circuit, generator=generator).to(dtype)


def run(net, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    options = {"n_angles": 4, "steps_each": 3, "final_steps": 5, **options}
    data = INPUTS.to(net.scale.dtype), LABELS
    return grow(net, data, data, generator=generator, **options)


def choices(history):
    return [row for row in history if row["layer"] is not None]


def measured_slopes(net):
    """The derivatives of the loss of all data at every slot, by finite differences."""
    data, slopes = INPUTS.double(), []
    for number in range(net.circuit.is_open.numel()):
        values = []
        for step in (1e-6, -1e-6):
            moved = copy.deepcopy(net)
            if not moved.circuit.is_open.flatten()[number]:
                moved.circuit.open(*moved.circuit.slot(number))
            moved.circuit.theta.data.view(-1)[number] += step
            values.append(nn.functional.cross_entropy(moved(data), LABELS).item())
        slopes.append((values[0] - values[1]) / 2e-6)
    return torch.tensor(slopes).view_as(net.circuit.theta)


@pytest.mark.parametrize("start", ["ht", "random"])
def test_opens_the_steepest_slot(start):
    net = network(dtype=torch.float64, start=start)
    slopes = [measured_slopes(net)]  # before the first step, then after each
    open_then = [net.circuit.is_open.clone()]

    def watch(step):
        slopes.append(measured_slopes(step.net))
        open_then.append(step.net.circuit.is_open.clone())

    history = run(net, steps_each=1, n_angles=5, on_step=watch).history
    mean = torch.zeros_like(slopes[0])
    for number, row in enumerate(choices(history)):
        assert row["step"] == number + 1
        mean = 0.9 * mean + 0.1 * slopes[number]
        closed = mean.abs().masked_fill(open_then[number], -1)
        slot = net.circuit.slot(int(closed.argmax()))
        assert (row["layer"], row["axis"], row["wire"]) == slot
        expected = mean.flatten()[closed.argmax()].item() / (1 - 0.9 ** (number + 1))
        assert row["slope"] == pytest.approx(expected, rel=1e-4, abs=1e-7)
        assert open_then[number + 1].sum() == number + 1


def test_the_history_tells_of_each_choice():
    result = run(network())
    assert result.ended == "finished"
    assert len(result.history) == 4 * 3 + 5
    opened = choices(result.history)
    assert [row["step"] for row in opened] == [3, 6, 9, 12]
    losses = [row["loss"] for row in result.history]
    for number, row in enumerate(opened):
        assert row["loss_before"] == pytest.approx(sum(losses[3 * number : 3 * number + 3]) / 3)
    for row, later in itertools.pairwise(opened):
        assert row["loss_after"] == later["loss_before"]
    assert opened[-1]["loss_after"] is None
    slots = {(row["layer"], row["axis"], row["wire"]) for row in opened}
    assert slots == set(result.net.circuit.open_slots())
    assert result.architecture == result.net.circuit.architecture()


def test_the_learning_rate_stays_and_then_falls():
    rates = [row["learning_rate"] for row in run(network(), learning_rate=0.1).history]
    assert rates[:12] == pytest.approx([0.1] * 12)
    expected = [0.05 * (1 + math.cos(math.pi * (i + 0.5) / 5)) for i in range(5)]
    assert rates[12:] == pytest.approx(expected)


@pytest.mark.parametrize("rule", ["slope", "random"])
def test_seeds_repeat_what_is_grown(rule):
    one, two, other = (run(network(), seed, rule=rule) for seed in (1, 1, 2))
    assert one.history == two.history
    assert torch.equal(one.net.circuit.theta, two.net.circuit.theta)
    assert one.history != other.history


def test_random_slots_differ_in_nothing_else():
    net = network()
    result = run(net, rule="random")
    assert [row["step"] for row in choices(result.history)] == [3, 6, 9, 12]
    drawn = [
        tuple(run(network(), seed, rule="random").net.circuit.open_slots()) for seed in range(8)
    ]
    assert len(set(drawn)) > 6


def test_reopening_gives_the_smallest_angle_up(monkeypatch):
    net, closed = network(), []
    circuit, close = net.circuit, net.circuit.close

    def watched(*slot):
        sizes = circuit.theta.detach()[circuit.is_open].abs()
        closed.append(slot)
        place = slot[0], circuit.axes.index(slot[1]), slot[2]
        assert circuit.theta[place].abs() == sizes.min()
        close(*slot)
        assert slot not in circuit.open_slots()

    monkeypatch.setattr(circuit, "close", watched)
    result = run(net, reopen=2)
    assert len(closed) == 2
    assert circuit.n_open == 4
    opened = choices(result.history)
    assert len(opened) == 6
    assert len(result.history) == 6 * 3 + 5
    for slot, row in zip(closed, opened[4:], strict=True):  # what was given up is not what comes
        assert slot != (row["layer"], row["axis"], row["wire"])


def test_ctrl_c_keeps_what_grew():
    def interrupt(step):
        if step.step == 7:
            raise KeyboardInterrupt

    net = network()
    result = run(net, on_step=interrupt)
    assert result.ended == "interrupted"
    assert net.circuit.n_open == 2
    assert len(choices(result.history)) == 2
    assert net.circuit._probe is None
    assert net(INPUTS).isfinite().all()


def test_goes_on_from_what_is_open():
    net = network()
    net.circuit.open(1, "rz", 2, angle=0.5)
    result = run(net)
    assert net.circuit.n_open == 4
    assert len(choices(result.history)) == 3


def test_works_with_other_losses_and_optimizers():
    net = network()
    result = grow(
        net,
        (INPUTS, INPUTS[:, :2]),
        n_angles=3,
        steps_each=2,
        final_steps=2,
        loss=nn.functional.mse_loss,
        optimizer=torch.optim.SGD,
        batch_size=5,
    )
    assert result.net.circuit.n_open == 3


def test_grows_in_a_loop_of_ones_own():
    net = network()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    with Growth(net.circuit, 3, steps_each=4) as growth:
        for _ in range(20):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(INPUTS), LABELS).backward()
            optimizer.step()
            growth()
    assert net.circuit.n_open == 3
    assert [choice["step"] for choice in growth.choices] == [4, 8, 12]
    assert growth.choices[0]["loss_before"] is None
    assert not net.circuit.theta[~net.circuit.is_open].any()


def test_slopes_that_are_not_finite_are_refused():
    net = network()
    with Growth(net.circuit, 3, steps_each=1) as growth:
        (net(INPUTS).sum() * math.inf).backward()
        with pytest.raises(SearchError, match="slope is not finite"):
            growth()
    assert net.circuit.n_open == 0


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"n_angles": 28}, "27"),
        ({"n_angles": 27, "reopen": 1}, "one more"),
        ({"n_angles": -1}, "n_angles"),
        ({"n_angles": 2.5}, "whole"),
        ({"n_angles": 0, "reopen": 1}, "at least 1"),
        ({"rule": "steepest"}, "rule"),
        ({"steps_each": 0}, "steps_each"),
        ({"final_steps": 0}, "final_steps"),
        ({"reopen": -1}, "reopen"),
        ({"learning_rate": 0.0}, "learning_rate"),
    ],
)
def test_says_what_cannot_be_grown(options, match):
    net = network()
    with pytest.raises(SearchError, match=match):
        run(net, **options)
    assert net.circuit.n_open == 0


def test_only_a_growing_circuit_grows():
    net = GeneratedNetwork(nn.Linear(3, 2), FixedCircuit(3, 2))
    with pytest.raises(SearchError, match="FixedCircuit"):
        run(net)
    with pytest.raises(SearchError, match="Linear"):
        grow(nn.Linear(3, 2), (INPUTS, LABELS), n_angles=2)


def test_fewer_angles_than_are_open_are_refused():
    net = network()
    for wire in range(3):
        net.circuit.open(0, "rx", wire)
    with pytest.raises(SearchError, match="at least 3"):
        run(net, n_angles=2)


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.RMSprop])
def test_what_was_closed_stays_at_zero(optimizer):
    """Momentum would move it on: nothing would be seen, until the slot is opened again."""
    net = network()
    run(net, reopen=5, steps_each=2, learning_rate=0.1, optimizer=optimizer)
    closed = ~net.circuit.is_open
    assert not net.circuit.theta[closed].any()
    assert net.circuit.theta[net.circuit.is_open].all()


def test_steps_without_a_gradient_count_as_no_slope():
    net = network(dtype=torch.float64)
    with Growth(net.circuit, 1, steps_each=2) as growth:
        nn.functional.cross_entropy(net(INPUTS.double()), LABELS).backward()
        slopes = growth._slopes.grad.clone()
        growth()
        growth()
    (choice,) = growth.choices
    slot = choice["layer"], net.circuit.axes.index(choice["axis"]), choice["wire"]
    assert choice["slope"] == pytest.approx(0.9 * slopes[slot].item() / 1.9)


def test_outside_of_its_block_a_growth_does_nothing():
    growth = Growth(network().circuit, 3)
    with pytest.raises(SearchError, match="inside of its block"):
        growth()
