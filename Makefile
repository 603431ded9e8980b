# make demo [PHOTO=picture.jpg]   caption a photograph in English and Chinese and write demo.html
# make test [TORCH_INDEX=URL]     everything that must hold: linter, types, tests; URL: another package index for PyTorch,
#                                 such as that of its builds without CUDA, which are a tenth of the size
# make wheel-check                build the wheel, install it where there is no compiler, and caption a picture with it
# make arm-check                  the NEON kernels in an emulator of that processor (Debian's qemu-user has to be there)
# make clean                      remove what these made

PYTHON ?= python3
TORCH  ?= torch==2.13.0
TORCH_INDEX ?=
VENV   := .venv
BIN    := $(VENV)/bin
DEMO_PHOTO := $(VENV)/grace_hopper.jpg

.PHONY: demo test wheel-check arm-check clean
.DELETE_ON_ERROR:

# PHOTO reaches the shell through the environment: names with spaces and quotes stay whole.
ifdef PHOTO
export PHOTO
demo: $(VENV)/runtime.stamp
else
export PHOTO := $(DEMO_PHOTO)
demo: $(VENV)/runtime.stamp $(DEMO_PHOTO)
endif
	@$(BIN)/recur caption --lang en,zh --n-best 5 --html demo.html "$$PHOTO"
	@echo
	@echo "picture: $$PHOTO"
	@echo "page:    $(CURDIR)/demo.html"

test: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist worksteal

wheel-check:
	scripts/wheel_check.sh $(PYTHON)

arm-check: $(VENV)/test.stamp
	$(BIN)/python -m pip install --quiet ziglang
	$(BIN)/python -m pytest -rs tests/test_engine_native_arm.py

clean:
	rm -rf $(VENV) demo.html build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "recur needs Python 3.11 to 3.13; name one with make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)

# An editable installation follows the Python source; a change of what it depends on, or of the core, calls for another.
CORE := CMakeLists.txt $(wildcard recur/engine/_core/*)
$(VENV)/runtime.stamp: pyproject.toml $(CORE) | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

# PyTorch comes first and alone: one version, the one that the tests are known to pass with, whatever build the index has
# of it. What depends on it then takes the one that is there, instead of the newest, which would be another large download.
$(VENV)/test.stamp: pyproject.toml $(CORE) | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[train,library,serve,dev,scale-test]'
	@touch $@ $(VENV)/runtime.stamp

# matplotlib, one of the training packages, ships a photograph in its wheel; the demo needs only that one file.
$(DEMO_PHOTO): | $(VENV)/bin/python
	@rm -rf $(VENV)/wheel
	$(BIN)/pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest $(VENV)/wheel matplotlib
	@$(BIN)/python -m zipfile -e $(VENV)/wheel/matplotlib-*.whl $(VENV)/wheel
	@cp $(VENV)/wheel/matplotlib/mpl-data/sample_data/grace_hopper.jpg $@
	@rm -rf $(VENV)/wheel
