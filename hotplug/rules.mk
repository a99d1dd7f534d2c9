# SPDX-License-Identifier: Apache-2.0
HOTPLUG_SRCS := $(sort $(filter-out hotplug/main.c,$(wildcard hotplug/*.c)))
$(eval $(call archive,hotplug,$(HOTPLUG_SRCS)))
$(eval $(call program,secpool-hotplugd,hotplug/main.c,hotplug enclave policy base jemalloc,$$(TSS_LIBS) $$(CXL_LIBS) $$(DAEMON_LIBS) $(CRYPTO_LIBS) -lm))
