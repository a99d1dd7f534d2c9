# SPDX-License-Identifier: Apache-2.0
# A test is a file: tests/<kind>/test_*.c (linked with everything) or test_*.sh. tests/run.sh runs them, two at a time.
SUPPORT_SRCS := $(sort $(wildcard tests/support/*.c))
$(eval $(call archive,support,$(SUPPORT_SRCS)))

# all of the benches but their main: tests are linked with what they share
BENCH_SRCS := $(sort $(filter-out tests/bench/bench.c,$(wildcard tests/bench/*.c)))
$(eval $(call archive,bench,$(BENCH_SRCS)))

TEST_KINDS := unit integration security fault
TEST_C_SRCS := $(sort $(wildcard $(TEST_KINDS:%=tests/%/test_*.c)))
TEST_SCRIPTS := $(sort $(wildcard $(TEST_KINDS:%=tests/%/test_*.sh)))
TEST_PROGRAMS := $(TEST_C_SRCS:%.c=$(B)/%)
SP_SOURCES += $(TEST_C_SRCS)
TEST_ARCHIVES := $(patsubst %,$(B)/obj/%.a,bench support cli keymgr hotplug secpool policy enclave base jemalloc)

# the library's call that takes a key goes by way of the test, which learns so what to search for
LDFLAGS_test_outside_view := -Wl,--wrap=pagecipher_new
# which thread touches a device
LDFLAGS_test_prober := -Wl,--wrap=device_backend_read,--wrap=device_backend_write,--wrap=device_backend_alive
# as on a kernel without MOVE and POISON
LDFLAGS_test_stress_slow_steps := -Wl,--wrap=uffd_unprotect,--wrap=page_step
LDFLAGS_test_stress_old_kernel := -Wl,--wrap=uffd_open
LDFLAGS_test_whole_again := -Wl,--wrap=uffd_open

$(B)/tests/%: $(B)/obj/tests/%.o $(TEST_ARCHIVES)
	@mkdir -p $(@D)
	$(call say,LD,$@)$(CC) -o $@ $< -Wl,--start-group $(TEST_ARCHIVES) -Wl,--end-group $(SP_LDFLAGS) $(LDFLAGS_$(notdir $@)) -lcmocka $(ALL_LIBS) -lcap-ng -ltpms -lm

# test_selftest breaks OpenSSL's functions one by one
LDFLAGS_test_selftest := -Wl,--wrap=EVP_CipherUpdate,--wrap=EVP_EncryptUpdate,--wrap=EVP_Digest,--wrap=EVP_DigestVerify

# the benches: a file for each, listed in the table of bench.c
$(eval $(call program,secpool-bench,tests/bench/bench.c,bench support keymgr secpool enclave policy base jemalloc,$$(TSS_LIBS) -ltss2-tcti-device $$(DAEMON_LIBS) $(CRYPTO_LIBS) $(CODE_LIBS) -lm))

# the torture: docs/testing.md
TORTURE_SRCS := $(sort $(wildcard tests/torture/*.c))
$(eval $(call program,secpool-torture,$(TORTURE_SRCS),secpool enclave base jemalloc,$(CRYPTO_LIBS) $(CODE_LIBS) -lm))

# example programs, linked with the shared library as a user would
EXAMPLE_SRCS := $(sort $(wildcard tests/examples/*.c))
EXAMPLES := $(EXAMPLE_SRCS:%.c=$(B)/%)
$(B)/tests/examples/%: tests/examples/%.c $(B)/lib/libsecpool.so
	@mkdir -p $(@D)
	$(call say,LD,$@)$(CC) -std=gnu17 $(WARNINGS) -D_GNU_SOURCE $(CFLAGS) $(SANFLAGS) -Ilib -Ilib/base -o $@ $< -L$(B)/lib -lsecpool -Wl,-rpath,'$$ORIGIN/../../lib' -lcrypto -pthread

all: $(EXAMPLES)

check: all $(TEST_PROGRAMS)
	$(Q)B=$(B) SAN=$(SAN) tests/run.sh $(if $(TESTS),$(foreach t,$(TESTS),$(filter %/$(t) %/$(t).sh,$(TEST_PROGRAMS) $(TEST_SCRIPTS))),$(TEST_PROGRAMS) $(TEST_SCRIPTS))

demo: all
	$(Q)B=$(B) tests/demo.sh

# everything: plainly, with both sanitizers, then lint
check-all:
	$(Q)$(MAKE) check
	$(Q)$(MAKE) check SAN=asan
	$(Q)$(MAKE) check SAN=tsan
	$(Q)$(MAKE) lint

lint:
	$(Q)tests/lint.sh

# tests/fuzz/fuzz_X.c: libFuzzer targets, built whole by clang with both sanitizers in a folder of their own
FUZZ_SECONDS ?= 60
FUZZ_SRCS    := $(sort $(wildcard tests/fuzz/fuzz_*.c))
FUZZ_TARGETS := $(FUZZ_SRCS:%.c=$(B)/%)
FUZZ_FLAGS   := -std=gnu17 -g -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fPIC -pthread
FUZZ_PARTS   := $(BASE_SRCS) $(ENCLAVE_SRCS) $(POLICY_SRCS) $(KEYMGR_SRCS) $(HOTPLUG_SRCS)
FUZZ_OBJECTS := $(FUZZ_PARTS:%.c=$(B)/fuzz-obj/%.o)

$(B)/fuzz-obj/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CLANG,$<)clang $(CPPFLAGS) $(FUZZ_FLAGS) -MMD -MP -c $< -o $@
$(B)/fuzz-obj/parts.a: $(FUZZ_OBJECTS)
	$(call say,AR,$@)rm -f $@ && $(AR) rcs $@ $^
$(B)/tests/fuzz/%: $(B)/fuzz-obj/tests/fuzz/%.o $(B)/fuzz-obj/parts.a $(B)/obj/jemalloc.a
	@mkdir -p $(@D)
	$(call say,LD,$@)clang -fsanitize=fuzzer,address,undefined -pthread -o $@ $^ $(ALL_LIBS) -lcap-ng -lm
-include $(FUZZ_OBJECTS:.o=.d) $(FUZZ_SRCS:%.c=$(B)/fuzz-obj/%.d)

fuzz: $(FUZZ_TARGETS)
	$(Q)B=$(B) FUZZ_SECONDS=$(FUZZ_SECONDS) tests/fuzz.sh $(FUZZ_TARGETS)

# the benches run against an embedded default of their own; results and pictures go to $(B)/bench
bench: all
	$(Q)B=$(B) tests/bench.sh

.PHONY: check check-all lint fuzz bench demo
