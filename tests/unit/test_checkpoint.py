import contextlib
import json
import os
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_generator import TARGETS, mlp, output, wrap
from torch import nn

from qtdqas_lite import (
    AffineMapping,
    CheckpointError,
    FixedCircuit,
    GeneratedNetwork,
    MLPMapping,
)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("mapping", ["affine", "mlp"])
def test_loading_restores_the_network_bitwise(name, mapping, tmp_path):
    make, x = TARGETS[name]
    net = wrap(make(), mapping=mapping)
    net(x)  # moves the running statistics of a batch norm
    net.save(tmp_path / "net.safetensors")
    again = GeneratedNetwork.load(tmp_path / "net.safetensors", make())
    assert torch.equal(output(again.eval(), x), output(net.eval(), x))
    assert again.budget() == net.budget()
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


def test_double_precision_and_frozen_values_survive(tmp_path):
    target = mlp()
    target[0].weight.requires_grad_(False)
    net = wrap(target).double()
    net.save(tmp_path / "net")
    other = mlp()
    other[0].weight.requires_grad_(False)
    again = GeneratedNetwork.load(tmp_path / "net", other)
    x = torch.randn(2, 4, dtype=torch.double)
    assert torch.equal(again(x), net(x))


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net,
        lambda net: net.double(),
        lambda net: net.bfloat16(),
        lambda net: net.circuit.double(),
        lambda net: net.target[0].half(),
        lambda net: net.circuit.requires_grad_(False),
    ],
)
def test_dtypes_and_what_is_trained_survive(change, tmp_path):
    net = wrap(mlp())
    change(net)
    net.save(tmp_path / "net")
    again = GeneratedNetwork.load(tmp_path / "net", mlp())
    for (name, old), (other, new) in zip(
        net.state_dict().items(), again.state_dict().items(), strict=True
    ):
        assert (name, old.dtype) == (other, new.dtype)
    for name, weight in net.weights().items():
        assert torch.equal(weight, again.weights()[name])
    assert again.budget() == net.budget()


def test_a_mapping_of_another_width_and_tied_frozen_weights_survive(tmp_path):
    target = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    target[1].weight = target[0].weight.requires_grad_(False)
    net = GeneratedNetwork(target, FixedCircuit(5, 1), MLPMapping(5, 3))
    net.save(tmp_path / "net")
    again = GeneratedNetwork.load(tmp_path / "net", target)
    assert again.mapping.hidden_layer.out_features == 3
    x = torch.randn(2, 3)
    assert torch.equal(again(x), net(x))


def test_a_readers_own_parts_are_passed_in(tmp_path):
    class Own(AffineMapping):
        pass

    class Turned(FixedCircuit):
        def forward(self):
            return super().forward().flip(0)

    net = GeneratedNetwork(mlp(), Turned(6, 2), Own(6), channel=torch.sqrt)
    net.save(tmp_path / "net")
    parts = {"circuit": Turned(6, 2), "mapping": Own(6), "channel": torch.sqrt}
    again = GeneratedNetwork.load(tmp_path / "net", mlp(), **parts)
    x = torch.randn(2, 4)
    assert torch.equal(again(x), net(x))
    for missing in parts:
        fewer = {name: part for name, part in parts.items() if name != missing}
        with pytest.raises(CheckpointError, match=f"pass {missing}="):
            GeneratedNetwork.load(tmp_path / "net", mlp(), **fewer)


class Reordered(nn.Module):
    """The parameters of ``mlp()`` under the same names, in another order."""

    def __init__(self):
        super().__init__()
        for position in ("2", "0"):
            self.add_module(position, mlp()[int(position)])


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "net.safetensors"
    wrap(mlp()).save(path)
    return path


def rewrite(path, **changes):
    """Save the same tensors again with a changed header."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["qtdqas_lite"])
    header.update(changes)
    save_file(load_file(path), path, metadata={"qtdqas_lite": json.dumps(header)})


def test_a_truncated_file_is_refused_at_every_length(saved):
    whole = saved.read_bytes()
    for length in (0, 1, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        saved.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="damaged"):
            GeneratedNetwork.load(saved, mlp())


def test_flipped_bytes_never_do_worse_than_a_clear_error(saved):
    whole = saved.read_bytes()
    for position in range(0, len(whole), 7):
        saved.write_bytes(
            whole[:position] + bytes([whole[position] ^ 0x5A]) + whole[position + 1 :]
        )
        with contextlib.suppress(CheckpointError):
            net = GeneratedNetwork.load(saved, mlp())
            assert all(weight.isfinite().all() for weight in net.weights().values())


@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_are_refused_unopened(zipped, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was opened",))

    path = tmp_path / "net.pt"
    torch.save({"theta": Bomb()}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="pickle"):
        GeneratedNetwork.load(path, mlp())


@pytest.mark.parametrize("schema", [0, 2, "1", None, True, 1.0])
def test_a_foreign_schema_is_refused(schema, saved):
    rewrite(saved, schema=schema)
    with pytest.raises(CheckpointError, match="reads schema 1"):
        GeneratedNetwork.load(saved, mlp())


@pytest.mark.parametrize(
    "changes",
    [
        {"circuit": {"kind": "FixedCircuit", "n_qubits": 6}},
        {"circuit": {"kind": "FixedCircuit", "n_qubits": 6, "n_layers": 3}},
        {"circuit": {"kind": "FixedCircuit", "n_qubits": 2, "n_layers": 2}},
        {"circuit": {"kind": "FixedCircuit", "n_qubits": 6, "n_layers": 2, "rotation": "rq"}},
        {"circuit": []},
        {"circuit": None},
        {"mapping": {"kind": "mlp", "hidden": 8}},
        {"mapping": {}},
        {"circuit": {"kind": "FixedCircuit", "n_qubits": 2000, "n_layers": 2}},
        {"circuit": {"kind": "FixedCircuit", "n_qubits": 6, "n_layers": 10**7}},
        {"trained": None},
        {"shapes": {}},
        {"channel": ["log"]},
        {"shapes": None},
    ],
)
def test_a_header_that_does_not_fit_is_refused(changes, saved):
    rewrite(saved, **changes)
    with pytest.raises(CheckpointError):
        GeneratedNetwork.load(saved, mlp())


def test_somebody_elses_safetensors_file_is_refused(tmp_path):
    save_file({"weight": torch.ones(2)}, tmp_path / "other")
    with pytest.raises(CheckpointError, match="not written by"):
        GeneratedNetwork.load(tmp_path / "other", mlp())


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (nn.Linear(4, 2), "0.bias, 0.weight, 2.bias, 2.weight, bias"),
        (nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)), "2.bias, 2.weight"),
        (Reordered(), "the order of the parameters"),
    ],
)
def test_another_target_is_refused_by_name(target, message, saved):
    with pytest.raises(CheckpointError, match=message):
        GeneratedNetwork.load(saved, target)


def test_a_missing_file_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        GeneratedNetwork.load(tmp_path / "none", mlp())


def test_a_failed_save_leaves_the_old_file_whole(saved, monkeypatch):
    whole = saved.read_bytes()

    write = Path.write_bytes

    def full(path, data):
        write(path, data[: len(data) // 2])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space"):
        wrap(mlp(), seed=1).save(saved)
    assert saved.read_bytes() == whole
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_hostile_size_is_refused_before_anything_is_built(saved):
    rewrite(saved, circuit={"kind": "FixedCircuit", "n_qubits": 6, "n_layers": 10**7})
    start = time.perf_counter()
    with pytest.raises(CheckpointError, match="another shape"):
        GeneratedNetwork.load(saved, mlp())
    assert time.perf_counter() - start < 5  # building it would take minutes


def test_a_header_nested_without_end_is_refused(saved):
    save_file(load_file(saved), saved, metadata={"qtdqas_lite": "[" * 200_000})
    with pytest.raises(CheckpointError, match="not written by"):
        GeneratedNetwork.load(saved, mlp())


@pytest.mark.parametrize(("name", "value"), [("raw_deviation", 0.0), ("scale", float("nan"))])
def test_numbers_that_would_give_no_weights_are_refused(name, value, saved):
    tensors = load_file(saved)
    tensors[name].fill_(value)
    with safe_open(saved, framework="pt") as file:
        metadata = file.metadata()
    save_file(tensors, saved, metadata=metadata)
    with pytest.raises(CheckpointError, match="not finite"):
        GeneratedNetwork.load(saved, mlp())


def test_files_are_as_readable_as_others_and_links_are_followed(saved):
    plain = saved.with_name("plain")
    plain.write_bytes(b"")
    assert saved.stat().st_mode == plain.stat().st_mode
    link = saved.with_name("link")
    os.symlink(saved, link)
    before = saved.read_bytes()
    wrap(mlp(), seed=3).save(link)
    assert link.is_symlink()
    assert saved.read_bytes() != before


def test_a_missing_folder_is_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        wrap(mlp()).save(tmp_path / "none" / "net")


def test_another_channel_or_circuit_than_the_saved_one_is_noticed(tmp_path):
    class Turned(FixedCircuit):
        def forward(self):
            return super().forward().flip(0)

    net = GeneratedNetwork(mlp(), Turned(6, 2), channel=torch.sqrt)
    net.save(tmp_path / "net")
    right = {"circuit": Turned(6, 2), "channel": torch.sqrt}
    GeneratedNetwork.load(tmp_path / "net", mlp(), **right)
    for wrong in ({"circuit": FixedCircuit(6, 2)}, {"channel": torch.square}):
        with pytest.raises(CheckpointError, match="other weights than those saved"):
            GeneratedNetwork.load(tmp_path / "net", mlp(), **{**right, **wrong})
    with pytest.raises(CheckpointError, match="circuit or mapping that was passed"):
        GeneratedNetwork.load(tmp_path / "net", mlp(), **{**right, "circuit": Turned(6, 3)})


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_restored(training, tmp_path):
    net = wrap(TARGETS["convolution and batch norm"][0]()).train(training)
    net.save(tmp_path / "net")
    again = GeneratedNetwork.load(tmp_path / "net", TARGETS["convolution and batch norm"][0]())
    assert {module.training for module in again.modules()} == {training}


def test_a_target_with_an_empty_parameter_can_be_loaded(tmp_path):
    target = mlp()
    target.register_parameter("nothing", nn.Parameter(torch.zeros(0, 3)))
    net = wrap(target)
    net.save(tmp_path / "net")
    x = torch.randn(2, 4)
    assert torch.equal(GeneratedNetwork.load(tmp_path / "net", target)(x), net(x))


def test_a_mapping_that_is_random_can_be_saved(tmp_path):
    class Noisy(AffineMapping):
        def forward(self, bits, channel):
            return nn.functional.dropout(super().forward(bits, channel), training=self.training)

    GeneratedNetwork(mlp(), FixedCircuit(6, 2), Noisy(6)).save(tmp_path / "net")
    GeneratedNetwork.load(tmp_path / "net", mlp(), mapping=Noisy(6))
