# `make lab` to learn, `make test` to check. Everything is installed into .venv in this folder.
# Settings:  make lab LAB_ARGS=--no-browser    make test-quick PYTEST_ARGS="-k lora"
#            make lab PYTHON=/path/to/python3.11    (the Python that .venv is made from)

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
REVEAL := $(VENV)/.reveal
PYTHON ?=
LAB_ARGS ?=
PYTEST_ARGS ?= -n 2 --dist loadfile --durations=10
MODEL ?= smollm2-instruct
NOTEBOOKS ?=
COURSE ?= course
NUMBERS ?=
COURSE_ARGS ?=
BROWSER_ARGS ?= -n 2 --dist loadscope
NBVAL_ARGS ?= --nbval-lax --nbval-current-env --nbval-cell-timeout=300
NBVAL_TWO ?= -n 2 --dist loadfile
TIMES := $(VENV)/notebooks.xml
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Jupyter refuses to run as root, the only user of many containers, unless told to.
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)
# The tests use no network. Two processes of them run side by side, with one thread each, notebooks
# too (`make bench-notebooks` runs these one by one, on all cores: the times that count). Those on a
# real model (tests/real) come in between, and are skipped unless `make models` has fetched it.
# Their waiting threads sleep instead of spinning: beside other processes a training is then slower by
# its share of the cores, and not many times slower.
OFFLINE := HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
TEST_ENV := $(OFFLINE) OMP_WAIT_POLICY=PASSIVE

.DEFAULT_GOAL := help

.PHONY: help lab test test-quick notebooks bench bench-notebooks book slides course models real browser lint clean
.DELETE_ON_ERROR:

help: ## list these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' \
	  | awk -F'|' '{ printf "%-21s %s\n", $$1, $$2 }'

lab: $(READY) ## open the workbook in JupyterLab (the first time: set up .venv, some minutes)
	$(BIN)/jupyter lab $(AS_ROOT) $(LAB_ARGS) notebooks/00_start_here.ipynb

test: lint $(REVEAL) ## run every check: style, tests, all notebooks
	$(TEST_ENV) OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS) --ignore=tests/real --ignore=tests/browser tests/
	$(TEST_ENV) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests/real
	$(TEST_ENV) OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(BROWSER_ARGS) -v -rs tests/browser
	rm -f $(VENV)/progress-of-tests.json
	$(TEST_ENV) OMP_NUM_THREADS=1 SFTLAB_PROGRESS=$(CURDIR)/$(VENV)/progress-of-tests.json \
	  PYTHONPATH=$(CURDIR)/tests/no_network \
	  $(BIN)/python -m pytest $(NBVAL_TWO) $(NBVAL_ARGS) --junitxml=$(TIMES) notebooks/
	@$(BIN)/python -m sftlab.bench.notebooks $(TIMES)

browser: $(READY) $(REVEAL) ## the notebooks in a browser: run all cells, operate all explorers, take pictures
	rm -rf build/screenshots
	$(TEST_ENV) SFTLAB_BROWSER=all $(BIN)/python -m pytest -v -rs tests/browser

test-quick: $(READY) ## the tests that take seconds, no notebooks
	$(TEST_ENV) OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS) -m "not slow and not browser" tests/

lint: $(READY) ## check style and layout with ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

notebooks: $(READY) ## run all notebooks anew and store their outputs
	$(BIN)/python -m sftlab.classroom.publish

bench: $(READY) ## measure speed against TRL's trainer and the machine's limit (about 20 minutes, alone)
	$(OFFLINE) $(BIN)/python -m sftlab.bench

bench-notebooks: $(READY) ## run all notebooks, and print how long each takes
	$(OFFLINE) $(BIN)/python -m pytest -q $(NBVAL_ARGS) --junitxml=$(TIMES) notebooks/
	@$(BIN)/python -m sftlab.bench.notebooks $(TIMES)

book: $(READY) ## the notebooks as a website that works offline, in build/book
	$(BIN)/python -m sftlab.classroom.book build/book

course: $(READY) ## the notebooks as a course for nbgrader, in course/ (NUMBERS="07 12": these alone)
	$(BIN)/python -m sftlab.classroom.course $(COURSE) $(NUMBERS) $(COURSE_ARGS)

slides: $(REVEAL) ## the notebooks as offline slides with presenter notes, in build/slides
	$(BIN)/python -m sftlab.classroom.slides build/slides

models: $(READY) ## fetch SmolLM2-135M-Instruct (93 MB, Apache-2.0), for MODEL = "smollm2-instruct"
	$(BIN)/python -m sftlab.models fetch smollm2-instruct

real: $(READY) ## run copies of the notebooks on a real model, MODEL=smollm2-instruct (takes long)
	$(BIN)/python -m sftlab.classroom.real $(MODEL) $(NOTEBOOKS)

clean: ## remove .venv and caches (your work in notebooks/ stays)
	rm -rf $(VENV) *.egg-info build .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The set-up. It runs again only when the dependencies change. setuptools comes first, so that
# installing this folder needs nothing from an index that constraints.txt does not name.
$(READY): pyproject.toml constraints.txt
	@if ! $(BIN)/python -c "" 2>/dev/null; then $(find_python); fi
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt setuptools
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt \
	  --no-build-isolation -e .
	@mkdir -p $(VENV)/share/jupyter/lab/settings
	@printf '%s\n' '$(LAB_DEFAULTS)' > $(VENV)/share/jupyter/lab/settings/overrides.json
	@touch $@

# reveal.js for the slides, out of a package that carries it; what that package itself needs is left out.
$(REVEAL): $(READY)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt \
	  --no-deps sphinx-revealjs
	@touch $@

# Defaults of this .venv's JupyterLab alone: do not ask about news, do not look for updates; long
# lines of code are broken at the cell's edge, so that none is cut off on a small screen or a beamer.
LAB_DEFAULTS := {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}, \
  "@jupyterlab/notebook-extension:tracker": {"codeCellConfig": {"lineWrap": true}}}

# A python that starts, is new enough and can make an environment. A name on PATH proves nothing:
# version managers leave stand-ins that only print an error.
define find_python
found=""; old=""; \
for name in $(or $(PYTHON),python3.11 python3.12 python3.13 python3 python); do \
  if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
    if "$$name" -c 'import venv, ensurepip' 2>/dev/null; then found="$$name"; break; fi; \
    old="$$name lacks the venv module: install it (Debian and Ubuntu: apt install $$("$$name" -c \
'import sys; print("python%d.%d-venv" % sys.version_info[:2])'))."; \
  fi; \
done; \
if [ -z "$$found" ]; then \
  echo "No usable Python found (tried: $(or $(PYTHON),python3.11 python3.12 python3.13 python3 python))." >&2; \
  echo "$${old:-Python 3.11 or newer is needed: install it, or name it: make lab PYTHON=/path/to/python3.11}" >&2; \
  exit 1; \
fi; \
echo "Setting up .venv with $$("$$found" --version): a download of some hundred MB, a few minutes."; \
"$$found" -m venv --clear $(VENV)
endef
