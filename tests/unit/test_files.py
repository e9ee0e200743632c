"""Files that are whole at any time, whoever writes them and whatever stops it."""

import os
import stat
import threading
import uuid

import pytest

from qtdqas_lite import DataError
from qtdqas_lite.files import is_file, write_atomically


def test_what_is_written_is_there_and_nothing_else(tmp_path):
    for name in ("table", "x" * 255):  # the longest name that most file systems take
        write_atomically(DataError, tmp_path / name, b"one")
        write_atomically(DataError, str(tmp_path / name), b"two")
        assert (tmp_path / name).read_bytes() == b"two"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["table", "x" * 255]


def test_the_mode_is_that_of_the_old_file_or_of_any_new_one(tmp_path):
    plain, path = tmp_path / "plain", tmp_path / "file"
    plain.write_bytes(b"")
    write_atomically(DataError, path, b"one")
    assert path.stat().st_mode == plain.stat().st_mode
    for mode in (0o600, 0o640, 0o444):
        path.chmod(mode)
        write_atomically(DataError, path, b"two")
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_links_stay_links(tmp_path):
    (tmp_path / "folder").mkdir()
    path, link, dangling = (tmp_path / name for name in ("folder/file", "link", "dangling"))
    path.write_bytes(b"one")
    link.symlink_to(path)
    dangling.symlink_to("folder/none")
    for through in (link, dangling):
        write_atomically(DataError, through, b"two")
        assert through.is_symlink()
    assert path.read_bytes() == (tmp_path / "folder/none").read_bytes() == b"two"


def test_a_link_at_the_temporary_name_is_not_followed(tmp_path, monkeypatch):
    known, precious = uuid.UUID(int=7), tmp_path / "precious"
    monkeypatch.setattr(uuid, "uuid4", lambda: known)
    precious.write_bytes(b"kept")
    (tmp_path / f".{known.hex}.part").symlink_to(precious)
    with pytest.raises(FileExistsError):
        write_atomically(DataError, tmp_path / "file", b"new")
    assert precious.read_bytes() == b"kept"


def test_what_is_no_file_is_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "pipe", tmp_path / "link", tmp_path / "folder", "/dev/null"):
        with pytest.raises(DataError, match="not a file; give another path"):
            write_atomically(DataError, path, b"new")
        with pytest.raises(DataError, match="not a file; give another path"):
            is_file(DataError, path)
    assert (tmp_path / "pipe").is_fifo()
    assert not is_file(DataError, tmp_path / "none")


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        write_atomically(DataError, tmp_path / "none" / "file", b"new")


@pytest.mark.parametrize("place", ["fsync", "replace"])
def test_a_failure_leaves_the_old_bytes_and_nothing_else(place, tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, place, full)
    with pytest.raises(OSError, match="no space"):
        write_atomically(DataError, path, b"new")
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_sixteen_threads_write_one_path(tmp_path):
    path, size = tmp_path / "file", 100_000
    path.write_bytes(bytes(size))
    failed, torn = [], []

    def write(number):
        try:
            for _ in range(10):
                write_atomically(DataError, path, bytes([number]) * size)
                seen = path.read_bytes()
                torn.extend([seen] if len(seen) != size or len({*seen}) != 1 else [])
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (failed, torn) == ([], [])
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
