"""The study of chapter 06: what every search may spend, and what it gives."""

import json
import math
import sys
from pathlib import Path
from unittest.mock import patch

import pandas
import pytest
import torch
from torch import Tensor, nn

from qtdqas_lite import Candidate, bilevel
from qtdqas_lite.errors import DataError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "book"))
import searches_study as study


@pytest.fixture
def quick(monkeypatch):
    """The price of eight gradients, and two short retrainings."""
    monkeypatch.setattr(study, "BUDGET", 48)
    monkeypatch.setattr(study, "LENGTHS", (2, 3))
    monkeypatch.setattr(study, "LONG", (2, 3, 4))


def tried(method):
    settings = study.METHODS[method].settings
    return 8.0 if settings == study.STEPS else settings[1] if settings else None


def spent(method):
    """The gradients that a search takes; a loss alone counts a third."""
    one = study.Search(study.SPACES["coarse"], study.parts_of(3), 3, tried(method) or 0.0)
    to_all, to_some, losses = Tensor.backward, bilevel._gradient, nn.functional.cross_entropy
    with (
        patch.object(Tensor, "backward", autospec=True, side_effect=to_all) as descents,
        patch.object(bilevel, "_gradient", side_effect=to_some) as slopes,
        patch.object(nn.functional, "cross_entropy", side_effect=losses) as measured,
    ):
        study.METHODS[method].run(one)
    alone = 29 if method == "perturbation" else 0
    assert measured.call_count >= alone
    return descents.call_count + slopes.call_count + alone / 3


@pytest.mark.parametrize("method", study.METHODS)
def test_no_search_takes_more_gradients_than_it_may(quick, method):
    free = method in ("one draw", "score alone", "score ascent")  # no training in them
    count = spent(method)
    assert count == 0 if free else 0.8 * 48 < count <= 48 + 1e-9


@pytest.mark.parametrize("method", study.METHODS)
def test_a_row_of_each_method(quick, method):
    row = study.searches("coarse", method, "tune", 2, setting=tried(method))
    assert json.loads(json.dumps(row)) == row
    assert not [name for name in row if "test" in name]
    assert 0 <= row["validation_2"] <= 1
    assert Candidate.from_json(row["found"]) in set(study.SPACES["coarse"])
    searched = study.METHODS[method].settings == study.RATES
    assert ("relaxed" in row) == ("argmax" in row) == searched
    rates = {("coarse", method): tried(method)}
    tested = study.searches("coarse", method, "test", 2, rates=rates)
    assert (tested["found"], tested["validation_2"]) == (row["found"], row["validation_2"])
    assert sum(json.loads(tested["each_test_3"])) / 3 == pytest.approx(tested["test_3"])


def test_ranks_are_those_of_one_split(quick, monkeypatch):
    monkeypatch.setattr(study, "parts_of", lambda seed: study.images(seed) if not seed else None)
    row = study.searches("coarse", "one draw", "ranks", 4)
    assert {"validation_2", "validation_3", "validation_4", "score"} <= row.keys()


def test_shrinking_leaves_few_choices_open():
    one = study.Search(study.SPACES["coarse"], study.parts_of(3), 3, 0.1)
    found = study.shrinking(one)
    alpha = one.relaxed.circuit.alpha
    left = {name: {*(a > study.CLOSED / 2).sum(-1).flatten().tolist()} for name, a in alpha.items()}
    assert left == {"hadamard": {1}, "entangler": {2}, "rotation": {1}}
    assert found == one.relaxed.circuit.architecture()


def test_perturbation_keeps_what_is_missed_most(quick, monkeypatch):
    """With a loss that only looks at the weights, it is known what is missed."""
    one = study.Search(study.SPACES["coarse"], study.parts_of(3), 3, 0.1)
    monkeypatch.setattr(study.Search, "run", lambda *_, **__: None)

    def loss(*_):
        weights = one.relaxed.circuit.mixture()
        wanted = weights["entangler"][:, 3] + weights["rotation"][:, 0, 1]
        return -(wanted.sum() + weights["hadamard"][0, 1])

    monkeypatch.setattr(nn.functional, "cross_entropy", loss)
    found = study.by_perturbation(one)
    assert found.entanglers == ("stride",) * 3
    assert {name for layer in found.rotations for name in layer} == {"ry"}
    assert not found.hadamard


def test_the_best_setting_is_taken(tmp_path):
    rows = pandas.DataFrame(
        {"phase": "tune", "space": "coarse", "method": "joint", "seed": seed, "setting": setting}
        | {"validation_80": 0.3 + 0.1 * (setting == 0.3)}
        for seed in study.TUNING_SEEDS
        for setting in study.RATES
    )
    rows["configuration"] = range(len(rows))
    rows.to_csv(tmp_path / "searches.csv")
    assert study.stored_settings(tmp_path / "searches.csv") == {("coarse", "joint"): 0.3}
    assert study.stored_settings(tmp_path / "none.csv") == {}
    with pytest.raises(DataError, match="tuned first"):
        study.searches("coarse", "joint", "test", 1, rates={})


def test_scores_are_numbers():
    dead = Candidate(3, True, ("ring",), (("rz",) * 3,))
    assert study.scored(dead, seed=0) == pytest.approx(0, abs=1e-6)
    live = Candidate(3, True, ("ring",), (("ry",) * 3,))
    assert math.isfinite(study.scored(live, seed=0))
    assert study.scored(live, seed=0) > 1
    assert torch.is_grad_enabled()
