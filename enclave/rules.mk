# SPDX-License-Identifier: Apache-2.0
# the archive has everything but the main of secpool-vtpm; what a program does not call is not linked into it
ENCLAVE_SRCS := $(sort $(wildcard enclave/*.c))
VTPM_SRCS    := $(sort $(wildcard enclave/vtpm/*.c))
$(eval $(call archive,enclave,$(ENCLAVE_SRCS)))
$(eval $(call program,secpool-vtpm,$(VTPM_SRCS),enclave base,-ltpms $(CRYPTO_LIBS)))
