# `make help` lists what there is. The first two commands of the README are `make demo` and `make test`.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
export UV_PYTHON_DOWNLOADS := never
CARGO_AUDIT_VERSION := 0.22.2
PYTHON ?= python3
BIN := .venv/bin
REQUIREMENTS := .tools/bin/uv export --quiet --locked --no-dev --no-emit-project --no-header --no-annotate --format requirements.txt
# docs/settings.md is written by `make docs`.
PAGES = $$(git ls-files '*.md' ':!docs/settings.md')
SEEDS ?= 1000
START ?= 0
MINUTES ?= 10

.DEFAULT_GOAL := help
.PHONY: help setup demo test simulate soak drill bench fuzz docs wheel installed sbom audit lint fix kafka systemd delivery

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | expand -t 12

.tools/bin/uv: build-tools.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=..." >&2; exit 1; }
	@command -v cargo >/dev/null || { echo "cargo is needed to build the kernel: install Rust" >&2; exit 1; }
	$(PYTHON) -I -m venv .tools
	.tools/bin/python -I -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
		--requirement build-tools.txt
	@touch $@

setup: .tools/bin/uv  ## .venv with the program, its kernel built
	@.tools/bin/uv sync --quiet --locked

demo: setup  ## a simulated market to candles, nothing to configure
	$(BIN)/streamingcandle demo

kafka:
	@tests/broker/fetch.sh

systemd:
	@tests/systemd/fetch.sh

delivery: .tools/bin/uv
	@UV_PROJECT_ENVIRONMENT=.cache/delivery .tools/bin/uv sync --quiet --locked --only-group delivery

test: setup kafka systemd delivery  ## every test, on a real Kafka broker too
	cargo test --quiet --locked --manifest-path rust/Cargo.toml
	$(BIN)/pytest --numprocesses 3 --dist loadfile

simulate: setup  ## SEEDS=n stories from START=s on; BUGS=1: how many seeds each planted bug takes
	@$(if $(BUGS),PYTHONPATH=tests $(BIN)/python -m simulation.bugs,$(BIN)/python -m streamingcandle.simulation --seeds $(SEEDS) --start $(START))

soak: setup kafka  ## MINUTES=n of a live feed while processes are killed, then the comparison with the reference
	PYTHONPATH=tests $(BIN)/python tests/soak.py $(MINUTES)

drill: setup kafka  ## each disaster of docs/disaster-recovery.md on a real broker; ONLY="lost host" for one
	PYTHONPATH=tests $(BIN)/python tests/drill.py $(if $(ONLY),"$(ONLY)")

bench: setup kafka  ## how fast, how late, how large: the table of BENCHMARKS.md; ONLY="kernel job close restore"
	PYTHONPATH=tests:. $(BIN)/python -m benchmarks $(ONLY)

fuzz:  ## MINUTES=n of libFuzzer on the decoder and as long on load; what it finds lies in rust/fuzz/artifacts
	@rust/fuzz/run $(MINUTES)

docs: setup  ## docs/settings.md from the settings themselves
	PYTHONPATH=tests $(BIN)/python tests/settings_page.py

wheel: setup  ## dist/: a wheel for every Python from 3.11 on, the sources, what to install with it, and checksums
	rm -rf dist
	RUSTFLAGS="--remap-path-prefix=$${CARGO_HOME:-$$HOME/.cargo}=cargo" CARGO_TARGET_DIR=rust/target/wheel \
		$(BIN)/maturin build --quiet --release --sdist --out dist
	@$(REQUIREMENTS) --output-file dist/requirements.txt >/dev/null
	@$(REQUIREMENTS) --extra parquet --output-file dist/requirements-parquet.txt >/dev/null
	@cd dist && sha256sum -- * >.SHA256SUMS && mv .SHA256SUMS SHA256SUMS

installed: wheel  ## what the wheel holds; installed where there is no cargo, and run
	$(BIN)/pytest tests/wheel.py

sbom: setup delivery  ## dist/sbom/: what the program consists of, as CycloneDX, its Python part and its kernel
	UV=.tools/bin/uv PYTHONPATH=tests $(BIN)/python tests/sbom.py dist/sbom

audit: setup delivery  ## known vulnerabilities of what is locked; asks PyPI and the database of RustSec
	@.tools/bin/uv export --quiet --locked --all-groups --all-extras --no-emit-project --format requirements.txt --output-file .cache/locked.txt
	@cat build-tools.txt >>.cache/locked.txt
	@status=0; \
	.cache/delivery/bin/pip-audit --strict --disable-pip --require-hashes --requirement .cache/locked.txt || status=1; \
	if command -v cargo-audit >/dev/null; then cargo audit --deny warnings --file rust/Cargo.lock || status=1; \
	else echo "cargo-audit is missing, the kernel is not audited: cargo install --locked cargo-audit@$(CARGO_AUDIT_VERSION)" >&2; status=1; fi; \
	exit $$status

lint: setup  ## what CI holds the code to
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/mdformat --check $(PAGES)
	$(BIN)/shellcheck $$(git ls-files '*.sh') .ci/run rust/fuzz/run
	cargo fmt --check --manifest-path rust/Cargo.toml
	cargo fmt --check --manifest-path rust/fuzz/Cargo.toml
	cargo clippy --quiet --locked --all-targets --manifest-path rust/Cargo.toml -- -D warnings

fix: setup  ## let the formatters do what they can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/mdformat $(PAGES)
	cargo fmt --manifest-path rust/Cargo.toml
	cargo fmt --manifest-path rust/fuzz/Cargo.toml
