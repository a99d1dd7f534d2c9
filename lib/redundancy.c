/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/redundancy.h"

#include <assert.h>

#include "lib/erasure.h"
#include "lib/mirror.h"

enum secpool_error redundancy_read(struct worker *worker, struct secpool_region *region,
	uint64_t pgno, uint8_t *plain, struct redundancy_result *ret_result)
{
	return region->data == 1 ? mirror_read(worker, region, pgno, plain, ret_result)
				 : erasure_read(worker, region, pgno, plain, ret_result);
}

enum secpool_error redundancy_open(struct worker *worker, struct secpool_region *region,
	uint64_t pgno, uint64_t version, const uint8_t *ciphertext, uint8_t *plain)
{
	bool is_private = plain >= worker->plain && plain < worker->plain + worker->staging_bytes;

	return (is_private ? keyring_open : keyring_open_exposed)(&region->keys, worker->index,
		pgno, version, ciphertext, region->pages[pgno].tag, plain);
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
