import os
import threading

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_targets import TARGETS, mlp, output, wrap
from torch import nn

from qtdqas_lite import (
    AffineMapping,
    CheckpointError,
    CircuitEnsemble,
    FixedCircuit,
    GeneratedNetwork,
    MLPMapping,
    RelaxedCircuit,
    TargetError,
    basis_bits,
    paper_space,
)
from qtdqas_lite.checkpoint import CIRCUITS, read_file, write_file


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("mapping", ["affine", "mlp"])
def test_loading_restores_the_network_bitwise(name, mapping, tmp_path):
    make, x = TARGETS[name]
    net = wrap(make(), mapping=mapping)
    net(x)  # moves the running statistics of a batch norm
    net.save(tmp_path / "net.safetensors")
    again = GeneratedNetwork.load(tmp_path / "net.safetensors", make())
    assert torch.equal(output(again.eval(), x), output(net.eval(), x))
    assert again.count() == net.count()
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
    assert again.count() == net.count()


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

    net = GeneratedNetwork(mlp(), Turned(6, 2), Own(6), feature=torch.sqrt)
    net.save(tmp_path / "net")
    parts = {"circuit": Turned(6, 2), "mapping": Own(6), "feature": torch.sqrt}
    again = GeneratedNetwork.load(tmp_path / "net", mlp(), **parts)
    x = torch.randn(2, 4)
    assert torch.equal(again(x), net(x))
    for missing in parts:
        fewer = {name: part for name, part in parts.items() if name != missing}
        with pytest.raises(CheckpointError, match=f"pass {missing}="):
            GeneratedNetwork.load(tmp_path / "net", mlp(), **fewer)


@pytest.mark.parametrize(
    "circuit",
    [
        FixedCircuit(6, 3, hadamard=False, entangler="chain", rotation="rx"),
        FixedCircuit(6, 2, entangler=["ring", "chain"], rotation=["ry", ["rx", "ry", "rz"] * 2]),
        RelaxedCircuit(6, 2, sharing="qubit", separate_angles=True, temperature=0.5),
        RelaxedCircuit(6, 2, rotations=("ry", "rz"), entanglers=("ring",), sampling="gumbel"),
        CircuitEnsemble(paper_space(6, 2)),
        CircuitEnsemble(list(paper_space(6, 2))[:3]),
    ],
)
def test_the_choices_of_a_circuit_survive(circuit, tmp_path):
    net = GeneratedNetwork(mlp(), circuit)
    net.save(tmp_path / "net")
    again = GeneratedNetwork.load(tmp_path / "net", mlp())
    assert type(again.circuit) is type(circuit)
    assert again.circuit.configuration() == circuit.configuration()
    assert again.count() == net.count()
    net.eval()
    for name, weight in again.eval().weights().items():
        assert torch.equal(weight, net.weights()[name])


def test_candidates_of_another_size_than_their_angles_are_refused(tmp_path):
    path = tmp_path / "net"
    GeneratedNetwork(mlp(), CircuitEnsemble(paper_space(6, 2))).save(path)
    for space in (paper_space(20, 2), paper_space(6, 3), [*paper_space(6, 2), *paper_space(20, 2)]):
        listed = [candidate.to_json() for candidate in space]
        rewrite(path, circuit={"kind": "CircuitEnsemble", "space": listed})
        with pytest.raises(CheckpointError, match="another shape"):
            GeneratedNetwork.load(path, mlp())
    for space in (["{}"], [7], 7, "{}"):
        rewrite(path, circuit={"kind": "CircuitEnsemble", "space": space})
        with pytest.raises(CheckpointError, match="own description"):
            GeneratedNetwork.load(path, mlp())


class Wider(nn.Module):
    """A circuit of the package, as others may come: its angles have one more dimension."""

    def __init__(self, n_qubits, n_layers, *, turn=0.0):
        super().__init__()
        self.n_qubits, self.n_layers, self.turn = n_qubits, n_layers, turn
        self.theta = nn.Parameter(torch.randn(1, n_layers, n_qubits))

    def forward(self):
        return torch.softmax(basis_bits(self.n_qubits) @ self.theta[0].sum(0).add(self.turn), 0)

    def configuration(self):
        return {"n_qubits": self.n_qubits, "n_layers": self.n_layers, "turn": self.turn}


def test_other_circuits_of_the_package_are_built_by_their_configuration(tmp_path, monkeypatch):
    monkeypatch.setitem(CIRCUITS, "Wider", Wider)
    net = GeneratedNetwork(mlp(), Wider(6, 3, turn=0.5))
    path = tmp_path / "net"
    net.save(path)
    again = GeneratedNetwork.load(path, mlp())
    assert type(again.circuit) is Wider
    assert torch.equal(again.weights()["0.weight"], net.weights()["0.weight"])
    big = {"kind": "Wider", "n_qubits": 6, "n_layers": 10**7}
    tensors = load_file(path)
    for shape in ((0, 10**7, 6), (3, 6), ()):  # no number claims any size
        rewrite(path, {**tensors, "circuit.theta": torch.zeros(shape)}, circuit=big)
        with pytest.raises(CheckpointError, match="another shape"):
            GeneratedNetwork.load(path, mlp())


class Reordered(nn.Module):
    """The parameters of ``mlp()`` under the same names, in another order."""

    def __init__(self):
        super().__init__()
        for position in ("2", "0"):
            self.add_module(position, mlp()[int(position)])


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "state"
    one = torch.arange(6.0).view(2, 3)
    tensors = {
        "one": one,
        "same": one,
        "turned": one.T,
        "trained": nn.Parameter(one),
        "none": one[:0],
    }
    write_file(path, {"step": 3}, tensors)
    header, found = read_file(path)
    assert header == {"schema": 3, "step": 3}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor)
    with pytest.raises(CheckpointError, match="own description"):
        GeneratedNetwork.load(path, mlp())
    with pytest.raises(CheckpointError, match="extra is of type dict"):
        write_file(path, {}, {"extra": {}})
    assert [file.name for file in tmp_path.iterdir()] == ["state"]


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "net.safetensors"
    wrap(mlp()).save(path)
    return path


def rewrite(path, tensors=None, **changes):
    """Save a changed header or other tensors, with a digest that fits."""
    header, saved = read_file(path)
    write_file(path, {**header, **changes}, tensors or saved)


def test_a_truncated_file_is_refused_at_every_length(saved):
    whole = saved.read_bytes()
    for length in (0, 1, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        saved.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="damaged"):
            GeneratedNetwork.load(saved, mlp())


def test_a_flipped_bit_is_refused_wherever_it_is(saved):
    whole = saved.read_bytes()
    for position in range(0, len(whole), 5):
        changed = bytearray(whole)
        changed[position] ^= 1 << position % 8
        saved.write_bytes(changed)
        with pytest.raises(CheckpointError):
            GeneratedNetwork.load(saved, mlp())


def test_a_change_is_seen_where_the_weights_are_random(tmp_path):
    path = tmp_path / "net"
    GeneratedNetwork(mlp(), RelaxedCircuit(6, 2, sampling="gumbel")).save(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    save_file(tensors, path, metadata=metadata)  # the same contents, written by another program
    GeneratedNetwork.load(path, mlp())
    edited = {**metadata, "qtdqas_lite": metadata["qtdqas_lite"].replace("gumbel", "none")}
    tensors["raw_deviation"] *= -1
    for other in (metadata, edited):
        save_file(tensors, path, metadata=other)
        with pytest.raises(CheckpointError, match="changed after it was saved"):
            GeneratedNetwork.load(path, mlp())
        tensors["raw_deviation"] *= -1  # the second time, only the header is another one


@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_are_refused_unopened(zipped, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was opened",))

    path = tmp_path / "net.pt"
    torch.save({"theta": Bomb()}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="pickle"):
        GeneratedNetwork.load(path, mlp())


@pytest.mark.parametrize("schema", [0, 2, 4, "3", None, True, 3.0])
def test_a_foreign_schema_is_refused(schema, saved):
    rewrite(saved, schema=schema)
    with pytest.raises(CheckpointError, match="reads schema 3"):
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
        {"feature": ["log"]},
        {"shapes": None},
        {"circuit": {"kind": ["FixedCircuit"], "n_qubits": 6, "n_layers": 2}},
        {"circuit": {"kind": "FixedCircuit", "n_qubits": 6, "n_layers": 2, "entangler": [[]] * 2}},
        {"circuit": {"kind": "FixedCircuit", "n_qubits": 6, "n_layers": 2, "rotation": 7}},
        {"circuit": {"kind": "FixedCircuit", "n_qubits": 6, "n_layers": 2, "generator": 7}},
        {"circuit": {"kind": "FixedCircuit", "n_qubits": 6, "n_layers": 2, "shots": 7}},
        {"sample": [1.0]},
        {"sample": ["a", "b", "c", "d"]},
        {"sample": [[1.0], [2.0, 3.0]]},
        {"shapes": [1]},
        {"training": "yes"},
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


def test_a_target_that_is_none_is_refused(saved):
    for target in (None, 7, "net", torch.ones(2)):
        with pytest.raises(TargetError, match=r"must be an nn\.Module"):
            GeneratedNetwork.load(saved, target)


def test_a_missing_file_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        GeneratedNetwork.load(tmp_path / "none", mlp())


def test_a_failed_save_leaves_the_old_file_whole(saved, monkeypatch):
    whole = saved.read_bytes()

    def full(file):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        wrap(mlp(), seed=1).save(saved)
    assert saved.read_bytes() == whole
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_hostile_size_is_refused_before_anything_is_built(saved, monkeypatch):
    rewrite(saved, circuit={"kind": "FixedCircuit", "n_qubits": 6, "n_layers": 10**7})
    monkeypatch.setitem(CIRCUITS, "FixedCircuit", lambda **_: pytest.fail("it was built"))
    with pytest.raises(CheckpointError, match="another shape"):
        GeneratedNetwork.load(saved, mlp())


def test_a_header_nested_without_end_is_refused(saved):
    save_file(load_file(saved), saved, metadata={"qtdqas_lite": "[" * 200_000})
    with pytest.raises(CheckpointError, match="not written by"):
        GeneratedNetwork.load(saved, mlp())


@pytest.mark.parametrize(("name", "value"), [("raw_deviation", 0.0), ("scale", float("nan"))])
def test_numbers_that_would_give_no_weights_are_refused(name, value, saved):
    tensors = load_file(saved)
    tensors[name].fill_(value)
    rewrite(saved, tensors)
    with pytest.raises(CheckpointError, match="not finite"):
        GeneratedNetwork.load(saved, mlp())


def test_threads_save_to_one_path_while_others_read(tmp_path):
    path, nets = tmp_path / "net", [wrap(mlp(), seed=seed) for seed in range(4)]
    states = [net.state_dict() for net in nets]
    nets[0].save(path)
    failed, read = [], []

    def work(number):
        try:
            for _ in range(8):
                nets[number].save(path) if number < len(nets) else read.append(read_file(path)[1])
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    for found in read:
        assert any(all(torch.equal(found[k], state[k]) for k in state) for state in states)
    assert [file.name for file in tmp_path.iterdir()] == ["net"]


def test_a_pipe_is_neither_read_nor_replaced(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    for use in (wrap(mlp()).save, lambda path: GeneratedNetwork.load(path, mlp())):
        with pytest.raises(CheckpointError, match="not a file"):
            use(path)
    assert path.is_fifo()


def test_a_circuit_that_is_none_is_refused(saved):
    for circuit in (nn.Linear(1, 1), FixedCircuit(5, 2), FixedCircuit(6, 3)):
        with pytest.raises(CheckpointError, match="circuit or mapping that was passed"):
            GeneratedNetwork.load(saved, mlp(), circuit=circuit)


def test_a_missing_folder_is_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        wrap(mlp()).save(tmp_path / "none" / "net")


def test_another_feature_or_circuit_than_the_saved_one_is_noticed(tmp_path):
    class Turned(FixedCircuit):
        def forward(self):
            return super().forward().flip(0)

    net = GeneratedNetwork(mlp(), Turned(6, 2), feature=torch.sqrt)
    net.save(tmp_path / "net")
    right = {"circuit": Turned(6, 2), "feature": torch.sqrt}
    GeneratedNetwork.load(tmp_path / "net", mlp(), **right)
    for wrong in ({"circuit": FixedCircuit(6, 2)}, {"feature": torch.square}):
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
        def forward(self, bits, feature):
            return nn.functional.dropout(super().forward(bits, feature), training=self.training)

    net, before = GeneratedNetwork(mlp(), FixedCircuit(6, 2), Noisy(6)), torch.get_rng_state()
    net.save(tmp_path / "net")
    assert torch.equal(torch.get_rng_state(), before)  # what is drawn next is what would have been
    GeneratedNetwork.load(tmp_path / "net", mlp(), mapping=Noisy(6))
