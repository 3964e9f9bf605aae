# make quickstart: from nothing to a trained robust model.   make test: everything, on all three backends.
PYTHON ?= python3
VENV ?= .venv
BACKENDS ?= tensorflow torch jax
WORKERS ?= 2
bin := $(VENV)/bin
# One thread per test process: more only contend for the cores.
one_thread := OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 TF_CPP_MIN_LOG_LEVEL=2

.PHONY: help quickstart test lint doctest docs notebooks release $(addprefix test-,tensorflow torch jax) clean

help:
	@sed -n '1p' $(MAKEFILE_LIST) | cut -c3-
	@echo "Also: make docs, make notebooks, make release, make lint, make doctest, make test-tensorflow, make test-torch, make test-jax, make clean."
	@echo "Options of the quickstart: make quickstart ARGS='--eps 8/255 --out runs/mine'."

quickstart: $(VENV)/.quickstart
	$(bin)/python recipes/quickstart.py $(ARGS)

test: lint $(addprefix test-,$(BACKENDS)) doctest

lint: $(VENV)/.test
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy

# PyTorch, which compiles nothing, is the quickest at what depends on no backend.
marked_tensorflow := -m 'not once'
marked_jax := -m 'not once'

# JAX leaves out what is numpy or TensorFlow alone (data, but for the augmentation inside the step) and what only puts
# together the parts that run here (evaluation on one device, export but for its formats, scripts, tools): XLA takes minutes to compile that on a CPU.
tests_jax := tests/attacks tests/backend tests/layers tests/models tests/training tests/recipes tests/segmentation tests/weights tests/data/augmentation/test_on_device.py tests/data/test_pipeline.py \
	tests/evaluation/test_evaluate.py tests/export/test_formats.py \
	tests/test_losses.py tests/test_package.py tests/test_precision.py tests/test_random.py tests/test_threat.py

# XLA then compiles in half the time, which is nearly all that JAX's tests take.
environment_jax := JAX_DISABLE_MOST_OPTIMIZATIONS=1

test-tensorflow test-torch test-jax: test-%: $(VENV)/.test
	@echo "== tests on the $* backend"
	KERAS_BACKEND=$* $(environment_$*) $(one_thread) $(bin)/python -m pytest -q -n $(WORKERS) --dist worksteal $(marked_$*) $(tests_$*)

# The examples in docstrings.
doctest: $(VENV)/.test
	@echo "== examples in docstrings"
	KERAS_BACKEND=torch $(one_thread) $(bin)/python -m pytest -q -n $(WORKERS) -p tests.doctests --doctest-modules keras_robust

# The site, into build/site. Pages that would load something from elsewhere are an error, as are dead links.
# Without --quiet, which would hide the warnings from --strict.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(bin)/mkdocs build --strict
	@! grep -rnoE --include='*.html' '(<script[^>]*src|<link[^>]*href|<img[^>]*src)="?https?:[^" >]*' build/site
	@echo "build/site/index.html"

# The notebooks, from their scripts. REPOSITORY: where the checkout lives on GitHub, for "Open in Colab".
REPOSITORY ?= OWNER/keras_robust
notebooks: $(VENV)/.notebooks
	@mkdir -p build/notebooks
	@for script in docs/notebooks/*.py; do \
		sed 's|OWNER/keras_robust|$(REPOSITORY)|' $$script | \
			$(bin)/jupytext --quiet --from py:percent --to ipynb -o build/notebooks/$$(basename $$script .py).ipynb - || exit 1; \
	done
	@ls build/notebooks/*.ipynb

# sdist and wheel into dist/, and the wheel tried in an environment of its own with each framework alone.
EXTRAS ?= tensorflow jax torch
release: $(VENV)/.release
	rm -rf dist
	$(bin)/pyproject-build --quiet
	$(bin)/twine check --strict dist/*
	$(MAKE) $(addprefix check-wheel-,$(EXTRAS))

check-wheel-%:
	@echo "== the wheel with [$*] alone"
	rm -rf build/wheel-$*
	$(PYTHON) -m venv build/wheel-$*
	build/wheel-$*/bin/python -m pip install --quiet "$$(echo dist/*.whl)[$*]"
	cd build && KERAS_BACKEND=$* wheel-$*/bin/python ../tools/check_installed.py

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "keras_robust needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(bin)/python -m pip install --quiet --upgrade pip

$(VENV)/.quickstart: $(VENV)/bin/python pyproject.toml
	$(bin)/python -m pip install --quiet --progress-bar on -e '.[quickstart]'
	@touch $@

$(VENV)/.test: $(VENV)/bin/python pyproject.toml
	$(bin)/python -m pip install --quiet --progress-bar on -e '.[test]'
	@touch $@ $(VENV)/.quickstart

$(VENV)/.docs $(VENV)/.notebooks $(VENV)/.release: $(VENV)/.%: $(VENV)/bin/python pyproject.toml
	$(bin)/python -m pip install --quiet --progress-bar on -e '.[$*]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
