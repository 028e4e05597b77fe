# Two commands matter: `make demo` runs the main job, `make test` passes the tests. Each sets up what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo

.PHONY: demo test lint check-speed setup clean

setup: $(VENV)/.ready

# torch first: its wheel is the largest, and everything else must agree with the pair.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13) and "lightssl needs Python 3.11 to 3.13: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch torchvision
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# From images to a timed ONNX file and a page about it, in minutes on two cores.
demo: setup
	rm -rf $(DEMO)
	$(BIN)/lightssl pretrain --recipe mobilenetv2_dino --out $(DEMO)
	$(BIN)/lightssl evaluate $(DEMO)
	$(BIN)/lightssl export $(DEMO) --onnx
	$(BIN)/lightssl bench $(DEMO)/export/model.onnx --target cpu
	$(BIN)/lightssl report $(DEMO)
	@echo "Open $(DEMO)/report.html. For a longer run: see 'What a longer run gives' in README.md"

test: setup
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Fails if views or training steps have become slower, beside what bounds them, than the recorded ratios tell.
check-speed: setup
	$(BIN)/python -m benchmarks.check_speed

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
