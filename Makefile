# Works with GNU make 3.81 (macOS) and newer.

# The Python that makes the virtual environment: make PYTHON=python3.12 test
PYTHON ?= python3

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

# More options for pytest: make test PYTEST_ARGS="-m 'not slow'"
PYTEST_ARGS ?=
# How many tests run at once; trainings share the cores.
PYTEST_WORKERS ?= 2
# The commit that make check compares with.
SINCE ?= HEAD
# More options for uv: make lock LOCK_ARGS=--upgrade
LOCK_ARGS ?=

# DVC reports its use to its makers unless told not to.
export DVC_NO_ANALYTICS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

CHECK_VERSION = import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else \
	"dayfold needs Python 3.11 or newer, but %s is Python %d.%d. Name a newer one, for example: \
	make PYTHON=python3.12" % (sys.executable, v[0], v[1]))

.DEFAULT_GOAL := help
.PHONY: help demo test check lint docs install browser sshd lock clean distclean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: $(STAMP) ## install, then make a demo project in demo/ and run it
	@printf '\n==> dayfold demo\n'
	@$(VENV)/bin/dayfold demo demo/

test: lint browser sshd ## install, then lint and run all tests, the slow ones too
	@printf '\n==> pytest\n'
	@$(PY) -m pytest -n $(PYTEST_WORKERS) --dist loadgroup --no-loadscope-reorder --durations 10 \
		$(PYTEST_ARGS)

check: lint ## install, then lint and run the quick tests of what differs from SINCE (HEAD)
	@printf '\n==> pytest --touched $(SINCE)\n'
	@$(PY) -m pytest -q -n $(PYTEST_WORKERS) --dist loadgroup --no-loadscope-reorder \
		-m 'not slow' --touched $(SINCE) $(PYTEST_ARGS) || test $$? -eq 5 # none is

lint: $(STAMP) ## install, then check style, format and types
	@printf '\n==> ruff check\n'
	@$(PY) -m ruff check .
	@printf '\n==> ruff format --check\n'
	@$(PY) -m ruff format --check .
	@printf '\n==> mypy\n'
	@$(PY) -m mypy

docs: $(STAMP) ## write the pages of docs/ that are made of the code
	@$(PY) docs/generate.py

install: $(STAMP) ## make .venv and install dayfold in it
	@echo 'dayfold is installed: $(VENV)/bin/dayfold --help'

# The tests look at the report and the audit's page in a headless Chromium; without one they pass
# those tests over, unless CI is set.
browser: ## install Chromium for the tests, as root on Debian; elsewhere say what is missing
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || { \
		test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
		echo '==> Installing chromium and chromium-driver' && apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium chromium-driver >/dev/null; \
	} || { \
		echo 'There is no chromium with chromedriver here, so tests of pages are passed over.'; \
		echo 'On Debian and Ubuntu: sudo apt install chromium chromium-driver'; \
	}

# The tests push to an SSH server on this machine, and likewise pass that over without one.
sshd: ## install OpenSSH's server for the tests, as root on Debian; elsewhere say what is missing
	@PATH="$$PATH:/usr/sbin" command -v sshd >/dev/null || { \
		test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
		echo '==> Installing openssh-server' && apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq openssh-server >/dev/null; \
	} || { \
		echo 'There is no sshd here, so the tests of a remote over SSH are passed over.'; \
		echo 'On Debian and Ubuntu: sudo apt install openssh-server'; \
	}

lock: $(PY) ## remake requirements.lock from pyproject.toml
	@test -x $(VENV)/bin/uv || $(PY) -m pip install -q uv
	@$(VENV)/bin/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --output-file requirements.lock $(LOCK_ARGS) >/dev/null
	@echo 'requirements.lock is remade; make install brings $(VENV) up to date with it'

clean: ## remove demo/, builds and caches (.venv stays)
	rm -rf demo build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## the same, and .venv too
	rm -rf $(VENV)

# Installs again only when what is to be installed has changed.
$(STAMP): requirements.lock pyproject.toml | $(PY)
	@$(PY) -c '$(CHECK_VERSION)'
	@echo '==> Downloading and installing what requirements.lock pins into $(VENV).'
	@echo '    On Linux that is several GB (PyTorch with CUDA), so it takes minutes the first time.'
	@$(PY) -m pip install -q --require-hashes -r requirements.lock
	@$(PY) -m pip install -q --no-build-isolation --no-deps -e .
	@touch $@

$(PY):
	@command -v '$(PYTHON)' >/dev/null || { \
		echo 'dayfold needs Python 3.11 or newer, and "$(PYTHON)" is not found. Install it, or name it: make PYTHON=/path/to/python3' >&2; \
		exit 1; }
	@'$(PYTHON)' -c '$(CHECK_VERSION)'
	@'$(PYTHON)' -c 'import ensurepip, venv' 2>/dev/null || { \
		echo '"$(PYTHON)" lacks the venv module. On Debian and Ubuntu install it with: apt install python3-venv' >&2; \
		exit 1; }
	@echo '==> Making $(VENV)'
	@'$(PYTHON)' -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
