# Every target sets up what it needs in .venv. Another interpreter: make test PYTHON=python3.12
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python

.PHONY: help demo test lint constraints clean

help:
	@echo "make demo   build synthetic clips, train a narrow PCAN on them, evaluate (about 10 minutes)"
	@echo "make test   run ruff and all tests"
	@echo "make clean  remove what the demo wrote"

# The constraints give everybody the set of packages that CI passes with.
$(VENV)/installed: requirements.txt constraints.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  --requirement requirements.txt --requirement requirements-test.txt
	touch $@

demo: $(VENV)/installed
	$(RUN) -m data.synthetic --out runs/demo/source --val 300
	$(RUN) -m data.build runs/demo/source runs/demo/dataset --side 64
	$(RUN) launch.py --config=configs/demo.py --workdir=runs/demo

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

test: lint
	$(RUN) -m pytest -n 2 --dist loadfile

# The newest versions within the bounds of requirements.txt, for Python 3.11.
constraints: requirements.txt requirements-test.txt
	rm -rf build/constraints
	$(PYTHON) -m venv build/constraints
	build/constraints/bin/pip install --quiet --upgrade -r requirements.txt -r requirements-test.txt
	echo "# What \`make constraints\` found on Python 3.11: the exact set that CI passes with." > constraints.txt
	build/constraints/bin/pip freeze >> constraints.txt

clean:
	rm -rf runs/demo
