# The two commands for a newcomer: `make demo` and `make test`. Each makes its own environment.

PYTHON ?= python3
DEMO_ENV := build/demo-env
ENV := .venv

.PHONY: demo test check format clean

## demo: segment the example photos with the core install alone; pictures in build/demo
demo: $(DEMO_ENV)/.installed
	$(DEMO_ENV)/bin/deeplab segment examples/photos -o build/demo --save overlay --overwrite

## test: run the whole suite (set DEEPLAB_REFERENCE to the folder of reference files, if you have it)
test: $(ENV)/.installed
	$(ENV)/bin/python -m pytest $(ARGS)

## check: ruff and mypy
check: $(ENV)/.installed
	$(ENV)/bin/ruff check .
	$(ENV)/bin/ruff format --check .
	$(ENV)/bin/mypy

## format: let ruff mend what it can
format: $(ENV)/.installed
	$(ENV)/bin/ruff check --fix .
	$(ENV)/bin/ruff format .

clean:
	rm -rf build dist $(ENV)

# Installed anew whenever the sources change, so that the demo shows what is here.
$(DEMO_ENV)/.installed: pyproject.toml $(shell find src -name '*.py')
	$(PYTHON) -m venv $(DEMO_ENV)
	$(DEMO_ENV)/bin/python -m pip install --quiet .
	touch $@

# torch first and alone: later packages then take the build that is there.
$(ENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(ENV)
	$(ENV)/bin/python -m pip install --quiet torch==2.13.0
	$(ENV)/bin/python -m pip install --quiet --editable '.[train,openvino,crf,dev]'
	touch $@
