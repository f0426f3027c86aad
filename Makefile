# What scripts and people rely on: build, run, test, test-system, test-sanitized, soak, format, lint,
# bench, stubs, install, clean; deb, rpm, repo, test-packages (packaging/packages.mk).
#
# Everything lives in .venv/; only what the apt line below names must be there before.

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
# Warnings are errors here, not in a user's build.  For the compiler only: what oortd finds in its
# environment with OORT_ in front must be a setting.
OORT_CFLAGS ?= -Werror
unexport OORT_CFLAGS OORT_LDFLAGS
COMPILE := OORT_CFLAGS='$(OORT_CFLAGS)' OORT_LDFLAGS='$(OORT_LDFLAGS)'

NATIVE_SOURCES := $(wildcard csrc/*.h csrc/*/*.c csrc/*/*.h csrc/*/*.def) \
    oort/native_build.py setup.py
C_SOURCES := $(wildcard csrc/*.h csrc/*/*.c csrc/*/*.h)

.PHONY: build run test test-system test-sanitized soak format lint bench stubs install clean
.DEFAULT_GOAL := build

build: $(VENV)/.native

# ---- the virtual environment ------------------------------------------------

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
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.tools: $(VENV)/.checked pyproject.toml
	$(BIN)/python -m pip install -q --disable-pip-version-check 'setuptools==84.2.1' 'cffi==2.1.1'
	@rm -f $(VENV)/.native
	$(COMPILE) $(BIN)/python -m pip install -q --disable-pip-version-check --no-build-isolation \
	    -e '.[dev]'
	@touch $@

# pip has compiled the library already when .tools is new; then this finds nothing to do.
$(VENV)/.native: $(VENV)/.tools $(NATIVE_SOURCES)
	@$(COMPILE) $(BIN)/python setup.py -q build_ext --inplace
	@touch $@

# ---- using it ---------------------------------------------------------------

run: build
	$(BIN)/oortd --standalone --listen $(LISTEN) --data-dir $(DATA)

# Needs pip only.  Tests that need more are marked `system` and run in test-system.
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

# The Python suites with the extension under the address and undefined-behaviour sanitizers: in the
# tests' own process and in every oortd they start.  A second tree, so that .venv stays as it is.
# cffi and Python are not instrumented and keep what they allocate: no search for leaks.  Rings are
# left out: what they add is in Python, and every program they start loads gRPC, which is slow there.
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
	$(BIN)/mypy lint
	$(BIN)/python lint/rooms.py
	MYPYPATH=packaging:fpm $(BIN)/mypy packaging/*.py fpm/*.py
	$(MAKE) -C csrc warnings

bench: build
	$(BIN)/python bench/run.py $(if $(TARGET),--target $(TARGET))

# The Python modules of the .proto files, which are checked in.  Made by the grpcio-tools of the
# oldest gRPC that is supported: what a newer one makes does not run there.  STUBS: where to.
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

# For packagers: into $(DESTDIR)$(PREFIX), with the Python that is named.
install:
	$(PYTHON) -m pip install --no-deps --ignore-installed --no-warn-script-location \
	    $(if $(DESTDIR),--root "$(DESTDIR)") --prefix "$(PREFIX)" .

clean:
	rm -rf $(VENV) build dist *.egg-info oort/_native.abi3.so oort/_native.c
	rm -rf .hypothesis .pytest_cache .mypy_cache .ruff_cache
	find oort tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
	$(MAKE) -C csrc clean

include packaging/packages.mk
