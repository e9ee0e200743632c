import contextlib
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_generator import TARGETS, mlp, output, wrap
from torch import nn

from qtdqas_lite import AffineMapping, CheckpointError, FixedCircuit, GeneratedNetwork


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
            GeneratedNetwork.load(saved, mlp())


@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_are_refused_unopened(zipped, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was opened",))

    path = tmp_path / "net.pt"
    torch.save({"theta": Bomb()}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="pickle"):
        GeneratedNetwork.load(path, mlp())


@pytest.mark.parametrize("schema", [0, 2, "1", None])
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
        {"mapping": {"kind": "mlp", "hidden": -8}},
        {"mapping": {}},
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

    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr("qtdqas_lite.checkpoint.save_file", full)
    with pytest.raises(OSError, match="no space"):
        wrap(mlp(), seed=1).save(saved)
    assert saved.read_bytes() == whole
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
