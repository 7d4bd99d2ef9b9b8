# shoal: build, test, show, install. `make help` lists the targets.

PREFIX  ?= /usr/local
DESTDIR ?=
HOSTS   ?= 3
ROUNDS  ?= 7

BINDIR  ?= $(PREFIX)/bin
UNITDIR ?= $(PREFIX)/lib/systemd/system
BASHDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHDIR  ?= $(PREFIX)/share/zsh/site-functions
FISHDIR ?= $(PREFIX)/share/fish/vendor_completions.d

# What a build says of itself. A source archive has no history, and that of a
# repository which it was unpacked in is not its own: it is "dev", and says no more.
# Nor does a changed tree say of which commit it is. The time is the commit's, so
# that the same source gives the same program.
OWN     := $(if $(shell git rev-parse --show-prefix 2>&1),,$(shell git ls-files Makefile 2>/dev/null))
VERSION := $(if $(OWN),$(shell git describe --tags --always --dirty),dev)
COMMIT  := $(if $(OWN),$(shell git diff --quiet HEAD && git rev-parse --short=7 HEAD))
BUILT   := $(if $(COMMIT),$(shell TZ=UTC0 git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd))

GO          := go
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOFUMPT     := mvdan.cc/gofumpt@v0.12.0

# Packages whose tests run engines. "unit" are the rest, and what of these needs
# none; kernel tests are included.
E2E := ./internal/testbed/... ./internal/e2e/... ./task/docker ./internal/httpapi

export CGO_ENABLED = 0

.DEFAULT_GOAL := build
.PHONY: build tools test unit e2e compare lint bench demo demo-down setup install uninstall clean help

build: ## compile bin/shoal
	$(GO) build -buildvcs=false -trimpath -ldflags '-s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT) -X main.built=$(BUILT)' -o bin/shoal .

tools: ## compile bin/testbed, which makes and removes test hosts
	$(GO) build -buildvcs=false -trimpath -o bin/testbed ./internal/testbed/cmd/testbed

# What a test finds depends on the machine's kernel and engine, which Go's test
# cache knows nothing of: hence -count=1. The stories run by themselves: a cluster
# that shares its two cores with other tests is a slow one, and says so. They run
# whatever became of the others, as both have something to tell.
test: setup build ## run every test (as root)
	@export SHOAL_BIN=$(CURDIR)/bin/shoal; failed=0; \
	$(GO) test -count=1 -timeout 20m $$($(GO) list ./... | grep -v /internal/e2e) || failed=1; \
	$(GO) test -count=1 -timeout 60m ./internal/e2e || failed=1; \
	exit $$failed

unit: ## run the tests that need no engine
	$(GO) test -short -timeout 10m $$($(GO) list ./... | grep -v -e /internal/testbed -e /internal/e2e)

e2e: setup build ## run the tests on real engines (as root)
	SHOAL_BIN=$(CURDIR)/bin/shoal $(GO) test -count=1 -timeout 60m $(E2E)

compare: setup build ## let Docker Swarm do what shoal does, and compare (as root)
	SHOAL_COMPARE=1 SHOAL_BIN=$(CURDIR)/bin/shoal $(GO) test -count=1 -v -timeout 60m -run 'TestConversation|TestEveryFlag' ./internal/e2e

# The second half measures parts alone: what raft, the store, the scheduler and
# the mesh's table take, on the same machine.
bench: build ## measure against Docker and Docker Swarm (as root)
	@scripts/setup.sh wrk haproxy
	$(GO) run ./internal/bench -shoal bin/shoal -rounds $(ROUNDS)
	$(GO) test -run '^$$' -bench . -benchmem -benchtime 1s ./cluster ./internal/store ./service/scheduler ./lb/nft
	$(GO) test -run '^$$' -bench BetweenNodes ./internal/netkit/meshtest

lint: ## vet, staticcheck and gofumpt
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	@out=$$($(GO) run $(GOFUMPT) -l .); if [ -n "$$out" ]; then \
		echo "not formatted (run: go run $(GOFUMPT) -w .):"; echo "$$out"; exit 1; fi

demo: setup build tools ## watch shoal run a service and survive (as root; HOSTS=1 for one host)
	$(GO) run ./internal/testbed/cmd/demo -hosts $(HOSTS)

demo-down: ## remove what the demo left
	$(GO) run ./internal/testbed/cmd/testbed --bed demo down

setup: ## install what building and testing need and this machine lacks
	@scripts/setup.sh

install: build ## install the binary, the systemd unit and shell completion
	install -D -m 0755 bin/shoal '$(DESTDIR)$(BINDIR)/shoal'
	install -d '$(DESTDIR)$(UNITDIR)' '$(DESTDIR)$(BASHDIR)' '$(DESTDIR)$(ZSHDIR)' '$(DESTDIR)$(FISHDIR)'
	sed 's|@BINDIR@|$(BINDIR)|' packaging/shoal.service >'$(DESTDIR)$(UNITDIR)/shoal.service'
	bin/shoal completion bash >'$(DESTDIR)$(BASHDIR)/shoal'
	bin/shoal completion zsh >'$(DESTDIR)$(ZSHDIR)/_shoal'
	bin/shoal completion fish >'$(DESTDIR)$(FISHDIR)/shoal.fish'
	@DESTDIR='$(DESTDIR)' scripts/service.sh start

uninstall: ## remove what install installed, and the node's data
	@DESTDIR='$(DESTDIR)' scripts/service.sh check
	@DESTDIR='$(DESTDIR)' BINDIR='$(BINDIR)' scripts/service.sh stop
	rm -f '$(DESTDIR)$(BINDIR)/shoal' '$(DESTDIR)$(UNITDIR)/shoal.service' \
		'$(DESTDIR)$(BASHDIR)/shoal' '$(DESTDIR)$(ZSHDIR)/_shoal' '$(DESTDIR)$(FISHDIR)/shoal.fish'
	@DESTDIR='$(DESTDIR)' scripts/service.sh purge

clean: ## remove what was built
	rm -rf bin

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
