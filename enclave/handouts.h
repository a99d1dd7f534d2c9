/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which regions have a key that was handed out in this run, and of which epochs: one, or two while a region is rotated. Found by the region's number in constant time, whatever their
 * number: a table of open addressing that is at most half full and grows by doubling. It holds no key. An empty one is all zero. Threads: one at a time for each table.
 */
#ifndef SECPOOL_ENCLAVE_HANDOUTS_H
#define SECPOOL_ENCLAVE_HANDOUTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

/* Keys at a time, as many as the front's file of wrapped keys has slots (KEYFILE_SLOTS_MOST); 48 MiB of the enclave's memory. */
enum { HANDOUTS_MOST = 1 << 20, HANDOUTS_EPOCHS = 2 };

/* epochs: ascending from the first on, 0: none. A row without a region is free. */
struct handouts_row {
	uint64_t region, epochs[HANDOUTS_EPOCHS];
};

struct handouts {
	size_t count;              /* epochs in all */
	size_t regions;            /* rows in use */
	size_t places;             /* rows that there are: 0, or a power of two */
	struct handouts_row *rows; /* owned */
};

/* Frees the table; it is empty then. */
void handouts_done(struct handouts *handouts);

/*
 * Whether the region (not 0) may get a key of this epoch (not 0), and room for it: handouts_add can't fail then.
 * Errors: SECPOOL_E_EXISTS (it has a key of this epoch or of a later one, or HANDOUTS_EPOCHS of them), SECPOOL_E_LIMIT (HANDOUTS_MOST), SECPOOL_E_NO_MEMORY. Nothing changed.
 */
enum secpool_error handouts_prepare(struct handouts *handouts, uint64_t region, uint64_t epoch) MUST_USE;

/* Notes the key that handouts_prepare allowed last. */
void handouts_add(struct handouts *handouts, uint64_t region, uint64_t epoch);

/* Whether the region has a key of any epoch. */
bool handouts_has(const struct handouts *handouts, uint64_t region);

/* Forgets a region's key of an epoch, or all of its keys (epoch 0). One that is not there: nothing. */
void handouts_remove(struct handouts *handouts, uint64_t region, uint64_t epoch);

#endif
