/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/handouts.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { PLACES_LEAST = 1024 };

/* The front counts regions up: a product with an odd number of 64 bits spreads them (Knuth, TAOCP 3, section 6.4). */
static size_t home_of(const struct handouts *handouts, uint64_t region)
{
	return (size_t)((region * 0x9e3779b97f4a7c15u) >> 32) & (handouts->places - 1);
}

/* The region's row, or the free one where it would be. There always is one: the table is at most half full. */
static struct handouts_row *find(const struct handouts *handouts, uint64_t region)
{
	size_t at = home_of(handouts, region);

	while (handouts->rows[at].region != 0 && handouts->rows[at].region != region)
		at = (at + 1) & (handouts->places - 1);
	return &handouts->rows[at];
}

bool handouts_has(const struct handouts *handouts, uint64_t region)
{
	return region != 0 && handouts->places > 0 && find(handouts, region)->region == region;
}

void handouts_done(struct handouts *handouts)
{
	free(handouts->rows);
	*handouts = (struct handouts){.rows = NULL};
}

static enum secpool_error grow(struct handouts *handouts)
{
	struct handouts larger = {.count = handouts->count,
		.regions = handouts->regions,
		.places = handouts->places ? 2 * handouts->places : PLACES_LEAST};

	if (2 * (handouts->regions + 1) <= handouts->places)
		return SECPOOL_OK;
	larger.rows = calloc(larger.places, sizeof *larger.rows);
	if (!larger.rows)
		return err_set(SECPOOL_E_NO_MEMORY,
			"the enclave has no memory to remember more than %zu regions",
			handouts->regions);
	for (size_t i = 0; i < handouts->places; i++)
		if (handouts->rows[i].region != 0)
			*find(&larger, handouts->rows[i].region) = handouts->rows[i];
	free(handouts->rows);
	*handouts = larger;
	return SECPOOL_OK;
}

enum secpool_error handouts_prepare(struct handouts *handouts, uint64_t region, uint64_t epoch)
{
	enum secpool_error error;
	const struct handouts_row *row;

	if (handouts->count >= HANDOUTS_MOST)
		return err_set(
			SECPOOL_E_LIMIT, "more than %d regions have keys", (int)HANDOUTS_MOST);
	error = grow(handouts);
	if (error)
		return error;
	row = find(handouts, region);
	for (size_t i = 0; i < HANDOUTS_EPOCHS && row->region != 0; i++)
		if (row->epochs[i] >= epoch || (i == HANDOUTS_EPOCHS - 1 && row->epochs[i] != 0))
			return err_set(SECPOOL_E_EXISTS,
				"region %llu has its key of epoch %llu already",
				(unsigned long long)region, (unsigned long long)row->epochs[i]);
	return SECPOOL_OK;
}

void handouts_add(struct handouts *handouts, uint64_t region, uint64_t epoch)
{
	struct handouts_row *row = find(handouts, region);
	size_t at = 0;

	if (row->region == 0) {
		*row = (struct handouts_row){.region = region};
		handouts->regions++;
	}
	while (row->epochs[at] != 0)
		at++;
	assert(at < HANDOUTS_EPOCHS);
	row->epochs[at] = epoch;
	handouts->count++;
}

/* Frees a row, and moves those behind it that it had pushed on (Knuth, TAOCP 3, section 6.4, algorithm R): no mark of a deleted row is needed. */
static void free_row(struct handouts *handouts, struct handouts_row *row)
{
	size_t mask = handouts->places - 1, hole = (size_t)(row - handouts->rows);

	handouts->regions--;
	for (size_t at = (hole + 1) & mask; handouts->rows[at].region != 0; at = (at + 1) & mask) {
		size_t home = home_of(handouts, handouts->rows[at].region);

		if (((at - home) & mask) < ((at - hole) & mask))
			continue; /* it would come before its home */
		handouts->rows[hole] = handouts->rows[at];
		hole = at;
	}
	memset(&handouts->rows[hole], 0, sizeof handouts->rows[hole]);
}

void handouts_remove(struct handouts *handouts, uint64_t region, uint64_t epoch)
{
	struct handouts_row *row;
	size_t left = 0;

	if (handouts->places == 0 || region == 0)
		return;
	row = find(handouts, region);
	if (row->region == 0)
		return;
	for (size_t i = 0; i < HANDOUTS_EPOCHS && row->epochs[i] != 0; i++) {
		uint64_t held = row->epochs[i];

		row->epochs[i] = 0;
		if (epoch == 0 || held == epoch)
			handouts->count--;
		else
			row->epochs[left++] = held;
	}
	if (left == 0)
		free_row(handouts, row);
}
