/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/heapcheck.h"

#include <pthread.h>
#include <stdlib.h>

#include "lib/base/os.h"
#include "lib/misuse.h"
#include "lib/pool.h"

static pthread_mutex_t lock =
	PTHREAD_MUTEX_INITIALIZER; /* Protects: parts and changes of leaves, of all heaps */

void heapcheck_init(struct heapcheck *check, const char *tenant)
{
	os_random(&check->secret, sizeof check->secret);
	check->tenant = tenant;
}

void heapcheck_done(struct heapcheck *check)
{
	struct heapcheck_part *next;

	for (size_t i = 0; i < HEAPCHECK_LEAVES; i++)
		free(atomic_load(&check->leaves[i]));
	for (; check->parts; check->parts = next) {
		next = check->parts->next;
		free(check->parts);
	}
}

static bool make_leaf(struct heapcheck *check, uintptr_t at)
{
	_Atomic(struct heapcheck_leaf *) *place = &check->leaves[at >> HEAPCHECK_LEAF_SHIFT];

	if (!atomic_load(place))
		atomic_store(place, calloc(1, sizeof(struct heapcheck_leaf)));
	return atomic_load(place) != NULL;
}

/* Leaves first: what follows can't fail half-way. Holds: lock. */
static enum secpool_error add_locked(
	struct heapcheck *check, struct heapcheck_part *part, uintptr_t start, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (!make_leaf(check, start + (i << HEAPCHECK_CHUNK_SHIFT)))
			return err_set(SECPOOL_E_NO_MEMORY, "a heap's table: out of memory");
	part->next = check->parts;
	check->parts = part;
	for (size_t i = 0; i < count; i++) {
		uintptr_t at = start + (i << HEAPCHECK_CHUNK_SHIFT);
		struct heapcheck_leaf *leaf =
			atomic_load(&check->leaves[at >> HEAPCHECK_LEAF_SHIFT]);
		atomic_store(&leaf->chunks[(at >> HEAPCHECK_CHUNK_SHIFT) % HEAPCHECK_CHUNKS],
			&part->chunks[i]);
	}
	return SECPOOL_OK;
}

enum secpool_error heapcheck_add(struct heapcheck *check, struct secpool_region *region)
{
	size_t count = (region->bytes + (1u << HEAPCHECK_CHUNK_SHIFT) - 1) >> HEAPCHECK_CHUNK_SHIFT;
	struct heapcheck_part *part =
		calloc(1, sizeof *part + count * sizeof(struct heapcheck_chunk));
	enum secpool_error error;

	if (!part)
		return os_error("what is known of %zu bytes of a heap", region->bytes);
	for (size_t i = 0; i < count; i++) {
		part->chunks[i].pages =
			region->pages + (i << HEAPCHECK_CHUNK_SHIFT) / region->page_bytes;
		part->chunks[i].page_shift = (unsigned)__builtin_ctzll(region->page_bytes);
	}
	pthread_mutex_lock(&lock);
	error = add_locked(check, part, (uintptr_t)region->address, count);
	pthread_mutex_unlock(&lock);
	if (error)
		free(part);
	return error;
}

void heapcheck_misuse(const struct heapcheck *check, const void *memory, const char *what)
{
	misuse_end("object %p of tenant %s's heap: %s", memory, check->tenant, what);
}
