# Each target sets up what it needs. `make` alone says what there is.
PYTHON ?= python3
# NEWEST=1 takes the newest dependencies that pyproject.toml allows, in place of the exact pins.
NEWEST ?=
# How many chapters `make notebooks` runs at a time.
JOBS ?= 2
# What stands in front of the chapters' tests, as in CHAPTERS_ENV="NUMBA_CPU_NAME=generic".
CHAPTERS_ENV ?=
# What `make lab` hands to JupyterLab, as in LAB_OPTIONS="--no-browser --port 8900".
LAB_OPTIONS ?=

PY := .venv/bin/python
# One thread each: two workers that share two cores are several times faster so, and sums keep their order.
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONUNBUFFERED := 1
# The debugger's notes about frozen modules would count as warnings of a chapter.
export PYDEVD_DISABLE_FILE_VALIDATION := 1
# Start-up files, settings and caches of this folder's own, all in _build: what lies in the home folder
# changes nothing here, and two clones do not meet.
export IPYTHONDIR := $(CURDIR)/_build/ipython
export JUPYTER_CONFIG_DIR := $(CURDIR)/_build/jupyter/config
export JUPYTER_DATA_DIR := $(CURDIR)/_build/jupyter/data
export JUPYTER_RUNTIME_DIR := $(CURDIR)/_build/jupyter/runtime
export JUPYTER_PREFER_ENV_PATH := 1
unexport JUPYTER_PATH
export MPLCONFIGDIR := $(CURDIR)/_build/matplotlib
export NUMBA_CACHE_DIR := $(CURDIR)/_build/numba
KERNEL := _build/ipython/profile_default/ipython_kernel_config.py
FONTS := _build/matplotlib/fonts-are-listed

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup book test lint unit chapters browser notebooks lab results colab shake benchmarks set-repository clean
.PHONY: writable moved clock
.DELETE_ON_ERROR:

# What is running now, for the eye and for the times that `make test` prints at its end.
define heading
@mkdir -p _build && echo "$$(date +%s) $(1)" >> _build/times
@printf '\n=== %s\n' '$(1)'
endef

help: ## Show this list
	@echo 'Circuits That Write Networks'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

setup: .venv/.installed $(KERNEL) $(FONTS) ## Make .venv and install the pinned environment and the package

writable:
	@[ -w . ] || { echo 'This folder cannot be written, and make needs .venv and _build in it. Clone it to a folder of your own.'; exit 1; }

# A folder that was copied or renamed has an environment that imports the package of the old place.
ifneq ($(shell cat .venv/.installed 2>/dev/null),$(CURDIR))
.venv/.installed: moved
endif

OFFLINE = { echo 'Packages could not be installed, see above. Is there a network?'; exit 1; }

ifndef LOCKED
.venv/.installed: requirements.txt pyproject.toml | writable
	@command -v "$(PYTHON)" >/dev/null || { echo 'No $(PYTHON) here. Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python'; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "This needs Python 3.11 or newer, and $(PYTHON) is $$("$(PYTHON)" -V 2>&1). Name another: make PYTHON=/path/to/python"; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip' 2>/dev/null || { echo 'This Python cannot make environments. On Debian and Ubuntu: apt-get install python3-venv'; exit 1; }
	@"$(PYTHON)" book/alone.py _build/setup.lock $(MAKE) -s LOCKED=1 $@
else
# What was finished once is brought up to date in its place; that takes no network if no pin has changed.
.venv/.installed: requirements.txt pyproject.toml
	$(call heading,set-up)
	@[ -f $@ ] && [ -z '$(NEWEST)' ] && [ -x $(PY) ] || "$(PYTHON)" -m venv --clear .venv
ifeq ($(NEWEST),)
	@$(PY) -m pip install -q -r requirements.txt || $(OFFLINE)
	@$(PY) -m pip install -q --no-deps --no-build-isolation -e .
else
	@$(PY) -m pip install -q -e '.[chapters,dev]' || $(OFFLINE)
endif
	@pwd -P > $@
endif

.venv/.lab: .venv/.installed requirements-lab.txt
	$(call heading,JupyterLab)
	@$(PY) -m pip install -q -c requirements.txt -r requirements-lab.txt || $(OFFLINE)
	@touch $@

# Without the first line, every kernel warns that its socket on this machine is not encrypted. With the
# second, kernels that run at the same time do not wait for each other's history.
$(KERNEL): Makefile | writable
	@mkdir -p $(@D)
	@echo "c.IPKernelApp.log_level = 'ERROR'" > $@
	@echo "c.HistoryManager.hist_file = ':memory:'" >> $@

# Matplotlib says on stderr when it looks for fonts, and a chapter has to be silent.
$(FONTS): .venv/.installed
	@mkdir -p $(@D)
	@$(PY) -c 'import matplotlib.font_manager'
	@touch $@

book: setup ## Build the book from the stored outputs into _build/html
	$(call heading,book)
	@$(PY) book/alone.py _build/book.lock $(PY) book/build.py

test: clock lint unit chapters book browser ## Run every check
	@printf '\nAll checks passed.\n'
	@awk -v now="$$(date +%s)" '{ if (NR > 1) printf "%-20s %5d s\n", name, $$1 - start; start = $$1; sub(/^[0-9]+ /, ""); name = $$0 } \
		END { printf "%-20s %5d s\n", name, now - start }' _build/times

clock:
	@rm -f _build/times

lint: setup ## Check style and types
	$(call heading,ruff and mypy)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

unit: setup ## Test the package and the rules of the house
	$(call heading,unit tests)
	$(PY) -m pytest -n 2 -q

chapters: setup ## Run the chapters as tests
	$(call heading,chapters)
	env $(CHAPTERS_ENV) $(PY) -m pytest -q --nbval-lax --nbval-sanitize-with tests/notebooks/nbval-sanitize.cfg -n 2 --dist loadfile chapters

browser: book ## Test the built book in a real browser
	$(call heading,browser)
	$(PY) -m pytest -n 2 -q -rs tests/browser

notebooks: setup ## Run the chapters and store their outputs (ONLY=file for one, JOBS=2 at a time)
	$(call heading,notebooks)
	@status=0; $(PY) book/execute.py --jobs $(JOBS) $(ONLY) || status=1; $(PY) book/status.py; exit $$status

lab: setup .venv/.lab ## Open the chapters in JupyterLab
	$(PY) -m jupyterlab $(LAB_OPTIONS) chapters

results: setup ## Run the experiments that the tables still lack (TASK=name for one table, PLAN=1, DASK=address)
	$(call heading,results)
	@$(PY) book/results.py $(TASK) $(if $(PLAN),--plan) $(if $(DASK),--dask $(DASK))
	@$(PY) book/claims.py

colab: $(KERNEL) ## Run the chapters with the versions that Colab has (not part of test)
	$(call heading,chapters on the versions of Colab)
	rm -rf build  # pip would pack what an older build has left there
	"$(PYTHON)" -m venv _build/colab
	_build/colab/bin/python -m pip install -q -c tests/colab-constraints.txt '.[chapters]' ipykernel ipython nbclient
	_build/colab/bin/python book/execute.py --check --jobs $(JOBS)

shake: setup ## Run the chapters many times, each with another rounding (ONLY=file, N=20, JOBS=2; not part of test)
	$(call heading,shake)
	@$(PY) book/shake.py $(ONLY) --runs $(or $(N),20) --jobs $(JOBS)

benchmarks: setup ## Measure speed and memory against other simulators (not part of test)
	$(call heading,benchmarks)
	@mkdir -p _build
	$(PY) -m pytest -q -rs tests/benchmarks --benchmark-only --benchmark-quiet --benchmark-json=_build/benchmarks.json \
		--tables book/benchmarks-tables.md

set-repository: setup ## Write the repository's address everywhere (URL=https://github.com/you/book)
	@$(PY) book/set_repository.py '$(URL)'

clean: ## Remove what was built, and .venv
	rm -rf _build build .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .coverage *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
