/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/freeplaces.h"

#include <stdlib.h>
#include <string.h>

#include "keymgr/totals.h"

static int by_slot(const void *left, const void *right)
{
	const struct freeplace *a = left, *b = right;

	return (a->slot > b->slot) - (a->slot < b->slot);
}

static int by_domain(const void *left, const void *right)
{
	const struct freeplace *a = left, *b = right;

	return strcmp(a->domain, b->domain);
}

/* By tier, then by free space, then always the same. */
static int by_tier(const void *left, const void *right)
{
	const struct freeplace *a = left, *b = right;

	if (a->tier != b->tier)
		return a->tier < b->tier ? -1 : 1;
	if (a->free != b->free)
		return a->free < b->free ? 1 : -1;
	return by_slot(left, right);
}

/* The same of domains, and then of the devices of each. */
static int by_domains(const void *left, const void *right)
{
	const struct freeplace *a = left, *b = right;
	int order;

	if (a->domain_tier != b->domain_tier)
		return a->domain_tier < b->domain_tier ? -1 : 1;
	if (a->domain_free != b->domain_free)
		return a->domain_free < b->domain_free ? 1 : -1;
	order = by_domain(left, right);
	return order != 0 ? order : by_tier(left, right);
}

static void sort(struct freeplaces *places, int (*compare)(const void *left, const void *right))
{
	if (places->count > 0)
		qsort(places->rows, places->count, sizeof *places->rows, compare);
}

/* The end of the run of one domain that begins at `first`. */
static size_t domain_end(const struct freeplaces *places, size_t first)
{
	size_t end = first + 1;

	while (end < places->count && by_domain(&places->rows[first], &places->rows[end]) == 0)
		end++;
	return end;
}

/* Places of one domain follow each other; then the order of domains. */
static void sum_domains(struct freeplaces *places)
{
	for (size_t first = 0, end; first < places->count; first = end) {
		uint64_t free_bytes = 0;
		uint32_t tier = UINT32_MAX;

		end = domain_end(places, first);
		for (size_t i = first; i < end; i++) {
			const struct freeplace *place = &places->rows[i];

			free_bytes += place->free;
			if (place->free > 0 && place->tier < tier)
				tier = place->tier;
		}
		for (size_t i = first; i < end; i++) {
			places->rows[i].domain_free = free_bytes;
			places->rows[i].domain_tier = tier;
		}
	}
	sort(places, by_domains);
}

/* Both lists are in the order of slots. The table's key begins with the state. */
static enum secpool_error read_free(struct directory *directory, struct freeplaces *places)
{
	static const char sql[] = "SELECT slot, bytes FROM space WHERE state = " TOTALS_FREE
				  " AND bytes > 0 ORDER BY slot";
	struct directory_rows *rows = NULL;
	enum secpool_error error = directory_query(directory, sql, DIRECTORY_VALUES(), &rows);
	size_t at = 0;

	while (!error && directory_next(rows, &error)) {
		uint64_t slot = directory_get_number(rows, 0);

		while (at < places->count && places->rows[at].slot < slot)
			at++;
		if (at < places->count && places->rows[at].slot == slot)
			places->rows[at].free = directory_get_number(rows, 1);
	}
	directory_done(rows);
	return error;
}

enum secpool_error freeplaces_find(struct directory *directory,
	const struct extents_device *devices, size_t count, struct freeplaces *ret_places)
{
	struct freeplaces places = {.rows = calloc(count + 1, sizeof *places.rows), .count = count};
	enum secpool_error error;

	if (!places.rows)
		return err_set(SECPOOL_E_NO_MEMORY, "placement: out of memory");
	for (size_t i = 0; i < count; i++)
		places.rows[i] = (struct freeplace){.slot = devices[i].slot,
			.domain = devices[i].domain,
			.tier = devices[i].tier};
	sort(&places, by_slot);
	error = read_free(directory, &places);
	sort(&places, by_domain);
	sum_domains(&places);
	*ret_places = places;
	return error;
}

void freeplaces_free(struct freeplaces *places)
{
	free(places->rows);
	*places = (struct freeplaces){.rows = NULL};
}

bool freeplaces_apart(const struct freeplace *left, const struct freeplace *right)
{
	return by_domain(left, right) != 0;
}

size_t freeplaces_domains(const struct freeplaces *places)
{
	size_t domains = 0;

	for (size_t first = 0; first < places->count; first = domain_end(places, first))
		domains++;
	return domains;
}

/* Whether the lanes fit on places of at most this tier. */
static bool fits(const struct freeplaces *places, uint32_t lanes, uint64_t bytes, uint32_t tier)
{
	uint64_t most = 0;

	for (size_t first = 0, end; first < places->count; first = end) {
		uint64_t free_bytes = 0;

		end = domain_end(places, first);
		for (size_t i = first; i < end; i++)
			if (places->rows[i].tier <= tier)
				free_bytes += places->rows[i].free;
		most += free_bytes < bytes ? free_bytes : bytes;
	}
	return most >= lanes * bytes;
}

/* The next tier that a place with free space has; false: there is none. */
static bool next_tier(const struct freeplaces *places, uint64_t from, uint32_t *ret_tier)
{
	uint64_t tier = UINT64_MAX;

	for (size_t i = 0; i < places->count; i++)
		if (places->rows[i].free > 0 && places->rows[i].tier >= from &&
			places->rows[i].tier < tier)
			tier = places->rows[i].tier;
	*ret_tier = (uint32_t)tier;
	return tier != UINT64_MAX;
}

void freeplaces_narrow(struct freeplaces *places, uint32_t lanes, uint64_t bytes)
{
	uint32_t tier;
	size_t kept = 0;

	for (uint64_t from = 0; next_tier(places, from, &tier); from = (uint64_t)tier + 1)
		if (fits(places, lanes, bytes, tier))
			break;
	for (size_t i = 0; i < places->count; i++)
		if (places->rows[i].tier <= tier)
			places->rows[kept++] = places->rows[i];
	places->count = kept;
	sum_domains(places);
}

void freeplaces_by_tier(struct freeplaces *places)
{
	sort(places, by_tier);
}
