# make demo   all set-up, then a real program in a virtual machine
# make test   all set-up, then every test
# make check  linters, types, import directions
# make coverage  which lines the unit tests reach
# make deb    a Debian package in dist/
# make bench  every benchmark: a table, and bench.json

PYTHON ?= python3
VENV := .venv
BOINCVM := $(VENV)/bin/boincvm
RUN_PACKAGES := qemu-system-x86 qemu-utils util-linux
IMAGE_PACKAGES := mmdebstrap e2fsprogs lz4 zstd
# libvirt-python is compiled where it is installed.
BINDING_PACKAGES := libvirt-dev pkg-config gcc libc6-dev
KERNEL_PACKAGES := bubblewrap bc bison flex gcc libc6-dev libelf-dev make xz-utils
TEST_PACKAGES := $(KERNEL_PACKAGES) qemu-system-arm libvirt-daemon libvirt-daemon-driver-qemu user-mode-linux binutils bash zsh cpio gcc g++ libc6-dev boinc-client rabbitmq-server activemq openssl coop-computing-tools chromium chromium-driver novnc systemd logrotate musl-tools gcc-mingw-w64-x86-64-win32 gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static wine wine64

.PHONY: demo test check coverage bench deb setup packages test-packages environment environment-dev images uml-kernel clean

demo: packages environment
	$(VENV)/bin/python examples/ecm/demo.py

# Most tests wait: for a program, a limit, or a machine. Four at once keep two processors busy.
WORKERS ?= 4

# Compiled first, because thousands of commands start, and PYTHONDONTWRITEBYTECODE may be set.
test: setup test-packages uml-kernel
	$(VENV)/bin/python -m compileall -q src
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist worksteal tests

check: environment-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy benchmarks examples
	$(VENV)/bin/mypy --platform darwin --cache-dir .mypy_cache/darwin -p boincvm
	$(VENV)/bin/mypy --platform win32 --cache-dir .mypy_cache/win32 -p boincvm
	PYTHONPATH=guest $(VENV)/bin/lint-imports

coverage: setup
	$(VENV)/bin/coverage run -m pytest tests/unit
	$(VENV)/bin/coverage report --skip-covered --sort=cover

bench: setup test-packages uml-kernel
	$(VENV)/bin/python -m benchmarks --json bench.json

deb: environment
	packaging/deb.sh $(VENV)/bin/python dist

setup: packages environment-dev images

test-packages:
	setup/packages.sh $(TEST_PACKAGES)

packages:
	setup/packages.sh $(RUN_PACKAGES) $(IMAGE_PACKAGES)

# The environment is made again only when what it depends on has changed.
environment: $(VENV)/.run
environment-dev: $(VENV)/.dev

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "boincvm needs Python 3.11 or later"; exit 1; }
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || setup/packages.sh python3-venv
	$(PYTHON) -m venv $(VENV)

# The command that an older pip makes imports `re` first: 4 ms of each start.
$(VENV)/.run: $(VENV)/bin/python pyproject.toml
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check "pip>=25.1"
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check -e '.[controller]'
	touch $@

$(VENV)/.dev: $(VENV)/.run
	setup/packages.sh $(BINDING_PACKAGES)
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check --group dev
	touch $@

images: packages environment
	$(BOINCVM) image build --if-missing base
	$(BOINCVM) image build --if-missing --package gmp-ecm sci

# Many tests and benchmarks need it; the kernel `small` is built by its own test, beside others.
uml-kernel: test-packages environment
	$(BOINCVM) image kernel build --if-missing --uml

clean:
	rm -rf $(VENV) dist bench.json
