/* SPDX-License-Identifier: Apache-2.0 */
/* Pages that are brought in together: FILLING, `stride` apart, their room in the budget reserved. They belong to who holds the set. */
#ifndef SECPOOL_FILLSET_H
#define SECPOOL_FILLSET_H

#include <stdbool.h>
#include <stdint.h>

struct secpool_region;

struct fillset {
	struct secpool_region *region;
	uint64_t first;  /* the lowest page */
	uint64_t stride; /* pages */
	unsigned count;
	bool writable;   /* for a write; else mapped write-protected and clean */
	bool wanted;     /* the program asked for them: to be kept like hot pages (cache.h) */
};

#endif
