/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/renew.h"

#include "lib/fault.h"
#include "lib/fill.h"
#include "lib/loss.h"
#include "lib/redundancy.h"

/* A page in the worker's hand, and what it was. */
struct taken {
	struct secpool_region *region;
	uint64_t pgno;
	enum page_state before;
};

static struct page *page_of(const struct taken *taken)
{
	return &taken->region->pages[taken->pgno];
}

/* Gives the page back as it was, under that version. */
static void give_back(struct worker *worker, const struct taken *taken, uint64_t version)
{
	struct page *page = page_of(taken);
	bool in_pool = taken->before == PAGE_ABSENT || taken->before == PAGE_CLEAN;
	uint64_t seen = atomic_load(&page->word);
	unsigned copies;

	do
		copies = in_pool ? page_copies(seen) : 0;
	while (!page_step(
		page, &seen, page_giving_back(taken->before, version, copies), copies, version));
	if (seen & PAGE_WAITERS)
		fault_wake_page(worker, taken->region, taken->pgno);
	loss_orphan(worker, taken->region, taken->pgno); /* if its copies went meanwhile */
}

/* Nothing holds it under the old key any more: it is told by a version of the new one. */
static void give_back_unheld(struct worker *worker, const struct taken *taken)
{
	uint64_t version = page_version(atomic_load(&page_of(taken)->word));
	uint64_t next = keyring_next(&taken->region->keys, version);

	give_back(worker, taken, next > PAGE_VERSION_MOST ? version : next);
}

/* Its bytes in worker->plain become its next version, where it lies. */
static enum renewal write_anew(struct worker *worker, const struct taken *taken)
{
	struct secpool_region *region = taken->region;
	struct page *page = page_of(taken);
	bool filling = page_state(atomic_load(&page->word)) == PAGE_FILLING;
	uint8_t *ciphertext = redundancy_ciphertext(worker, region, 0);
	uint64_t version = page_version(atomic_load(&page->word));
	struct redundancy_page sealed = {.pgno = taken->pgno,
		.version = keyring_next(&region->keys, version),
		.ciphertext = ciphertext};

	if (keyring_seal(&region->keys, worker->index, taken->pgno, sealed.version, worker->plain,
		    ciphertext, sealed.tag) != SECPOOL_OK) {
		give_back(worker, taken, version);
		return RENEWAL_STUCK;
	}
	redundancy_write(
		worker, region, &sealed, 1, filling ? PAGE_FILL_WRITTEN : PAGE_EVICT_WRITTEN);
	give_back(worker, taken, sealed.version);
	return RENEWAL_DONE;
}

static enum renewal renew(struct worker *worker, const struct taken *taken)
{
	struct redundancy_result result;

	if (redundancy_read(worker, taken->region, taken->pgno, worker->plain, &result) ==
		SECPOOL_OK) {
		if (result.bad)
			loss_tell_bad(worker, taken->region, taken->pgno, result.bad_device,
				result.bad_at);
		return write_anew(worker, taken);
	}
	if (taken->before == PAGE_ABSENT) {
		fill_end_as_lost(worker, taken->region, taken->pgno,
			result.bad ? SECPOOL_CAUSE_INTEGRITY : SECPOOL_CAUSE_REMOVED,
			result.bad_device);
		return RENEWAL_DONE;
	}
	/* what is resident is all that there is: dirty from here on, whatever its word said of copies */
	page_drop_copies(page_of(taken), page_copies(atomic_load(&page_of(taken)->word)));
	give_back_unheld(worker, taken);
	return RENEWAL_DONE;
}

enum renewal renew_page(struct worker *worker, struct secpool_region *region, uint64_t pgno)
{
	struct page *page = &region->pages[pgno];
	uint64_t seen = atomic_load(&page->word);
	struct taken taken = {.region = region, .pgno = pgno};
	bool held;

	if (page_busy(seen)) {
		/* its owner may wait for us to find room: so not for long */
		fault_await_page(worker, page, seen);
		seen = atomic_load(&page->word);
		if (page_busy(seen))
			return RENEWAL_LATER;
	}
	taken.before = page_state(seen);
	if (page_version(seen) == 0 || !keyring_is_old(&region->keys, page_version(seen)))
		return RENEWAL_NONE;
	held = redundancy_holds(region, pgno, seen);
	if (!held && taken.before == PAGE_LOST)
		return RENEWAL_NONE;
	if (held && !redundancy_writable(region, pgno))
		return RENEWAL_STUCK;
	if (!page_step(
		    page, &seen, page_taking(taken.before), page_copies(seen), page_version(seen)))
		return RENEWAL_LATER;
	if (held)
		return renew(worker, &taken);
	give_back_unheld(worker, &taken);
	return RENEWAL_DONE;
}
