# make demo       environment, core install, the main job on bundled data
# make test       environment, development install, the suite (make test-all adds what is slow)
# make check      lint, formatting, types, import contracts
# make docs       the documentation, warnings as errors
PYTHON ?= python3
CORE := .venv-core
DEV := .venv
TORCH ?= torch
# Tests run side by side, one thread each.
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
PYTEST = $(DEV)/bin/python -m pytest -n auto --dist loadfile
PIP_FLAGS ?= --disable-pip-version-check --no-input -q

.PHONY: demo test test-all check docs bench screenshots clean

$(CORE)/ok: pyproject.toml
	$(PYTHON) -m venv $(CORE)
	$(CORE)/bin/python -m pip install $(PIP_FLAGS) .
	touch $@

# Without optional packages: whatever this environment cannot do, the core does not need.
demo: $(CORE)/ok
	$(CORE)/bin/python -m pip install $(PIP_FLAGS) --no-deps --force-reinstall .
	$(CORE)/bin/dpdq demo --out demo-report

$(DEV)/ok: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/python -m pip install $(PIP_FLAGS) --upgrade "pip>=25.1"
	$(DEV)/bin/python -m pip install $(PIP_FLAGS) -c constraints.txt $(TORCH) -e . --group dev
	touch $@

test: $(DEV)/ok
	$(PYTEST) -m "not slow" $(ARGS)

test-all: $(DEV)/ok
	$(PYTEST) $(ARGS)

check: $(DEV)/ok
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/pyright
	$(DEV)/bin/lint-imports

docs: $(DEV)/ok
	$(DEV)/bin/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

bench: $(DEV)/ok
	for job in import_time compare_size compare_quick; do $(DEV)/bin/python bench/$$job.py || exit 1; done

clean:
	rm -rf $(CORE) $(DEV) demo-report docs/_build .coverage
