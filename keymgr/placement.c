/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/placement.h"

#include <stdlib.h>
#include <string.h>

/* A device with its free space and the free space of its domain. */
struct place {
	uint64_t slot;
	const char *domain;
	uint64_t free;
	uint64_t domain_free;
};

struct places {
	struct place *rows;
	size_t count;
};

/* Most free domain first, then domain by domain, most free device first. */
static int compare_places(const void *left, const void *right)
{
	const struct place *a = left, *b = right;
	int order;

	if (a->domain_free != b->domain_free)
		return a->domain_free < b->domain_free ? 1 : -1;
	order = strcmp(a->domain, b->domain);
	if (order != 0)
		return order;
	if (a->free != b->free)
		return a->free < b->free ? 1 : -1;
	return a->slot < b->slot ? -1 : a->slot > b->slot;
}

static enum secpool_error find_places(struct directory *directory,
	const struct extents_device *devices, size_t count, struct places *places)
{
	enum secpool_error error = SECPOOL_OK;

	*places = (struct places){.rows = calloc(count + 1, sizeof *places->rows)};
	if (!places->rows)
		return err_set(SECPOOL_E_NO_MEMORY, "placement: out of memory");
	for (size_t i = 0; i < count && !error; i++) {
		struct extents_use use = {0};

		error = extents_count_use(directory, devices[i].slot, &use);
		places->rows[places->count++] = (struct place){
			.slot = devices[i].slot, .domain = devices[i].domain, .free = use.free};
	}
	for (size_t i = 0; i < places->count; i++)
		for (size_t j = 0; j < places->count; j++)
			if (strcmp(places->rows[i].domain, places->rows[j].domain) == 0)
				places->rows[i].domain_free += places->rows[j].free;
	if (!error)
		qsort(places->rows, places->count, sizeof *places->rows, compare_places);
	return error;
}

static size_t count_domains(const struct places *places)
{
	size_t domains = 0;

	for (size_t i = 0; i < places->count; i++)
		if (i == 0 || strcmp(places->rows[i].domain, places->rows[i - 1].domain) != 0)
			domains++;
	return domains;
}

/* Takes up to `bytes` on one device for this part of the region, as one extent or several; says how much. */
static enum secpool_error take_on_device(struct directory *directory, uint64_t slot, uint64_t bytes,
	uint64_t region, uint64_t copy, uint64_t region_offset, uint64_t *ret_taken)
{
	uint64_t taken = 0;

	while (taken < bytes) {
		struct extents_row row;
		uint64_t part;
		enum secpool_error error = extents_find_free(directory, slot, &row);

		if (error == SECPOOL_E_NOT_FOUND)
			break;
		if (error)
			return error;
		part = row.bytes < bytes - taken ? row.bytes : bytes - taken;
		error = extents_use_free(
			directory, &row, part, region, copy, region_offset + taken);
		if (error)
			return error;
		taken += part;
	}
	*ret_taken = taken;
	return SECPOOL_OK;
}

/*
 * McNaughton's wrap-around rule: the copies, one behind the other, are laid over the domains, one behind the other, each
 * domain giving at most one copy's length. A domain's part then never meets itself in two copies, and if any layout fits, this one does.
 */
static enum secpool_error lay_copies(struct directory *directory, uint64_t region, uint32_t copies,
	uint64_t bytes, const struct places *places, uint64_t *ret_laid)
{
	uint64_t laid = 0, domain_taken = 0;

	for (size_t i = 0; i < places->count && laid < copies * bytes; i++) {
		const struct place *place = &places->rows[i];
		uint64_t left = place->free;

		if (i == 0 || strcmp(place->domain, places->rows[i - 1].domain) != 0)
			domain_taken = 0;
		while (left > 0 && domain_taken < bytes && laid < copies * bytes) {
			uint64_t part = bytes - laid % bytes, taken = 0;
			enum secpool_error error;

			part = part < left ? part : left;
			part = part < bytes - domain_taken ? part : bytes - domain_taken;
			error = take_on_device(directory, place->slot, part, region, laid / bytes,
				laid % bytes, &taken);
			if (error)
				return error;
			if (taken != part)
				return err_set(SECPOOL_E_STORE, "free space was counted wrong");
			laid += part;
			left -= part;
			domain_taken += part;
		}
	}
	*ret_laid = laid;
	return SECPOOL_OK;
}

static uint64_t round_up(uint64_t bytes)
{
	return (bytes + EXTENTS_UNIT_BYTES - 1) / EXTENTS_UNIT_BYTES * EXTENTS_UNIT_BYTES;
}

enum secpool_error extents_take(struct directory *directory, uint64_t region, uint32_t copies,
	uint64_t bytes, const struct extents_device *devices, size_t device_count)
{
	struct places places = {0};
	uint64_t laid = 0, whole = round_up(bytes), free_bytes = 0;
	size_t domains;
	enum secpool_error error;

	if (bytes == 0 || whole < bytes || copies == 0 || whole > UINT64_MAX / copies)
		return err_set(
			SECPOOL_E_INVALID, "a region's length or number of copies is not valid");
	error = find_places(directory, devices, device_count, &places);
	if (error)
		goto out;
	domains = count_domains(&places);
	for (size_t i = 0; i < places.count; i++)
		free_bytes += places.rows[i].free;
	if (domains < copies) {
		error = err_set(SECPOOL_E_NOT_ATTESTED,
			"%u copies need %u fault domains with an online, attested device, there "
			"are %zu: "
			"see 'secpool device list'",
			copies, copies, domains);
		goto out;
	}
	error = lay_copies(directory, region, copies, whole, &places, &laid);
	if (!error && laid < copies * whole)
		error = err_set(SECPOOL_E_NO_SPACE,
			"%u copies of %llu MiB don't fit: %zu fault domains have %llu MiB free in "
			"all",
			copies, (unsigned long long)(whole >> 20), domains,
			(unsigned long long)(free_bytes >> 20));
out:
	free(places.rows);
	return error;
}

/* Whether another copy of this part of the region is in the device's domain. */
static enum secpool_error domain_is_taken(struct directory *directory,
	const struct extents_row *lost, const char *domain, bool *ret_taken)
{
	static const char sql[] = "SELECT COUNT(*) FROM extents e JOIN devices d ON d.slot = "
				  "e.slot WHERE e.region = ?1"
				  " AND e.state = ?2 AND e.copy != ?3 AND d.domain = ?4"
				  " AND e.region_offset < ?5 AND e.region_offset + e.bytes > ?6";
	uint64_t count = 0;
	enum secpool_error error = directory_number(directory, sql,
		DIRECTORY_VALUES(DIRECTORY_N(lost->region), DIRECTORY_N(EXTENTS_IN_USE),
			DIRECTORY_N(lost->copy), DIRECTORY_T(domain),
			DIRECTORY_N(lost->region_offset + lost->bytes),
			DIRECTORY_N(lost->region_offset)),
		&count);

	if (!error)
		*ret_taken = count > 0;
	return error;
}

static enum secpool_error replace_part(struct directory *directory, const struct extents_row *lost,
	const struct extents_device *devices, size_t device_count)
{
	struct places places = {0};
	uint64_t done = 0;
	enum secpool_error error = find_places(directory, devices, device_count, &places);

	for (size_t i = 0; i < places.count && !error && done < lost->bytes; i++) {
		const struct place *place = &places.rows[i];
		uint64_t taken = 0;
		bool busy = true;

		if (place->slot == lost->slot)
			continue;
		error = domain_is_taken(directory, lost, place->domain, &busy);
		if (!error && !busy)
			error = take_on_device(directory, place->slot, lost->bytes - done,
				lost->region, lost->copy, lost->region_offset + done, &taken);
		done += taken;
	}
	if (!error && done < lost->bytes)
		error = err_set(SECPOOL_E_NO_SPACE,
			"no other device in a free fault domain has %llu MiB for this copy",
			(unsigned long long)(lost->bytes >> 20));
	free(places.rows);
	return error;
}

/* One of the region's places in use on the device, which is then set aside. */
static enum secpool_error take_lost(
	struct directory *directory, uint64_t region, uint64_t slot, struct extents_row *ret_row)
{
	static const char sql[] = "SELECT id, slot, offset, bytes, region, copy, region_offset"
				  " FROM extents WHERE region = ?1 AND slot = ?2 AND state = ?3"
				  " ORDER BY id LIMIT 1";
	struct directory_rows *rows = NULL;
	enum secpool_error error = directory_query(directory, sql,
		DIRECTORY_VALUES(
			DIRECTORY_N(region), DIRECTORY_N(slot), DIRECTORY_N(EXTENTS_IN_USE)),
		&rows);

	if (!error && directory_next(rows, &error))
		*ret_row = (struct extents_row){
			.id = directory_get_number(rows, 0),
			.slot = directory_get_number(rows, 1),
			.offset = directory_get_number(rows, 2),
			.bytes = directory_get_number(rows, 3),
			.region = directory_get_number(rows, 4),
			.copy = directory_get_number(rows, 5),
			.region_offset = directory_get_number(rows, 6),
		};
	else if (!error)
		error = SECPOOL_E_NOT_FOUND;
	directory_done(rows);
	if (error)
		return error;
	return directory_run(directory, "UPDATE extents SET state = ?2 WHERE id = ?1",
		DIRECTORY_VALUES(DIRECTORY_N(ret_row->id), DIRECTORY_N(EXTENTS_SET_ASIDE)));
}

enum secpool_error extents_replace(struct directory *directory, uint64_t region, uint64_t slot,
	const struct extents_device *devices, size_t device_count)
{
	static const char aside_sql[] = "UPDATE extents SET state = ?3 WHERE region = ?1"
					" AND slot = ?2 AND state = ?4";
	struct extents_row lost = {.id = 0};
	enum secpool_error error, next;

	error = directory_mark(directory);
	if (error)
		return error;
	while (!error) {
		error = take_lost(directory, region, slot, &lost);
		if (!error)
			error = replace_part(directory, &lost, devices, device_count);
	}
	if (error == SECPOOL_E_NOT_FOUND)
		error = SECPOOL_OK;
	next = directory_unmark(directory, error == SECPOOL_OK);
	/* without replacements the places are given up all the same */
	if (!next && error == SECPOOL_E_NO_SPACE)
		next = directory_run(directory, aside_sql,
			DIRECTORY_VALUES(DIRECTORY_N(region), DIRECTORY_N(slot),
				DIRECTORY_N(EXTENTS_SET_ASIDE), DIRECTORY_N(EXTENTS_IN_USE)));
	return next ? next : error;
}
