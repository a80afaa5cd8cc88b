# make repro   set up what is missing, then reproduce every study at the scale of params.yaml; JOBS=1: stage by stage;
#              RAY=auto: on the Ray cluster that this machine belongs to, or an address
# make test    set up what is missing, then run the tests
# make fetch   get the published inputs of sources.yaml, and say what is missing and what runs without it
# make review  what changed since the last commit, as review/index.html; BASE=main NEW=modal: between two revisions
# make docs    build README and docs/ as a site, site/index.html; set up what is missing for it
# make lock    write constraints.txt anew from requirements.txt (after changing a pin)
# make help    say this

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1

JOBS ?= auto
RAY ?=

.PHONY: repro test lock fetch review docs help
repro: $(STAMP)
	@python -m pipeline.workflow.reproduce --jobs $(JOBS) --ray "$(RAY)"

test: $(STAMP)
	ruff check .
	ruff format --check .
	python -m pytest

fetch: $(STAMP)
	@python -m pipeline.inputs.fetch --name all

BASE ?= HEAD
NEW ?= workspace
review: $(STAMP)
	@python -m pipeline.workflow.review --base $(BASE) --new $(NEW)

docs: $(STAMP) .venv/docs
	@NO_MKDOCS_2_WARNING=1 python -m mkdocs build --quiet --clean
	@echo "site/index.html: open it in a browser"

.venv/docs: requirements-docs.txt $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements-docs.txt
	touch $@

help:
	@sed -n '/^# /!q; s/^# //p' Makefile

$(STAMP): requirements.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed, found " + sys.version + "; name one with make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@$(BIN)/python -m pipeline.workflow.offline_plots
	touch $@

lock: $(STAMP)
	$(BIN)/pip install --quiet uv
	sed /^-c/d requirements.txt | $(BIN)/uv pip compile --universal --python-version 3.11 --quiet --no-header --no-annotate --output-file constraints.txt -
