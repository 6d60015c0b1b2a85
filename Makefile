# Two commands from a bare clone, with Python 3.11 or newer and make: `make demo` and `make test`.
# Every version installed is pinned in constraints.txt. A GPU is used where nvidia-smi finds one.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# torch's wheels lag behind Python: 3.11 first, then whatever python3 is.
PYTHON ?= $(shell scripts/find-python 3.11 3 3.12 3.13)
OTHER_PYTHONS ?= 3.12 3.13
PYTEST_FLAGS ?=

VENV := .venv
BIN := $(VENV)/bin
INPUTS := pyproject.toml constraints.txt Makefile scripts/hatch_build.py $(wildcard kernels/host/*)
OTHER_VENVS := $(foreach v,$(OTHER_PYTHONS),$(if $(shell scripts/find-python $(v)),.venv-$(v)))

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
# Two `-q` leave errors only; pip's index warnings are noise here.
PIP = $(1)/bin/python -m pip install -qq -c constraints.txt
# $(call make_venv,FOLDER,PYTHON): the build tools come first, so that they are pinned too.
define make_venv
@test -n "$(2)" || { echo "no Python 3.11 or newer with venv and pip found" >&2; exit 1; }
@echo "$(1): installing with $$($(2) --version), a few minutes the first time"
@test -x $(1)/bin/python || $(2) -m venv $(1)
@$(call PIP,$(1)) pip
@$(call PIP,$(1)) hatchling editables
endef

.NOTPARALLEL:
.SECONDARY:
.PHONY: help demo test lint test-others test-main bench docs format clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed  ## set up, then train on patches of a real image: report in demo-report/
	$(BIN)/python -m zarrgpu demo

test: lint test-others test-main  ## everything that must hold: style, types, layers, all tests

lint: $(VENV)/.installed-dev  ## ruff, mypy, import-linter
	$(BIN)/ruff check -q .
	$(BIN)/ruff format -q --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# $(call run_two,COMMAND,COMMAND): side by side; the output of the first when it is done.
define run_two
@log=$$(mktemp); { $(1); } >$$log 2>&1 & first=$$!; \
{ $(2); }; second=$$?; wait $$first; first=$$?; \
cat $$log; rm $$log; test $$second = 0 -a $$first = 0
endef

test-main: $(VENV)/.installed-dev  ## pytest with torch, doctests and slow tests, in two processes
	$(call run_two,$(call pytest,$(VENV)) $(FIRST),$(call pytest,$(VENV)) $(addprefix --ignore=,$(FIRST)))

test-others: $(addsuffix /.installed-dev,$(OTHER_VENVS))  ## pytest on the other Pythons found here
	$(call run_two,$(call other,1),$(call other,2))

# What tests kernels and the CUDA path does not depend on Python, nor do long comparisons with other
# libraries, nor files of many kinds: once is enough.
FIRST := $(addprefix tests/,test_emulator.py test_kernels.py test_nvrtc.py gpu test_checksum_kernels.py \
	test_blosclz_kernel.py test_element_kernels.py test_planted_faults.py test_device_tables.py \
	test_gather_tables.py test_zarr_image_codecs.py test_cast_value.py test_resample_kernel.py \
	test_fuzz_zarr.py test_native_sanitizers.py test_tiff_kernels.py test_tiff_on_device.py \
	test_image_kernels.py test_image_headers.py test_nvjpeg.py test_header_kernels.py \
	test_stream_checks.py test_device_cache.py test_device_chunks.py) $(wildcard tests/test_cuda_*.py)
ONCE := $(FIRST) $(addprefix tests/,test_conformance.py test_tiff_pixels.py test_tiff_fuzz.py test_fuzz_slides.py)

pytest = $(1)/bin/python -m pytest -q $(PYTEST_FLAGS)
# The first or second of the other Pythons, where there is one.
other = $(if $(word $(1),$(OTHER_VENVS)),$(call pytest,$(word $(1),$(OTHER_VENVS))) -m "not slow" \
	-p no:cacheprovider $(addprefix --ignore=,$(ONCE)),true)

# Apart from the rest: cuCIM asks for CuPy and more, which its CPU reader does without.
SLIDE_PEERS := cucim-cu12==26.10.0 fastslide==0.8.1 pyvips==3.2.0 pyvips-binary==8.18.7 \
	tiffslide==3.0.1 cffi pycparser

bench: $(VENV)/.installed-dev  ## measure on the CPU beside peers: JSON in docs/benchmarks
	@$(call PIP,$(VENV)) --group bench
	@$(call PIP,$(VENV)) --no-deps --target .bench $(SLIDE_PEERS)
	$(BIN)/python -m tests.benchmarks.planning
	PYTHONPATH=.bench $(BIN)/python -m tests.benchmarks.slides
	$(BIN)/python -m tests.benchmarks.reads

docs: $(VENV)/.installed-dev  ## build the documentation into site/
	$(BIN)/mkdocs build -q --strict

format: $(VENV)/.installed-dev  ## let ruff fix and format
	$(BIN)/ruff check -q --fix .
	$(BIN)/ruff format -q .

clean:  ## remove environments, caches and outputs
	rm -rf .venv .venv-* .*_cache .benchmarks .hypothesis build dist site demo-report .bench

$(VENV)/.installed: $(INPUTS)
	$(call make_venv,$(VENV),$(PYTHON))
	@$(call PIP,$(VENV)) --no-build-isolation -e ".[demo$$(scripts/gpu-extra)]"
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "$(VENV): installing the tools of tests, lint and docs"
	@$(call PIP,$(VENV)) --group lint --group test --group docs
	@touch $@

# torch is 3.11's: its tests skip here.
.venv-%/.installed-dev: $(INPUTS)
	$(call make_venv,.venv-$*,$(shell scripts/find-python $*))
	@$(call PIP,.venv-$*) --no-build-isolation -e ".[slides]" --group test
	@touch $@
