# SPDX-License-Identifier: Apache-2.0
# the archive has everything but the main of secpool-vtpm; what a program does not call is not linked into it
ENCLAVE_SRCS := $(sort $(wildcard enclave/*.c))
VTPM_SRCS    := $(sort $(wildcard enclave/vtpm/*.c))
$(eval $(call archive,enclave,$(ENCLAVE_SRCS)))
$(eval $(call program,secpool-vtpm,$(VTPM_SRCS),enclave base,-ltpms $(CRYPTO_LIBS)))

# Under ThreadSanitizer the engines are not watched: they read the program's pages in place while those are write-protected, an order that it can't see.
$(foreach engine,engine_vaes512 engine_vaes256,$(eval CFLAGS_$(engine) += $(if $(filter tsan,$(SAN)),-fno-sanitize=thread)))
