/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Erasure codes: page p of the region is cell p / data of lane p % data; a stripe is the cells of one number in all lanes, and those of the last lanes - data lanes hold its parity: a
 * Cauchy Reed-Solomon code over GF(2^8) of the ciphertext, by ISA-L. Parity has no tag of its own: what is decoded with it is checked against the tag of the page that it gives. redundancy.h
 * says what the functions do that are named there; stripe.h, who may do what to a stripe.
 *
 * A page's `copies` (page.h) are 1 while its contents can be had: from its own cell or from the others.
 * Threads: workers, each for pages that it owns (busy); rebuild, patrol and strike: the service.
 */
#ifndef SECPOOL_ERASURE_H
#define SECPOOL_ERASURE_H

#include "lib/redundancy.h"
#include "lib/stripe.h"

/* Bytes of a worker's private memory for one stripe: sealed pages, the cells of all lanes, and one more. */
enum { ERASURE_CODING_BYTES = (2 * MSG_LANES_MAX + 1) * MSG_CODED_PAGE_BYTES_MAX };

struct erasure_code;

/* Makes code and stripes of a region whose data, lanes, page_bytes and page_count are set. Errors: SECPOOL_E_NO_MEMORY; what was made is freed with erasure_done. */
enum secpool_error erasure_init(struct secpool_region *region) MUST_USE;
void erasure_done(struct secpool_region *region);

enum secpool_error erasure_read(struct worker *worker, struct secpool_region *region, uint64_t pgno, uint8_t *plain, struct redundancy_result *ret_result) MUST_USE;
void erasure_prefetch(const struct secpool_region *region, uint64_t pgno);
void erasure_write(struct worker *worker, struct secpool_region *region, const struct redundancy_page *pages, unsigned count, enum page_event event);

/* Whether its stripe's parity holds what was last written of the page. */
bool erasure_holds(const struct secpool_region *region, uint64_t pgno);

/* Whether so many lanes can be written that the page can be had again. */
bool erasure_writable(const struct secpool_region *region, uint64_t pgno);

/*
 * Writes again what a stripe lacks, to the places that it has now. check: also reads and checks what it has, and writes again what is bad (patrol). Returns whether anything was
 * read or written.
 */
bool erasure_rebuild(struct worker *worker, struct secpool_region *region, uint64_t number, bool check);

/* Whether a stripe lacks something that it has a usable place for. */
bool erasure_lacking(const struct secpool_region *region, uint64_t number);

/*
 * Cells of a lane are gone with their device: clears them from the stripes `first` up to `end`. lost is called for each page that thereby became lost, in order;
 * pages of stripes that a worker has in hand are its to tell.
 */
void erasure_strike(struct worker *worker, struct secpool_region *region, unsigned lane, uint64_t first, uint64_t end, void (*lost)(void *arg, uint64_t pgno), void *arg);

/* As mirror_move, of a stripe, which is waited for: true. What is not included is not copied. */
bool erasure_move(struct worker *worker, struct secpool_region *region, uint64_t number, struct target *target);

#endif
