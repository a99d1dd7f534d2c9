/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/pool.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "enclave/secmem.h"
#include "enclave/selftest.h"
#include "lib/base/os.h"
#include "lib/heap.h"
#include "lib/manifest.h"
#include "lib/misuse.h"
#include "lib/refill.h"
#include "lib/region.h"
#include "lib/service.h"
#include "lib/signals.h"

enum { LOCAL_BYTES_DEFAULT = 64 << 20, LOCAL_BYTES_LEAST = 4 << 20, FAULT_THREADS_DEFAULT = 2 };

#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT 1
#endif

/* ---- regions by address and slot ---- */

struct secpool_region *pool_find_address(struct secpool *pool, uintptr_t address)
{
	/* seq_cst: after worker_enter's store, so that pool_remove_region sees the stay, or the stay the new table */
	const struct region_table *table = atomic_load(&pool->table);
	unsigned low = 0, high = table ? table->count : 0;

	while (low < high) {
		unsigned middle = low + (high - low) / 2;
		struct secpool_region *region = table->regions[middle];
		if (address < (uintptr_t)region->address)
			high = middle;
		else if (address - (uintptr_t)region->address >= region->bytes)
			low = middle + 1;
		else
			return region;
	}
	return NULL;
}

struct secpool_region *pool_find_slot(struct secpool *pool, uint32_t slot)
{
	return slot < POOL_REGIONS_MOST ? atomic_load(&pool->regions[slot]) : NULL;
}

/* A table with one region more or less. */
static struct region_table *new_table(const struct region_table *old, struct secpool_region *more,
	const struct secpool_region *less)
{
	unsigned count = old ? old->count : 0;
	struct region_table *table =
		calloc(1, sizeof *table + (count + 1) * sizeof *table->regions);

	if (!table)
		return NULL;
	for (unsigned i = 0; i < count; i++) {
		if (more && more->address < old->regions[i]->address) {
			table->regions[table->count++] = more;
			more = NULL;
		}
		if (old->regions[i] != less)
			table->regions[table->count++] = old->regions[i];
	}
	if (more)
		table->regions[table->count++] = more;
	return table;
}

/* The old table is freed when no worker reads it any more. */
static void publish(struct secpool *pool, struct region_table *table)
{
	struct region_table *old = atomic_exchange(&pool->table, table);

	workers_await(pool);
	free(old);
}

enum secpool_error pool_add_region(struct secpool *pool, struct secpool_region *region)
{
	struct region_table *table = new_table(atomic_load(&pool->table), region, NULL);

	if (!table)
		return os_error("table of regions");
	/* the slot after the last one given: one that was freed is not used again soon, so that no stale queue entry meets it */
	for (unsigned i = 0; i < POOL_REGIONS_MOST; i++) {
		unsigned slot = (pool->next_slot + i) % POOL_REGIONS_MOST;
		if (atomic_load(&pool->regions[slot]))
			continue;
		region->slot = slot;
		pthread_mutex_lock(&pool->regions_lock);
		atomic_store(&pool->regions[slot], region);
		if (slot >= pool->region_slots)
			pool->region_slots = slot + 1;
		pthread_mutex_unlock(&pool->regions_lock);
		publish(pool, table);
		pool->next_slot = slot + 1;
		return SECPOOL_OK;
	}
	free(table);
	return err_set(SECPOOL_E_LIMIT, "a session has at most %d regions", POOL_REGIONS_MOST);
}

/* Without memory for a new table the old one is changed when no worker reads it; a fault of that moment is made again. */
static void remove_in_place(struct secpool *pool, const struct secpool_region *region)
{
	struct region_table *table = atomic_exchange(&pool->table, NULL);
	unsigned kept = 0;

	workers_await(pool);
	for (unsigned i = 0; i < table->count; i++)
		if (table->regions[i] != region)
			table->regions[kept++] = table->regions[i];
	table->count = kept;
	atomic_store(&pool->table, table);
}

void pool_remove_region(struct secpool *pool, struct secpool_region *region)
{
	struct region_table *table = new_table(atomic_load(&pool->table), NULL, region);

	pthread_mutex_lock(&pool->regions_lock);
	atomic_store(&pool->regions[region->slot], NULL);
	pthread_mutex_unlock(&pool->regions_lock);
	if (table)
		publish(pool, table);
	else
		remove_in_place(pool, region);
	handlers_await_region(pool, region);
	workers_await(pool);
}

/* ---- memory ---- */

enum secpool_error pool_lock_range(const struct secpool *pool, void *start, size_t bytes)
{
	/* raw calls: the library's own madvise keeps the program away from these addresses */
	if (syscall(SYS_madvise, start, bytes, MADV_DONTFORK) != 0 ||
		syscall(SYS_madvise, start, bytes, MADV_DONTDUMP) != 0)
		return os_error("madvise of %zu bytes", bytes);
	syscall(SYS_madvise, start, bytes, MADV_NOHUGEPAGE); /* EINVAL where the kernel has none */
	if (mlock2(start, bytes, MLOCK_ONFAULT) != 0 && !pool->allow_unlocked) {
		(void)!os_error("mlock");
		return err_set(SECPOOL_E_NO_LOCKED_MEMORY,
			"%zu bytes can't be locked (%s): keymgrd raises RLIMIT_MEMLOCK where it "
			"may; else raise it, "
			"or set allow.unlocked_memory in the policy",
			bytes, err_detail());
	}
	return SECPOOL_OK;
}

enum secpool_error pool_new_locked(const struct secpool *pool, size_t bytes, uint8_t **ret_memory)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	enum secpool_error error;

	if (memory == MAP_FAILED)
		return os_error("%zu bytes of memory", bytes);
	error = pool_lock_range(pool, memory, bytes);
	if (error)
		syscall(SYS_munmap, memory, bytes);
	else
		*ret_memory = memory;
	return error;
}

/* ---- open and close ---- */

static enum secpool_error check_options(const char *tenant, const struct secpool_options *options)
{
	if (!tenant || !*tenant || strlen(tenant) >= MSG_NAME_BYTES)
		return err_set(
			SECPOOL_E_INVALID, "a tenant's name has 1 to %d bytes", MSG_NAME_BYTES - 1);
	if (options->size != sizeof *options)
		return err_set(SECPOOL_E_INVALID, "options.size is %zu, this library's is %zu",
			options->size, sizeof *options);
	if (options->fault_mode != SECPOOL_FAULT_THREAD &&
		options->fault_mode != SECPOOL_FAULT_INLINE)
		return err_set(
			SECPOOL_E_INVALID, "fault mode %d is not known", (int)options->fault_mode);
	if (options->fault_threads > POOL_FAULT_THREADS_MOST)
		return err_set(
			SECPOOL_E_INVALID, "at most %d fault threads", POOL_FAULT_THREADS_MOST);
	if (options->local_bytes != 0 && options->local_bytes < LOCAL_BYTES_LEAST)
		return err_set(SECPOOL_E_INVALID, "local_bytes is at least %d MiB",
			LOCAL_BYTES_LEAST >> 20);
	if (options->heap &&
		(options->heap->size != sizeof *options->heap || options->heap->bytes != 0 ||
			options->heap->refill || options->heap->refill_arg || options->heap->name))
		return err_set(SECPOOL_E_INVALID,
			"options.heap has a size, and neither bytes, name nor refill");
	return SECPOOL_OK;
}

/* Secret memory, then OpenSSL's known answers: once for the process. */
static enum secpool_error prepare_process(void)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* Protects: done, pid */
	static bool done;
	static int pid;
	enum secpool_error error = SECPOOL_OK;

	pthread_mutex_lock(&lock);
	if (done && pid != getpid()) {
		/* secret memory is not inherited: its OpenSSL has nothing to stand on */
		error = err_set(SECPOOL_E_CLOSED, "a child of a process that used secpool can't "
						  "open a pool: let it exec first");
	} else if (!done) {
		error = secmem_init(SECMEM_REFUSE);
		if (!error)
			error = selftest_run();
		if (!error)
			error = signals_install();
		done = !error;
		pid = getpid();
	}
	pthread_mutex_unlock(&lock);
	return error;
}

static void free_pool(struct secpool *pool)
{
	struct device *older;

	for (struct device *d = atomic_load(&pool->devices); d; d = older) {
		older = d->older;
		device_drop(d);
	}
	if (pool->zeros)
		syscall(SYS_munmap, pool->zeros, (size_t)PAGECIPHER_PAGE_BYTES_MOST);
	cache_done(&pool->cache);
	if (atomic_load(&pool->program_broken))
		events_abandon(&pool->events);
	events_done(&pool->events);
	free(atomic_load(&pool->table));
	pthread_mutex_destroy(&pool->regions_lock);
	pthread_mutex_destroy(&pool->heap_lock);
	misuse_retire(pool, sizeof *pool);
}

static enum secpool_error new_pool(
	const char *tenant, const struct secpool_options *options, struct secpool **ret_pool)
{
	struct secpool *pool = aligned_alloc(WORKER_CACHE_LINE, sizeof *pool);
	enum secpool_error error;
	void *zeros;

	if (!pool)
		return os_error("pool");
	memset(pool, 0, sizeof *pool);
	pthread_mutex_init(&pool->regions_lock, NULL);
	pthread_mutex_init(&pool->heap_lock, NULL);
	pool->uffd = pool->program_uffd = (struct uffd){.fd = -1, .empty_fd = -1};
	pool->fault_mode = options->fault_mode;
	pool->read_only = options->read_only != 0;
	MSG_SET(pool->tenant, tenant);
	pool->pid = getpid();
	pool->fault_threads =
		options->fault_threads ? options->fault_threads : FAULT_THREADS_DEFAULT;
	pool->local_bytes = options->local_bytes ? options->local_bytes : LOCAL_BYTES_DEFAULT;
	if (options->heap)
		pool->heap_options = *options->heap;
	pool->heap_options.size = sizeof pool->heap_options;
	pool->heap_options.name = "heap";
	error = events_init(&pool->events);
	/* what the workers hold of plaintext is taken from it with the first region; a moved frame stays charged */
	if (!error)
		error = cache_init(&pool->cache, pool->local_bytes);
	zeros = mmap(
		NULL, PAGECIPHER_PAGE_BYTES_MOST, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!error && zeros == MAP_FAILED)
		error = os_error("a page of zeros");
	pool->zeros = zeros == MAP_FAILED ? NULL : zeros;
	if (error)
		free_pool(pool);
	else
		*ret_pool = pool;
	return error;
}

enum secpool_error secpool_open(
	const char *tenant, const struct secpool_options *options, struct secpool **ret_pool)
{
	struct secpool_options defaults = {.size = sizeof defaults};
	char runtime[PATH_MAX], socket_path[PATH_MAX];
	struct secpool *pool = NULL;
	enum secpool_error error;

	if (!options)
		options = &defaults;
	if (!ret_pool)
		return err_set(SECPOOL_E_INVALID, "secpool_open needs a place for its result");
	error = check_options(tenant, options);
	if (!error)
		error = os_runtime_dir(options->runtime_dir, runtime, sizeof runtime - 32);
	if (!error)
		error = prepare_process();
	if (!error)
		error = new_pool(tenant, options, &pool);
	if (error)
		return error;
	snprintf(socket_path, sizeof socket_path, "%.4000s/keymgr.sock", runtime);
	error = service_start(pool, socket_path);
	if (error)
		free_pool(pool);
	else
		*ret_pool = pool;
	return error;
}

void secpool_close(struct secpool *pool)
{
	if (pool && pool->pid == 0)
		misuse_end("secpool_close of a pool that was closed already");
	if (!pool || pool->pid != getpid()) /* a child has neither its threads nor its regions */
		return;
	heap_free(pool);
	for (unsigned slot = 0; slot < POOL_REGIONS_MOST; slot++)
		if (atomic_load(&pool->regions[slot]))
			(void)!region_close(atomic_load(&pool->regions[slot]));
	refill_stop(pool);
	service_stop(pool);
	free_pool(pool);
}

/* ---- small questions ---- */

enum secpool_error pool_check(const struct secpool *pool)
{
	if (pool->pid == 0)
		return err_set(SECPOOL_E_CLOSED, "the pool was closed (secpool_close)");
	if (pool->pid != getpid())
		return err_set(SECPOOL_E_CLOSED, "a child made by fork has no pool");
	return SECPOOL_OK;
}

uint64_t pool_counter(const struct secpool *pool, enum counter counter)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < WORKERS_MOST; i++)
		sum += atomic_load_explicit(
			&pool->workers.all[i].counters[counter], memory_order_relaxed);
	return sum;
}

int secpool_event_fd(struct secpool *pool)
{
	return pool && pool->pid != 0 ? pool->events.program_fd : -1;
}

enum secpool_error secpool_event_next(struct secpool *pool, struct secpool_event *ret_event)
{
	enum secpool_error error;

	if (!pool || !ret_event || ret_event->size != sizeof *ret_event)
		return err_set(SECPOOL_E_INVALID,
			"secpool_event_next: a pool, and an event with size set");
	error = pool_check(pool);
	if (error)
		return error;
	if (atomic_load(&pool->program_broken))
		events_abandon(&pool->events);
	return events_take(&pool->events, ret_event);
}

enum secpool_error secpool_stats(struct secpool *pool, struct secpool_stats *ret_stats)
{
	struct secpool_stats stats = {.size = sizeof stats};

	if (!pool || !ret_stats || ret_stats->size != sizeof *ret_stats)
		return err_set(SECPOOL_E_INVALID, "secpool_stats: a pool, and stats with size set");
	if (pool->pid == 0)
		return pool_check(pool);
	stats.local_bytes_limit = pool->local_bytes;
	stats.resident_bytes = cache_used_bytes(&pool->cache);
	stats.faults = pool_counter(pool, COUNTER_FAULTS);
	stats.fills = pool_counter(pool, COUNTER_FILLS);
	stats.zero_fills = pool_counter(pool, COUNTER_ZERO_FILLS);
	stats.evictions = pool_counter(pool, COUNTER_EVICTIONS);
	stats.write_backs = pool_counter(pool, COUNTER_WRITE_BACKS);
	stats.integrity_failures = pool_counter(pool, COUNTER_INTEGRITY_FAILURES);
	stats.repairs = pool_counter(pool, COUNTER_REPAIRS);
	stats.failovers = pool_counter(pool, COUNTER_FAILOVERS);
	stats.metadata_bytes = cache_metadata_bytes(&pool->cache);
	stats.user_faults_only = pool->uffd.user_only;
	pthread_mutex_lock(&pool->regions_lock);
	for (unsigned i = 0; i < pool->region_slots; i++) {
		const struct secpool_region *region = atomic_load(&pool->regions[i]);
		if (!region)
			continue;
		stats.lost_pages += atomic_load(&region->lost_pages);
		stats.metadata_bytes += region->page_count * sizeof *region->pages;
		if (atomic_load(&region->digests))
			stats.metadata_bytes += region->page_count * MANIFEST_DIGEST_BYTES;
	}
	pthread_mutex_unlock(&pool->regions_lock);
	*ret_stats = stats;
	return SECPOOL_OK;
}

const char *secpool_strerror(enum secpool_error error)
{
	return err_text(error);
}

const char *secpool_error_detail(void)
{
	return err_detail();
}
