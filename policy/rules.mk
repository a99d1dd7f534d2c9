# SPDX-License-Identifier: Apache-2.0
POLICY_SRCS := $(sort $(wildcard policy/*.c))
$(eval $(call archive,policy,$(POLICY_SRCS)))
