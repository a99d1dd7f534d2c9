/* SPDX-License-Identifier: Apache-2.0 */
/* secpool_read, secpool_write and secpool_flush: regions with errors instead of signals. */
#include "lib/base/clock.h"
#include "lib/base/guarded_copy.h"
#include "lib/evict.h"
#include "lib/service.h"

/* Pages that a worker has in hand are tried again after this long. */
#define FLUSH_RETRY_NS (100ull * 1000)

static enum secpool_error check(
	const struct secpool_region *region, size_t offset, const void *buffer, size_t bytes)
{
	if (!region || (bytes > 0 && !buffer))
		return err_set(SECPOOL_E_INVALID, "a region and a buffer are needed");
	if (offset > region->bytes || bytes > region->bytes - offset)
		return err_set(SECPOOL_E_INVALID,
			"%zu bytes at %zu go beyond the region's end (%zu)", bytes, offset,
			region->bytes);
	return SECPOOL_OK;
}

static enum secpool_error lost(size_t offset, size_t bytes)
{
	return err_set(SECPOOL_E_LOST,
		"%zu bytes at %zu can't be reached whole: secpool_region_lost says which ranges "
		"are lost",
		bytes, offset);
}

enum secpool_error secpool_read(
	struct secpool_region *region, size_t offset, void *buffer, size_t bytes)
{
	enum secpool_error error = check(region, offset, buffer, bytes);

	if (!error && guarded_copy(buffer, region->address + offset, bytes) != SECPOOL_OK)
		error = lost(offset, bytes);
	return error;
}

enum secpool_error secpool_write(
	struct secpool_region *region, size_t offset, const void *buffer, size_t bytes)
{
	enum secpool_error error = check(region, offset, buffer, bytes);

	if (!error && guarded_copy(region->address + offset, buffer, bytes) != SECPOOL_OK)
		error = lost(offset, bytes);
	return error;
}

static void run_flush(struct secpool *pool, struct service_call *call)
{
	struct secpool_region *region = call->arg;
	struct worker *worker = pool_service_worker(pool);
	uint64_t give_up = clock_now_ns() + EVICT_PATIENCE_NS;

	call->error = SECPOOL_OK;
	for (uint64_t pgno = 0; pgno < region->page_count && !call->error;) {
		enum secpool_error error = evict_flush_page(worker, region, pgno);
		if (error == SECPOOL_E_BUSY && clock_now_ns() < give_up) {
			clock_sleep_ns(FLUSH_RETRY_NS);
			continue;
		}
		give_up = clock_now_ns() + EVICT_PATIENCE_NS;
		if (error)
			call->error = err_set(error,
				"page %llu could not be written to any device; it stays resident",
				(unsigned long long)pgno);
		pgno++;
	}
}

enum secpool_error secpool_flush(struct secpool_region *region)
{
	if (!region)
		return err_set(SECPOOL_E_INVALID, "secpool_flush needs a region");
	return service_call(region->pool, run_flush, region);
}
