# Scripts and people rely on these targets: build, run, test, test-system, test-sanitized, soak, format,
# lint, bench, stubs, install, clean.  packaging/packages.mk has deb, rpm, repo and test-packages.
#
# Everything is built and installed in .venv/.  Only the packages of APT_LINE must be there before.
# `make run` installs what serving needs.  The other targets add the development tools.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
APT_LINE := apt install git make gcc libc6-dev libxxhash-dev python3-venv python3-dev
SYSTEM_PACKAGES := redis-server redis-tools clang libclang-rt-14-dev faketime e2fsprogs iproute2 etcd-server \
    dnsmasq-base
SANITIZED := $(CURDIR)/build/sanitized
DESTDIR ?=
PREFIX ?= /usr
# Where `make run` serves and keeps its data.
LISTEN ?= 127.0.0.1:6139
DATA ?= ./var
# Warnings are errors here, but not in a user's build.  The flags are not exported to oortd, because
# every variable in its environment that begins with OORT_ must be a setting.
OORT_CFLAGS ?= -Werror
unexport OORT_CFLAGS OORT_LDFLAGS
COMPILE := OORT_CFLAGS='$(OORT_CFLAGS)' OORT_LDFLAGS='$(OORT_LDFLAGS)'

NATIVE_SOURCES := $(wildcard csrc/*.h csrc/*/*.c csrc/*/*.h csrc/*/*.def csrc/commands/table/*.toml \
    csrc/commands/*.py) \
    oort/native_build.py setup.py
C_SOURCES := $(wildcard csrc/*.h csrc/*/*.c csrc/*/*.h)

.PHONY: build run test test-system test-sanitized soak format lint bench stubs install clean
.DEFAULT_GOAL := build

build: $(VENV)/.native $(VENV)/.development

# ---- the virtual environment ------------------------------------------------

PIP_INSTALL := $(BIN)/python -m pip install -q --disable-pip-version-check
# Writes a list of requirements in pyproject.toml to a file: $(call requirements,KEY,FILE)
requirements = $(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb")) \
    ["project"]$(1), sep="\n")' > $(2)
# The names in such a file, for a message.
names = $$(sed 's/[<>=].*//' $(1) | paste -sd ' ')

$(VENV)/.checked:
	@command -v gcc >/dev/null || { echo "gcc is missing: $(APT_LINE)" >&2; exit 1; }
	@printf '#include <stdio.h>\n' | gcc -E - >/dev/null 2>&1 || \
	    { echo "the C library's headers (libc6-dev) are missing: $(APT_LINE)" >&2; exit 1; }
	@printf '#include <xxhash.h>\n' | gcc -E - >/dev/null 2>&1 || \
	    { echo "xxhash.h (libxxhash-dev, on Fedora xxhash-devel) is missing: $(APT_LINE)" >&2; exit 1; }
	@command -v $(PYTHON) >/dev/null || \
	    { echo "$(PYTHON) (python3) is missing: $(APT_LINE)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "$(PYTHON) is older than Python 3.11: use make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    { echo "python3-venv is missing: $(APT_LINE)" >&2; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig; \
	    sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || \
	    { echo "python3-dev (Python.h) is missing: $(APT_LINE)" >&2; exit 1; }
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# What the package needs to be compiled and to run.
$(VENV)/.dependencies: $(VENV)/.checked pyproject.toml
	@$(call requirements,["dependencies"],$(VENV)/dependencies)
	@echo "installing setuptools $(call names,$(VENV)/dependencies) from PyPI"
	@$(PIP_INSTALL) 'setuptools==84.2.1' 'cffi==2.1.1' -r $(VENV)/dependencies
	@touch $@

# pip compiles the library into oort/ and makes a program in $(BIN) of each entry point.
$(VENV)/.native: $(VENV)/.dependencies pyproject.toml $(NATIVE_SOURCES)
	@echo "compiling the data path (csrc/)"
	@$(COMPILE) $(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

# What tests, lint and benchmarks need besides.
$(VENV)/.development: $(VENV)/.dependencies pyproject.toml
	@$(call requirements,["optional-dependencies"]["dev"],$(VENV)/development)
	@echo "installing the development tools $(call names,$(VENV)/development) from PyPI"
	@$(PIP_INSTALL) -r $(VENV)/development
	@touch $@

# ---- using it ---------------------------------------------------------------

run: $(VENV)/.native
	$(BIN)/oortd --standalone --listen $(LISTEN) --data-dir $(DATA)

# These tests need no more than pip installs.  Tests that need more are marked `system`:
# test-system runs them.
test: build
	$(MAKE) -C csrc test
	$(BIN)/python -m pytest -q -n auto --dist loadfile

test-system: build
	@[ "$$(id -u)" = 0 ] || { echo "make test-system installs packages: run it as root" >&2; exit 1; }
	@dpkg -s $(SYSTEM_PACKAGES) >/dev/null 2>&1 || { apt-get update -q && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends \
	    $(SYSTEM_PACKAGES); }
	$(MAKE) -C csrc asan
	$(MAKE) -C csrc tsan
	$(MAKE) -C csrc fuzz
	$(BIN)/python -m pytest -q -m system
	$(MAKE) test-sanitized

# Runs the Python suites with the extension under the address and undefined-behaviour sanitizers, both
# in the tests' own process and in every oortd that they start.  The extension is built in a second
# tree, so that .venv does not change.  Leaks are not looked for, because cffi and Python are not
# instrumented and never free some of what they allocate.  The tests of rings are left out: rings add
# Python code only, and every program in these tests loads gRPC, which is slow under the sanitizers.
test-sanitized: build
	@rm -rf "$(SANITIZED)/lib"
	@OORT_CFLAGS="-Werror -O1 -g -fno-wrapv -fno-omit-frame-pointer -fsanitize=address,undefined \
	    -fno-sanitize-recover=all" OORT_LDFLAGS="-fsanitize=address,undefined" \
	    $(BIN)/python setup.py -q build --build-base "$(SANITIZED)" --build-lib "$(SANITIZED)/lib"
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so)" PYTHONMALLOC=malloc \
	    ASAN_OPTIONS="detect_leaks=0:quarantine_size_mb=32" UBSAN_OPTIONS=print_stacktrace=1 \
	    PYTHONPATH="$(SANITIZED)/lib" PYTHONSAFEPATH=1 \
	    $(BIN)/python -m pytest -q -n auto --dist loadfile -o pythonpath="build/sanitized/lib ." \
	    -m "not system and not soak and not packages and not memory" \
	    --ignore=tests/membership/test_membership.py \
	    --ignore=tests/membership/test_joining.py --ignore=tests/membership/test_cache.py

soak: build
	$(BIN)/python -m pytest -q -m soak

format: build
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(C_SOURCES)

lint: build
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(C_SOURCES)
	$(BIN)/mypy oort
	$(BIN)/mypy lint csrc/commands/generate.py
	$(BIN)/python lint/rooms.py
	MYPYPATH=packaging:fpm $(BIN)/mypy packaging/*.py fpm/*.py
	$(MAKE) -C csrc warnings

bench: build
	$(BIN)/python bench/run.py $(if $(TARGET),--target $(TARGET))

# Makes the Python modules of the .proto files, which are checked in, in the folder $(STUBS).  The
# oldest supported gRPC must be able to load the modules.  They are therefore made by its own
# grpcio-tools: modules of a newer grpcio-tools do not load in an older gRPC.
STUBS ?= .
stubs: build/stubs/.ready
	@mkdir -p $(STUBS)
	build/stubs/bin/python -m grpc_tools.protoc -I. --python_out=$(STUBS) --pyi_out=$(STUBS) \
	    --grpc_python_out=$(STUBS) $(wildcard oort/*/*.proto oort/*/*/*.proto)

build/stubs/.ready:
	@$(PYTHON) -m venv build/stubs
	build/stubs/bin/python -m pip install -q --disable-pip-version-check --only-binary :all: \
	    'grpcio-tools==1.51.1' 'protobuf==4.21.12' 'grpcio==1.51.1' 'setuptools==65.5.0'
	@touch $@

# For packagers: installs into $(DESTDIR)$(PREFIX), for the Python that $(PYTHON) names.
install:
	$(PYTHON) -m pip install --no-deps --ignore-installed --no-warn-script-location \
	    $(if $(DESTDIR),--root "$(DESTDIR)") --prefix "$(PREFIX)" .

clean:
	rm -rf $(VENV) build dist *.egg-info oort/_native.abi3.so oort/_native.c
	rm -rf .hypothesis .pytest_cache .mypy_cache .ruff_cache
	find oort tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
	$(MAKE) -C csrc clean

include packaging/packages.mk
