# Every target sets up what it needs in .venv. Another interpreter: make test PYTHON=python3.12
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
PIP := -m pip install --quiet --disable-pip-version-check
# The default build of PyTorch brings gigabytes of CUDA along.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# The version that benchmarks/compiled_budget.json is for.
COMPILED_JAX := 0.11.2

.PHONY: help demo test test-slow test-all test-torch check-compiled lint constraints clean

help:
	@echo "make demo         draw clips, train a narrow PCAN on them, evaluate (about 8 minutes)"
	@echo "make test         lint, check types, run the everyday tests (under 6 minutes)"
	@echo "make test-slow    run the slow tests, as CI does after make test"
	@echo "make test-all     lint, check types, run all tests"
	@echo "make test-torch   install PyTorch and run the tests that compare with it"
	@echo "make check-compiled PYTHON=python3.12   compile for GPUs and TPUs that are not there, compare"
	@echo "make constraints  renew constraints.txt"
	@echo "make clean        remove what the demo wrote, and the compiled programs of the tests"

# The constraints give everybody the set of packages that CI passes with.
$(VENV)/installed: requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(RUN) $(PIP) --constraint constraints.txt --editable '.[test]'
	touch $@

demo: $(VENV)/installed
	$(VENV)/bin/pcan synthetic --out runs/demo/source --val 300
	$(VENV)/bin/pcan build runs/demo/source runs/demo/dataset --side 64
	$(VENV)/bin/pcan --config=demo --workdir=runs/demo

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ty check --quiet --python $(VENV)

TESTS := $(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# The schema of ELAN's documents, which the source distribution of pympi-ling brings along.
SCHEMA := build/EAFv3.0.xsd

$(SCHEMA): | $(VENV)/installed
	@mkdir -p build
	@{ $(RUN) $(PIP:install=download) --no-deps --no-binary pympi-ling pympi-ling==1.71 --dest build \
	  && tar -xzf build/pympi_ling-1.71.tar.gz -C build --strip-components 2 pympi_ling-1.71/test/EAFv3.0.xsd; } \
	  || echo "no schema of ELAN: its test is skipped"

test: lint $(SCHEMA)
	$(TESTS) -m "not slow and not long"

test-slow: $(VENV)/installed
	$(TESTS) -m slow

test-all: lint $(SCHEMA)
	$(TESTS)

test-torch: $(VENV)/installed
	$(RUN) $(PIP) --constraint constraints.txt --extra-index-url $(TORCH_INDEX) --editable '.[bench]'
	$(RUN) -m pytest tests/test_torch_peer.py

# Compilers for GPUs and TPUs, which need neither drivers nor devices; libtpu is not made for every machine.
build/compiled/installed: Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 12) and "JAX $(COMPILED_JAX) needs Python 3.12: PYTHON=python3.12")'
	$(PYTHON) -m venv build/compiled
	build/compiled/bin/python $(PIP) jax==$(COMPILED_JAX) flax optax orbax-checkpoint jaxtyping ml-collections
	build/compiled/bin/python $(PIP) --no-deps jax-cuda13-plugin==$(COMPILED_JAX) jax-cuda13-pjrt==$(COMPILED_JAX)
	-build/compiled/bin/python $(PIP) 'jax[tpu]==$(COMPILED_JAX)'
	touch $@

check-compiled: build/compiled/installed
	build/compiled/bin/python -m benchmarks.compiled_budget

# The newest versions within the bounds of requirements.txt and pyproject.toml, for Python 3.11.
constraints: requirements.txt pyproject.toml
	rm -rf build/constraints
	$(PYTHON) -m venv build/constraints
	build/constraints/bin/pip install --quiet --upgrade '.[test]'
	echo "# What \`make constraints\` found on Python 3.11: the exact set that CI passes with." > constraints.txt
	build/constraints/bin/pip freeze --all --exclude pcan_jax --exclude pip >> constraints.txt

clean:
	rm -rf runs/demo build/test_cache
