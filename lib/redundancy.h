/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a region's pages lie on devices: one door for mirrors (mirror.h; no redundancy is a mirror of one) and erasure codes (erasure.h).
 *
 * Threads: workers, each for pages that it owns (busy).
 */
#ifndef SECPOOL_REDUNDANCY_H
#define SECPOOL_REDUNDANCY_H

#include "lib/pool.h"

/* What reading a page met. */
struct redundancy_result {
	bool bad;     /* bytes in their place failed their check, and their device is there */
	bool other;   /* the page came from another place than the first */
	struct device *bad_device; /* of the last bad bytes; NULL: none */
	uint64_t bad_at;
};

/* A sealed page on its way to the devices. */
struct redundancy_page {
	uint64_t pgno, version;
	const uint8_t *ciphertext;
	uint8_t tag[PAGECIPHER_TAG_BYTES];
};

/*
 * Reads, checks and decrypts a page to `plain`: a page of the worker's locked memory, or of the program's, where nothing is stored before the tag is found right; what failed its check in its place is written again (repair).
 * Version and copies are those of the page's word. Errors: SECPOOL_E_LOST (it can't be had), with ret_result telling why; then nothing holds it any more.
 */
enum secpool_error redundancy_read(struct worker *worker, struct secpool_region *region, uint64_t pgno, uint8_t *plain, struct redundancy_result *ret_result) MUST_USE;

/*
 * Checks and decrypts a page's ciphertext (private memory) to `plain`, as redundancy_read does; its tag is the page's. Errors: as pagecipher_open.
 */
enum secpool_error redundancy_open(struct worker *worker, struct secpool_region *region, uint64_t pgno, uint64_t version, const uint8_t *ciphertext, uint8_t *plain) MUST_USE;

/*
 * The same for ciphertext on a device, which is opened where it lies; worker->ciphertext has a copy of it afterwards. Errors: as device_read and pagecipher_open: SECPOOL_E_INTEGRITY (poison, or a tag that is wrong), SECPOOL_E_DEVICE_GONE.
 */
enum secpool_error redundancy_open_live(struct worker *worker, struct secpool_region *region, uint64_t pgno, uint64_t version, struct device *device, uint64_t at, uint8_t *plain) MUST_USE;

/* Asks the CPU to bring near what redundancy_read would read first for a page that will be filled next; does nothing else, and can't fail. */
void redundancy_prefetch(const struct secpool_region *region, uint64_t pgno);

/*
 * Writes pages that the worker owns to every place that they have, and notes tag, version and copies in each by `event`: PAGE_EVICT_WRITTEN or PAGE_FILL_WRITTEN. All are of one
 * stripe (redundancy_together), in the order of their numbers. A place counts when its device was seen alive after the note: whoever finds it gone later takes the bit out of the word.
 * A page whose word then has no copy was not written.
 */
void redundancy_write(struct worker *worker, struct secpool_region *region, const struct redundancy_page *pages, unsigned count, enum page_event event);

/* Whether what was last written of the page is kept anywhere: in a copy, or in its stripe's parity. word: the page's. Threads: who owns the page, or is about to. */
bool redundancy_holds(const struct secpool_region *region, uint64_t pgno, uint64_t word);

/* Whether a write of the page has anywhere to go now. */
bool redundancy_writable(const struct secpool_region *region, uint64_t pgno);

/* How many pages side by side are best written together: 1, or the pages of a stripe. */
static inline unsigned redundancy_together(const struct secpool_region *region)
{
	return region->data;
}

/* Where the i-th of pages that are written together is sealed to: private memory of the worker. */
static inline uint8_t *redundancy_ciphertext(struct worker *worker, const struct secpool_region *region, unsigned i)
{
	return region->data == 1 ? worker->ciphertext : worker->coding + i * region->page_bytes;
}

/* The placement as workers take it: loaded once, before the words. */
static inline const struct placement *redundancy_placement(const struct secpool_region *region)
{
	/* acquire: a new placement is published after the lost copies were struck from the words (loss.h) */
	return atomic_load_explicit(&region->placement, memory_order_acquire);
}

#endif
