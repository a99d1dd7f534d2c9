/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libsecpool-preload.so: the malloc family of a program that was not made for secpool, over the heap of a pool that is opened before the program's main
 * (`secpool run`, secpool-run(1)). If the pool can't be had the program does not begin.
 *
 * What stays in ordinary memory: what is allocated before the pool is open, what libc and the loader allocate (ordinary.h), libsecpool's own memory, and what a child made by
 * fork allocates. Whose memory it is tells the address: the pool's lies in the window. Threads: any, as malloc.
 */
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/os.h"
#include "lib/preload/fork.h"
#include "lib/preload/ordinary.h"
#include "lib/secpool.h"
#include "lib/signals.h"
#include "lib/wire/runopts.h"

#define PUBLIC __attribute__((visibility("default")))

/* The end of a program that can't begin, as secpool(1) has it. */
enum { STATUS_FAILED = 1, STATUS_REFUSED = 3 };

/* What valloc aligns to. */
enum { PAGE_BYTES = 4096 };

static _Atomic(struct secpool *) program_pool; /* NULL: not open yet */

/* The pool, if memory for this caller comes from it. */
static struct secpool *pool_for(const void *caller)
{
	struct secpool *pool = atomic_load_explicit(&program_pool, memory_order_acquire);

	if (!pool || ordinary_wanted(caller) || fork_is_child())
		return NULL;
	return pool;
}

static bool is_pooled(const void *memory)
{
	return signals_in_window(memory, 1);
}

/* NULL with the system's number for it, as malloc(3) says. */
static void *checked(void *memory)
{
	if (!memory)
		errno = ENOMEM; /* lint: errno is what malloc must set */
	return memory;
}

/* ---- objects of the pool in a child, which has no heap ---- */

/* Its new place is ordinary memory; what was there is read from the child's own copy, or is SIGBUS. */
static void *move_out(void *memory, size_t bytes)
{
	size_t had = secpool_usable_size(
		atomic_load_explicit(&program_pool, memory_order_relaxed), memory);
	void *moved = ordinary_malloc(bytes);

	return moved ? memcpy(moved, memory, had < bytes ? had : bytes) : NULL;
}

/* ---- ordinary objects that the program makes larger come to the pool ---- */

static void *move_in(struct secpool *pool, void *memory, size_t bytes)
{
	size_t had = ordinary_usable_size(memory);
	void *moved = secpool_malloc(pool, bytes);

	if (!moved)
		return NULL;
	memcpy(moved, memory, had < bytes ? had : bytes);
	ordinary_free(memory);
	return moved;
}

/* ---- the family ---- */

PUBLIC void *malloc(size_t bytes)
{
	struct secpool *pool = pool_for(__builtin_return_address(0));

	return pool ? checked(secpool_malloc(pool, bytes)) : ordinary_malloc(bytes);
}

/* The same function by a name that nobody can take the place of. */
extern __typeof__(malloc) secpool_own_malloc
	__attribute__((alias("malloc"), copy(malloc), visibility("hidden")));

PUBLIC void *calloc(size_t count, size_t bytes)
{
	struct secpool *pool = pool_for(__builtin_return_address(0));

	return pool ? checked(secpool_calloc(pool, count, bytes)) : ordinary_calloc(count, bytes);
}

PUBLIC void free(void *memory)
{
	int saved = errno; /* lint: errno is kept by free */

	if (!is_pooled(memory))
		ordinary_free(memory);
	else if (!fork_is_child())
		secpool_free(atomic_load_explicit(&program_pool, memory_order_relaxed), memory);
	errno = saved; /* lint: errno as above */
}

static void *reallocate(void *memory, size_t bytes, const void *caller)
{
	struct secpool *pool = pool_for(caller);

	if (memory && is_pooled(memory)) {
		if (bytes == 0) { /* as glibc has it */
			free(memory);
			return NULL;
		}
		if (fork_is_child())
			return checked(move_out(memory, bytes));
		pool = atomic_load_explicit(&program_pool, memory_order_relaxed);
		return checked(secpool_realloc(pool, memory, bytes));
	}
	if (!pool)
		return ordinary_realloc(memory, bytes);
	if (!memory)
		return checked(secpool_malloc(pool, bytes));
	return bytes == 0 ? ordinary_realloc(memory, 0) : checked(move_in(pool, memory, bytes));
}

PUBLIC void *realloc(void *memory, size_t bytes)
{
	return reallocate(memory, bytes, __builtin_return_address(0));
}

PUBLIC void *reallocarray(void *memory, size_t count, size_t bytes)
{
	size_t total;

	if (__builtin_mul_overflow(count, bytes, &total))
		return checked(NULL);
	return reallocate(memory, total, __builtin_return_address(0));
}

static void *align(size_t alignment, size_t bytes, const void *caller)
{
	struct secpool *pool = pool_for(caller);

	return checked(pool ? secpool_aligned_alloc(pool, alignment, bytes)
			    : ordinary_memalign(alignment, bytes));
}

static bool is_power_of_two(size_t number)
{
	return number != 0 && (number & (number - 1)) == 0;
}

PUBLIC int posix_memalign(void **ret_memory, size_t alignment, size_t bytes)
{
	int saved = errno; /* lint: errno is kept by posix_memalign */
	void *memory;

	if (alignment % sizeof(void *) || !is_power_of_two(alignment))
		return EINVAL;
	memory = align(alignment, bytes, __builtin_return_address(0));
	errno = saved; /* lint: errno as above */
	if (!memory)
		return ENOMEM;
	*ret_memory = memory;
	return 0;
}

PUBLIC void *aligned_alloc(size_t alignment, size_t bytes)
{
	if (!is_power_of_two(alignment)) {
		errno = EINVAL; /* lint: errno is what aligned_alloc must set */
		return NULL;
	}
	return align(alignment, bytes, __builtin_return_address(0));
}

/* glibc rounds an alignment that is no power of two up. */
PUBLIC void *memalign(size_t alignment, size_t bytes)
{
	size_t power = sizeof(void *);

	while (power < alignment && power <= SIZE_MAX / 4)
		power *= 2;
	return align(power, bytes, __builtin_return_address(0));
}

PUBLIC void *valloc(size_t bytes)
{
	return align(PAGE_BYTES, bytes, __builtin_return_address(0));
}

PUBLIC void *pvalloc(size_t bytes)
{
	size_t rounded;

	if (__builtin_add_overflow(bytes, (size_t)PAGE_BYTES - 1, &rounded))
		return checked(NULL);
	return align(PAGE_BYTES, rounded & ~((size_t)PAGE_BYTES - 1), __builtin_return_address(0));
}

PUBLIC size_t malloc_usable_size(void *memory)
{
	if (!is_pooled(memory))
		return ordinary_usable_size(memory);
	return secpool_usable_size(
		atomic_load_explicit(&program_pool, memory_order_relaxed), memory);
}

/* ---- the begin ---- */

static _Noreturn void refuse(enum secpool_error error, const char *what)
{
	bool denied = error == SECPOOL_E_DENIED || error == SECPOOL_E_UNKNOWN_TENANT;

	/* lint: dprintf and _exit: the user asked for a program in the pool; without one it must not run, and its output is where that is said */
	dprintf(STDERR_FILENO, "secpool run: %s: %s\n", what,
		*secpool_error_detail() ? secpool_error_detail() : secpool_strerror(error));
	/* lint: _exit as above */
	_exit(denied ? STATUS_REFUSED : STATUS_FAILED);
}

/*
 * Whether the program's calls of malloc come here. One that brings and exports its own comes first in the loader's search. A program that is not position-independent and takes malloc's
 * address comes first too, but with an undefined symbol, whose value is a jump to ours (System V ABI, AMD64 supplement, "Function Addresses").
 */
static bool serves_program(void)
{
	void *found = dlsym(RTLD_DEFAULT, "malloc");
	const ElfW(Sym) *symbol = NULL;
	Dl_info info;

	if (found == (void *)secpool_own_malloc)
		return true;
	return dladdr1(found, &info, (void **)&symbol, RTLD_DL_SYMENT) != 0 && symbol &&
	       symbol->st_shndx == SHN_UNDEF;
}

static enum secpool_error read_options(struct runopts *options)
{
	enum secpool_error error = SECPOOL_OK;

	runopts_init(options);
	for (unsigned i = 0; i < RUNOPTS_OPTIONS && !error; i++) {
		const char *text = getenv(runopts_variable((enum runopts_option)i));
		if (text)
			error = runopts_read(options, (enum runopts_option)i, text);
	}
	return error;
}

static enum secpool_on_loss on_loss_of(const struct runopts *options)
{
	switch (options->on_loss) {
	case MSG_ON_LOSS_SIGBUS:
		return SECPOOL_ON_LOSS_SIGBUS;
	case MSG_ON_LOSS_FAILOVER:
		return SECPOOL_ON_LOSS_FAILOVER;
	case MSG_ON_LOSS_SIGNAL:
		return SECPOOL_ON_LOSS_SIGNAL;
	case MSG_ON_LOSS_KILL:
		return SECPOOL_ON_LOSS_KILL;
	default:
		return SECPOOL_ON_LOSS_DEFAULT;
	}
}

static enum secpool_error open_pool(const struct runopts *options, struct secpool **ret_pool)
{
	struct secpool_region_options heap = {.size = sizeof heap};
	struct secpool_options wanted = {.size = sizeof wanted, .heap = &heap};

	wanted.local_bytes = (size_t)options->local_bytes;
	if (options->data > 1) {
		heap.redundancy = SECPOOL_REDUNDANCY_EC;
		heap.data = options->data;
		heap.parity = options->lanes - options->data;
	} else if (options->lanes > 1) {
		heap.redundancy = SECPOOL_REDUNDANCY_MIRROR;
		heap.copies = options->lanes;
	}
	heap.on_loss = on_loss_of(options);
	heap.loss_signal = (int)options->signal;
	return secpool_open(options->tenant, &wanted, ret_pool);
}

/* Before main. Constructors of libraries may have run: what they allocated is ordinary memory. The priority: before jemalloc's constructor (fork_prepare_first). */
__attribute__((constructor(101))) static void begin(void)
{
	struct runopts options;
	struct secpool *pool = NULL;
	enum secpool_error error = read_options(&options);
	void *first;

	if (error)
		refuse(error, "the options in the environment are wrong");
	if (!serves_program())
		refuse(SECPOOL_E_UNSUPPORTED,
			"the program has an allocator of its own: its memory would not be in the "
			"pool");
	if (dlsym(RTLD_DEFAULT, "secpool_open"))
		refuse(SECPOOL_E_UNSUPPORTED,
			"the program uses libsecpool itself, and two of it can't share SIGBUS: run "
			"it as it is");
	error = fork_prepare_first();
	if (!error)
		error = open_pool(&options, &pool);
	if (error)
		refuse(error, "the pool can't be opened");
	error = fork_prepare(pool, options.fork);
	if (error)
		refuse(error, "fork can't be prepared");
	/* the first region: what the policy and the devices refuse is known before the program begins */
	first = secpool_malloc(pool, 1);
	if (!first)
		refuse(err_last(), "the pool gives no memory");
	secpool_free(pool, first);
	ordinary_find_callers();
	/* release: all of the above is before the first use by another thread */
	atomic_store_explicit(&program_pool, pool, memory_order_release);
}
