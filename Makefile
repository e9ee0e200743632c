# Each target sets up what it needs. `make` alone says what there is.
PYTHON ?= python3
# NEWEST=1 takes the newest dependencies that pyproject.toml allows, in place of the exact pins.
NEWEST ?=

PY := .venv/bin/python
# One thread each: two workers that share two cores are several times faster so, and sums keep their order.
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONUNBUFFERED := 1
# The debugger's notes about frozen modules would count as warnings of a chapter.
export PYDEVD_DISABLE_FILE_VALIDATION := 1
# A profile of the book's own: nobody's start-up files run in the chapters' kernels.
export IPYTHONDIR := $(CURDIR)/_build/ipython
KERNEL := _build/ipython/profile_default/ipython_kernel_config.py

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup book test lint unit chapters browser notebooks results colab benchmarks clean
.DELETE_ON_ERROR:

heading = @printf '\n=== %s\n' '$(1)'

help: ## Show this list
	@echo 'Circuits That Write Networks'
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

setup: .venv/.installed $(KERNEL) ## Make .venv and install the pinned environment and the package

.venv/.installed: requirements.txt pyproject.toml
	$(call heading,set-up)
	@command -v "$(PYTHON)" >/dev/null || { echo 'No $(PYTHON) here. Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python'; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "This needs Python 3.11 or newer, and $(PYTHON) is $$("$(PYTHON)" -V 2>&1). Name another: make PYTHON=/path/to/python"; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip' 2>/dev/null || { echo 'This Python cannot make environments. On Debian and Ubuntu: apt-get install python3-venv'; exit 1; }
	"$(PYTHON)" -m venv --clear .venv
ifeq ($(NEWEST),)
	$(PY) -m pip install -q -r requirements.txt
	$(PY) -m pip install -q --no-deps --no-build-isolation -e .
else
	$(PY) -m pip install -q -e '.[chapters,dev]'
endif
	@touch $@

# Without this, every kernel warns that its socket on this machine is not encrypted.
$(KERNEL):
	@mkdir -p $(@D)
	@echo "c.IPKernelApp.log_level = 'ERROR'" > $@

book: setup ## Execute the chapters and build the book into _build/html
	$(call heading,book)
	@$(PY) book/build.py

test: lint unit chapters book browser ## Run every check
	@printf '\nAll checks passed.\n'

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
	$(PY) -m pytest -q --nbval-lax --nbval-sanitize-with tests/notebooks/nbval-sanitize.cfg -n 2 --dist loadfile chapters

browser: book ## Test the built book in a real browser
	$(call heading,browser)
	$(PY) -m pytest -q -rs tests/browser

notebooks: setup ## Re-execute the chapters and store their outputs (ONLY=file for one)
	$(call heading,notebooks)
	@$(PY) book/execute.py $(ONLY)

results: setup ## Run the experiments that the tables still lack (TASK=name for one table)
	$(call heading,results)
	@$(PY) book/results.py $(TASK)
	@$(PY) book/claims.py

colab: $(KERNEL) ## Run the chapters with the versions that Colab has (not part of test)
	$(call heading,chapters on the versions of Colab)
	rm -rf build  # pip would pack what an older build has left there
	"$(PYTHON)" -m venv _build/colab
	_build/colab/bin/python -m pip install -q -c tests/colab-constraints.txt '.[chapters]' ipykernel ipython nbclient
	_build/colab/bin/python book/execute.py --check

benchmarks: setup ## Measure speed and memory against other simulators (not part of test)
	$(call heading,benchmarks)
	@mkdir -p _build
	$(PY) -m pytest -q -rs tests/benchmarks --benchmark-only --benchmark-quiet --benchmark-json=_build/benchmarks.json \
		--tables book/benchmarks-tables.md

clean: ## Remove what was built, and .venv
	rm -rf _build build .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .coverage *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
