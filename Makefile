# make install   prepare .venv
# make demo      learn task after task without forgetting, beside the network that forgets
# make peers     prepare what the benchmarks compare with (python -m benchmarks)
# make docs      the documentation, in site-docs/
# make test      lint, types, import contracts, all tests
# make composition  every pair of mechanisms on one network; writes docs/composition.md and its picture
# make guarantees   the long counts of kills, damages and steps; writes docs/guarantees.md

PYTHON ?= python3
PYTEST_ARGS ?=

BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := install
.PHONY: install demo peers docs test verdicts composition guarantees

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "neuropil needs Python 3.11 or newer: make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@touch $@

demo: install
	@$(BIN)/neuropil run hlop

peers: install
	@$(BIN)/python -m benchmarks.environments

docs: install
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

test: install
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest $(PYTEST_ARGS)

verdicts: install
	@$(BIN)/python tools/verdicts.py

composition: install
	@$(BIN)/python -m tests.together.draw

guarantees: install  # a guarantee that fails leaves the page, and make fails
	@NEUROPIL_LONG=1 $(BIN)/pytest tests -m guarantee --guarantees .guarantees.json $(PYTEST_ARGS); code=$$?; \
	$(BIN)/python tools/guarantees.py .guarantees.json && rm .guarantees.json && exit $$code
