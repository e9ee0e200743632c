"""What the compiler keeps on disk: it helps where it can, and never stands in the way."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import qtdqas_lite

FOLDER = Path(qtdqas_lite.__file__).with_name("simulator")

# Loops on their own, without PyTorch: they import nothing else of the package.
LOAD = f"""
import sys, types
import numpy as np
simulator = sys.modules["simulator"] = types.ModuleType("simulator")
simulator.__path__ = [{str(FOLDER)!r}]
from simulator import loops, passes
source, sign = np.array([2, 3, 1, 0], np.uint32), np.array([1, -1, 1, 1], "f")
psi = np.array([[0.1, 0.2, 0.3, 0.4]], "f")
"""
SHARE = LOAD + "print(round(loops.share(psi, source, sign, psi), 6))"
CIRCUIT = (
    LOAD
    + """
gates = np.random.default_rng(0).normal(size=(3, 2, 4)).astype("f")
gates = gates / np.linalg.norm(gates, axis=2, keepdims=True)
arrays = gates, source[None], sign[None], [0, 0, 0], None, None
kept = np.array([[[0.5, 0.5, 0.5, 0.5], [0, 0, 0, 0]]], "f")
passes.forward(arrays, kept, None)
slopes = passes.backward(arrays, kept, None, kept[0].copy() + 1, None)
print(kept.tobytes().hex(), slopes.tobytes().hex())
"""
)
NOWHERE = """
from numba.core.caching import FunctionCache
FunctionCache._impl_class._locator_classes = []
"""
FULL_DISK = """
from numba.core.caching import IndexDataCacheFile
def refuse(self, *args):
    raise OSError(28, "No space left on device")
IndexDataCacheFile.save = refuse
"""
# 0.1 * 0.3 - 0.2 * 0.4 + 0.3 * 0.2 + 0.4 * 0.1, in single precision
EXPECTED = "0.05"


def run(folder, code=SHARE):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def kept(folder, pattern="**/*.nb?"):
    return sorted(folder.glob(pattern))


def test_a_second_run_compiles_nothing_and_gives_the_same_bits(tmp_path):
    first = run(tmp_path, CIRCUIT)
    before = {path: path.stat().st_mtime_ns for path in kept(tmp_path)}
    assert len(before) == 4  # two loops: an index and a file each
    assert run(tmp_path, CIRCUIT) == first
    assert {path: path.stat().st_mtime_ns for path in kept(tmp_path)} == before


@pytest.mark.parametrize(
    ("pattern", "damage"), [("**/*.nbi", b""), ("**/*.nbi", b"foreign"), ("**/*.nbc", b"")]
)
def test_a_damaged_file_is_made_anew(pattern, damage, tmp_path):
    assert run(tmp_path) == EXPECTED
    [path] = kept(tmp_path, pattern)
    whole = path.read_bytes()
    path.write_bytes(damage or whole[: len(whole) // 2])
    assert run(tmp_path) == EXPECTED
    [path] = kept(tmp_path, pattern)
    assert len(path.read_bytes()) > len(whole) / 2 > len(damage)


@pytest.mark.parametrize("trouble", [NOWHERE, FULL_DISK], ids=["no place", "a full disk"])
def test_where_nothing_can_be_kept_loops_run_all_the_same(trouble, tmp_path):
    assert run(tmp_path, trouble + SHARE) == EXPECTED
    assert kept(tmp_path) == []


def test_a_folder_that_is_a_file_is_no_place(tmp_path):
    """Numba then looks further: next to the module, and in the home folder."""
    (tmp_path / "file").touch()
    assert run(tmp_path / "file" / "numba") == EXPECTED
