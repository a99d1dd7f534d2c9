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
TEST_ARCHIVES := $(patsubst %,$(B)/obj/%.a,bench torture support cli keymgr hotplug secpool policy enclave base jemalloc)

# the library's call that takes a key goes by way of the test, which learns so what to search for
LDFLAGS_test_outside_view := -Wl,--wrap=pagecipher_new
# all that a front is sent
LDFLAGS_test_hostile_front := -Wl,--wrap=recvmsg
# the keys that a program is given, and its secret memory
LDFLAGS_test_client_keys := -Wl,--wrap=pagecipher_new,--wrap=secmem_new_pages
# what the enclave draws, its secret memory, where it serves, and its end
LDFLAGS_test_inside_enclave := -Wl,--wrap=os_random,--wrap=secmem_new_pages,--wrap=enclave_main_run,--wrap=requests_serve,--wrap=hostkeys_done
# the limits that clients are given
LDFLAGS_test_session := -Wl,--wrap=prlimit,--wrap=process_memlock
# a reader's tag key; and a thread that comes while a region is being sealed
LDFLAGS_test_sealed_attacks := -Wl,--wrap=pagecipher_new
LDFLAGS_test_share := -Wl,--wrap=secpool_flush
# which thread touches a device
LDFLAGS_test_prober := -Wl,--wrap=device_backend_read,--wrap=device_backend_write,--wrap=device_backend_alive
# the moment between what a scrub stored and what it reads
LDFLAGS_test_scrub := -Wl,--wrap=guarded_differs
# the steps of an append to the audit
LDFLAGS_test_auditlog := -Wl,--wrap=os_write_all,--wrap=fdatasync
# what is looked for in the audit: the keys that the library is given
LDFLAGS_test_audit_outside := -Wl,--wrap=pagecipher_new
# the device in whose place another is
LDFLAGS_test_tpm_device := -Wl,--wrap=tcti_open_device
# which statements keymgrd's code runs
LDFLAGS_test_totals := -Wl,--wrap=directory_query,--wrap=directory_run,--wrap=directory_number
# the steps by which a key that was never taken ends
LDFLAGS_test_epochs := $(foreach f,session_region regionkeys_end regionkeys_make wraps_erase daemon_fail,-Wl,--wrap=$(f))
# every step that makes something durable
LDFLAGS_test_keystore := $(foreach f,fsync fdatasync rename unlink directory_run tpm_counter_make tpm_counter_step server_send,-Wl,--wrap=$(f))
# what the kernel answers to a card's sanitising, and the waits for it
LDFLAGS_test_sanitise := -Wl,--wrap=write,--wrap=clock_sleep_ns
LDFLAGS_test_retire := -Wl,--wrap=topology_read,--wrap=sanitise_look,--wrap=sanitise_begin
# the clock, by which a program stands still
$(B)/tests/unit/test_rebalance: LDFLAGS_test_rebalance := -Wl,--wrap=clock_now_ns
# the same of a recovery
LDFLAGS_test_recover := $(foreach f,fsync fdatasync rename unlink os_write_all tpm_counter_make tpm_counter_remove,-Wl,--wrap=$(f))
# as on a kernel without MOVE and POISON
LDFLAGS_test_stress_slow_steps := -Wl,--wrap=uffd_unprotect,--wrap=page_step
LDFLAGS_test_stress_old_kernel := -Wl,--wrap=uffd_open
LDFLAGS_test_whole_again := -Wl,--wrap=uffd_open

$(B)/tests/%: $(B)/obj/tests/%.o $(TEST_ARCHIVES)
	@mkdir -p $(@D)
	$(call say,LD,$@)$(CC) -o $@ $< -Wl,--start-group $(TEST_ARCHIVES) -Wl,--end-group $(SP_LDFLAGS) $(LDFLAGS_$(notdir $@)) -lcmocka $(ALL_LIBS) -lcap-ng -ltpms -lm

# a clock that is set ahead
LDFLAGS_test_snapshot := -Wl,--wrap=clock_now_ns,--wrap=workers_gate_closed

# test_selftest breaks OpenSSL's functions one by one
LDFLAGS_test_selftest := -Wl,--wrap=EVP_CipherUpdate,--wrap=EVP_EncryptUpdate,--wrap=EVP_Digest,--wrap=EVP_DigestVerify

# the benches: a file for each, listed in the table of bench.c
$(eval $(call program,secpool-bench,tests/bench/bench.c,bench support keymgr secpool enclave policy base jemalloc,$$(TSS_LIBS) $$(DAEMON_LIBS) -lcap-ng $(CRYPTO_LIBS) $(CODE_LIBS) -lm))

# the torture (docs/testing.md): all of it but its main, which tests are linked with; functions of the library at which a client can be stopped
TORTURE_SRCS := $(sort $(filter-out tests/torture/torture.c,$(wildcard tests/torture/*.c)))
$(eval $(call archive,torture,$(TORTURE_SRCS)))
wraps = $(foreach f,$(1),-Wl,--wrap=$(f))
TORTURE_WRAPS := $(call wraps,page_step page_drop_copies device_read device_use device_write uffd_copy uffd_move uffd_protect uffd_unprotect uffd_drop_many stripework_store \
	stripework_note_written mirror_rebuild mirror_move erasure_rebuild erasure_move renew_page keyring_seal keyring_turn keyring_retire keyclient_call keyclient_send)
$(eval $(call program,secpool-torture,tests/torture/torture.c,torture secpool enclave base jemalloc,$(TORTURE_WRAPS) $(CRYPTO_LIBS) $(CODE_LIBS) -lm))

# and the daemons, with points at which the torture stops them, in a folder of their own beside a secpool that starts those
TORTURE_DAEMONS := $(addprefix $(B)/tests/torture/,secpool secpool-vtpm secpool-keymgrd secpool-hotplugd)
KEYMGRD_WRAPS   := $(call wraps,extents_take extents_fill extents_move extents_moved extents_scrub_again wraps_put_all wraps_erase wraps_erase_all regions_set_live regions_release regions_add_scrubbed regions_finish overwrite_range \
	hotplug_handle_begin hotplug_handle_evidence epochs_want epochs_begin epochs_end \
	auditlog_keep auditlog_sync daemon_ask_within keyfile_take_next)
HOTPLUGD_WRAPS  := $(call wraps,attest_start attest_answer notify_state device_drain)
DAEMON_POINTS   := tests/torture/daemons/points_keymgrd.c tests/torture/daemons/points_hotplugd.c
SP_SOURCES      += $(DAEMON_POINTS)
$(B)/tests/torture/secpool $(B)/tests/torture/secpool-vtpm: $(B)/tests/torture/%: $(B)/bin/%
	@mkdir -p $(@D)
	$(call say,CP,$@)cp $< $@
$(B)/tests/torture/secpool-keymgrd: $(B)/obj/keymgr/main.o $(B)/obj/tests/torture/daemons/points_keymgrd.o $(B)/obj/tests/torture/points.o $(patsubst %,$(B)/obj/%.a,keymgr enclave policy base jemalloc)
	@mkdir -p $(@D)
	$(call say,LD,$@)$(CC) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(SP_LDFLAGS) $(KEYMGRD_WRAPS) $(TSS_LIBS) $(DAEMON_LIBS) -lcap-ng $(CRYPTO_LIBS) -lm
$(B)/tests/torture/secpool-hotplugd: $(B)/obj/hotplug/main.o $(B)/obj/tests/torture/daemons/points_hotplugd.o $(B)/obj/tests/torture/points.o $(patsubst %,$(B)/obj/%.a,hotplug enclave policy base jemalloc)
	@mkdir -p $(@D)
	$(call say,LD,$@)$(CC) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(SP_LDFLAGS) $(HOTPLUGD_WRAPS) $(TSS_LIBS) $(CXL_LIBS) $(DAEMON_LIBS) $(CRYPTO_LIBS) -lm
all: $(TORTURE_DAEMONS)

# example programs, linked with the shared library as a user would
EXAMPLE_SRCS := $(sort $(wildcard tests/examples/*.c))
EXAMPLES := $(EXAMPLE_SRCS:%.c=$(B)/%)
$(B)/tests/examples/%: tests/examples/%.c $(B)/lib/libsecpool.so
	@mkdir -p $(@D)
	$(call say,LD,$@)$(CC) -std=gnu17 $(WARNINGS) -D_GNU_SOURCE $(CFLAGS) $(SANFLAGS) -Ilib -Ilib/base -o $@ $< -L$(B)/lib -lsecpool -Wl,-rpath,'$$ORIGIN/../../lib' -lcrypto -pthread

all: $(EXAMPLES)

# programs that know nothing of secpool, for `secpool run`
PLAIN_SRCS := $(sort $(wildcard tests/plain/*.c))
PLAIN_PROGRAMS := $(PLAIN_SRCS:%.c=$(B)/%)
$(B)/tests/plain/%: tests/plain/%.c tests/plain/plain.h
	@mkdir -p $(@D)
	$(call say,LD,$@)$(CC) -std=gnu17 $(WARNINGS) $(if $(WERROR),-Werror) -D_GNU_SOURCE -I. $(CFLAGS) -fno-builtin -o $@ $< -pthread

all: $(PLAIN_PROGRAMS)

check: all $(TEST_PROGRAMS)
	$(Q)B=$(B) SAN=$(SAN) tests/run.sh $(if $(TESTS),$(foreach t,$(TESTS),$(filter %/$(t) %/$(t).sh,$(TEST_PROGRAMS) $(TEST_SCRIPTS))),$(TEST_PROGRAMS) $(TEST_SCRIPTS))

demo: all
	$(Q)B=$(B) tests/demo.sh

# everything: plainly, with both sanitizers, then models and lint
check-all:
	$(Q)$(MAKE) check
	$(Q)$(MAKE) check SAN=asan
	$(Q)$(MAKE) check SAN=tsan
	$(Q)$(MAKE) models
	$(Q)$(MAKE) lint

# docs/models by Spin
models:
	$(Q)B=$(B) tests/models.sh

# those unit tests that ask the kernel for something, and those integration tests that emulation is fast enough for, on Debian 12's kernel in QEMU
VM_TESTS := $(addprefix $(B)/tests/unit/test_,uffd guarded_copy os sandbox page pagecipher selftest keypage secmem) \
	$(addprefix $(B)/tests/integration/test_,hotplug misbehave tiers)
check-vm-tests: all $(VM_TESTS)
	$(Q)tests/vm/run_tests.sh $(B)/vm $(B) $(VM_TESTS)

# CXL devices of QEMU's under Debian 12's kernel: docs/testing.md
VM_PROGRAMS := $(addprefix $(B)/tests/vm/,program busy neighbour)
$(VM_PROGRAMS): $(B)/tests/vm/%: tests/vm/%.c $(B)/lib/libsecpool.a
	@mkdir -p $(@D)
	$(call say,LD,$@)$(CC) -std=gnu17 $(WARNINGS) -D_GNU_SOURCE $(CFLAGS) $(SANFLAGS) -Ilib -Ilib/base -o $@ $< $(B)/lib/libsecpool.a $(CODE_LIBS) -ldl -lm -pthread
VM_FILES := $(addprefix $(B)/bin/,secpool secpool-keymgrd secpool-hotplugd secpool-vtpm) $(VM_PROGRAMS) policy/default.yaml
check-vm: all $(VM_PROGRAMS) check-vm-tests
	$(Q)tests/vm/image.sh $(B)/vm linux-image-amd64 $(B)/vm/guest $(VM_FILES)
	$(Q)tests/vm/check_vm.py $(B)/vm/guest $(B)/vm/run removal poison shared
	$(Q)tests/vm/newer.sh $(B)/vm/newer $(VM_FILES) || [ $$? = 77 ]

lint:
	$(Q)tests/lint.sh

# tests/fuzz/fuzz_X.c: libFuzzer targets, built whole by clang with both sanitizers in a folder of their own
FUZZ_SECONDS ?= 60
FUZZ_SRCS    := $(sort $(wildcard tests/fuzz/fuzz_*.c))
FUZZ_TARGETS := $(FUZZ_SRCS:%.c=$(B)/%)
FUZZ_FLAGS   := -std=gnu17 -g -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fPIC -pthread
FUZZ_PARTS   := $(BASE_SRCS) $(ENCLAVE_SRCS) $(POLICY_SRCS) $(KEYMGR_SRCS) $(HOTPLUG_SRCS) cli/program.c lib/manifest.c
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

.PHONY: check check-all check-vm check-vm-tests models lint fuzz bench demo
