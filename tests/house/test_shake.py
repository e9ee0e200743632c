"""`make shake`: what it records, what it runs anew, and what its report says."""

import ast
import builtins
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[2]


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "book" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


shake_report, kernel, shake = script("shake_report"), script("shake_kernel"), script("shake")

# A training that forgets its first six digits, next to algebra.
CHAOS = """\
import torch
x = torch.nn.Parameter(torch.tensor([0.3], dtype=torch.double))
descent = torch.optim.SGD([x], lr=1e-9)
x.sum().backward()
descent.step()
for _ in range(60):
    with torch.no_grad():
        x.copy_(4 * x * (1 - x))
value = x.item()
print(value)"""


# --- What is recorded of the assertions of a cell


def judged(monkeypatch, path, *cells):
    """Run cells as the kernel does, and get what is recorded of their guards."""
    record = kernel.Record(str(path / "guards.jsonl"))
    guards = kernel.Guards(record)
    monkeypatch.setattr(builtins, "__shake__", record, raising=False)
    names = {"torch": torch, "np": np}
    for cell in cells:
        guards.next_cell()
        tree = ast.fix_missing_locations(guards.visit(ast.parse(cell)))
        exec(compile(tree, "cell", "exec"), names)
    return shake.gather([json.loads(line) for line in Path(record.path).read_text().splitlines()])


@pytest.mark.parametrize(
    ("test", "sides"),
    [
        ("1 < 2", [["<", 1, 2]]),
        ("0.5 <= abs(-1) < 2", [["<=", 0.5, 1], ["<", 1, 2]]),
        ("1 < 2 and 5 > 3", [["<", 1, 2], [">", 5, 3]]),
        ("all(k < 2 for k in (0, 1))", [["<", 0, 2], ["<", 1, 2]]),
        ("all([k < 2 for k in (0, 1)])", [["<", 0, 2], ["<", 1, 2]]),
        ("(torch.arange(3.0) < 5).all()", [["<", 2, 5]]),
        ("np.all(np.arange(3) > -1)", [[">", 0, -1]]),
        ("torch.tensor(0.5) >= 0.25", [[">=", 0.5, 0.25]]),
        ("(2, 3) == (2, 3)", [["==", "(2, 3)", "(2, 3)"]]),
        ("2 == 2.0", [["==", 2, 2]]),
        ("np.allclose(1.0, 1.5, rtol=0, atol=1)", [["<=", 0.5, 1]]),
        ("__import__('math').isclose(1, 2, abs_tol=3)", [["<=", 1, 3]]),
        # What is no comparison of numbers has no distance.
        ("[1, 2] < [3]", []),
        ("'a' < 'b'", []),
        ("{1} <= {1, 2}", []),
        ("not 1 > 2", []),
        ("3 in (1, 3)", []),
    ],
)
def test_both_sides_are_recorded(monkeypatch, tmp_path, test, sides):
    (guard,) = judged(monkeypatch, tmp_path, f"assert {test}")
    assert guard["held"]
    assert guard["sides"] == sides


def test_a_chain_stops_where_python_stops(monkeypatch, tmp_path):
    (guard,) = judged(monkeypatch, tmp_path, "assert 3 < 2 < torch.ones(2)")
    assert not guard["held"]
    assert guard["sides"] == [["<", 3, 2]]


def test_what_fails_is_recorded_and_the_cell_goes_on(monkeypatch, tmp_path):
    cell = "assert 1 > 2, f'{1 + 1} is more'\nassert unknown < 3\nassert torch.ones(2) < 3\nx = 7"
    after = "assert x == 7, never.evaluated\nassert 2 > 3, unknown"
    guards = judged(monkeypatch, tmp_path, cell, after)
    assert [(guard["cell"], guard["guard"]) for guard in guards] == [
        *((1, 1), (1, 2), (1, 3)),
        *((2, 1), (2, 2)),
    ]
    assert [guard["held"] for guard in guards] == [False, False, False, True, False]
    assert guards[0]["text"] == "1 > 2"
    assert guards[0]["error"] == "2 is more"
    assert "unknown" in guards[1]["error"]
    assert "RuntimeError" in guards[2]["error"]
    assert guards[2]["sides"] == [["<", 1, 3]]
    assert guards[3]["error"] is None
    assert guards[3]["sides"] == [["==", 7, 7]]


def test_a_guard_in_a_loop_is_one_guard(monkeypatch, tmp_path):
    cell = "for k in range(3):\n    if k:\n        assert k < 2\n    else:\n        assert k == 0"
    loop, once = judged(monkeypatch, tmp_path, cell)
    assert (loop["times"], loop["held"]) == (2, False)
    assert loop["sides"] == [["<", 1, 2], ["<", 2, 2]]
    assert (once["times"], once["held"]) == (1, True)


def test_an_assertion_of_a_definition_is_its_own(monkeypatch, tmp_path):
    cell = "def f(x):\n    assert x > 0\nclass A:\n    assert 2 > 1\nf(1)"
    (tmp_path / "guards.jsonl").touch()
    assert judged(monkeypatch, tmp_path, cell) == []
    with pytest.raises(AssertionError):
        judged(monkeypatch, tmp_path, cell.replace("f(1)", "f(0)"))


# --- How a training is moved


@pytest.fixture
def moved():
    handle = kernel.move(3)
    yield
    handle.remove()


def train(steps, state=None, x=(1.0, -2.0, 0.0), dtype=torch.double, lr=0.0):
    x = torch.nn.Parameter(torch.tensor(x, dtype=dtype))
    descent = torch.optim.Adam([x], lr=lr)
    if state:
        descent.load_state_dict(state)
    for _ in range(steps):
        descent.zero_grad()
        x.square().sum().backward()
        descent.step()
    return x.detach(), descent.state_dict()


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
@pytest.mark.usefixtures("moved")
def test_parameters_are_moved_once_by_a_millionth(dtype):
    start = torch.tensor([1.0, -2.0, 0.0], dtype=dtype)
    before = torch.random.get_rng_state()
    once, _ = train(1, dtype=dtype)
    relative = ((once - start) / start)[:2].abs()
    assert (relative > 1e-8).all()
    assert (relative < 1.2e-6).all()
    assert once[2] == 0
    # Further steps move nothing, trainings that start alike end alike, and the chapter's random
    # numbers are what they were.
    assert torch.equal(train(5, dtype=dtype)[0], once)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.usefixtures("moved")
def test_a_resumed_training_is_not_moved_again():
    whole, _ = train(6, lr=0.1)
    half, state = train(3, lr=0.1)
    rest, _ = train(3, state=state, x=half.tolist(), lr=0.1)
    assert torch.equal(rest, whole)


def test_the_runs_differ():
    plans = [shake.arithmetic(run) for run in range(shake.RUNS)]
    assert set(plans[0]) == {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY"}
    for name, values in {
        "ATEN_CPU_CAPABILITY": {None, "default", "avx2"},
        "NUMBA_CPU_NAME": {None, "generic"},
        "MKL_ENABLE_INSTRUCTIONS": {None, "SSE4_2", "AVX2"},
        "MKL_CBWR": {None, "COMPATIBLE"},
        "OMP_NUM_THREADS": {"1", "2"},
    }.items():
        assert {plan.get(name) for plan in plans} == values
    assert sum(plan["OMP_NUM_THREADS"] == "2" for plan in plans) in (2, 3)
    together = {(plan.get("ATEN_CPU_CAPABILITY"), plan.get("NUMBA_CPU_NAME")) for plan in plans}
    assert len(together) == 6


def test_a_run_has_its_own_arithmetic_and_no_other(tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(shake.subprocess, "Popen", lambda _, env, **__: given.update(env))
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("SOMETHING_ELSE", "stays")
    shake.begin(tmp_path, tmp_path / "x.ipynb", 0)
    assert "MKL_CBWR" not in given
    assert (given["OMP_NUM_THREADS"], given["SOMETHING_ELSE"]) == ("1", "stays")


# --- A notebook of three cells, run in kernels


def notebook(*sources, stored=None):
    cells = [new_code_cell(source) for source in sources]
    if stored is not None:
        cells[0].metadata["tags"] = ["nbval-check-output"]
        cells[0].outputs = [new_output("stream", name="stdout", text=stored)]
    return new_notebook(cells=[new_markdown_cell("# A title"), *cells])


def test_a_chaotic_guard_is_found_and_algebra_is_not(tmp_path):
    chapter = tmp_path / "chaos chapter.ipynb"
    cells = CHAOS, "assert value < 0, 'chaos'\nassert 0 <= value <= 1", "1 / 0\nassert 1 == 1"
    nbformat.write(notebook(*cells, stored="0.1\n"), chapter)
    into = tmp_path / "in to"
    command = [sys.executable, ROOT / "book/shake.py", chapter, "--into", into, "--runs", "2"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1, run.stderr
    assert run.stdout.splitlines()[0] == "2 of 2 runs to do"
    assert "`value < 0`" in (into / "report.md").read_text("utf-8")
    assert "`value < 0`" in run.stdout
    found = shake.results(into, chapter, 2)
    assert [found[run]["kernel"]["threads"] for run in (0, 1)] == [1, 1]
    assert found[0]["outputs"]["1"] != found[1]["outputs"]["1"]
    study = shake_report.Study("chaos", shake.code_cells(shake.read(chapter)), [*found.values()])
    held = {(guard.cell, guard.text): sum(guard.held) for guard in study.guards}
    assert held == {
        (1, "the cell ends without an error"): 2,
        (1, "the output is the stored one"): 0,
        (2, "value < 0"): 0,
        (2, "0 <= value <= 1"): 2,
        (2, "the cell ends without an error"): 2,
        (3, "1 == 1"): 0,
        (3, "the cell ends without an error"): 0,
    }
    varying = {guard.text for guard in study.guards if guard.varies}
    assert varying == {"value < 0", "0 <= value <= 1"}
    assert len(study.differing_outputs(None)) == 4
    assert study.differing_outputs(3) == ["--- cell [3], runs 0, 1", ""]


# --- What is run anew


@pytest.fixture
def chapter(tmp_path, monkeypatch):
    """A chapter whose runs take no time, and the list of those that were started."""
    path = tmp_path / "tiny.ipynb"
    nbformat.write(notebook("print(1)"), path)
    started = []

    def begin(into, chapter, run):
        started.append(run)
        result = {"key": shake.key(chapter), "run": run, "guards": [], "errors": {}, "outputs": {}}
        place = shake.place(into, chapter, run)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(result), "utf-8")
        return subprocess.Popen([sys.executable, "-S", "-c", ""])

    monkeypatch.setattr(shake, "begin", begin)
    return path, started


def test_what_has_been_run_is_not_run_again(chapter, tmp_path):
    path, started = chapter
    assert shake.run_all(tmp_path, [path], 2, 2)
    assert shake.run_all(tmp_path, [path], 3, 1)
    assert started == [0, 1, 2]


@pytest.mark.parametrize("text", ["", '{"key": "ab', "[]", "{}"])
def test_a_truncated_result_is_no_result(chapter, tmp_path, text):
    path, started = chapter
    shake.run_all(tmp_path, [path], 2, 2)
    shake.place(tmp_path, path, 1).write_text(text, "utf-8")
    shake.run_all(tmp_path, [path], 2, 2)
    assert started == [0, 1, 1]


def test_a_changed_cell_is_run_anew_and_changed_prose_is_not(chapter, tmp_path):
    path, started = chapter
    shake.run_all(tmp_path, [path], 1, 1)
    changed = shake.read(path)
    changed.cells[0].source = "# Another title"
    nbformat.write(changed, path)
    shake.run_all(tmp_path, [path], 1, 1)
    assert started == [0]
    changed.cells[1].source = "print(2)"
    nbformat.write(changed, path)
    assert shake.results(tmp_path, path, 1) == {}
    assert list(shake.results(tmp_path, path, 1, stale_ok=True)) == [0]
    shake.run_all(tmp_path, [path], 1, 1)
    assert started == [0, 0]


def test_a_table_counts_for_the_chapters_that_name_it(tmp_path, monkeypatch):
    shutil.copy(shake.ROOT / "pyproject.toml", tmp_path)
    table = tmp_path / "qtdqas_lite" / "results" / "growth.csv"
    table.parent.mkdir(parents=True)
    table.write_text("a\n1\n", "utf-8")
    monkeypatch.setattr(shake, "ROOT", tmp_path)
    reads, other = tmp_path / "reads.ipynb", tmp_path / "other.ipynb"
    nbformat.write(notebook('stored_results("growth")'), reads)
    nbformat.write(notebook("print(1)"), other)
    before = [shake.key(path) for path in (reads, other)]
    table.write_text("a\n2\n", "utf-8")
    after = [shake.key(path) for path in (reads, other)]
    assert before[0] != after[0]
    assert before[1] == after[1]


@pytest.mark.parametrize("edited", [False, True])
def test_a_chapter_that_changes_while_it_runs_has_no_result(chapter, tmp_path, monkeypatch, edited):
    path, _ = chapter

    class Client:
        def __init__(self, *args, **kwargs):
            pass

        def execute(self):
            line = json.dumps({"kernel": {"kernels": "AVX2", "threads": 1}})
            Path(shake.os.environ["SHAKE_RECORD"]).write_text(line, "utf-8")
            if edited:
                nbformat.write(notebook("print(2)"), path)

    monkeypatch.setattr(shake, "NotebookClient", Client)
    monkeypatch.setenv("SHAKE_RECORD", "")
    place = shake.place(tmp_path, path, 0)
    place.parent.mkdir()
    if edited:
        with pytest.raises(SystemExit, match="changed while it ran"):
            shake.execute(tmp_path, path, 0)
        assert not place.exists()
    else:
        shake.execute(tmp_path, path, 0)
        assert list(shake.results(tmp_path, path, 1)) == [0]


def test_a_run_that_comes_to_no_end_is_told(chapter, tmp_path, monkeypatch, capsys):
    path, _ = chapter
    fails = [sys.executable, "-S", "-c", "raise SystemExit(3)"]
    monkeypatch.setattr(shake, "begin", lambda *_: subprocess.Popen(fails))
    assert not shake.run_all(tmp_path, [path], 1, 1)
    assert "tiny, run 0: came to no end" in capsys.readouterr().out


def test_an_interrupted_call_leaves_no_process_behind(chapter, tmp_path, monkeypatch):
    path, _ = chapter
    process = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(shake, "begin", lambda *_: process)
    monkeypatch.setattr(shake.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        shake.run_all(tmp_path, [path], 1, 1)
    assert process.returncode is not None


# --- The report


def study(*values):
    """A chapter of one cell with one guard, and the left side that each run found."""
    results = []
    for run, value in enumerate(values):
        guard = {"cell": 1, "guard": 1, "text": "x < 1", "held": value < 1, "times": 1}
        guard |= {"error": None, "sides": [["<", value, 1.0]]}
        result = {"run": run, "guards": [guard], "errors": {}, "outputs": {}, "arithmetic": {}}
        results.append(result | {"kernel": {"kernels": "AVX2", "threads": 1}})
    return shake_report.Study("01-a-chapter", [new_code_cell("x")], results)


def section(text, title):
    return text.split(f"## {title}")[1].split("##")[0]


def test_the_report_tells_failed_from_narrow_from_safe():
    failed = shake_report.page([study(0.5, 1.25)])
    assert "| 01 | 1 | `x < 1` | 1 of 2 |" in section(failed, "Guards that failed")
    assert "-0.25" in section(failed, "Guards that failed")
    assert "x < 1" not in section(failed, "Guards that held narrowly")
    narrow = shake_report.page([study(0.5, 0.75, 0.9)])
    assert "x < 1" not in section(narrow, "Guards that failed")
    assert "0.5 to 0.9 < 1" in section(narrow, "Guards that held narrowly")
    safe = shake_report.page([study(0.5, 0.55, 0.6)])
    assert "x < 1" not in section(safe, "Guards that failed")
    assert "x < 1" not in section(safe, "Guards that held narrowly")
    assert "| `0.5 to 0.6 < 1` | 0.4 | 0.1 |" in section(safe, "Guards that vary")
    assert "x < 1" not in shake_report.page([study(0.5, 0.5)])
    assert "Kernels of torch AVX2 (3); compiled code for this one (3); threads 1 (3)." in safe


def test_the_values_of_the_runs_are_listed():
    one = study(0.5, 0.25, 2)
    assert one.values(None) == ["[1] held 2 of 3: x < 1", "    0.25 to 2 < 1"]
    assert one.values(1) == [*one.values(None), "      left: 0.5, 0.25, 2"]
    assert one.values(2) == []


@pytest.mark.parametrize(
    ("options", "lasting"),
    [
        (["--runs", "20"], True),
        (["--runs", "19"], False),  # too few runs
        (["--runs", "21"], False),  # a run is missing
        (["--runs", "20", "chapters/01.ipynb"], False),
        (["--runs", "20", "--stale-ok"], False),
    ],
)
def test_only_all_runs_of_all_chapters_write_the_page(tmp_path, monkeypatch, options, lasting):
    (tmp_path / "chapters").mkdir()
    nbformat.write(notebook("x"), tmp_path / "chapters/01.ipynb")
    results = study(*[0.5] * 20).results
    found = lambda into, path, runs, stale_ok: dict(enumerate(results[:runs]))  # noqa: E731
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shake, "ROOT", tmp_path)
    monkeypatch.setattr(shake, "PAGE", tmp_path / "shake.md")
    monkeypatch.setattr(shake, "results", found)
    monkeypatch.setattr(sys, "argv", ["shake", "--report", "--into", "new", *options])
    assert shake.main() == (1 if "21" in options else 0)
    assert (tmp_path / "shake.md").exists() == lasting
    assert (tmp_path / "new/report.md").exists() != lasting


def test_a_guard_that_was_not_reached_did_not_hold():
    one = study(0.5, 0.5)
    assert one.held()
    results = one.results
    results[1]["guards"][0] |= {"times": 0, "sides": []}
    cells = [new_code_cell("x")]
    assert shake_report.Study("a", cells, results).held()  # it stands in a branch not taken
    results[1]["errors"] = {"1": "NameError: x"}
    assert not shake_report.Study("a", cells, results).held()


def test_outputs_are_compared_as_nbval_does():
    stream = [
        new_output("stream", name="stdout", text="0.12345678 in 3.21 s\n"),
        new_output("display_data", {"image/png": "a"}),
        new_output("stream", name="stdout", text="end\n"),
    ]
    other = [new_output("stream", name="stdout", text="0.12349 in 4.5 ms\nend\n")]
    same = shake_report.sanitized(shake_report.texts(stream))
    assert same == shake_report.sanitized(shake_report.texts(other))
    other[0].text = "0.1235 in 4.5 ms\nend\n"
    assert same != shake_report.sanitized(shake_report.texts(other))
    assert shake_report.texts(stream) == {"stdout": ["0.12345678 in 3.21 s\nend\n"]}
