import contextlib
import gzip
import os
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtdqas_lite import DataError
from qtdqas_lite.tasks import image_files
from qtdqas_lite.tasks.image_files import FILES, KEYS, read_files
from qtdqas_lite.tasks.images import mnist_files

PIXELS = bytes(range(18))
# Two images of 3 rows and 3 columns, byte by byte as the format's description has it.
IDX = b"\0\0\x08\x03" + b"\0\0\0\2" + b"\0\0\0\3" + b"\0\0\0\3" + PIXELS


def idx(values):
    """Write an array as IDX."""
    values = np.asarray(values, dtype=np.uint8)
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes()


def small():
    """Twelve images to train on and six to test on, 3x3, of three classes: pixel 0 counts them."""
    images = np.zeros((18, 3, 3), dtype=np.uint8)
    images[:, 0, 0] = np.arange(18)
    images[:, 2, 1] = 255
    labels = np.arange(18, dtype=np.uint8) % 3
    return images[:12], labels[:12], images[12:], labels[12:]


def write_folder(folder, arrays, packed=False):
    for name, values in zip(FILES, arrays, strict=True):
        data = idx(values)
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(data, mtime=0) if packed else data)
    return folder


def write_npz(path, arrays, save=np.savez_compressed, **more):
    with path.open("wb") as file:  # given a path, numpy would add .npz to it
        save(file, **dict(zip(KEYS, arrays, strict=True)), **more)
    return path


def write_first(folder, raw):
    """Write a folder whose training images are these bytes, with two labels."""
    images, labels = np.zeros((2, 3, 3)), [0, 1]
    write_folder(folder, (images, labels, images, labels))
    (folder / FILES[0]).write_bytes(raw)
    return folder


def same(one, other):
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(one, other, strict=True))


# --- What is read


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_an_idx_file_byte_by_byte(tmp_path, pack):
    found = read_files(write_first(tmp_path, pack(IDX)))[0]
    assert found.shape == (2, 3, 3)
    assert found.dtype == np.uint8
    assert found[1, 2, 1] == 16
    assert found[0, 1, 0] == 3


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder(tmp_path, packed):
    assert same(read_files(write_folder(tmp_path, small(), packed)), small())


def test_a_folder_with_dots_in_its_names(tmp_path):
    write_folder(tmp_path, small())
    for name in FILES:
        (tmp_path / name).rename(tmp_path / name.replace("-idx", ".idx"))
    assert same(read_files(tmp_path), small())


def test_an_npz_file(tmp_path):
    images, labels, *test = small()
    arrays = images, labels.astype(">i8"), *test
    path = write_npz(tmp_path / "x.npz", arrays, more=np.array([Bad()], dtype=object))
    assert same(read_files(path), arrays)


# --- Damaged files


@given(length=st.integers(0, len(IDX) - 1), pack=st.sampled_from([bytes, gzip.compress]))
def test_an_idx_file_that_was_cut_off(tmp_path_factory, length, pack):
    folder = write_first(tmp_path_factory.mktemp("cut"), pack(IDX[:length]))
    with pytest.raises(DataError, match=rf"{FILES[0]} cannot be read: .*; download it again"):
        read_files(folder)


@given(data=st.data())
def test_a_compressed_file_that_was_cut_off(tmp_path_factory, data):
    packed = gzip.compress(IDX, mtime=0)
    cut = packed[: data.draw(st.integers(0, len(packed) - 1))]
    with pytest.raises(DataError, match="cannot be read"):
        read_files(write_first(tmp_path_factory.mktemp("cut"), cut))


FORMS = {
    "packed": (lambda path: write_folder(path, small(), True), f"{FILES[0]}.gz"),
    "npz": (lambda path: write_npz(path / "x", small(), np.savez), "x"),
    "npz packed": (lambda path: write_npz(path / "x", small()), "x"),
}


@given(form=st.sampled_from(sorted(FORMS)), data=st.data())
def test_a_changed_byte_is_seen_or_does_not_matter(tmp_path_factory, form, data):
    folder = tmp_path_factory.mktemp("flip")
    write, name = FORMS[form]
    source = write(folder)
    raw = bytearray((folder / name).read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    (folder / name).write_bytes(raw)
    with contextlib.suppress(DataError):
        assert same(read_files(source), small())


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (IDX + b"\0", "size 19 into shape"),
        (gzip.compress(IDX + b"\0", mtime=0), "size 19 into shape"),
        (gzip.compress(IDX, mtime=0) + b"junk", "Not a gzipped file"),
        (b"\0\0\x0d\x03" + IDX[4:], "starts with 00 00 08, and it with b"),
        (b"\x08\x03\0\0" + IDX[4:], "starts with 00 00 08"),
        (b"\0\0\x08\0", "cannot be read"),
        (b"", "starts with 00 00 08"),
        (b"<html>not found", "and it with b'<htm'"),
        (IDX[:4] + b"\xff" * 12 + PIXELS, "claims to hold more than 1 GiB"),
        (gzip.compress(IDX[:4] + b"\xff" * 12, mtime=0), "claims to hold more than 1 GiB"),
        (b"\0\0\x08\xff" + b"\0\0\0\1" * 255 + b"x", "cannot be read"),
        (b"\0\0\x08\x01" + b"\0\0\0\0", "holds uint8 .0,., uint8 .2,."),
    ],
)
def test_idx_files_that_are_none(tmp_path, raw, message):
    with pytest.raises(DataError, match=message):
        read_files(write_first(tmp_path, raw))


class Bad:
    """Leaves a trace if it is ever unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


def test_no_pickle_is_opened(tmp_path):
    images, _, *test = small()
    write_npz(tmp_path / "a", (images, np.array([Bad()] * 12, dtype=object), *test))
    (tmp_path / "b").write_bytes(pickle.dumps(Bad()))
    (tmp_path / "c").write_bytes(b"x_train")
    (tmp_path / "d").write_bytes(b"")
    with (tmp_path / "e").open("wb") as file:
        np.save(file, images)
    for name in "abcde":
        with pytest.raises(DataError, match=f"{name} cannot be read"):
            read_files(tmp_path / name)


def test_an_npz_file_without_an_array(tmp_path):
    np.savez(tmp_path / "x.npz", x_train=small()[0], y=small()[1])
    with pytest.raises(DataError, match=r"no item named 'y_train\.npy'"):
        read_files(tmp_path / "x.npz")


def test_files_that_would_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "MOST_BYTES", 100)
    for source in (write_npz(tmp_path / "x.npz", small()), write_folder(tmp_path, small(), True)):
        with pytest.raises(DataError, match="claims to hold more than 1 GiB"):
            read_files(source)


def test_an_npz_file_whose_arrays_claim_another_length(tmp_path):
    path = write_npz(tmp_path / "x.npz", small(), np.savez)
    raw = path.read_bytes()
    assert raw.count(b"(12, 3, 3)") == 1
    path.write_bytes(raw.replace(b"(12, 3, 3)", b"(11, 3, 3)"))
    with pytest.raises(DataError, match=r"Bad CRC-32 for file 'x_train\.npy'; download it again"):
        read_files(path)
    with zipfile.ZipFile(path, "w") as archive:
        for key in KEYS:
            archive.writestr(f"{key}.npy", b"no array")
    with pytest.raises(DataError, match=r"x\.npz cannot be read"):
        read_files(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="pipe cannot be read: it is not a regular file"):
        mnist_files(tmp_path / "pipe")
    write_folder(tmp_path, small())
    (tmp_path / FILES[1]).unlink()
    os.mkfifo(tmp_path / FILES[1])
    with pytest.raises(DataError, match=f"{FILES[1]} cannot be read: it is not a regular file"):
        mnist_files(tmp_path)


# --- Whole files, other contents


def changed(number, values):
    arrays = list(small())
    arrays[number] = values
    return arrays


@pytest.mark.parametrize(
    "arrays",
    [
        changed(0, np.zeros((12, 9))),
        changed(2, np.zeros((6, 3, 4))),
        changed(1, np.zeros((12, 1))),
        changed(3, np.zeros(5)),
        changed(0, np.zeros((0, 3, 3))),
        changed(2, np.zeros((6, 4, 4))),
        [np.zeros(()), np.zeros(()), np.zeros(()), np.zeros(())],
        [np.zeros((3, 3)), np.zeros(()), np.zeros((3, 3)), np.zeros(())],
        [small()[k] for k in (1, 0, 3, 2)],
    ],
)
def test_contents_that_do_not_fit(tmp_path, arrays):
    arrays = [np.asarray(a, dtype=np.uint8) for a in arrays]
    found = ", ".join(f"uint8 {a.shape}" for a in arrays)
    for source in (write_folder(tmp_path, arrays), write_npz(tmp_path / "x.npz", arrays)):
        with pytest.raises(DataError, match="must hold square images as bytes") as error:
            read_files(source)
        assert str(error.value).endswith(f"holds {found}")


@pytest.mark.parametrize(("number", "kind"), [(0, "float64"), (1, "float64"), (1, "U1")])
def test_contents_of_another_type(tmp_path, number, kind):
    arrays = changed(number, small()[number].astype(kind))
    with pytest.raises(DataError, match=f"holds .*{np.dtype(kind)}"):
        read_files(write_npz(tmp_path / "x.npz", arrays))


# --- What is not there


def test_what_to_do_without_files(tmp_path):
    hint = r"train-images-idx3-ubyte, .*with or without \.gz; openml\(\) .*, digits\(\) needs none"
    with pytest.raises(FileNotFoundError, match=f"there is no gone in .*{hint}"):
        mnist_files(tmp_path / "gone")
    write_folder(tmp_path, small())
    (tmp_path / FILES[3]).unlink()
    with pytest.raises(FileNotFoundError, match=rf"there is no {FILES[3]} in .*{hint}"):
        mnist_files(tmp_path)
    for source in (None, 3, ["x"]):
        with pytest.raises(DataError, match="source must be the path"):
            mnist_files(source)
