/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/worker.h"

#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "lib/erasure.h"
#include "lib/evict.h"
#include "lib/pool.h"
#include "lib/snapshot.h"
#include "lib/spinlock.h"

/* Guests' places: what they may hold of the budget, and how many at least and at most. */
enum {
	GUESTS_PART = 8,
	GUESTS_LEAST = 2,
	GUESTS_MOST = POOL_WORKERS_MOST - POOL_FAULT_THREADS_MOST - 2
};

/* Of what can be locked the ranges for moved frames take at most this part. */
enum { MOVED_PART = 4 };

/* A borrower that finds no place looks again this often, then sleeps between. */
enum { BORROW_SPINS = 64 };
#define BORROW_RETRY_NS (20ull * 1000)

/* How often the service looks whether something moves while the gate is closed. */
#define GATE_LOOK_NS (100ull * 1000000)

/* The place that this thread had last: its memory is warm in this CPU's caches. */
static _Thread_local unsigned last_place __attribute__((tls_model("initial-exec")));

/* This thread forks: its guests come in while the gate is closed. */
static _Thread_local bool passes_gate __attribute__((tls_model("initial-exec")));

static size_t staging_of(size_t page_bytes)
{
	size_t chunk = (size_t)WORKER_CHUNK_PAGES * PAGECIPHER_PAGE_BYTES_LEAST;

	return page_bytes > chunk ? page_bytes : chunk;
}

/* How many guests' places a pool has room for. */
static unsigned guests_of(const struct secpool *pool, size_t page_bytes)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	size_t count = pool->local_bytes / GUESTS_PART / staging_of(page_bytes);
	size_t wanted = cpus < 1 ? GUESTS_LEAST : 2 * (size_t)cpus + GUESTS_LEAST;

	if (count > wanted)
		count = wanted;
	if (count > GUESTS_MOST)
		count = GUESTS_MOST;
	return count < GUESTS_LEAST ? GUESTS_LEAST : (unsigned)count;
}

size_t workers_plain_bytes(const struct secpool *pool, size_t page_bytes)
{
	return (pool->workers.first_guest + guests_of(pool, page_bytes)) * staging_of(page_bytes);
}

static void release_memory(uint8_t **memory, size_t bytes)
{
	if (*memory)
		syscall(SYS_munmap, *memory, bytes);
	*memory = NULL;
}

/* Staging of a worker that nobody uses at the moment, at least as large as asked. */
static enum secpool_error grow(struct worker *worker, size_t bytes)
{
	uint8_t *plain = NULL;
	void *ciphertext;
	enum secpool_error error;

	if (worker->staging_bytes >= bytes)
		return SECPOOL_OK;
	ciphertext = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (ciphertext == MAP_FAILED)
		return os_error("memory of a worker");
	error = pool_new_locked(worker->pool, bytes, &plain);
	if (error) {
		syscall(SYS_munmap, ciphertext, bytes);
		return error;
	}
	release_memory(&worker->ciphertext, worker->staging_bytes);
	release_memory(&worker->plain, worker->staging_bytes);
	worker->ciphertext = ciphertext;
	worker->plain = plain;
	worker->staging_bytes = bytes;
	return SECPOOL_OK;
}

static enum secpool_error make_coding(struct worker *worker)
{
	void *coding = mmap(NULL, ERASURE_CODING_BYTES, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (coding == MAP_FAILED)
		return os_error("memory of a worker");
	worker->coding = coding;
	return SECPOOL_OK;
}

/* What a thread's own worker holds of plaintext when pages have page_bytes: a part of a set (fill_run). */
static size_t own_plain_of(size_t page_bytes)
{
	size_t bytes = WORKER_CHUNK_PAGES * page_bytes;

	return bytes < PAGECIPHER_PAGE_BYTES_MOST ? bytes : PAGECIPHER_PAGE_BYTES_MOST;
}

/*
 * Locks of an own worker's plain memory what pages of page_bytes use. A handler's staging can't change while it runs: it has addresses for the largest page from the start, but all of
 * them locked would be the limit that a user of Debian has (8 MiB).
 */
static enum secpool_error lock_plain(struct worker *worker, size_t page_bytes)
{
	size_t wanted = own_plain_of(page_bytes);
	enum secpool_error error;

	if (wanted <= worker->locked_bytes)
		return SECPOOL_OK;
	error = pool_lock_range(worker->pool, worker->plain, wanted);
	if (!error)
		worker->locked_bytes = wanted;
	return error;
}

static enum secpool_error make_own(struct worker *worker, bool moves)
{
	const size_t bytes = PAGECIPHER_PAGE_BYTES_MOST;
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	void *ciphertext = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
	void *plain = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
	enum secpool_error error = SECPOOL_OK;

	if (ciphertext == MAP_FAILED || plain == MAP_FAILED)
		error = os_error("memory of a worker");
	worker->staging_bytes = bytes;
	worker->ciphertext = ciphertext == MAP_FAILED ? NULL : ciphertext;
	worker->plain = plain == MAP_FAILED ? NULL : plain;
	if (!error)
		error = lock_plain(worker, PAGECIPHER_PAGE_BYTES_LEAST);
	if (!error && moves)
		error = pool_new_locked(worker->pool, bytes, &worker->moved);
	if (!error && moves)
		error = uffd_register(worker->uffd, worker->moved, bytes);
	return error;
}

/* Frames are moved out (writeback.h) only where so much can be locked that the workers' ranges are a small part of it: else regions need it more. */
static bool may_move(const struct secpool *pool, unsigned own)
{
	size_t bytes = (size_t)MOVED_PART * own * PAGECIPHER_PAGE_BYTES_MOST;
	uint8_t *range = NULL;
	bool may = pool_new_locked(pool, bytes, &range) == SECPOOL_OK;

	release_memory(&range, bytes);
	return may;
}

static enum secpool_error worker_init(
	struct secpool *pool, unsigned index, const struct uffd *uffd, bool moves)
{
	struct worker *worker = &pool->workers.all[index];
	enum secpool_error error;

	*worker = (struct worker){
		.pool = pool, .index = index, .uffd = uffd, .gate = &pool->workers.gate};
	worker->guest = index >= pool->workers.first_guest;
	error = evict_batch_new(&worker->batch);
	if (!error)
		error = make_coding(worker);
	if (!error)
		error = worker->guest ? grow(worker, staging_of(PAGECIPHER_PAGE_BYTES_LEAST))
				      : make_own(worker, moves);
	return error;
}

enum secpool_error workers_init(struct secpool *pool, unsigned own, const struct uffd *uffd,
	const struct uffd *program_uffd)
{
	struct workers *workers = &pool->workers;
	enum secpool_error error = SECPOOL_OK;
	bool moves = uffd->has_move && may_move(pool, own);

	workers->first_guest = own;
	workers->count = own + guests_of(pool, PAGECIPHER_PAGE_BYTES_LEAST);
	for (unsigned i = 0; !error && i < workers->count; i++)
		error = worker_init(pool, i, i < own ? uffd : program_uffd, moves);
	for (unsigned i = own; !error && i < workers->count; i++)
		atomic_fetch_or(&workers->free, 1ull << i);
	if (error)
		workers_done(pool);
	return error;
}

void workers_done(struct secpool *pool)
{
	for (unsigned i = 0; i < WORKERS_MOST; i++) {
		struct worker *worker = &pool->workers.all[i];
		release_memory(&worker->ciphertext, worker->staging_bytes);
		release_memory(&worker->plain, worker->staging_bytes);
		release_memory(&worker->coding, ERASURE_CODING_BYTES);
		release_memory(&worker->moved, PAGECIPHER_PAGE_BYTES_MOST);
		evict_batch_free(worker->batch);
		worker->batch = NULL;
		worker->staging_bytes = 0;
	}
	atomic_store(&pool->workers.free, 0);
}

/* Takes one certain place, also from a guest: waits until it is given back. */
static void take_place(struct workers *workers, unsigned index)
{
	uint64_t bit = 1ull << index;

	while (!(atomic_fetch_and(&workers->free, ~bit) & bit))
		clock_sleep_ns(BORROW_RETRY_NS);
}

enum secpool_error workers_lock(struct secpool *pool, size_t page_bytes)
{
	enum secpool_error error = SECPOOL_OK;

	for (unsigned i = 0; i < pool->workers.first_guest && !error; i++)
		error = lock_plain(&pool->workers.all[i], page_bytes);
	return error;
}

enum secpool_error workers_grow(struct secpool *pool, size_t page_bytes)
{
	struct workers *workers = &pool->workers;
	unsigned keep = workers->first_guest + guests_of(pool, page_bytes);
	enum secpool_error error = SECPOOL_OK;

	for (unsigned i = workers->first_guest; i < workers->count && !error; i++) {
		take_place(workers, i);
		if (i >= keep) {
			release_memory(&workers->all[i].plain, workers->all[i].staging_bytes);
			continue; /* no longer given out */
		}
		error = grow(&workers->all[i], staging_of(page_bytes));
		atomic_fetch_or(&workers->free, 1ull << i);
	}
	if (!error && workers->count > keep)
		workers->count = keep;
	return error;
}

struct worker *worker_borrow(struct secpool *pool)
{
	struct workers *workers = &pool->workers;
	uint64_t free = atomic_load_explicit(&workers->free, memory_order_relaxed);
	unsigned spins = 0, index;

	for (;;) {
		while (free == 0) {
			if (spins++ < BORROW_SPINS)
				sched_yield();
			else
				clock_sleep_ns(BORROW_RETRY_NS);
			free = atomic_load_explicit(&workers->free, memory_order_relaxed);
		}
		index = free & 1ull << (last_place % WORKERS_MOST)
				? last_place
				: (unsigned)__builtin_ctzll(free);
		/* acquire: what the last borrower did; release: nothing of ours yet */
		if (atomic_compare_exchange_weak_explicit(&workers->free, &free,
			    free & ~(1ull << index), memory_order_acquire, memory_order_relaxed))
			break;
	}
	last_place = index;
	worker_enter(&workers->all[index]);
	return &workers->all[index];
}

void worker_give_back(struct worker *worker)
{
	worker_leave(worker);
	/* release: the next borrower sees what we did with the place */
	atomic_fetch_or_explicit(
		&worker->pool->workers.free, 1ull << worker->index, memory_order_release);
}

void workers_await(struct secpool *pool)
{
	for (unsigned i = 0; i < pool->workers.count; i++) {
		struct worker *worker = &pool->workers.all[i];
		uint64_t stay = atomic_load(&worker->inside);

		/* acquire: all that the stay did is before what the caller does next */
		while (stay != 0 &&
			atomic_load_explicit(&worker->inside, memory_order_acquire) == stay)
			sched_yield();
	}
}

void worker_await_gate(struct worker *worker)
{
	_Atomic uint32_t *gate = &worker->pool->workers.gate;

	while (!passes_gate && atomic_load(gate) != 0) {
		worker_leave(worker);
		while (atomic_load(gate) != 0)
			spinlock_futex_wait(gate, 1);
		atomic_store(&worker->inside, ++worker->turn); /* then the gate: as worker_enter */
	}
}

bool workers_close_gate(struct secpool *pool)
{
	uint32_t open = 0;

	return atomic_compare_exchange_strong(&pool->workers.gate, &open, 1);
}

bool workers_open_gate(struct secpool *pool)
{
	bool was_closed = atomic_exchange(&pool->workers.gate, 0) != 0;

	spinlock_futex_wake(&pool->workers.gate, INT32_MAX);
	return was_closed;
}

bool workers_gate_closed(struct secpool *pool)
{
	return atomic_load(&pool->workers.gate) != 0;
}

void workers_note_gate(struct secpool *pool)
{
	atomic_fetch_add_explicit(&pool->workers.gate_steps, 1, memory_order_relaxed);
}

void workers_pass_gate(bool passes)
{
	passes_gate = passes;
}

void workers_await_open_gate(struct secpool *pool)
{
	struct workers *workers = &pool->workers;
	uint32_t steps = atomic_load(&workers->gate_steps);
	uint64_t since = clock_now_ns();

	while (atomic_load(&workers->gate) != 0) {
		spinlock_futex_wait_most(&workers->gate, 1, GATE_LOOK_NS);
		if (atomic_load(&workers->gate_steps) != steps) {
			steps = atomic_load(&workers->gate_steps);
			since = clock_now_ns();
		} else if (clock_now_ns() - since > SNAPSHOT_PATIENCE_NS) {
			workers_open_gate(pool);
		}
	}
}
