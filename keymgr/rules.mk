# SPDX-License-Identifier: Apache-2.0
KEYMGR_SRCS := $(sort $(filter-out keymgr/main.c,$(wildcard keymgr/*.c)))
$(eval $(call archive,keymgr,$(KEYMGR_SRCS)))
$(eval $(call program,secpool-keymgrd,keymgr/main.c,keymgr enclave policy base jemalloc,$$(TSS_LIBS) $$(DAEMON_LIBS) -lcap-ng $(CRYPTO_LIBS) -lm))
