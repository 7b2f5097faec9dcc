# make demo: search, derive, retrain and draw a cell on scikit-learn's digits.
# make test: every check but those of make test-slow. Both set up .venv first (about 5 GB, once).
# make docs: the documentation as a site, in site/; a warning is an error.
PYTHON ?= python3
BIN := .venv/bin
DEMO := runs/demo

.PHONY: demo docs test pytest test-slow lint clean

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@

demo: .venv/installed
	rm -rf $(DEMO)
	$(BIN)/python search.py experiment=demo_search run_dir=$(DEMO)/search
	$(BIN)/python retrain.py experiment=demo_retrain genotype=$(DEMO)/search/genotype.json run_dir=$(DEMO)/retrain
	@echo
	@echo "The cell is drawn in $(DEMO)/search/cell.png. To watch both runs in a browser:"
	@echo "  $(BIN)/tensorboard --logdir $(DEMO) --samples_per_plugin images=100"

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Three checks that need nothing of each other: `make --jobs 2 test` saves the time of the shorter.
test: lint docs pytest

pytest: .venv/installed
	$(BIN)/python -m pytest -n auto --dist worksteal

test-slow: .venv/installed
	$(BIN)/python -m pytest -m slow

clean:
	rm -rf .venv build site *.egg-info
