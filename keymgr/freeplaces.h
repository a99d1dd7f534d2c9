/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The devices on which a region could be placed, with their free space, in the order in which they are tried (placement.c). A lower tier comes before a higher one,
 * then more free space before less. Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_FREEPLACES_H
#define SECPOOL_KEYMGR_FREEPLACES_H

#include "keymgr/extents.h"

struct freeplace {
	uint64_t slot;
	const char *domain; /* borrowed from the device */
	uint64_t free;
	uint32_t tier;
	/* of all places of the domain: their free space, and the lowest tier where there is any */
	uint64_t domain_free;
	uint32_t domain_tier;
};

struct freeplaces {
	struct freeplace *rows;
	size_t count;
};

/*
 * The free space of these devices (another order than theirs). Devices of one domain follow each other; domains with the lowest tier first. Errors: SECPOOL_E_NO_MEMORY, SECPOOL_E_STORE.
 * freeplaces_free ends it, also after an error.
 */
enum secpool_error freeplaces_find(struct directory *directory, const struct extents_device *devices,
	size_t count, struct freeplaces *ret_places) MUST_USE;
void freeplaces_free(struct freeplaces *places);

/* Whether two places are in different domains. */
bool freeplaces_apart(const struct freeplace *left, const struct freeplace *right);

/* In how many domains they are, whether they have free space or not. */
size_t freeplaces_domains(const struct freeplaces *places);

/*
 * Leaves out all tiers above the lowest up to which so many lanes of so many bytes fit, no domain holding more than one lane's length of them. When they fit nowhere
 * nothing is left out.
 */
void freeplaces_narrow(struct freeplaces *places, uint32_t lanes, uint64_t bytes);

/* Another order, for what may lie in any domain: by tier, then by free space. */
void freeplaces_by_tier(struct freeplaces *places);

#endif
