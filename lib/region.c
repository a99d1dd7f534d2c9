/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/region.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "lib/erasure.h"
#include "lib/evict.h"
#include "lib/loss.h"
#include "lib/misuse.h"
#include "lib/pin.h"
#include "lib/places.h"
#include "lib/refill.h"
#include "lib/seal.h"
#include "lib/service.h"
#include "lib/signals.h"

/* The budget must hold at least this many pages of a region beside what the workers have. */
enum { PAGES_LEAST = 8 };

/* What is read ahead of one stream takes at most this part of the budget. */
enum { READAHEAD_SHARE = 64 };

struct create {
	struct msg_region_create ask;
	const struct secpool_region_options *options;
	struct secpool_region *region; /* the result */
};

struct release {
	struct secpool_region *region;
	struct secpool_receipt *receipt; /* may be NULL */
	bool detach;			 /* the region goes on without this process */
};

/* ---- create: on the service thread ---- */

static void free_region(struct secpool_region *region)
{
	if (!region)
		return;
	if (region->address)
		syscall(SYS_munmap, region->address, region->bytes);
	if (region->pages)
		syscall(SYS_munmap, region->pages, region->page_count * sizeof *region->pages);
	erasure_done(region);
	pins_free(region->pins);
	places_free(atomic_load(&region->placement));
	places_free_targets(region);
	keyring_done(&region->keys);
	seal_free(region);
	misuse_retire(region, sizeof *region);
}

/* The workers' own pages count too: the first region, and the first of a larger page size, take them from the budget. */
static enum secpool_error reserve_workers(struct secpool *pool, size_t page_bytes)
{
	struct service *service = pool->service;
	struct worker *worker = pool_service_worker(pool);
	size_t wanted = workers_plain_bytes(pool, page_bytes);
	enum secpool_error error = workers_lock(pool, page_bytes);

	if (error || wanted <= service->plain_bytes)
		return error;
	if (wanted + PAGES_LEAST * page_bytes > pool->local_bytes)
		return err_set(SECPOOL_E_LIMIT,
			"pages of %zu bytes need at least %zu bytes of local memory, this pool has "
			"%zu",
			page_bytes, wanted + PAGES_LEAST * page_bytes, pool->local_bytes);
	worker_enter(worker);
	error = evict_make_room(worker, wanted - service->plain_bytes);
	worker_leave(worker);
	if (error)
		return error;
	service->plain_bytes = wanted;
	return workers_grow(pool, page_bytes);
}

static int protection_of(const struct secpool_region *region)
{
	return PROT_READ | (region_still(region) ? 0 : PROT_WRITE);
}

static enum secpool_error map_memory(
	struct secpool *pool, struct secpool_region *region, uint64_t address)
{
	void *wanted = (void *)(uintptr_t)address;
	void *at = mmap(wanted, region->bytes, protection_of(region),
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	enum secpool_error error;

	if (at == MAP_FAILED)
		return os_error("map %zu bytes at %p (is something else of this program there? the "
				"policy's window says where regions go)",
			region->bytes, wanted);
	region->address = at;
	if (at != wanted)
		return err_set(SECPOOL_E_EXISTS, "%p is in use in this program", wanted);
	error = pool_lock_range(pool, at, region->bytes);
	if (!error)
		error = uffd_register(&pool->uffd, at, region->bytes);
	return error;
}

/* As map_memory does it, for a page over which nothing was mapped: where the kernel has no poison. Who touches it in between gets SIGSEGV, never zeros. */
static enum secpool_error map_again(
	struct worker *worker, const struct secpool_region *region, void *at)
{
	size_t bytes = region->page_bytes;
	enum secpool_error error;

	if (mmap(at, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
		    0) == MAP_FAILED)
		return os_error("map a page again");
	error = pool_lock_range(region->pool, at, bytes);
	if (!error)
		error = uffd_register(worker->uffd, at, bytes);
	/* the raw call: the library's own mprotect keeps the program away from these addresses */
	if (!error && syscall(SYS_mprotect, at, bytes, protection_of(region)) != 0)
		error = os_error("map a page again");
	if (error)
		(void)!uffd_poison(worker->uffd, at, bytes);
	return error;
}

enum secpool_error region_heal(struct worker *worker, struct secpool_region *region, uint64_t pgno)
{
	uint8_t *at = region->address + pgno * region->page_bytes;

	return worker->uffd->has_poison ? uffd_drop(at, region->page_bytes)
					: map_again(worker, region, at);
}

static enum secpool_error map_pages(struct secpool_region *region)
{
	void *pages = mmap(NULL, region->page_count * sizeof *region->pages, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (pages == MAP_FAILED)
		return os_error("page table of %llu pages", (unsigned long long)region->page_count);
	region->pages = pages; /* zero is PAGE_FRESH, version 0 */
	return SECPOOL_OK;
}

enum secpool_error region_take_key(struct secpool *pool, const struct secpool_region *region,
	uint64_t epoch, struct pagecipher **ret_cipher)
{
	struct pagecipher_binding binding = {
		.region = region->id, .epoch = epoch, .page_bytes = region->page_bytes};
	int fd = -1;
	enum secpool_error error =
		keyclient_take_key(&pool->service->client, region->id, epoch, &fd);

	if (!error)
		error = pagecipher_new(fd, &binding, pool->workers.count, ret_cipher);
	os_close(&fd);
	return error;
}

static enum secpool_error take_first_key(struct secpool *pool, struct secpool_region *region)
{
	struct pagecipher *cipher = NULL;
	enum secpool_error error = region_take_key(pool, region, region->epoch, &cipher);

	if (!error)
		keyring_init(&region->keys, &cipher);
	return error;
}

/* What is attached is no more than what its manifest says, whose root, of that owner, came with the key. */
static enum secpool_error check_manifest(
	struct secpool_region *region, const struct region_plan *plan)
{
	size_t bytes = (size_t)msg_manifest_bytes(region->bytes, region->page_bytes);
	uint8_t root[PAGECIPHER_ROOT_BYTES];
	enum secpool_error error = pagecipher_digest(plan->manifest, bytes, root);

	if (!error)
		error = pagecipher_owned_root(plan->head.tenant, root, root);
	/* public bytes */
	if (!error &&
		memcmp(root, pagecipher_root(keyring_current(&region->keys)), sizeof root) != 0)
		error = err_set(SECPOOL_E_INTEGRITY,
			"the manifest of region %llu is not the one that was sealed",
			(unsigned long long)region->id);
	return error ? error : manifest_check(plan->manifest, bytes, &plan->head);
}

/* Of a new region: a mirror or a code may begin with less, and is made whole (loss_fill). */
static enum secpool_error check_places(struct secpool_region *region)
{
	region->lacks_places = !places_there(atomic_load(&region->placement));
	if (!places_whole(region, atomic_load(&region->placement)) ||
		(region->lacks_places && region->lanes == 1))
		return err_set(SECPOOL_E_DEVICE_GONE,
			"a device went while the region was made: try again");
	return SECPOOL_OK;
}

static void init_region(
	struct secpool *pool, const struct region_plan *plan, struct secpool_region *region)
{
	const struct secpool_region_options *options = plan->options;

	memset(region, 0, sizeof *region);
	region->pool = pool;
	region->id = plan->created.region;
	region->epoch = plan->created.epoch;
	region->bytes = plan->created.bytes;
	region->page_bytes = plan->page_bytes;
	region->page_count = region->bytes / region->page_bytes;
	readahead_init(&region->readahead,
		(uint32_t)(pool->local_bytes / READAHEAD_SHARE / region->page_bytes));
	region->data = plan->data;
	region->lanes = plan->lanes;
	region->stage = plan->manifest ? REGION_SEALED : REGION_OPEN;
	if (!options)
		return;
	region->refill = options->refill;
	region->refill_arg = options->refill_arg;
	region->refill_ns =
		(options->refill_ms ? options->refill_ms : REFILL_MS_DEFAULT) * CLOCK_NS_PER_MS;
}

enum secpool_error region_set_up(
	struct secpool *pool, const struct region_plan *plan, struct secpool_region **ret_region)
{
	uint64_t address = plan->created.address;
	struct secpool_region *region;
	enum secpool_error error = reserve_workers(pool, plan->page_bytes);

	if (error)
		return error;
	region = aligned_alloc(WORKER_CACHE_LINE, sizeof *region);
	if (!region)
		return os_error("region");
	init_region(pool, plan, region);
	if (address == 0 || address % PAGECIPHER_PAGE_BYTES_MOST ||
		!signals_in_window((const void *)(uintptr_t)address, plan->created.bytes))
		error = err_set(SECPOOL_E_PROTOCOL, "keymgrd named an address outside its window");
	else
		error = take_first_key(pool, region);
	if (!error && plan->manifest)
		error = check_manifest(region, plan);
	if (!error)
		error = region_read_places(pool, region);
	if (!error)
		error = pins_new(&region->pins);
	if (!error && !plan->manifest)
		error = check_places(region);
	if (!error)
		error = map_pages(region);
	if (!error && region->data > 1)
		error = erasure_init(region);
	if (!error && plan->manifest)
		error = seal_take_pages(region, plan->manifest);
	if (!error)
		error = map_memory(pool, region, address);
	if (!error)
		error = pool_add_region(pool, region);
	if (error)
		free_region(region);
	else
		*ret_region = region;
	return error;
}

static void run_create(struct secpool *pool, struct service_call *call)
{
	struct create *create = call->arg;
	struct msg request = {.type = MSG_REGION_CREATE}, answer;
	enum secpool_error error = reserve_workers(pool, create->ask.page_bytes);

	request.u.region_create = create->ask;
	if (!error)
		error = keyclient_call(
			&pool->service->client, &request, MSG_REGION_CREATED, &answer);
	if (!error) {
		const struct region_plan plan = {.created = answer.u.region_created,
			.page_bytes = create->ask.page_bytes,
			.data = create->ask.data,
			.lanes = create->ask.lanes,
			.options = create->options};
		error = region_set_up(pool, &plan, &create->region);
		if (error) { /* give it back; its receipt is nobody's */
			char why[ERR_DETAIL_BYTES];
			struct msg release = {.type = MSG_REGION_RELEASE};
			memcpy(why, err_detail(), sizeof why);
			release.u.region_release.region = answer.u.region_created.region;
			(void)!keyclient_send(&pool->service->client, &release, NULL);
			err_set(error, "%s", why);
		}
	}
	call->error = error;
}

enum secpool_error region_read_places(struct secpool *pool, struct secpool_region *region)
{
	struct placement *placement;
	enum secpool_error error = places_read(pool, region, &placement);

	if (error)
		return error;
	loss_strike_gone(region);
	loss_strike_targets(region, placement);
	if (atomic_load(&region->placement) &&
		places_same(placement, atomic_load(&region->placement))) {
		places_free(placement); /* who waits for space reads this again and again */
		return SECPOOL_OK;
	}
	placement->older = atomic_load(&region->placement);
	/* release: after the lost copies were struck from the words (loss.h) */
	atomic_store_explicit(&region->placement, placement, memory_order_release);
	return SECPOOL_OK;
}

/* ---- options: in the program's thread ---- */

static enum secpool_error check_redundancy(
	const struct secpool_region_options *options, struct create *create)
{
	create->ask.data = 1;
	create->ask.lanes = 1;
	switch (options->redundancy) {
	case SECPOOL_REDUNDANCY_NONE:
		break;
	case SECPOOL_REDUNDANCY_MIRROR:
		create->ask.lanes = options->copies ? options->copies : 2;
		if (create->ask.lanes < 2 || create->ask.lanes > MSG_COPIES_MAX)
			return err_set(SECPOOL_E_INVALID, "a mirror has 2 to %d copies, not %u",
				MSG_COPIES_MAX, options->copies);
		break;
	case SECPOOL_REDUNDANCY_EC:
		if (options->data < 2 || options->data > MSG_LANES_MAX || options->parity < 1 ||
			options->parity > MSG_PARITY_MAX ||
			options->data + options->parity > MSG_LANES_MAX)
			return err_set(SECPOOL_E_INVALID,
				"an erasure code has 2 or more data lanes, 1 to %d of parity and "
				"at most "
				"%d in all, not %u and %u",
				MSG_PARITY_MAX, MSG_LANES_MAX, options->data, options->parity);
		if (create->ask.page_bytes > MSG_CODED_PAGE_BYTES_MAX)
			return err_set(SECPOOL_E_INVALID,
				"an erasure-coded region has pages of at most %d KiB",
				MSG_CODED_PAGE_BYTES_MAX >> 10);
		create->ask.data = options->data;
		create->ask.lanes = options->data + options->parity;
		break;
	default:
		return err_set(
			SECPOOL_E_INVALID, "redundancy %d is not known", (int)options->redundancy);
	}
	return SECPOOL_OK;
}

static enum secpool_error check_on_loss(
	const struct secpool_region_options *options, struct create *create)
{
	bool redundant = create->ask.lanes > 1;

	switch (options->on_loss) {
	case SECPOOL_ON_LOSS_DEFAULT:
		create->ask.on_loss = redundant ? MSG_ON_LOSS_FAILOVER : MSG_ON_LOSS_SIGBUS;
		break;
	case SECPOOL_ON_LOSS_SIGBUS:
		create->ask.on_loss = MSG_ON_LOSS_SIGBUS;
		break;
	case SECPOOL_ON_LOSS_SIGNAL:
		create->ask.on_loss = MSG_ON_LOSS_SIGNAL;
		break;
	case SECPOOL_ON_LOSS_KILL:
		create->ask.on_loss = MSG_ON_LOSS_KILL;
		break;
	case SECPOOL_ON_LOSS_FAILOVER:
		if (!redundant)
			return err_set(SECPOOL_E_INVALID, "on_loss failover needs redundancy");
		create->ask.on_loss = MSG_ON_LOSS_FAILOVER;
		break;
	case SECPOOL_ON_LOSS_REFILL:
		create->ask.on_loss = MSG_ON_LOSS_REFILL;
		break;
	default:
		return err_set(SECPOOL_E_INVALID, "on_loss %d is not known", (int)options->on_loss);
	}
	if (options->on_loss == SECPOOL_ON_LOSS_SIGNAL
			? options->loss_signal < 0 ||
				  !msg_signal_valid((uint32_t)options->loss_signal)
			: options->loss_signal != 0)
		return err_set(SECPOOL_E_INVALID,
			"loss_signal %d: on_loss signal needs a signal that is not SIGBUS, SIGKILL "
			"or "
			"SIGSTOP, other modes none",
			options->loss_signal);
	create->ask.signal = (uint32_t)options->loss_signal;
	if ((options->on_loss == SECPOOL_ON_LOSS_REFILL) != (options->refill != NULL))
		return err_set(SECPOOL_E_INVALID,
			"on_loss refill needs a refill callback, and other modes have none");
	create->options = options;
	return SECPOOL_OK;
}

static enum secpool_error check_sizes(
	const struct secpool_region_options *options, struct create *create)
{
	size_t page = options->page_bytes ? options->page_bytes : PAGECIPHER_PAGE_BYTES_LEAST;

	if (page < PAGECIPHER_PAGE_BYTES_LEAST || page > PAGECIPHER_PAGE_BYTES_MOST ||
		(page & (page - 1)))
		return err_set(SECPOOL_E_INVALID,
			"page_bytes is %zu: a power of two from 4 KiB to 2 MiB is expected", page);
	if (options->bytes == 0 || options->bytes > SIZE_MAX / 2)
		return err_set(SECPOOL_E_INVALID, "a region of %zu bytes", options->bytes);
	create->ask.page_bytes = page;
	create->ask.bytes = (options->bytes + page - 1) / page * page;
	if (create->ask.bytes / page > PAGECIPHER_PGNO_MOST)
		return err_set(SECPOOL_E_LIMIT, "a region has at most 2^36 pages: use larger ones");
	return SECPOOL_OK;
}

static enum secpool_error create_region(struct secpool *pool,
	const struct secpool_region_options *options, bool heap, struct secpool_region **ret_region)
{
	struct create create = {.region = NULL};
	enum secpool_error error;

	if (!pool || !options || !ret_region || options->size != sizeof *options)
		return err_set(SECPOOL_E_INVALID, "secpool_region_create: pool, options with size "
						  "set, and a place for the result");
	error = pool_check(pool);
	if (!error)
		error = check_sizes(options, &create);
	if (!error)
		error = check_redundancy(options, &create);
	if (!error)
		error = check_on_loss(options, &create);
	if (!error && options->name && strlen(options->name) >= MSG_NAME_BYTES)
		error = err_set(SECPOOL_E_INVALID, "a region's name has at most %d bytes",
			MSG_NAME_BYTES - 1);
	if (error)
		return error;
	MSG_SET(create.ask.name, options->name ? options->name : "");
	if (options->refill)
		error = refill_start(pool);
	if (!error)
		error = service_call(pool, run_create, &create);
	if (!error) {
		create.region->heap = heap;
		*ret_region = create.region;
	}
	return error;
}

enum secpool_error secpool_region_create(struct secpool *pool,
	const struct secpool_region_options *options, struct secpool_region **ret_region)
{
	return create_region(pool, options, false, ret_region);
}

enum secpool_error region_create_heap(
	struct secpool *pool, size_t bytes, struct secpool_region **ret_region)
{
	struct secpool_region_options options = pool->heap_options;

	options.bytes = bytes;

	return create_region(pool, &options, true, ret_region);
}

/* ---- release ---- */

static void run_release(struct secpool *pool, struct service_call *call)
{
	struct release *release = call->arg;
	struct secpool_region *region = release->region;
	struct msg request = {.type = MSG_REGION_RELEASE};
	uint64_t resident = 0;

	pool_remove_region(pool, region); /* no worker is at work on it from here on */
	refill_cancel(pool, region);
	service_tell_posted(pool->service);
	cache_forget(&pool->cache, region->slot);
	events_forget(&pool->events, region);
	for (uint64_t pgno = 0; pgno < region->page_count; pgno++) {
		enum page_state state = page_state(atomic_load(&region->pages[pgno].word));
		if (state == PAGE_CLEAN || state == PAGE_DIRTY)
			resident += region->page_bytes;
	}
	resident += atomic_load(&region->vanished) * region->page_bytes;
	syscall(SYS_munmap, region->address, region->bytes);
	region->address = NULL;
	cache_return(&pool->cache, pool_service_worker(pool)->index, resident);
	keyring_done(&region->keys);
	if (release->detach) {
		free_region(region);
		call->error = SECPOOL_OK;
		return;
	}
	request.u.region_release.region = region->id;
	call->error = keyclient_send(&pool->service->client, &request, &call->number);
	if (call->error)
		free_region(
			region); /* keymgrd releases it when it is back and this process is dead */
	else
		call->deferred = true;
}

enum secpool_error region_released(struct service_call *call, const struct msg *answer)
{
	struct release *release = call->arg;

	free_region(release->region);
	if (answer->type == MSG_REPLY && answer->u.reply.error != SECPOOL_OK)
		return err_set(
			err_from_number(answer->u.reply.error), "%s", answer->u.reply.detail);
	if (answer->type != MSG_RECEIPT)
		return err_set(
			SECPOOL_E_PROTOCOL, "a release was answered by %s", msg_name(answer->type));
	if (release->receipt)
		memcpy(release->receipt->text, answer->u.receipt.document,
			sizeof release->receipt->text);
	return SECPOOL_OK;
}

enum secpool_error secpool_region_release(
	struct secpool_region *region, struct secpool_receipt *ret_receipt)
{
	struct release release = {.region = region, .receipt = ret_receipt};

	if (!region || (ret_receipt && ret_receipt->size != sizeof *ret_receipt))
		return err_set(SECPOOL_E_INVALID,
			"secpool_region_release: a region, and a receipt with size set");
	if (!region->pool)
		return err_set(SECPOOL_E_CLOSED, "the region was released already");
	/* who only reads it does not end it */
	release.detach = atomic_load(&region->stage) == REGION_SEALED && !region->owner;
	if (release.detach && ret_receipt)
		memset(ret_receipt->text, 0, sizeof ret_receipt->text);
	return service_call(region->pool, run_release, &release);
}

enum secpool_error region_close(struct secpool_region *region)
{
	struct release release = {.region = region, .detach = region_still(region)};

	return service_call(region->pool, run_release, &release);
}

/* ---- questions ---- */

void *secpool_region_address(const struct secpool_region *region)
{
	return region ? region->address : NULL;
}

uint64_t secpool_region_number(const struct secpool_region *region)
{
	return region ? region->id : 0;
}

size_t secpool_region_bytes(const struct secpool_region *region)
{
	return region ? region->bytes : 0;
}

enum secpool_error secpool_region_lost(struct secpool_region *region, struct secpool_range *ranges,
	size_t count, size_t *ret_count)
{
	size_t found = 0;
	bool in_range = false;

	if (!region || !ret_count || (count > 0 && !ranges))
		return err_set(SECPOOL_E_INVALID, "secpool_region_lost: a region, room for ranges, "
						  "and a place for their number");
	if (!region->pool)
		return err_set(SECPOOL_E_CLOSED, "the region was released");
	for (uint64_t pgno = 0; atomic_load(&region->lost_pages) > 0 && pgno < region->page_count;
		pgno++) {
		bool lost = page_state(atomic_load(&region->pages[pgno].word)) == PAGE_LOST;
		if (lost && !in_range && found++ < count)
			ranges[found - 1] =
				(struct secpool_range){.offset = pgno * region->page_bytes};
		if (lost && found <= count)
			ranges[found - 1].bytes += region->page_bytes;
		in_range = lost;
	}
	*ret_count = found;
	return SECPOOL_OK;
}
