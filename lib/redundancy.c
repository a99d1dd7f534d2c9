/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/redundancy.h"

#include <assert.h>

#include "lib/erasure.h"
#include "lib/mirror.h"
#include "lib/overhead.h"
#include "lib/seal.h"

enum secpool_error redundancy_read(struct worker *worker, struct secpool_region *region,
	uint64_t pgno, uint8_t *plain, struct redundancy_result *ret_result)
{
	return region->data == 1 ? mirror_read(worker, region, pgno, plain, ret_result)
				 : erasure_read(worker, region, pgno, plain, ret_result);
}

/* The program's memory, which its threads may look at at any time; not the worker's own. */
static bool is_exposed(const struct worker *worker, const uint8_t *plain)
{
	return plain < worker->plain || plain >= worker->plain + worker->staging_bytes;
}

enum secpool_error redundancy_open(struct worker *worker, struct secpool_region *region,
	uint64_t pgno, uint64_t version, const uint8_t *ciphertext, uint8_t *plain)
{
	enum secpool_error error = seal_check_page(region, pgno, ciphertext);

	if (error)
		return error;
	return (is_exposed(worker, plain) ? keyring_open_exposed : keyring_open)(&region->keys,
		worker->index, pgno, version, ciphertext, region->pages[pgno].tag, plain);
}

/* A page that is opened where it lies. */
struct opening {
	struct worker *worker;
	struct secpool_region *region;
	uint64_t pgno, version;
	uint8_t *plain;
};

/* For device_use. */
static enum secpool_error open_live(const uint8_t *at, void *arg)
{
	const struct opening *opening = arg;
	struct worker *worker = opening->worker;
	struct secpool_region *region = opening->region;

	return keyring_open_live(&region->keys, worker->index, opening->pgno, opening->version, at,
		region->pages[opening->pgno].tag, is_exposed(worker, opening->plain),
		worker->ciphertext, opening->plain);
}

enum secpool_error redundancy_open_live(struct worker *worker, struct secpool_region *region,
	uint64_t pgno, uint64_t version, struct device *device, uint64_t at, uint8_t *plain)
{
	struct opening opening = {.worker = worker,
		.region = region,
		.pgno = pgno,
		.version = version,
		.plain = plain};
	enum secpool_error error;

	/* what its SHA-256 is made of must be what is opened: a copy */
	if (atomic_load_explicit(&region->digests, memory_order_relaxed)) {
		error = device_read(device, at, worker->ciphertext, region->page_bytes);
		if (!error)
			error = redundancy_open(
				worker, region, pgno, version, worker->ciphertext, plain);
	} else {
		error = device_use(
			device, at, region->page_bytes, worker->ciphertext, open_live, &opening);
	}
	overhead_mark(worker, OVERHEAD_OPEN);
	return error;
}

void redundancy_prefetch(const struct secpool_region *region, uint64_t pgno)
{
	if (region->data == 1)
		mirror_prefetch(region, pgno);
	else
		erasure_prefetch(region, pgno);
}

void redundancy_write(struct worker *worker, struct secpool_region *region,
	const struct redundancy_page *pages, unsigned count, enum page_event event)
{
	assert(count >= 1 && count <= redundancy_together(region));
	if (region->data == 1)
		mirror_write(worker, region, pages, event);
	else
		erasure_write(worker, region, pages, count, event);
}

bool redundancy_holds(const struct secpool_region *region, uint64_t pgno, uint64_t word)
{
	return region->data == 1 ? page_copies(word) != 0 : erasure_holds(region, pgno);
}

bool redundancy_writable(const struct secpool_region *region, uint64_t pgno)
{
	return region->data == 1 ? mirror_missing(region, pgno, 0) != 0
				 : erasure_writable(region, pgno);
}
