# SPDX-License-Identifier: Apache-2.0
# base and wire: what every process uses. lib: libsecpool.
BASE_SRCS := $(sort $(wildcard lib/base/*.c lib/wire/*.c))
LIB_SRCS  := $(sort $(wildcard lib/*.c))
# it leaves frames without returning from them, which a shadow stack (CET) does not allow
CFLAGS_guarded_run := $(if $(findstring cf-protection,$(HARDENING)),-fcf-protection=branch)
$(eval $(call archive,base,$(BASE_SRCS)))
$(eval $(call archive,secpool,$(LIB_SRCS)))

# jemalloc under names of its own, so that it neither replaces the program's malloc nor meets another jemalloc
JEMALLOC_PIC := $(firstword $(wildcard /usr/lib/$(shell $(CC) -dumpmachine)/libjemalloc_pic.a /usr/lib64/libjemalloc_pic.a))
$(B)/obj/jemalloc.a: lib/jemalloc.syms
	@mkdir -p $(@D)
	$(call say,OBJCOPY,$@)test -n '$(JEMALLOC_PIC)' || { echo "libjemalloc_pic.a is missing: run 'make deps'" >&2; exit 1; }; $(OBJCOPY) --redefine-syms=$< $(JEMALLOC_PIC) $@

# the library brings a private libcrypto, whose memory is secret memory; none of its symbols is visible
LIBSECPOOL_PARTS := $(B)/obj/secpool.a $(B)/obj/enclave.a $(B)/obj/base.a $(B)/obj/jemalloc.a
$(B)/lib/libsecpool.so.0: $(LIBSECPOOL_PARTS) lib/secpool.map
	@mkdir -p $(@D)
	$(call say,LD,$@)$(CC) -shared -o $@ -Wl,-soname,libsecpool.so.0 -Wl,--version-script=lib/secpool.map -Wl,--exclude-libs,enclave.a:base.a:jemalloc.a:libcrypto.a $(if $(SAN),,-Wl,-z,defs) \
		-Wl,--whole-archive $(B)/obj/secpool.a -Wl,--no-whole-archive -Wl,--start-group $(B)/obj/enclave.a $(B)/obj/base.a $(B)/obj/jemalloc.a -l:libcrypto.a -Wl,--end-group $(CODE_LIBS) -ldl -lm $(SP_LDFLAGS)
$(B)/lib/libsecpool.so: $(B)/lib/libsecpool.so.0
	$(call say,LN,$@)ln -sf libsecpool.so.0 $@

# the static library: one object with all of it inside, where only the public names are left global (-d: libcrypto has a common symbol, which nothing else makes local)
$(B)/lib/libsecpool.a: $(LIBSECPOOL_PARTS) lib/secpool.map lib/interposed.syms
	@mkdir -p $(@D)
	$(call say,AR,$@)ld -r -d -o $(B)/obj/libsecpool-all.o --whole-archive $(B)/obj/secpool.a --no-whole-archive --start-group $(B)/obj/enclave.a $(B)/obj/base.a $(B)/obj/jemalloc.a \
		$$($(CC) -print-file-name=libcrypto.a) --end-group && \
	sed -n 's/^[[:space:]]*\([a-z_0-9]*\);$$/\1/p' lib/secpool.map | cat - lib/interposed.syms > $(B)/obj/libsecpool.public && \
	$(OBJCOPY) --keep-global-symbols=$(B)/obj/libsecpool.public $(B)/obj/libsecpool-all.o && \
	rm -f $@ && $(AR) rcs $@ $(B)/obj/libsecpool-all.o

SP_LIBRARIES += $(B)/lib/libsecpool.so $(B)/lib/libsecpool.a

# the library for programs as they are: malloc and its family for the program, glibc's own (lib/preload/ordinary.c) for all of ours inside. A sanitizer's runtime has a malloc of its own.
PRELOAD_SRCS := $(sort $(wildcard lib/preload/*.c))
$(eval $(call archive,preload,$(PRELOAD_SRCS)))
PRELOAD_WRAPS := $(foreach f,malloc calloc realloc aligned_alloc free,-Wl,--wrap=$(f))
$(B)/lib/libsecpool-preload.so: $(B)/obj/preload.a $(LIBSECPOOL_PARTS) lib/preload/preload.map
	@mkdir -p $(@D)
	$(call say,LD,$@)$(CC) -shared -o $@ -Wl,-soname,libsecpool-preload.so -Wl,--version-script=lib/preload/preload.map -Wl,--exclude-libs,enclave.a:base.a:jemalloc.a:libcrypto.a -Wl,-z,defs $(PRELOAD_WRAPS) \
		-Wl,--whole-archive $(B)/obj/preload.a -Wl,--no-whole-archive -Wl,--start-group $(B)/obj/secpool.a $(B)/obj/enclave.a $(B)/obj/base.a $(B)/obj/jemalloc.a -l:libcrypto.a -Wl,--end-group $(CODE_LIBS) -ldl -lm $(SP_LDFLAGS)
ifeq ($(SAN),)
SP_LIBRARIES += $(B)/lib/libsecpool-preload.so
endif
