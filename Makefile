# everlog: `make help` lists the targets. Everything needs Go and bash; end-to-end tests also need kcat (apt-get install kcat)
# and, for the disk faults, root. Test peers (MinIO, versitygw, staticcheck) are built once into ~/.cache/everlog-tools.
SHELL := /bin/bash -o pipefail
.DEFAULT_GOAL := help

TOOLS    := $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/everlog-tools/bin
PACKAGES ?= ./...
# Unit tests: all but the end-to-end tree, which runs alone afterwards because its processes want the machine for themselves.
UNIT     = $$(go list $(PACKAGES) | grep -v '/e2e')
E2E      ?= ./e2e/...
# They need Maven and a JDK, and belong to test-java.
JAVA_E2E = ./e2e/kafkatools ./e2e/connect
RACE     ?= $(PACKAGES)
RUN      ?= .
COUNT    ?= 1
# One static binary, and one set of compiled packages for building, vetting, testing and running. The race detector alone needs cgo.
export CGO_ENABLED := 0
FUZZTIME ?= 60s
CUTS     ?= 10
SEED     ?=
CLIENTS  ?=
DURATION ?= 2m
EOS      ?= franz-go,franz-go-848,java-848,streams
# A program that starts Apache Kafka in everlog's place: see package e2e/harness.
KAFKA    ?=
AGAINST  = $(if $(KAFKA),EVERLOG_E2E_KAFKA=$(KAFKA))

.PHONY: help build dev vet lint test unit race e2e e2e-race soak test-clients test-java eos powercut diskfull fuzz bench tools clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  variables: PACKAGES=./tier/... RUN=Regexp COUNT=n FUZZTIME=60s CUTS=10 SEED=n CLIENTS=a,b DURATION=2m KAFKA=PROGRAM"

build: ## the binary ./everlog
	go build -o everlog ./cmd/everlog

dev: ## one broker with its data in ./everlog-data
	go run ./cmd/everlog dev

vet: ## go vet and gofmt
	@unformatted=$$(git ls-files -co --exclude-standard '*.go' | xargs -r gofmt -l); \
	  [ -z "$$unformatted" ] || { echo "not formatted (gofmt -w):"; echo "$$unformatted"; exit 1; }
	go vet ./...

lint: ## staticcheck
	@[ -x $(TOOLS)/staticcheck ] || e2e/tools/install staticcheck
	$(TOOLS)/staticcheck ./...

tools: ## build the test peers (about 10 minutes the first time, then nothing)
	@mkdir -p $(TOOLS)
	@if command -v flock >/dev/null; then flock $(TOOLS)/.lock e2e/tools/install; else e2e/tools/install; fi

test: ## all tests: packages, then end to end with a 40 MB slice of the data set (disk faults only as root)
	@$(MAKE) --no-print-directory tools >/dev/null 2>&1 & peers=$$!; $(MAKE) --no-print-directory unit && { wait $$peers || $(MAKE) --no-print-directory tools; }
	@$(MAKE) --no-print-directory e2e

unit: ## tests of the packages, without end to end
	go test -count=$(COUNT) -run '$(RUN)' $(UNIT)

race: ## tests of the packages under the race detector (RACE=./ingest/... for some)
	CGO_ENABLED=1 go test -race -count=$(COUNT) -run '$(RUN)' $$(go list $(RACE) | grep -v '/e2e')

e2e: ## end to end: real clients, real processes, real object stores (disk faults, with two power cuts, only as root)
	@root=$$(id -u); failed=; for package in $$(go list $(E2E)); do \
	  if [ $$root != 0 ] && [[ $$package == */e2e/disk ]]; then echo "NOT RUN, needs root: $$package (sudo make diskfull powercut)"; continue; fi; \
	  if [[ " $(JAVA_E2E) " == *" ./$${package#*/everlog/everlog/} "* ]]; then echo "NOT RUN, needs Maven and a JDK: $$package (make test-java)"; continue; fi; \
	  go test -count=$(COUNT) -timeout 15m -run '$(RUN)' $$package || failed="$$failed $$package"; done; \
	  [ -z "$$failed" ] || { echo "FAILED:$$failed"; exit 1; }

e2e-race: ## end to end against a binary built with the race detector
	@mkdir -p $(TOOLS) && CGO_ENABLED=1 go build -race -o $(TOOLS)/everlog-race ./cmd/everlog
	EVERLOG_E2E_BINARY=$(TOOLS)/everlog-race $(MAKE) --no-print-directory e2e

soak: ## end to end with the whole data set (over 200 MB, over 1 million records) and ten power cuts, about an hour
	EVERLOG_E2E_SIZE=full $(MAKE) --no-print-directory e2e
	$(MAKE) --no-print-directory powercut

test-clients: ## every client library in groups and transactions, then test-java (CLIENTS=kcat,sarama for some; KAFKA=PROGRAM tries Apache Kafka)
	$(AGAINST) EVERLOG_E2E_CLIENTS=$(CLIENTS) go test -count=$(COUNT) -timeout 30m -v -run '$(RUN)' ./e2e/matrix
	@[ -n "$(CLIENTS)" ] || $(MAKE) --no-print-directory test-java

test-java: ## what needs Maven and a JDK: Java's client in the matrix, Kafka's own tools, Connect (RUN, KAFKA)
	$(AGAINST) EVERLOG_E2E_CLIENTS=java go test -count=$(COUNT) -timeout 30m -v -parallel 2 -run '$(RUN)' ./e2e/matrix
	$(AGAINST) go test -count=$(COUNT) -timeout 30m -v -p 1 -run '$(RUN)' $(JAVA_E2E)

eos: ## exactly once for DURATION: pipelines of franz-go, Java and Kafka Streams, killed with their broker at random (SEED=n, EOS=franz-go for some)
	$(AGAINST) EVERLOG_E2E_EOS=$(EOS) EVERLOG_E2E_EOS_DURATION=$(DURATION) EVERLOG_E2E_SEED=$(SEED) go test -count=1 -timeout 120m -v -run 'ExactlyOnce' ./e2e/exactlyonce

powercut: ## root: CUTS power cuts in mid-load on a loop-mounted disk
	EVERLOG_E2E_CUTS=$(CUTS) EVERLOG_E2E_SEED=$(SEED) go test -count=1 -timeout 60m -v -run 'PowerCut' ./e2e/disk

diskfull: ## root: a disk that fills up and is freed again
	go test -count=1 -timeout 15m -v -run 'DiskFull' ./e2e/disk

fuzz: ## each fuzz target for FUZZTIME
	@set -e; for package in $$(go list ./...); do \
	  for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
	    echo "$$package $$target"; go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$package; done; done

bench: build ## Go benchmarks of the packages (everlog bench measures a running broker)
	go test -run '^$$' -bench . -benchmem $(UNIT)

clean: ## remove what was built here; the tools and Go's caches stay
	rm -f everlog *.test *.prof
