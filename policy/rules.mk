# SPDX-License-Identifier: Apache-2.0
POLICY_SRCS := $(sort $(wildcard policy/*.c))
$(eval $(call archive,policy,$(POLICY_SRCS)))
# the default policy is inside the programs (policy/default.c), as the file that it is
$(B)/obj/policy/default.o: policy/default.yaml
