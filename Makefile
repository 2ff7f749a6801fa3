# The two commands of the README are `make run` and `make test`; both set up what they need.
# Everything lives in .venv; only programs that tests drive (etcd, DNS servers, a browser) come
# from the system's packages, and only where apt works as root.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# What is in .venv stays with the Python that it was made with; who asks for another one is told.
version_of = $(shell $(1) -c 'import sys; print(*sys.version_info[:2], sep=".")')
ifneq ($(origin PYTHON),file)
ifneq ($(wildcard $(BIN)/python),)
ifneq ($(filter-out clean help,$(or $(MAKECMDGOALS),help)),)
ifneq ($(call version_of,$(BIN)/python),$(call version_of,$(PYTHON)))
$(error $(VENV) has Python $(call version_of,$(BIN)/python), and $(PYTHON) is $(call version_of,$(PYTHON)): \
  `make clean` first)
endif
endif
endif
endif

# APT=no keeps the tests from installing the programs that they drive.
APT ?= yes
export APT
# Every gateway that a test starts would compile all of its modules anew.
unexport PYTHONDONTWRITEBYTECODE
# Where ip and named are; not every user has them on the path.
export PATH := $(PATH):/usr/sbin:/sbin

# So many processes run tests side by side; JOBS=1 has them run one after the other. Unit tests
# take CPU; others wait half of the time; some need a CPU for themselves whenever they do not wait.
A_CPU_AT_ONCE := $(shell echo $$(( $$(nproc) + 1 )))
MOSTLY_WORKING := $(shell echo $$(( 2 * $$(nproc) )))
MOSTLY_WAITING := $(shell echo $$(( 4 * $$(nproc) )))
side_by_side = $(BIN)/python -m tests.side_by_side --jobs=$(or $(JOBS),$(1))

# Tests that have more to do in `make stress`, and those that need a CPU.
LONGER = $(shell grep -rlE "tests.long_tests|import .*TRIED" tests/integration --include="test_*.py")
OWN_CPU = $(shell grep -rl "mark.own_cpu" tests/integration tests/stress --include="test_*.py")

# The peers of the benchmark are the system's packages, and so is the interpreter, where there is one
# that is new enough: one that pyenv builds as it does by default takes more CPU.
BENCH_PYTHON ?= $(or $(firstword $(wildcard /usr/bin/python3.1[1-9])),$(PYTHON))

EPOCH = $(shell git log -1 --format=%ct 2> /dev/null || echo 1700000000)

.PHONY: help run test others waiting programs test-all unit cover check format stress simulate mutants conditions \
  compiled chaos bench fleet docs dist wheel deb sbom site pictures pins clean

help:
	@echo "make run      set up and start the demo (Ctrl-C ends it)"
	@echo "make test     set up and run the tests; as root this installs packages, APT=no does not"
	@echo "make test-all the tests with every Python that is found, and the oldest and newest libraries"
	@echo "make unit     the unit tests alone, without the slow ones, with a fifth of the examples"
	@echo "make cover    the unit tests, with the coverage of core"
	@echo "make check    style, types, import contracts"
	@echo "make format   rewrite the sources in the project's style"
	@echo "make stress   the long multi-process stress tests"
	@echo "make chaos    ten minutes of disturbances, and a checker; CHAOS=--seed=N repeats one"
	@echo "make simulate simulate the control plane for ten minutes, against its promises"
	@echo "make mutants  plant twenty mistakes, one at a time, and see which tests notice"
	@echo "make compiled the tests of the data plane against the compiled relay"
	@echo "make conditions  take every condition of the relay, the fleet and the health machine away"
	@echo "make bench    the side-by-side benchmark against the peers"
	@echo "make fleet    simulate thousands of hosts and draw their curves"
	@echo "make docs     write the generated pages anew"
	@echo "make dist     wheel, source distribution and one file, into dist/"
	@echo "make wheel    a wheel with the compiled relay, for this Python and machine, into dist/"
	@echo "make deb      the Debian package, into dist/"
	@echo "make sbom     the software bill of materials (CycloneDX), into dist/"
	@echo "make site     the documentation as a web site, into site/"
	@echo "make pictures the pictures of the README"
	@echo "make pins     newer versions of the libraries that are handed out"
	@echo "make clean    remove everything that was made"

run: $(VENV)/.runtime
	@$(BIN)/etcd-gateway demo

test: $(VENV)/.tests
	@echo "the tests take some five minutes; style, types and coverage are told when they are done"
	@$(MAKE) --no-print-directory --jobs=3 --output-sync=target WHEN_IDLE="nice -n 5" check cover others
	$(call side_by_side,$(A_CPU_AT_ONCE)) -m own_cpu $(OWN_CPU)

# Those that wait a lot, beside those that work, which leave the CPU to them. Their output is told
# as it comes.
others: programs
	@$(MAKE) --no-print-directory --output-sync=none waiting

waiting:
	@env --unset=MAKEFLAGS $(call side_by_side,$(MOSTLY_WAITING)) \
	  -m "not own_cpu and (slow or not unit)" tests/unit tests/integration tests/stress

programs: $(VENV)/.tests
	@tests/provision.sh test $(BIN)

unit: $(VENV)/.tests
	GATEWAY_TESTS_EXAMPLES=few $(call side_by_side,$(MOSTLY_WAITING)) -m "not own_cpu and not slow" tests/unit

cover: $(VENV)/.tests
	$(WHEN_IDLE) $(call side_by_side,$(MOSTLY_WORKING)) --coverage -m "not own_cpu and not slow" tests/unit
	$(BIN)/coverage report --skip-covered --fail-under=100

# The tests with every Python from 3.11 on that is found, each with the oldest libraries that
# pyproject.toml allows and with the newest; what it makes is in build/.
test-all: $(VENV)/.tests
	@tests/provision.sh test $(BIN)
	$(BIN)/python -m tests.interpreters

check: $(VENV)/.tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(WHEN_IDLE) $(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.tests
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

stress: $(VENV)/.tests
	@tests/provision.sh test $(BIN)
	@tests/provision.sh dist $(BIN)
	GATEWAY_TESTS_FORK=no GATEWAY_TESTS_LONG=1 $(BIN)/python -m pytest tests/stress $(LONGER)

chaos: $(VENV)/.tests
	@tests/provision.sh test $(BIN)
	$(BIN)/python -m tests.chaos $(CHAOS)

# SIMULATE='--seconds=60 --seed=1' for another time and the first seed.
simulate: $(VENV)/.tests
	$(BIN)/python -m tests.simulation $(SIMULATE)

mutants: $(VENV)/.tests
	$(BIN)/python -m tests.mutants $(MUTANTS)

# CONDITIONS='gateway/sessions/leg.py' for some modules only.
conditions: $(VENV)/.tests
	$(BIN)/python -m tests.every_condition $(CONDITIONS)

compiled: $(VENV)/.tests
	$(BIN)/python -m tests.compiled

bench: $(VENV)/.tests
	@tests/provision.sh bench $(BIN)
	$(BENCH_PYTHON) -m venv --clear --without-pip build/installed
	rm -rf build/lib
	$(BIN)/pip --python build/installed/bin/python install --quiet .
	$(BENCH_PYTHON) -m venv --clear --without-pip build/installed-compiled
	-HATCH_BUILD_HOOK_ENABLE_CUSTOM=true \
	  $(BIN)/pip --python build/installed-compiled/bin/python install --quiet .
	rm -rf build/lib build/bdist.*
	$(BIN)/python -m tests.benchmarks --ours=build/installed/bin/etcd-gateway \
	  --compiled=build/installed-compiled/bin/etcd-gateway $(BENCH)

fleet: $(VENV)/.tests
	$(BIN)/python -m tests.fleet

docs: $(VENV)/.tests
	$(BIN)/python -m tests.generate

# Wheel, source distribution and one file, each equal in every build of the same commit.
dist: $(VENV)/.dist
	rm -rf dist && mkdir dist
	SOURCE_DATE_EPOCH=$(EPOCH) $(BIN)/python -m build --outdir dist .
	$(BIN)/twine check --strict dist/*.whl dist/*.tar.gz
	$(BIN)/python -m deploy.distribution.onefile dist
	cd dist && sha256sum -- * > SHA256SUMS && cat SHA256SUMS

# With the compiled relay (docs/adr/0039); needs a C compiler and the headers of Python.
wheel: $(VENV)/.runtime
	HATCH_BUILD_HOOK_ENABLE_CUSTOM=true $(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .
	@ls dist/etcd_gateway-*-cp*.whl

# One package for Debian 12 and 13, into dist/; needs dpkg-deb.
deb: $(VENV)/.runtime
	@mkdir -p dist
	$(BIN)/python -m deploy.distribution.deb dist

# What the deployed program is made of, as CycloneDX, into dist/.
sbom: $(VENV)/.dist
	$(BIN)/python -m deploy.distribution.sbom dist

# The documentation as a site, into site/; a link that leads nowhere ends it.
site: $(VENV)/.dist
	$(BIN)/mkdocs build --strict

# The pictures of the README, from a demo that really runs.
pictures: $(VENV)/.tests
	$(BIN)/python -m deploy.distribution.pictures

# The libraries of deploy/requirements.txt in their newest versions, with hashes.
pins: $(VENV)/.dist
	$(BIN)/python -m deploy.distribution.pins

clean:
	rm -rf $(VENV) build dist site .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis \
	  .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment that is there keeps its Python: that of another one would be mixed with it.
HAS_PIP = $(BIN)/python -m pip --version > /dev/null 2>&1

$(VENV)/.runtime: pyproject.toml supervisor/launch.py
	@$(HAS_PIP) || $(PYTHON) -c 'import sys; sys.exit("etcd-gateway needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(HAS_PIP) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/.dist: $(VENV)/.runtime deploy/distribution/requirements.txt tests/constraints.txt
	$(BIN)/pip install --quiet --requirement deploy/distribution/requirements.txt
	@touch $@

$(VENV)/.tests: $(VENV)/.runtime tests/requirements.txt tests/constraints.txt
	$(BIN)/pip install --quiet --requirement tests/requirements.txt
	@touch $@
