# SPDX-License-Identifier: Apache-2.0
# make demo    trains a small network, optimizes it, shows the table, the report and a prediction
# make test    runs the quick tests;  make test-slow  the slow ones;  make check  the linters
# Each makes .venv first where there is none. PYTHON=python3.12 chooses another interpreter.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
EXTRAS := openvino,train,serve,parquet,demo,dev
BENCH := .venv-bench
NNCF := nncf==3.4.0
SERVERS := litserve==0.2.19 mosec==0.9.8 'ray[serve]==2.60.0' onnxruntime==1.32.0
TRITON := nvidia-pytriton==0.7.0 'numpy<2' onnxruntime==1.32.0
PIP := -m pip --disable-pip-version-check

.PHONY: demo test test-slow check format docs proto bench-env bench-serving-env clean

demo: $(INSTALLED)
	$(BIN)/python examples/digits/demo.py

test: $(INSTALLED)
	$(BIN)/python -m pytest -q

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -q --durations=20 -m 'slow and not gpu'

check: $(INSTALLED)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

docs: $(INSTALLED)
	$(BIN)/python docs/make_pages.py
	$(BIN)/python docs/make_lift_coverage.py

proto: $(INSTALLED)
	$(BIN)/python -m burnish.serving.grpc_service.generate

# NNCF pins versions of its own, so it lives apart; only benchmarks/quantization.py uses it.
bench-env: $(INSTALLED) $(BENCH)/.installed

$(BENCH)/.installed: Makefile
	$(PYTHON) -m venv $(BENCH)
	@echo "Installing $(NNCF) into $(BENCH) ..."
	$(BENCH)/bin/python $(PIP) install --quiet '$(NNCF)' onnx onnxruntime
	@touch $@

# The servers that benchmarks/serving.py compares with; Triton needs Debian's own python3.11.
bench-serving-env: $(BENCH)-serving/.installed $(BENCH)-triton/.installed

$(BENCH)-serving/.installed: Makefile
	$(PYTHON) -m venv $(BENCH)-serving
	@echo "Installing LitServe, mosec and Ray Serve into $(BENCH)-serving ..."
	$(BENCH)-serving/bin/python $(PIP) install --quiet $(SERVERS)
	@touch $@

$(BENCH)-triton/.installed: Makefile
	@test -x /usr/bin/python3.11 || { echo "Triton needs Debian's own: apt-get install python3.11 python3.11-venv"; exit 1; }
	/usr/bin/python3.11 -m venv $(BENCH)-triton
	@echo "Installing Triton into $(BENCH)-triton ..."
	$(BENCH)-triton/bin/python $(PIP) install --quiet $(TRITON)
	@touch $@

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else "Burnish needs Python 3.11 or newer; $(PYTHON) is %d.%d. Choose another: make PYTHON=python3.11 ..." % v[:2])'
	@test -x $(BIN)/python || { echo "Making $(VENV) ..."; $(PYTHON) -m venv $(VENV); }
	@echo "Installing Burnish and what it needs into $(VENV); the first time takes some minutes ..."
	@rm -f $(VENV)/.failed
	@{ $(BIN)/python $(PIP) install -c constraints.txt -e '.[$(EXTRAS)]' || touch $(VENV)/.failed; } \
		| sed -n -e 's/^Collecting \([^ ]*\).*/  \1/p' -e 's/^Installing collected.*/  unpacking .../p'
	@test ! -e $(VENV)/.failed
	@touch $@

clean:
	rm -rf $(VENV) $(BENCH)* out build dist
