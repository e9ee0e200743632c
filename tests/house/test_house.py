"""What has to agree across the repository's files."""

import ast
import importlib.util
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import qtdqas_lite
import qtdqas_lite.widgets
from qtdqas_lite import FixedCircuit, GeneratedNetwork, tasks
from qtdqas_lite.simulator import gates

ROOT = Path(__file__).resolve().parents[2]
URL = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))["repository"]["url"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
CORE = ROOT / "qtdqas_lite"
NAMING = "README.md CITATION.cff CONTRIBUTING.md pyproject.toml book/index.md book/teach.md"


# --- One address


def repositories(text):
    """Every GitHub repository that a text names, as owner/name; Colab links name one too."""
    plain = re.findall(r"github\.com/([\w.-]+/[\w.-]+)", text)
    colab = re.findall(r"colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)", text)
    return {name.removesuffix(".git").rstrip(".") for name in plain + colab}


@pytest.mark.parametrize("name", NAMING.split())
def test_one_address(name):
    assert repositories((ROOT / name).read_text("utf-8")) == repositories(URL)


def test_the_pages_lie_where_github_publishes_them():
    sphinx = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))["sphinx"]["config"]
    owner, name = URL.removeprefix("https://github.com/").split("/")
    assert sphinx["html_baseurl"] == sphinx["ogp_site_url"] == f"https://{owner}.github.io/{name}/"
    assert sphinx["notfound_urls_prefix"] == f"/{name}/"


def test_another_address_is_seen():
    colab = "https://colab.research.google.com/github/x/y/blob/main/z.ipynb"
    assert repositories(f"git+https://github.com/a/b.git {colab}") == {"a/b", "x/y"}
    assert repositories("See https://github.com/a/c.") == {"a/c"}


# --- The pins keep to the bounds


def pin_lines():
    files = [ROOT / "requirements.txt", ROOT / "requirements-lab.txt"]
    lines = [line for file in files for line in file.read_text("utf-8").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def pins():
    pairs = [line.split("==") for line in pin_lines()]
    return {canonicalize_name(name): version for name, version in pairs}


def bounds():
    extras = PROJECT["optional-dependencies"]
    return [Requirement(text) for text in sum(extras.values(), PROJECT["dependencies"])]


def unmet(requirements, versions):
    """List what no pin, or a pin out of bounds, leaves unmet."""
    found = {r: versions.get(canonicalize_name(r.name)) for r in requirements}
    return [str(r) for r, version in found.items() if version not in r.specifier]


def test_pins_keep_to_the_bounds():
    assert unmet(bounds(), pins()) == []


def test_a_pin_out_of_bounds_is_seen():
    wanted = [Requirement("torch>=2.5"), Requirement("numpy>=1.26")]
    assert unmet(wanted, {"torch": "2.4"}) == ["torch>=2.5", "numpy>=1.26"]
    assert unmet(wanted, {"torch": "2.13.0", "numpy": "2.4.6"}) == []


def test_pins_are_plain():
    """No local builds (+cpu), no direct addresses, each package once."""
    assert [line for line in pin_lines() if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    assert len(pin_lines()) == len(pins())


# --- A light import


def loaded(statement):
    names = "pennylane matplotlib ipywidgets anywidget sklearn scipy statsmodels pandas IPython"
    code = f"import sys; {statement}; print(*(set({names!r}.split()) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_core_imports_nothing_heavy():
    assert loaded("import qtdqas_lite") == set()


def test_a_heavy_import_is_seen():
    assert "matplotlib" in loaded("import matplotlib")


# --- What the pages load


def test_every_asset_is_here():
    """What the pages load is in the repository, and what others made keeps its licence."""
    static = ROOT / "book" / "_static"
    css = (static / "custom.css").read_text("utf-8")
    files = [url for url in re.findall(r"url\(([^)]+)\)", css) if not url.startswith('"data:')]
    assert files
    assert [name for name in files if not (static / name).is_file()] == []
    for name in ("mathjax/LICENSE", "fonts/OFL.txt", "mathjax/tex-chtml.js"):
        assert (static / name).is_file()


# --- The API pages


def api():
    """The text of all of them."""
    return "\n".join(path.read_text("utf-8") for path in sorted(ROOT.glob("book/api-*.md")))


def undocumented(names, page):
    """List the names that no autodoc directive of the page shows."""
    shown = set(re.findall(r"^\.\. auto\w+:: ([\w.]+)", page, re.MULTILINE))
    return sorted(set(names) - shown)


def test_every_public_name_is_on_the_api_page():
    names = [*qtdqas_lite.__all__, *qtdqas_lite.widgets.__all__]
    assert undocumented(names, api()) == []


def public(module):
    """The functions and classes that a module defines for others."""
    own = [k for k, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__]
    return [name for name in own if not name.startswith("_")]


@pytest.mark.parametrize("name", [m.name for m in pkgutil.iter_modules(tasks.__path__)])
def test_every_public_name_of_a_task_is_on_the_api_page(name):
    module = importlib.import_module(f"qtdqas_lite.tasks.{name}")
    page = api()
    shown_whole = f".. automodule:: {module.__name__}\n" in page
    assert shown_whole or undocumented(public(module), page) == []


def test_an_undocumented_name_is_seen():
    module = ModuleType("gone")
    exec("def here(): pass\ndef _hidden(): pass\nnumber = 1", vars(module))
    assert public(module) == ["here"]
    assert undocumented(["here", "gone"], ".. autofunction:: here\n") == ["gone"]


# --- The examples of the pages that do not run


def examples(page):
    """The Python of a page, in order, less what only Colab can run."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.M | re.S)
    return [block for block in blocks if "google.colab" not in block]


@pytest.mark.parametrize(
    "page", [f"book/{name}.md" for name in ("api-circuits", "api-networks", "api-tasks", "teach")]
)
def test_examples_run_as_printed(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for registry, name in ((gates.ROTATIONS, "r_xz"), (gates.ENTANGLERS, "star")):
        monkeypatch.setitem(registry, name, None)  # gates that a page adds are gone after it
        monkeypatch.delitem(registry, name)
    generator = torch.Generator().manual_seed(0)
    circuit = FixedCircuit(7, 2, generator=generator)
    space = {
        **{"torch": torch, "nn": torch.nn},
        **{name: getattr(qtdqas_lite, name) for name in qtdqas_lite.__all__},
        "net": GeneratedNetwork(torch.nn.Linear(64, 1), circuit, generator=generator),
        **{"images": torch.rand(4, 8, 8, generator=generator), "labels": [0, 1, 0, 1]},
    }
    found = examples(page)
    assert found
    for block in found:
        exec(compile(block, page, "exec"), space)


# --- The benchmarks' page


def test_every_benchmark_has_its_table():
    files = (ROOT / "tests/benchmarks").glob("test_*.py")
    code = "".join(file.read_text("utf-8") for file in files)
    titles = re.findall(r'race\.report\(\s*"([^"]+)"', code)
    tables = (ROOT / "book/benchmarks-tables.md").read_text("utf-8")
    assert len(titles) > 5
    assert {*re.findall(r"^## (.+)$", tables, re.M)} == {*titles}, "run make benchmarks"
    assert "failed" not in tables
    assert "not installed" not in tables


# --- The commands


def commands(text):
    """The table of commands in a text."""
    return re.findall(r"^\| `make .+\|$", text, re.M)


def test_one_table_of_commands():
    readme, page = (
        commands((ROOT / name).read_text("utf-8")) for name in ("README.md", "book/how-to-read.md")
    )
    assert readme == page
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = re.findall(r"^([a-z]+):.*## ", makefile, re.M)
    named = [re.match(r"\| `make (\w+)`", line)[1] for line in readme]
    assert len(named) == 6
    assert set(named) <= set(targets)


# --- Small files


def room(path, core=CORE):
    """A file of the package, or the folder that it lies in: what the outside imports as one."""
    return path.relative_to(core).with_suffix("").parts[0]


def imports(core=CORE):
    """Which rooms each room imports, from the relative imports in its files."""
    found = {}
    for path in core.rglob("*.py"):
        if path == core / "__init__.py":
            continue  # it only hands names on
        here = found.setdefault(room(path, core), set())
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                names = [node.module] if node.module else [alias.name for alias in node.names]
                base = path.parents[node.level - 1]
                paths = [base.joinpath(*name.split(".")).with_suffix(".py") for name in names]
                here |= {room(one, core) for one in paths if core in one.parents}
        here.discard(room(path, core))
    return found


def floors(arrows):
    """On which floor each room stands: above all that it imports. A circle has none."""
    found = {}
    while len(found) < len(arrows):
        ready = {r for r in arrows if r not in found and arrows[r] <= found.keys()}
        if not ready:
            raise AssertionError(f"these import each other: {sorted(set(arrows) - set(found))}")
        found |= {r: 1 + max((found[below] for below in arrows[r]), default=0) for r in ready}
    return found


def test_imports_point_one_way_and_eight_floors_are_enough():
    arrows = imports()
    assert arrows["generator"] >= {"checkpoint", "mapping", "target"}
    assert max(floors(arrows).values()) <= 8
    floors(imports(CORE / "simulator"))


def test_a_circle_is_seen(tmp_path):
    (tmp_path / "a.py").write_text("from .b import x\nfrom . import c\n")
    (tmp_path / "b.py").write_text("def f():\n    from .a import y\n")
    (tmp_path / "c.py").write_text("import os\n")
    assert imports(tmp_path) == {"a": {"b", "c"}, "b": {"a"}, "c": set()}
    with pytest.raises(AssertionError, match=r"these import each other: \['a', 'b'\]"):
        floors(imports(tmp_path))
    assert floors({"a": {"b"}, "b": {"c"}, "c": set()}) == {"c": 1, "b": 2, "a": 3}


def test_no_module_of_the_core_is_long():
    files = [*CORE.glob("*.py"), *CORE.glob("simulator/*.py")]
    lengths = {file.name: len(file.read_text("utf-8").splitlines()) for file in files}
    assert len(lengths) > 20
    assert {name for name, length in lengths.items() if length > 300} == set()


def test_whatever_fails_in_the_weekly_run_is_reported():
    jobs = yaml.safe_load((ROOT / ".github/workflows/weekly.yml").read_text("utf-8"))["jobs"]
    report = jobs.pop("report")
    assert set(report["needs"]) == set(jobs)
    assert report["if"] == "failure()"
    assert report["permissions"] == {"issues": "write"}
    assert not [name for name, job in jobs.items() if "timeout-minutes" not in job]
