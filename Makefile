# Thin on purpose: each line is a command that one can type. `make` alone lists the targets.

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench peers guards model simulate faults read-faults past attacks ocel clients changes release setup

# Where the tools are that ops/setup brought; cargo too, if it has just been installed.
WITH_TOOLS = eval "$$(ops/setup --print-env)" &&

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|' 2>/dev/null \
	  || sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1: \2/p' $(MAKEFILE_LIST)

# The dev profile, with optimised dependencies: its build is shared with `make test`, and the demo is
# busy with Postgres and the disk, not with our code. Where no Postgres is installed, a feature is
# added that fetches one. For speed:
#   cargo run --release -p cli --bin annals -- demo
demo: ## all roles on this machine, with sample data: what a newcomer runs first
	ops/setup demo
	$(WITH_TOOLS) cargo run -p cli --bin annals \
	  $${ANNALS_DEMO_FEATURES:+--features $$ANNALS_DEMO_FEATURES} -- demo

test: ## every test, against a real Kafka and a real Postgres
	ops/setup
	$(WITH_TOOLS) cargo test --workspace
	$(WITH_TOOLS) cargo test -p model -p simulator --features known-bad -- known_bad

# The kernel and the domain are checked alone too: in the workspace, cargo lends them features that
# other crates ask for. The format of the log and its rule stand without any store.
lint: ## format, clippy without warnings, links of doc comments, the pure crates on their own
	ops/setup demo
	$(WITH_TOOLS) cargo fmt --all --check
	$(WITH_TOOLS) cargo clippy --workspace --all-targets -- -D warnings
	$(WITH_TOOLS) cargo clippy -p cli --all-targets --features fetch-postgres -- -D warnings
	$(WITH_TOOLS) cargo clippy -p model -p simulator --all-targets --features known-bad -- -D warnings
	$(WITH_TOOLS) RUSTDOCFLAGS="-D rustdoc::broken_intra_doc_links" \
	  cargo doc --workspace --no-deps --document-private-items
	$(WITH_TOOLS) cargo check -p annals-kernel
	$(WITH_TOOLS) cargo check -p domain
	$(WITH_TOOLS) cargo check -p annals-event-log --no-default-features

# BENCH holds its arguments, as in BENCH='--quick --only B1,B5'. The rows over HTTP start the program itself,
# which is therefore built, too.
bench: ## the engine beside raw loops, measured in the same run
	ops/setup
	$(WITH_TOOLS) cargo build --release -p cli -p bench && target/release/bench $(BENCH)

# They need Node.js and Maven, too.
peers: ## build what the full bench also measures beside: what people use today
	ops/setup demo
	$(WITH_TOOLS) cd bench/peers/rust && cargo build --release --locked
	cd bench/peers/node && npm ci
	cd bench/peers/kafka-streams && mvn -q package

guards: ## count the instructions of the hot paths, against their limits
	ops/setup guards
	$(WITH_TOOLS) cargo bench -p guards

# MODEL holds bounds, as in MODEL='claims=4 crashes=2 reads=2'; each more makes it many times larger.
model: ## check the write protocol exhaustively, in a larger configuration
	$(WITH_TOOLS) cargo run --release -p model --features known-bad --example model -- $(MODEL)

# SIMULATE holds its arguments, as in SIMULATE='--seed 4711'.
SIMULATE ?= --seeds 5000
simulate: ## run thousands of simulated clusters, with new seeds
	$(WITH_TOOLS) cargo run --release -p cli --bin annals -- simulate $(SIMULATE)

# FAULTS holds its arguments; `make faults FAULTS=--help` lists them. Built for speed: what is timed is
# the engine, not its assertions. Some kinds of faults need root, one needs Debian's package faketime;
# where they cannot be made, the table says so.
#   make faults FAULTS='--minutes 60 --commands 500000 --thorough'
#   make faults FAULTS='--planned 50 --crashes 50'
faults: ## kill, cut, hold and fill everything at random, and check every answer
	ops/setup
	$(WITH_TOOLS) cargo build --release -p tests --bins
	$(WITH_TOOLS) target/release/faults $(FAULTS)

read-faults: ## kill and stop projectors on a log of a million events, while it is read and rebuilt
	ops/setup
	$(WITH_TOOLS) cargo build -p cli --bin annals
	$(WITH_TOOLS) env ANNALS_PROJECTOR_EVENTS=1000000 ANNALS_PROJECTOR_FAULTS=20 \
		cargo test -p tests --test all -- --nocapture rows_stay_exact_while_projectors

past: ## compare read models as of fifty moments of a million events with a fold in SQL, also over HTTP
	ops/setup
	$(WITH_TOOLS) env ANNALS_PAST_EVENTS=1000000 ANNALS_PAST_MOMENTS=50 \
		cargo test -p tests --test all -- --nocapture read_models_as_of_random_moments

# ATTACKS holds its arguments, as in ATTACKS='--only lines idle'. To be run on a machine that does
# nothing else: what polite clients keep is measured. `make test` does the same for a shorter time,
# without that.
attacks: ## do to a node what hostile clients do, and see what others notice
	ops/setup
	$(WITH_TOOLS) cargo build --release -p tests --bins
	$(WITH_TOOLS) target/release/attacks $(ATTACKS)

# pm4py and what it needs take 550 MB, so they are no part of `make test`. The real orders are loaded too if
# ANNALS_OLIST_DIR names their folder.
ocel: ## load object-centric event logs of the shop's orders in pm4py
	ops/setup
	$(WITH_TOOLS) test -x target/pm4py/bin/python || python3 -m venv target/pm4py
	target/pm4py/bin/python -m pip install --quiet --disable-pip-version-check pm4py==2.7.23.11
	$(WITH_TOOLS) cargo build -p cli --bin annals
	$(WITH_TOOLS) ANNALS_PM4PY="$$PWD/target/pm4py/bin/python" \
	  cargo test -p tests --test all -- --nocapture exporting::ocel orders_on_ real_orders_equal

# CLIENTS names generators, as in CLIENTS='java go'. Needs registries: what the clients are made of is fetched.
clients: ## make clients with all generators of docs/clients.md, and drive a node with each
	ops/setup clients
	$(WITH_TOOLS) cargo build -p cli --bin annals
	$(WITH_TOOLS) "$$ANNALS_CONTRACT_TOOLS/bin/python" clients/generators/run target/debug/annals $(CLIENTS)

changes: ## list what changed in the contract since the last release: breaking or compatible
	ops/setup
	$(WITH_TOOLS) ops/contract/changes

# RELEASE=check builds twice, in other folders, and compares.
release: ## build the program without symbols, its symbols and its package, into dist/
	ops/setup demo
	$(WITH_TOOLS) ops/release $(RELEASE)

setup: ## bring what this machine lacks
	ops/setup
