/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/preload/ordinary.h"

#include <dlfcn.h>
#include <gnu/lib-names.h>
#include <link.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/auxv.h>

/* glibc's, since 2.0: malloc(3) of its manual, "Replacing malloc". */
extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t count, size_t bytes);
extern void *__libc_realloc(void *memory, size_t bytes);
extern void *__libc_memalign(size_t alignment, size_t bytes);
extern void __libc_free(void *memory);

/* The objects whose allocations stay outside: libc and the loader, by their executable parts. */
enum { RANGES_MOST = 8 };
static struct {
	uintptr_t start, end;
} ranges[RANGES_MOST];
static unsigned range_count; /* written once, before the pool is used */

void *ordinary_malloc(size_t bytes)
{
	return __libc_malloc(bytes);
}

void *ordinary_calloc(size_t count, size_t bytes)
{
	return __libc_calloc(count, bytes);
}

void *ordinary_realloc(void *memory, size_t bytes)
{
	return __libc_realloc(memory, bytes);
}

void *ordinary_memalign(size_t alignment, size_t bytes)
{
	return __libc_memalign(alignment, bytes);
}

void ordinary_free(void *memory)
{
	__libc_free(memory);
}

/* libc's own: the next in the search may be another allocator's, which the program is linked with. */
size_t ordinary_usable_size(void *memory)
{
	static _Atomic(void *) found; /* found twice it is the same */
	void *function = atomic_load(&found), *libc;

	if (!function) {
		libc = dlopen(LIBC_SO, RTLD_LAZY | RTLD_NOLOAD);
		function = libc ? dlsym(libc, "malloc_usable_size") : NULL;
		atomic_store(&found, function);
	}
	return function ? ((size_t(*)(void *))function)(memory) : 0;
}

static void add_object(const struct dl_phdr_info *info)
{
	for (unsigned i = 0; i < info->dlpi_phnum && range_count < RANGES_MOST; i++) {
		const ElfW(Phdr) *part = &info->dlpi_phdr[i];
		if (part->p_type != PT_LOAD || !(part->p_flags & PF_X))
			continue;
		ranges[range_count].start = info->dlpi_addr + part->p_vaddr;
		ranges[range_count++].end = info->dlpi_addr + part->p_vaddr + part->p_memsz;
	}
}

static bool holds(const struct dl_phdr_info *info, uintptr_t address)
{
	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *part = &info->dlpi_phdr[i];
		uintptr_t start = info->dlpi_addr + part->p_vaddr;
		if (part->p_type == PT_LOAD && address >= start && address < start + part->p_memsz)
			return true;
	}
	return false;
}

/* Of each object: is it libc or the loader? */
static int look_at_object(struct dl_phdr_info *info, size_t size, void *unused)
{
	(void)size, (void)unused;
	if (holds(info, (uintptr_t)&__libc_malloc) || holds(info, getauxval(AT_BASE)))
		add_object(info);
	return 0;
}

void ordinary_find_callers(void)
{
	range_count = 0;
	dl_iterate_phdr(look_at_object, NULL);
}

bool ordinary_wanted(const void *caller)
{
	if (range_count == 0)
		return true;
	for (unsigned i = 0; i < range_count; i++)
		if ((uintptr_t)caller >= ranges[i].start && (uintptr_t)caller < ranges[i].end)
			return true;
	return false;
}

/* ---- by these names libsecpool's own code gets its memory (lib/rules.mk) ---- */

void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
void __wrap_free(void *memory);

void *__wrap_malloc(size_t bytes)
{
	return ordinary_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
	return ordinary_calloc(count, bytes);
}

void *__wrap_realloc(void *memory, size_t bytes)
{
	return ordinary_realloc(memory, bytes);
}

void *__wrap_aligned_alloc(size_t alignment, size_t bytes)
{
	return ordinary_memalign(alignment, bytes);
}

void __wrap_free(void *memory)
{
	ordinary_free(memory);
}
