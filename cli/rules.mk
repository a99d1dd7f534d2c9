# SPDX-License-Identifier: Apache-2.0
CLI_SRCS := $(sort $(filter-out cli/main.c,$(wildcard cli/*.c)))
$(eval $(call archive,cli,$(CLI_SRCS)))
$(eval $(call program,secpool,cli/main.c,cli enclave policy base jemalloc,$$(TSS_LIBS) $$(DAEMON_LIBS) $$(call pkg,smartcols) $(CRYPTO_LIBS) -lm))
