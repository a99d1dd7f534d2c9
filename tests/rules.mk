# SPDX-License-Identifier: Apache-2.0
# A test is a file: tests/<kind>/test_*.c (linked with everything) or test_*.sh. tests/run.sh runs them, two at a time.
SUPPORT_SRCS := $(sort $(wildcard tests/support/*.c))
$(eval $(call archive,support,$(SUPPORT_SRCS)))

TEST_KINDS := unit integration security fault
TEST_C_SRCS := $(sort $(wildcard $(TEST_KINDS:%=tests/%/test_*.c)))
TEST_SCRIPTS := $(sort $(wildcard $(TEST_KINDS:%=tests/%/test_*.sh)))
TEST_PROGRAMS := $(TEST_C_SRCS:%.c=$(B)/%)
SP_SOURCES += $(TEST_C_SRCS)
TEST_ARCHIVES := $(patsubst %,$(B)/obj/%.a,support cli keymgr hotplug secpool policy enclave base jemalloc)

$(B)/tests/%: $(B)/obj/tests/%.o $(TEST_ARCHIVES)
	@mkdir -p $(@D)
	$(call say,LD,$@)$(CC) -o $@ $< -Wl,--start-group $(TEST_ARCHIVES) -Wl,--end-group $(SP_LDFLAGS) $(LDFLAGS_$(notdir $@)) -lcmocka $(ALL_LIBS) -lcap-ng -ltpms -lm

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

.PHONY: check demo
