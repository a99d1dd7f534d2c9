/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/snapshot.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "lib/service.h"
#include "lib/spinlock.h"
#include "lib/uffd.h"

/* What is sent together at least; a page that is larger goes as a whole. */
enum { CHUNK_BYTES = 256 << 10 };

/* How often the pool is tried to be stopped while pages wait for a handler, and how long between. */
enum { STOPS_MOST = 2000 };
#define STOP_RETRY_NS (1000ull * 1000)

/* How often the service looks for how long a fork has it wait. */
#define HOLD_LOOK_NS (100ull * 1000000)

/* What a fork and the service are about: workers.fork_stage. */
enum stage {
	STAGE_NONE = 0,
	STAGE_HELD = 1,	   /* the service waits to be told */
	STAGE_STOP = 2,	   /* it is to stop the pool */
	STAGE_STOPPED = 3, /* it did */
	STAGE_FAILED = 4,  /* it could not */
};

enum kind {
	KIND_PAGES = 1, /* `bytes` follow, for `address` */
	KIND_LOST = 2,	/* that range is lost */
	KIND_END = 3,
};

/* Both ends are the same program: no encoding. */
struct header {
	uint64_t address, bytes, kind;
};

/* ---- the stop: on the service thread ---- */

static enum secpool_error protect_all(struct secpool *pool)
{
	enum secpool_error error = SECPOOL_OK;

	for (unsigned slot = 0; slot < pool->region_slots && !error; slot++) {
		const struct secpool_region *region = atomic_load(&pool->regions[slot]);
		if (region && !atomic_load(&region->ended))
			error = uffd_protect(&pool->uffd, region->address, region->bytes);
	}
	return error;
}

/* Closes the gate when no page is in anybody's hand. */
static enum secpool_error close_gate(struct secpool *pool)
{
	for (unsigned i = 0; i < STOPS_MOST; i++) {
		if (!workers_close_gate(pool))
			break;
		workers_await(pool);
		if (handlers_idle_of_fills(pool))
			return SECPOOL_OK;
		(void)workers_open_gate(pool);
		clock_sleep_ns(STOP_RETRY_NS);
	}
	return err_set(SECPOOL_E_BUSY, "the pool is too busy to be stopped for a fork");
}

static enum secpool_error list_ranges(struct secpool *pool, struct snapshot *snapshot)
{
	snapshot->chunk_bytes = CHUNK_BYTES;
	snapshot->ranges = calloc(pool->region_slots + 1, sizeof *snapshot->ranges);
	if (!snapshot->ranges)
		return os_error("the regions of a fork");
	for (unsigned slot = 0; slot < pool->region_slots; slot++) {
		struct secpool_region *region = atomic_load(&pool->regions[slot]);
		if (!region)
			continue;
		snapshot->ranges[snapshot->count++] = (struct snapshot_range){
			.region = region, .address = region->address, .bytes = region->bytes};
		if (region->page_bytes > snapshot->chunk_bytes)
			snapshot->chunk_bytes = region->page_bytes;
	}
	return pool_new_locked(pool, snapshot->chunk_bytes, &snapshot->chunk);
}

static void run_hold(struct secpool *pool, struct service_call *call)
{
	call->error = list_ranges(pool, call->arg);
	if (!call->error)
		atomic_store(&pool->workers.fork_stage, STAGE_HELD);
}

/* From one stage to the next, unless the other side has left it meanwhile. */
static bool turn(struct secpool *pool, uint32_t from, enum stage to)
{
	if (!atomic_compare_exchange_strong(&pool->workers.fork_stage, &from, to))
		return false;
	spinlock_futex_wake(&pool->workers.fork_stage, INT32_MAX);
	return true;
}

/* Returns the stage that came after `stage`, or that one when it lasted too long. */
static enum stage await_turn(struct secpool *pool, enum stage stage)
{
	_Atomic uint32_t *now = &pool->workers.fork_stage;
	uint64_t until = clock_now_ns() + SNAPSHOT_PATIENCE_NS;

	while (atomic_load(now) == stage && clock_now_ns() <= until)
		spinlock_futex_wait_most(now, stage, HOLD_LOOK_NS);
	return atomic_load(now);
}

static enum secpool_error stop_pool(struct secpool *pool)
{
	enum secpool_error error = close_gate(pool);

	if (error)
		return error;
	error = protect_all(pool);
	if (error)
		(void)workers_open_gate(pool);
	return error;
}

void snapshot_serve(struct secpool *pool)
{
	enum secpool_error error;

	if (await_turn(pool, STAGE_HELD) == STAGE_HELD)
		(void)turn(pool, STAGE_HELD, STAGE_NONE);
	if (atomic_load(&pool->workers.fork_stage) == STAGE_STOP) {
		error = stop_pool(pool);
		/* the fork may have given up */
		if (!turn(pool, STAGE_STOP, error ? STAGE_FAILED : STAGE_STOPPED) && !error)
			(void)workers_open_gate(pool);
	}
	workers_await_open_gate(pool);
}

/* ---- the parent ---- */

static void free_parts(struct snapshot *snapshot)
{
	if (snapshot->chunk) {
		explicit_bzero(snapshot->chunk, snapshot->chunk_bytes);
		syscall(SYS_munmap, snapshot->chunk, snapshot->chunk_bytes);
	}
	free(snapshot->ranges);
	snapshot->chunk = NULL;
	snapshot->ranges = NULL;
	os_close(&snapshot->parent_end);
	os_close(&snapshot->child_end);
}

/* Nobody waits for the other side for ever. */
static enum secpool_error open_ends(struct snapshot *snapshot)
{
	const struct timeval patience = {.tv_sec = (time_t)(SNAPSHOT_PATIENCE_NS / CLOCK_NS_PER_S)};
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
		return os_error("a socket pair for a fork");
	snapshot->parent_end = ends[0];
	snapshot->child_end = ends[1];
	for (unsigned i = 0; i < 2; i++)
		if (setsockopt(ends[i], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) != 0 ||
			setsockopt(ends[i], SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) !=
				0)
			return os_error("a deadline for a fork");
	return SECPOOL_OK;
}

enum secpool_error snapshot_hold(struct secpool *pool, struct snapshot *ret_snapshot)
{
	struct snapshot snapshot = {.pool = pool, .parent_end = -1, .child_end = -1};
	enum secpool_error error = open_ends(&snapshot);

	if (!error)
		error = service_call(pool, run_hold, &snapshot);
	if (error) {
		free_parts(&snapshot);
		return error;
	}
	*ret_snapshot = snapshot;
	return SECPOOL_OK;
}

enum secpool_error snapshot_stop(struct snapshot *snapshot)
{
	struct secpool *pool = snapshot->pool;
	bool told = turn(pool, STAGE_HELD, STAGE_STOP);
	enum stage stage = told ? await_turn(pool, STAGE_STOP) : STAGE_NONE;

	/* it may answer just now */
	if (stage == STAGE_STOP && !turn(pool, STAGE_STOP, STAGE_NONE))
		stage = atomic_load(&pool->workers.fork_stage);
	if (stage == STAGE_STOPPED || stage == STAGE_FAILED)
		(void)turn(pool, stage, STAGE_NONE);
	if (stage == STAGE_STOPPED) {
		workers_pass_gate(true);
		return SECPOOL_OK;
	}
	free_parts(snapshot);
	return err_set(SECPOOL_E_BUSY, "the pool could not be stopped for a fork");
}

static enum secpool_error send_all(int fd, const void *bytes, size_t count)
{
	const uint8_t *at = bytes;

	while (count > 0) {
		ssize_t sent = send(fd, at, count, MSG_NOSIGNAL);
		if (sent < 0 && os_interrupted())
			continue;
		if (sent <= 0)
			return os_error("the other side");
		at += sent;
		count -= (size_t)sent;
	}
	return SECPOOL_OK;
}

static enum secpool_error receive_all(int fd, void *bytes, size_t count)
{
	uint8_t *at = bytes;

	while (count > 0) {
		ssize_t got = recv(fd, at, count, MSG_WAITALL);
		if (got < 0 && os_interrupted())
			continue;
		if (got <= 0)
			return err_set(SECPOOL_E_CLOSED, "the other side has ended");
		at += got;
		count -= (size_t)got;
	}
	return SECPOOL_OK;
}

static enum secpool_error send_header(
	const struct snapshot *snapshot, enum kind kind, const void *address, size_t bytes)
{
	struct header header = {.address = (uintptr_t)address, .bytes = bytes, .kind = kind};

	return send_all(snapshot->parent_end, &header, sizeof header);
}

/* Pages that are all there, or all lost. */
static enum secpool_error send_pages(
	const struct snapshot *snapshot, struct secpool_region *region, size_t offset, size_t bytes)
{
	enum secpool_error error = secpool_read(region, offset, snapshot->chunk, bytes);

	if (error == SECPOOL_E_LOST && bytes == region->page_bytes)
		return send_header(snapshot, KIND_LOST, region->address + offset, bytes);
	if (!error)
		error = send_header(snapshot, KIND_PAGES, region->address + offset, bytes);
	if (!error)
		error = send_all(snapshot->parent_end, snapshot->chunk, bytes);
	return error;
}

static enum secpool_error send_run(
	const struct snapshot *snapshot, struct secpool_region *region, size_t offset, size_t bytes)
{
	enum secpool_error error = send_pages(snapshot, region, offset, bytes);

	/* one of them is lost: each by itself */
	for (size_t at = 0; error == SECPOOL_E_LOST && at < bytes; at += region->page_bytes) {
		enum secpool_error one =
			send_pages(snapshot, region, offset + at, region->page_bytes);
		if (one)
			return one;
		if (at + region->page_bytes == bytes)
			return SECPOOL_OK;
	}
	return error;
}

static bool was_written(const struct secpool_region *region, uint64_t pgno)
{
	return page_state(atomic_load(&region->pages[pgno].word)) != PAGE_FRESH;
}

static enum secpool_error send_region(
	const struct snapshot *snapshot, struct secpool_region *region)
{
	uint64_t most = snapshot->chunk_bytes / region->page_bytes, pgno = 0;
	enum secpool_error error = SECPOOL_OK;

	if (atomic_load(&region->ended)) /* all of it is lost */
		return send_header(snapshot, KIND_LOST, region->address, region->bytes);
	while (!error && pgno < region->page_count) {
		uint64_t end = pgno;
		while (end < region->page_count && end - pgno < most && was_written(region, end))
			end++;
		/* the service opened it: what pages hold changes, and what waits for it has to go on */
		if (!workers_gate_closed(snapshot->pool))
			return err_set(SECPOOL_E_TIMEOUT, "the fork took too long");
		if (end > pgno)
			error = send_run(snapshot, region, pgno * region->page_bytes,
				(end - pgno) * region->page_bytes);
		workers_note_gate(snapshot->pool);
		pgno = end > pgno ? end : pgno + 1;
	}
	return error;
}

enum secpool_error snapshot_send(struct snapshot *snapshot)
{
	enum secpool_error error = SECPOOL_OK;
	uint8_t verdict = 0;

	os_close(&snapshot->child_end);
	for (unsigned i = 0; i < snapshot->count && !error; i++)
		error = send_region(snapshot, snapshot->ranges[i].region);
	if (!error)
		error = send_header(snapshot, KIND_END, NULL, 0);
	if (!error && (receive_all(snapshot->parent_end, &verdict, 1) != SECPOOL_OK || !verdict))
		error = err_set(
			SECPOOL_E_NO_MEMORY, "the child could not take what the regions hold");
	workers_pass_gate(false);
	if (!workers_open_gate(snapshot->pool) && !error)
		error = err_set(SECPOOL_E_TIMEOUT, "the fork took too long: the pool went on");
	/* only now is it sure that the child has one moment's */
	if (!error)
		error = send_all(snapshot->parent_end, &verdict, 1);
	free_parts(snapshot);
	return error;
}

/* ---- the child ---- */

static enum secpool_error lock_range(
	const struct snapshot *snapshot, const struct snapshot_range *range)
{
	if (mlock2(range->address, range->bytes, MLOCK_ONFAULT) != 0 &&
		!snapshot->pool->allow_unlocked)
		return os_error("mlock of %zu bytes", range->bytes);
	return SECPOOL_OK;
}

/* In place of the window's cover. Raw calls where the library's own keep the program away from these addresses. */
static enum secpool_error map_range(
	const struct snapshot *snapshot, const struct snapshot_range *range)
{
	if (mmap(range->address, range->bytes, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
		return os_error("%zu bytes of memory", range->bytes);
	if (syscall(SYS_madvise, range->address, range->bytes, MADV_DONTDUMP) != 0)
		return os_error("madvise");
	return lock_range(snapshot, range);
}

static enum secpool_error map_lost(const struct header *header)
{
	int fd = (int)syscall(SYS_memfd_create, "secpool-lost", MFD_CLOEXEC);
	void *at = (void *)(uintptr_t)header->address;
	enum secpool_error error = SECPOOL_OK;

	if (fd < 0 || mmap(at, header->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
			      0) == MAP_FAILED)
		error = os_error("a lost page");
	os_close(&fd);
	return error;
}

enum secpool_error snapshot_receive(struct snapshot *snapshot)
{
	enum secpool_error error = SECPOOL_OK, sent;
	struct header header = {.kind = 0};
	uint8_t verdict;

	os_close(&snapshot->parent_end);
	for (unsigned i = 0; i < snapshot->count && !error; i++)
		error = map_range(snapshot, &snapshot->ranges[i]);
	while (!error && header.kind != KIND_END) {
		error = receive_all(snapshot->child_end, &header, sizeof header);
		if (!error && header.kind == KIND_PAGES)
			error = receive_all(snapshot->child_end, (void *)(uintptr_t)header.address,
				header.bytes);
		else if (!error && header.kind == KIND_LOST)
			error = map_lost(&header);
	}
	verdict = !error;
	sent = send_all(snapshot->child_end, &verdict, 1);
	if (!error)
		error = sent;
	/* whether nothing changed while it was sent */
	if (!error)
		error = receive_all(snapshot->child_end, &verdict, 1);
	os_close(&snapshot->child_end);
	return error;
}

enum secpool_error snapshot_inherit(const struct snapshot *snapshot)
{
	enum secpool_error error = SECPOOL_OK;

	for (unsigned i = 0; i < snapshot->count && !error; i++)
		error = lock_range(snapshot, &snapshot->ranges[i]);
	return error;
}
