# Two commands do everything on a machine with python3, pip, make and git: `make demo` and `make test`.
# Each sets up what it needs in .venv; `make test` as root on Debian also installs a browser and other small tools.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo cluster-demo test system check bench faults docs openapi wheel lock clean

demo: .venv/ready
	$(BIN)/fotahook demo --devices 200

# A cluster on this machine that loses two processes and its primary, and no message; then docs/operating.md for yours.
cluster-demo: .venv/ready
	$(BIN)/python -m examples.cluster.demo

# Collecting compiles all that the tests import, once: else each of the processes that share them would, at the same time.
test: .venv/ready system
	@$(BIN)/python -m pytest --collect-only --quiet --quiet >/dev/null || true
	$(BIN)/python -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder --cov --cov-fail-under=100

# What the tests use of the system, as command:package. On Debian, as root, what is missing is installed.
SYSTEM := chromium:chromium chromedriver:chromium-driver curl:curl jq:jq pgbouncer:pgbouncer

system:
	@missing=$$(for one in $(SYSTEM); do command -v $${one%:*} >/dev/null || echo $${one#*:}; done); \
	if [ -z "$$missing" ]; then exit 0; fi; \
	echo "the tests need these packages:" $$missing; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive \
			apt-get -qq install --yes --no-install-recommends $$missing >/dev/null; \
	fi || echo "they could not be installed; tests that use them will fail"

check: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	@broken=$$($(BIN)/lint-imports --no-cache --no-logo) || { echo "$$broken"; exit 1; }

# The site, in build/site; the tests build it too. With a browser, the screenshots of the console are made anew.
docs: .venv/ready
	if command -v chromium chromedriver >/dev/null; then PYTHONPATH=docs:. $(BIN)/python -m generators.screenshots; fi
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -d build/doctrees docs build/site

# The description that the service serves, from its routes and models; a test compares the two.
openapi: .venv/ready
	PYTHONPATH=docs $(BIN)/python -m generators

# The wheel, in dist/.
wheel: .venv/ready
	$(BIN)/hatchling build --target wheel

# Writes docs/benchmarks.md, and docs/scale.md with its constants; `python -m bench --help` lists the sections. The section
# service is loaded by wrk: apt-get install wrk. Without it that section says so, and the others run. Whole measurements, of
# which the usual ones are a small part: SIMULATION=whole (ten minutes), CONSOLE_SECONDS=600.
bench: .venv/ready
	$(BIN)/python -m bench

# The lock holds versions and hashes, never addresses: any index that serves the same files will do.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(UPGRADE)

# Rounds of faults at random moments on each store; the seed of one that fails is in its test's name, FAULT_SEEDS repeats
# it, with as many FAULT_STEPS. Then mutated requests and bytes, for FUZZ_SECONDS each, and how long one tenant's calls
# take while another takes all it can.
FAULT_ROUNDS ?= 20
FAULT_STEPS ?= 20
FUZZ_SECONDS ?= 600
faults: .venv/ready
	FAULT_ROUNDS=$(FAULT_ROUNDS) FAULT_STEPS=$(FAULT_STEPS) $(BIN)/python -m pytest -k "at_random" tests/acceptance tests/faults
	FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_SEED=$${FUZZ_SEED:-$$(date +%s)} $(BIN)/python -m pytest tests/acceptance/test_fuzz.py
	TENANT_P99=1 $(BIN)/python -m pytest tests/acceptance/test_tenants.py tests/faults/test_dispatchers.py

GENERATIONS := sdksio-verizon-apis-sdk apimatic-verizon-sdk vz-apimatic-v-4-sdk
GENERATION_LOCKS := $(GENERATIONS:%=tests/acceptance/generations/%.lock)

lock: .venv/ready
	echo uv | $(COMPILE) - --output-file bootstrap.lock
	$(COMPILE) pyproject.toml --all-extras --group dev --group docs --group bench --output-file requirements.lock
	for one in $(GENERATIONS); do \
		$(COMPILE) tests/acceptance/generations/$$one.in --output-file tests/acceptance/generations/$$one.lock; done

# The environment belongs to one interpreter: `make test PYTHON=python3.13` makes it anew if it has another one.
WHICH := -c "import os, sys; print(os.path.realpath(sys.executable))"
ifneq ($(shell $(PYTHON) $(WHICH)),$(shell $(BIN)/python $(WHICH) 2>/dev/null))
.PHONY: .venv/ready
endif

# --without-pip and pip's own --python: this works where Debian keeps ensurepip in a package of its own.
.venv/ready: bootstrap.lock requirements.lock pyproject.toml $(GENERATION_LOCKS)
	$(PYTHON) -m venv --clear --without-pip .venv
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check --require-hashes -r bootstrap.lock
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes bootstrap.lock requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	for one in $(GENERATIONS); do \
		$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes \
			--target .venv/generations/$$one -r tests/acceptance/generations/$$one.lock; done
	touch $@

clean:
	rm -rf .venv .cache .mypy_cache .ruff_cache build dist
