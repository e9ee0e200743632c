import contextlib
import gzip
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtdqas_lite import DataError
from qtdqas_lite.tasks import image_files
from qtdqas_lite.tasks.image_files import FILES, KEYS, read_idx, read_npz, read_published
from qtdqas_lite.tasks.images import mnist_files

PIXELS = bytes(range(24))
# Two images of 3 rows and 4 columns, byte by byte as the format's description has it.
IDX = b"\0\0\x08\x03" + b"\0\0\0\2" + b"\0\0\0\3" + b"\0\0\0\4" + PIXELS


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


def same(one, other):
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(one, other, strict=True))


# --- What is read


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_an_idx_file_byte_by_byte(tmp_path, pack):
    (tmp_path / "f").write_bytes(pack(IDX))
    found = read_idx(tmp_path / "f")
    assert found.shape == (2, 3, 4)
    assert found.dtype == np.uint8
    assert found[1, 2, 3] == 23
    assert found[1, 0, 1] == 13


def test_an_empty_idx_file(tmp_path):
    (tmp_path / "f").write_bytes(idx(np.zeros((0, 28, 28))))
    assert read_idx(tmp_path / "f").shape == (0, 28, 28)


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder(tmp_path, packed):
    assert same(read_published(write_folder(tmp_path, small(), packed)), small())


def test_a_folder_with_dots_in_its_names(tmp_path):
    write_folder(tmp_path, small())
    for name in FILES:
        (tmp_path / name).rename(tmp_path / name.replace("-idx", ".idx"))
    assert same(read_published(str(tmp_path)), small())


def test_an_npz_file(tmp_path):
    images, labels, *test = small()
    arrays = images, labels.astype(np.int64), *test
    path = write_npz(tmp_path / "x.npz", arrays, more=np.ones(3))
    assert same(read_published(path), arrays)


# --- Damaged files


@given(length=st.integers(0, len(IDX) - 1), pack=st.sampled_from([bytes, gzip.compress]))
def test_an_idx_file_that_was_cut_off(tmp_path_factory, length, pack):
    path = tmp_path_factory.mktemp("cut") / "f"
    path.write_bytes(pack(IDX[:length]))
    with pytest.raises(DataError, match=r"ends too early|not an IDX file"):
        read_idx(path)


@given(data=st.data())
def test_a_compressed_file_that_was_cut_off(tmp_path_factory, data):
    packed = gzip.compress(IDX, mtime=0)
    path = tmp_path_factory.mktemp("cut") / "f"
    path.write_bytes(packed[: data.draw(st.integers(0, len(packed) - 1))])
    with pytest.raises(DataError, match=r"is damaged|not an IDX file"):
        read_idx(path)


FORMS = {
    "packed": (lambda path: path.write_bytes(gzip.compress(IDX, mtime=0)), read_idx),
    "npz": (lambda path: write_npz(path, small(), np.savez), read_npz),
    "npz packed": (lambda path: write_npz(path, small()), read_npz),
}


@given(form=st.sampled_from(sorted(FORMS)), data=st.data())
def test_a_changed_byte_is_seen_or_does_not_matter(tmp_path_factory, form, data):
    path = tmp_path_factory.mktemp("flip") / "f"
    write, read = FORMS[form]
    write(path)
    expected = read(path)
    raw = bytearray(path.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    with contextlib.suppress(DataError):
        assert same(read(path), expected)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (IDX + b"\0", "longer than the 24 values"),
        (gzip.compress(IDX + b"\0", mtime=0), "longer than the 24 values"),
        (gzip.compress(IDX, mtime=0) + b"junk", "is damaged"),
        (b"\0\0\x0d\x03" + IDX[4:], "values of type 13, and unsigned bytes"),
        (b"\x08\x03\0\0" + IDX[4:], "starts with 08 03 00 00"),
        (b"\0\0\x08\0", "not an IDX file"),
        (b"", "starts with nothing"),
        (b"<html>not found", "not an IDX file"),
        (IDX[:4] + b"\xff" * 12 + PIXELS, "claims to hold"),
        (b"\0\0\x08\xff" + b"\0\0\0\1" * 255 + b"x", "255 axes"),
    ],
)
def test_idx_files_that_are_none(tmp_path, raw, message):
    (tmp_path / "f").write_bytes(raw)
    with pytest.raises(DataError, match=message):
        read_idx(tmp_path / "f")


class Bad:
    """Leaves a trace if it is ever unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


def test_no_pickle_is_opened(tmp_path):
    images, _, *test = small()
    for name, raw in (
        ("array.npz", None),
        ("plain.npz", pickle.dumps(Bad())),
        ("text.npz", b"x_train"),
        ("none.npz", b""),
    ):
        path = tmp_path / name
        if raw is None:
            write_npz(path, (images, np.array([Bad()] * 12, dtype=object), *test))
        else:
            path.write_bytes(raw)
        with pytest.raises(
            DataError, match=rf"{name} is damaged, is not an npz file, or holds a p"
        ):
            read_npz(path)


def test_a_single_array_is_no_npz_file(tmp_path):
    np.save(tmp_path / "x.npy", small()[0])
    with pytest.raises(DataError, match="not an npz file"):
        read_published(tmp_path / "x.npy")


def test_an_npz_file_without_an_array(tmp_path):
    np.savez(tmp_path / "x.npz", x_train=small()[0], y=small()[1])
    with pytest.raises(DataError, match="lacks y_train, x_test, y_test; there is x_train, y"):
        read_npz(tmp_path / "x.npz")


def test_an_npz_file_that_would_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "_MOST_BYTES", 100)
    with pytest.raises(DataError, match=r"more than 1 GiB in x_train\.npy"):
        read_npz(write_npz(tmp_path / "x.npz", small()))


def test_an_npz_file_whose_arrays_claim_to_be_shorter(tmp_path):
    path = write_npz(tmp_path / "x.npz", small(), np.savez)
    raw = path.read_bytes()
    assert raw.count(b"(12, 3, 3)") == 1
    path.write_bytes(raw.replace(b"(12, 3, 3)", b"(11, 3, 3)"))
    with pytest.raises(DataError, match=r"is damaged, in x_train\.npy; download it again"):
        read_npz(path)


def test_an_npz_file_of_bytes(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        for key in KEYS:
            archive.writestr(f"{key}.npy", b"no array")
    with pytest.raises(DataError, match=r"x\.npz"):
        read_published(tmp_path / "x.npz")


# --- Whole files, other contents


def changed(number, values):
    arrays = list(small())
    arrays[number] = values
    return arrays


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (changed(0, np.zeros((12, 9))), "training images of .* are .*of shape .12, 9."),
        (changed(2, np.zeros((6, 3, 4))), "test images .* shape .6, 3, 4."),
        (changed(1, np.zeros((12, 1))), "training labels of .* shape .12, 1."),
        (changed(3, np.zeros(5)), "6 test images and 5 labels"),
        (changed(0, np.zeros((0, 3, 3))), "0 training images and 12 labels"),
        (changed(2, np.zeros((6, 4, 4))), "not of one data set"),
    ],
)
def test_contents_that_do_not_fit(tmp_path, arrays, message):
    with pytest.raises(DataError, match=message):
        read_published(write_folder(tmp_path, arrays))
    arrays = [np.asarray(a, dtype=np.uint8) for a in arrays]
    with pytest.raises(DataError, match=message):
        read_published(write_npz(tmp_path / "x.npz", arrays))


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [
        (0, float, "are float64 of shape"),
        (1, float, "labels .* float64"),
        (1, "U1", "labels .* <U1"),
    ],
)
def test_contents_of_another_type(tmp_path, number, kind, message):
    arrays = changed(number, small()[number].astype(kind))
    with pytest.raises(DataError, match=message):
        read_published(write_npz(tmp_path / "x.npz", arrays))


def test_labels_and_images_swapped(tmp_path):
    a, b, c, d = small()
    with pytest.raises(DataError, match="training images of"):
        read_published(write_folder(tmp_path, (b, a, d, c)))


# --- What is not there


def test_what_to_do_without_files(tmp_path):
    hint = (
        r"nothing is downloaded here.*t10k-labels-idx1-ubyte.*openml.*without one, use digits\(\)"
    )
    with pytest.raises(FileNotFoundError, match=f"there is no .*gone; {hint}"):
        mnist_files(tmp_path / "gone")
    write_folder(tmp_path, small())
    (tmp_path / FILES[3]).unlink()
    with pytest.raises(FileNotFoundError, match=rf"no {FILES[3]} or {FILES[3]}\.gz in .*; {hint}"):
        mnist_files(tmp_path)
    for read in (read_idx, read_npz):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "gone")
