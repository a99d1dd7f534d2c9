# SPDX-License-Identifier: Apache-2.0
# One make run over all folders; each folder's rules.mk says what it adds. `make help` lists the targets.
# make V=1 shows the commands; make SAN=asan|tsan builds and tests with a sanitizer, in build/asan or build/tsan.

MAKEFLAGS += --no-builtin-rules
.DELETE_ON_ERROR:
.SECONDARY:
.SUFFIXES:

all:

# The packages come before anything below looks for a compiler or a library, so that `make deps demo` works on a fresh machine, with -j too.
ifneq ($(filter deps,$(MAKECMDGOALS)),)
ifneq ($(shell sh packages.sh >&2 && echo done),done)
$(error the packages could not be installed: see above)
endif
endif

B := build$(if $(SAN),/$(SAN))
V ?= 0
Q := $(if $(filter 1,$(V)),,@)
say = $(if $(filter 1,$(V)),,@printf '  %-8s %s\n' '$(1)' '$(2)';)

CC      ?= gcc
AR      := ar
OBJCOPY := objcopy
PREFIX  ?= /usr/local
DESTDIR ?=
VERSION := 0.1.0

# ---- flags ----
WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wvla -Wswitch-enum -Wmissing-prototypes -Wpointer-arith -Wformat=2 -Wstrict-prototypes
# a hardening flag is used when a compile with it works
probe = $(shell echo 'int main(void){return 0;}' | $(CC) -Werror $(1) -xc - -o /dev/null 2>/dev/null && echo '$(1)')
ifeq ($(SAN),)
HARDENING := $(call probe,-fstack-protector-strong) $(call probe,-fstack-clash-protection) $(call probe,-fcf-protection=full) -D_FORTIFY_SOURCE=2
SANFLAGS  :=
else ifeq ($(SAN),asan)
SANFLAGS := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
else ifeq ($(SAN),tsan)
SANFLAGS := -fsanitize=thread -fno-omit-frame-pointer
else
$(error SAN is asan or tsan, not '$(SAN)')
endif
LINK_HARDENING := -Wl,-z,relro,-z,now,-z,noexecstack
CFLAGS   ?= -O2 -g
CPPFLAGS := -D_GNU_SOURCE -I. -iquote lib/base -DSECPOOL_VERSION='"$(VERSION)"'
SP_CFLAGS := -std=gnu17 -fPIC -pthread -fvisibility=hidden $(WARNINGS) $(if $(WERROR),-Werror) $(HARDENING) $(SANFLAGS) $(CFLAGS)
SP_LDFLAGS := -pthread $(SANFLAGS) $(LINK_HARDENING) $(LDFLAGS)

pkg = $(shell pkg-config --libs $(1) 2>/dev/null)
CRYPTO_LIBS := -lcrypto
CODE_LIBS   := -lisal
TSS_LIBS     = $(call pkg,tss2-esys tss2-mu tss2-rc)
CXL_LIBS     = $(call pkg,libcxl libudev)
DAEMON_LIBS  = $(call pkg,libsystemd libseccomp sqlite3) -lcyaml -lyaml -ljson-c
ALL_LIBS     = $(TSS_LIBS) $(CXL_LIBS) $(DAEMON_LIBS) $(call pkg,smartcols) $(CRYPTO_LIBS) $(CODE_LIBS)

# ---- compiling ----
$(B)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(CPPFLAGS) $(SP_CFLAGS) $(CFLAGS_$(basename $(notdir $<))) -MMD -MP -c $< -o $@

# archive of a folder: $(call archive,NAME,SOURCES)
define archive
$(B)/obj/$(1).a: $(patsubst %.c,$(B)/obj/%.o,$(2))
	$$(call say,AR,$$@)rm -f $$@ && $(AR) rcs $$@ $$^
SP_SOURCES += $(2)
endef

# program: $(call program,NAME,MAIN SOURCE,ARCHIVES,LIBS)
define program
$(B)/bin/$(1): $(patsubst %.c,$(B)/obj/%.o,$(2)) $(patsubst %,$(B)/obj/%.a,$(3))
	@mkdir -p $$(@D)
	$$(call say,LD,$$@)$(CC) -o $$@ $(patsubst %.c,$(B)/obj/%.o,$(2)) -Wl,--start-group $(patsubst %,$(B)/obj/%.a,$(3)) -Wl,--end-group $$(SP_LDFLAGS) $(4)
SP_SOURCES += $(2)
SP_PROGRAMS += $(B)/bin/$(1)
endef

SP_SOURCES :=
SP_PROGRAMS :=
SP_LIBRARIES :=

include lib/rules.mk
include enclave/rules.mk
include policy/rules.mk
include keymgr/rules.mk
include hotplug/rules.mk
include cli/rules.mk
include tests/rules.mk
include docs/rules.mk

all: $(SP_PROGRAMS) $(SP_LIBRARIES)

-include $(patsubst %.c,$(B)/obj/%.d,$(SP_SOURCES))

# ---- set-up ----
deps: # done above, when this file was read
	@true

install: all docs
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(PREFIX)/share/secpool
	install -m 755 $(SP_PROGRAMS) $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(B)/lib/libsecpool.so.0 $(DESTDIR)$(PREFIX)/lib
	ln -sf libsecpool.so.0 $(DESTDIR)$(PREFIX)/lib/libsecpool.so
	install -m 644 $(B)/lib/libsecpool.a $(DESTDIR)$(PREFIX)/lib
	$(if $(SAN),,install -m 755 $(B)/lib/libsecpool-preload.so $(DESTDIR)$(PREFIX)/lib)
	install -m 644 lib/secpool.h lib/base/secpool_error.h $(DESTDIR)$(PREFIX)/include
	sed -e 's|@PREFIX@|$(PREFIX)|; s|@VERSION@|$(VERSION)|' lib/secpool.pc.in > $(DESTDIR)$(PREFIX)/lib/pkgconfig/secpool.pc
	install -m 644 policy/default.yaml policy/example.yaml $(DESTDIR)$(PREFIX)/share/secpool
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	for unit in keymgr/*.service hotplug/*.service; do sed 's|@PREFIX@|$(PREFIX)|g' $$unit > $(DESTDIR)$(PREFIX)/lib/systemd/system/$$(basename $$unit); done
	for page in $(DOC_PAGES); do s=$${page##*.}; install -D -m 644 $$page $(DESTDIR)$(PREFIX)/share/man/man$$s/$$(basename $$page); done
	for page in $(notdir $(filter %.3,$(DOC_PAGES))); do for name in $$(sed -n '/^\.SH NAME/,/ - /{ /^\./d; s/ - .*//; s/,//g; p; }' $(B)/man/$$page); do \
		[ $$name.3 = $$page ] || ln -sf $$page $(DESTDIR)$(PREFIX)/share/man/man3/$$name.3; done; done

clean:
	rm -rf build

help:
	@echo 'make               all programs and libraries, in build/bin and build/lib'
	@echo 'make deps          install the Debian packages of packages.txt (as root)'
	@echo 'make demo          the main job: real files in encrypted pool memory, one device pulled; redis-server as it is'
	@echo 'make check         unit, integration, security and fault tests [SAN=asan|tsan] [TESTS="name ..."]'
	@echo 'make check-all     the same, then with both sanitizers, then models and lint'
	@echo 'make check-vm      secpool on CXL devices, in QEMU, on Debian 12'"'"'s kernel'
	@echo 'make check-vm-tests unit and integration tests on Debian 12'"'"'s kernel in QEMU'
	@echo 'make models        the models of docs/models, by Spin'
	@echo 'make lint          format, layering, banned calls, static checks'
	@echo 'make fuzz          each fuzz target for FUZZ_SECONDS (60)'
	@echo 'make bench         all benches'
	@echo 'make install       DESTDIR= PREFIX=/usr/local'

.PHONY: all deps install clean help
