PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Compiled modules are kept, those of the tests too: each worker and each process that a test starts would compile them.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo quick test slow test-prism test-flink lint lock templates wheel dist clean docs pictures

demo: $(VENV)/demo
	$(BIN)/python -m pipelines.demo --folder demo

# The unit tests alone, while you work; half a minute.
quick: $(VENV)/dev
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile tests/unit

# Three workers on two cores, as one of them often waits for a server or a process.
test: $(VENV)/dev
	$(BIN)/python -m pytest -m "not slow" -n 3 --dist loadfile $(PYTEST_OPTIONS)

# The tests that take long: soaks, ten million points, jobs for Dataflow, Prism and Flink, and every example of the
# properties, of which the others try a sixteenth or less.
slow: $(VENV)/dev
	$(BIN)/python -m pytest -m "slow or property"

# The commands, and streams, on Prism; Go builds it into .prism once, from its module proxy.
test-prism: $(VENV)/dev
	$(BIN)/python -m pytest -m slow tests/runners/test_prism.py

# The commands on Flink; Maven brings Beam's job server for it, and Java runs it.
test-flink: $(VENV)/dev
	$(BIN)/python -m pytest -m slow tests/runners/test_flink.py

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What the templates' image installs, anew from setup.py; needs Python 3.11 on Linux x86-64, as the image has.
lock: $(VENV)/dev
	$(BIN)/python -m templates.lock

# The keywords that type checkers see, anew from the options; and, anew from the flags of the commands, the metadata of
# the templates, the list of providers for Beam YAML, and what shells complete.
templates: $(VENV)/dev
	$(BIN)/python -m templates.keywords
	$(BIN)/python -m templates.metadata
	$(BIN)/python -m pipelines.yaml_providers > rasteret_beam/transforms/yaml/providers.yaml
	$(BIN)/python -m templates.completion

# What is in the sdist and the wheel, and that the command runs where the wheel is installed with what it requires: in a
# new environment for each supported Python of this machine.
wheel: $(VENV)/dev
	$(BIN)/python -m pytest -m slow tests/commands/test_packaging.py

# The sdist, and the wheel that is built from it.
dist: $(VENV)/dev
	rm -rf dist
	$(BIN)/python setup.py --quiet sdist
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist dist/*.tar.gz

$(VENV)/demo: setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	touch $@

$(VENV)/dev: setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .prism .venv-rasteret .venv-gcs .venv-emulators demo build dist site *.egg-info

# The documentation, into site/, without the network; a broken link or an unknown name fails.
docs: $(VENV)/dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The pictures that the pages show, anew.
pictures: $(VENV)/dev
	$(BIN)/python -m pipelines.demo --folder demo
	cp demo/map.png docs/images/demo.png
	$(BIN)/python -m tests.support.screenshot demo/report.html docs/images/report.png
	$(BIN)/python -m examples.field_series
	$(BIN)/python -m examples.embedding_classes
	$(BIN)/python -m examples.field_plots
	$(BIN)/python -c "from tests.support import documents as d; d.run_page(d.ROOT / 'docs' / 'elevation.md')"
	cp demo/dem/elevation.png docs/images/elevation.png
	$(BIN)/python -c "from tests.support import documents as d; d.run_page(d.ROOT / 'docs' / 'plots.md')"
	cp demo/stack/points.png demo/stack/series.png demo/stack/explore.png docs/images/
	$(BIN)/python -m examples.fields_over_time
