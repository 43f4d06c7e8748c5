# Everything runs in a virtual environment that is made on first use. Variables:
#   PYTHON=/path/to/python  interpreter for the environment (default: the newest of 3.11 to 3.13 that is found)
#   VENV=.venv              folder of the environment
#   DATA=folder             data for the demo (default: simulated)
#   ARGS="..."              further arguments for the demo, pytest, the benchmarks, ruff check or Sphinx

PYTHON ?=
VENV ?= .venv
DATA ?=
ARGS ?=

RUN = $(VENV)/bin/python -m
# One process a core; a file stays in one process, since its tests share models. Each process computes on one thread.
# Byte code is written whatever the shell says: many tests start processes, which would compile everything anew.
PYTEST = env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=1 MPLBACKEND=agg $(RUN) pytest -n auto --dist loadfile
# Twice quiet: errors are shown, warnings about a mirror are not
INSTALL = $(RUN) pip install -qq

.NOTPARALLEL:
.PHONY: help venv demo test test-slow test-all torture mutants bench bench-scale lint docs clean

help:
	@echo "make venv    make $(VENV) and install the package in it, editable"
	@echo "make demo    run the demo; DATA=folder runs it on real sections"
	@echo "make test    run the fast tests, on all cores"
	@echo "make test-slow, make test-all    run the slow tests, or both"
	@echo "make torture    run the campaigns of bad input, damaged files and killed processes for long"
	@echo "make mutants    seed faults in copies of the package, and count how many the fast tests notice"
	@echo "make bench    compare the speed with that of other packages, and with the goals; ARGS=\"tiles losses\" runs these alone"
	@echo "make bench-scale    draw how time and memory of the hot paths grow, in bench_scale; ARGS=\"--seconds 300\" gives each path longer"
	@echo "make lint    check code, formatting, types, and which room imports which"
	@echo "make docs    build the documentation in docs/_build/html"
	@echo "make clean   remove what the other targets made, except $(VENV)"

venv: $(VENV)/.installed

demo: $(VENV)/.installed-demo
	$(RUN) spatialwhisperer.demo $(if $(DATA),--data "$(DATA)") --out demo_output $(ARGS)

test: $(VENV)/.installed-test
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: $(VENV)/.installed-test
	$(PYTEST) -m slow $(ARGS)

test-all: $(VENV)/.installed-test
	$(PYTEST) $(ARGS)

torture: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 MPLBACKEND=agg $(RUN) tests.torture $(ARGS)

mutants: $(VENV)/.installed-test
	$(RUN) tools.mutants $(ARGS)

bench: $(VENV)/.installed-test $(VENV)/.installed-bench
	MPLBACKEND=agg $(VENV)/bin/python benchmarks/bench.py $(ARGS)

bench-scale: $(VENV)/.installed-test $(VENV)/.installed-bench
	MPLBACKEND=agg $(VENV)/bin/python benchmarks/scale.py --out bench_scale $(ARGS)

# All four run, whatever the first ones find
lint: $(VENV)/.installed-test $(VENV)/.installed-lint
	@failed=0; \
	for check in "ruff check $(ARGS) ." "ruff format --check ." "lint-imports" "mypy"; do \
		echo "$$check"; $(VENV)/bin/$$check || failed=1; \
	done; exit $$failed

docs: $(VENV)/.installed-doc
	$(RUN) sphinx -W --keep-going -b html docs docs/_build/html $(ARGS)

clean:
	rm -rf demo_output bench_scale dist build docs/_build docs/generated .mutants .pytest_cache .ruff_cache .mypy_cache .coverage .coverage.*
	find . -path "./$(VENV)" -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

# A stamp is written only after its installation has ended well: an interrupted one is done again.
$(VENV)/.made:
	@sh tools/make_venv.sh "$(VENV)" "$(PYTHON)"
	@touch $@

$(VENV)/.installed: pyproject.toml | $(VENV)/.made
	@echo "Installing spatialwhisperer in $(VENV). PyTorch is large: the first time takes minutes."
	@$(INSTALL) -e .
	@touch $@

$(VENV)/.installed-%: pyproject.toml | $(VENV)/.made
	@echo "Installing spatialwhisperer[$*] in $(VENV). PyTorch is large: the first time takes minutes."
	@$(INSTALL) -e ".[$*]"
	@touch $@
