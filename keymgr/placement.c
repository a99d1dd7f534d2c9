/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/placement.h"

#include "keymgr/freeplaces.h"

/* Takes up to `bytes` on one device for the part of the region that `as` names, as one extent or several; says how much. */
static enum secpool_error take_on_device(struct directory *directory, uint64_t slot, uint64_t bytes,
	const struct extents_row *as, uint64_t *ret_taken)
{
	struct extents_row part_as = *as;
	uint64_t taken = 0;

	while (taken < bytes) {
		struct extents_row row;
		uint64_t part;
		enum secpool_error error = extents_find_free(directory, slot, bytes - taken, &row);

		if (error == SECPOOL_E_NOT_FOUND)
			break;
		if (error)
			return error;
		part = row.bytes < bytes - taken ? row.bytes : bytes - taken;
		part_as.region_offset = as->region_offset + taken;
		error = extents_use_free(directory, &row, part, &part_as);
		if (error)
			return error;
		taken += part;
	}
	*ret_taken = taken;
	return SECPOOL_OK;
}

/*
 * McNaughton's wrap-around rule: the lanes, one behind the other, are laid over the domains, one behind the other, each
 * domain giving at most one lane's length. A domain's part then never meets itself in two lanes, and if any layout fits, this one does.
 */
static enum secpool_error lay_lanes(struct directory *directory, uint64_t region, uint32_t lanes,
	uint64_t bytes, const struct freeplaces *places, uint64_t *ret_laid)
{
	uint64_t laid = 0, domain_taken = 0;

	for (size_t i = 0; i < places->count && laid < lanes * bytes; i++) {
		const struct freeplace *place = &places->rows[i];
		uint64_t left = place->free;

		if (i == 0 || freeplaces_apart(place, &places->rows[i - 1]))
			domain_taken = 0;
		while (left > 0 && domain_taken < bytes && laid < lanes * bytes) {
			const struct extents_row as = {.region = region,
				.lane = laid / bytes,
				.region_offset = laid % bytes,
				.state = EXTENTS_IN_USE};
			uint64_t part = bytes - laid % bytes, taken = 0;
			enum secpool_error error;

			part = part < left ? part : left;
			part = part < bytes - domain_taken ? part : bytes - domain_taken;
			error = take_on_device(directory, place->slot, part, &as, &taken);
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

enum secpool_error extents_take(struct directory *directory, uint64_t region, uint32_t lanes,
	uint64_t bytes, const struct extents_device *devices, size_t device_count)
{
	struct freeplaces places = {0};
	uint64_t laid = 0, whole = round_up(bytes), free_bytes = 0;
	size_t domains;
	enum secpool_error error;

	if (bytes == 0 || whole < bytes || lanes == 0 || whole > UINT64_MAX / lanes)
		return err_set(
			SECPOOL_E_INVALID, "a region's length or number of lanes is not valid");
	error = freeplaces_find(directory, devices, device_count, &places);
	if (error)
		goto out;
	domains = freeplaces_domains(&places);
	for (size_t i = 0; i < places.count; i++)
		free_bytes += places.rows[i].free;
	if (domains < lanes) {
		error = err_set(SECPOOL_E_NOT_ATTESTED,
			"%u lanes (copies, or data and parity) need %u fault domains with an "
			"online, attested device, there "
			"are %zu: "
			"see 'secpool device list'",
			lanes, lanes, domains);
		goto out;
	}
	freeplaces_narrow(&places, lanes, whole);
	error = lay_lanes(directory, region, lanes, whole, &places, &laid);
	if (!error && laid < lanes * whole)
		error = err_set(SECPOOL_E_NO_SPACE,
			"%u lanes of %llu MiB don't fit: %zu fault domains have %llu MiB free in "
			"all",
			lanes, (unsigned long long)(whole >> 20), domains,
			(unsigned long long)(free_bytes >> 20));
out:
	freeplaces_free(&places);
	return error;
}

/* A part of a lane that has no place, and what is taken for it: places in use, or targets. */
struct gap {
	uint64_t region, lane, start, end;
	enum extents_state state;
};

/* Whether another lane of this part of the region is in the domain. */
static enum secpool_error domain_is_taken(
	struct directory *directory, const struct gap *gap, const char *domain, bool *ret_taken)
{
	static const char sql[] = "SELECT COUNT(*) FROM extents e JOIN devices d ON d.slot = "
				  "e.slot WHERE e.region = ?1"
				  " AND e.state IN (?2, ?7) AND e.lane != ?3 AND d.domain = ?4"
				  " AND e.region_offset < ?5 AND e.region_offset + e.bytes > ?6";
	uint64_t count = 0;
	enum secpool_error error = directory_number(directory, sql,
		DIRECTORY_VALUES(DIRECTORY_N(gap->region), DIRECTORY_N(EXTENTS_IN_USE),
			DIRECTORY_N(gap->lane), DIRECTORY_T(domain), DIRECTORY_N(gap->end),
			DIRECTORY_N(gap->start), DIRECTORY_N(EXTENTS_TARGET)),
		&count);

	if (!error)
		*ret_taken = count > 0;
	return error;
}

/* Takes space for as much of a gap as there is any. Errors: SECPOOL_E_NO_SPACE when something is left. */
static enum secpool_error fill_gap(struct directory *directory, const struct gap *gap,
	const struct extents_device *devices, size_t device_count)
{
	struct gap left = *gap;
	struct freeplaces places = {0};
	enum secpool_error error = freeplaces_find(directory, devices, device_count, &places);

	for (size_t i = 0; i < places.count && !error && left.start < left.end; i++) {
		const struct freeplace *place = &places.rows[i];
		const struct extents_row as = {.region = gap->region,
			.lane = gap->lane,
			.region_offset = left.start,
			.state = gap->state};
		uint64_t taken = 0;
		bool busy = true;

		error = domain_is_taken(directory, &left, place->domain, &busy);
		if (!error && !busy)
			error = take_on_device(
				directory, place->slot, left.end - left.start, &as, &taken);
		left.start += taken;
	}
	if (!error && left.start < left.end)
		error = err_set(SECPOOL_E_NO_SPACE,
			"no device in a fault domain of its own has %llu MiB for lane %llu",
			(unsigned long long)((left.end - left.start) >> 20),
			(unsigned long long)gap->lane);
	freeplaces_free(&places);
	return error;
}

/* The first part of a lane, from `from` up to `bytes`, that has no place (or target, by the gap's state); empty when there is none. */
static enum secpool_error find_gap(
	struct directory *directory, struct gap *gap, uint64_t from, uint64_t bytes)
{
	static const char sql[] = "SELECT region_offset, bytes FROM extents WHERE region = ?1"
				  " AND lane = ?2 AND state = ?3 AND region_offset + bytes > ?4"
				  " ORDER BY region_offset";
	struct directory_rows *rows = NULL;
	enum secpool_error error = directory_query(directory, sql,
		DIRECTORY_VALUES(DIRECTORY_N(gap->region), DIRECTORY_N(gap->lane),
			DIRECTORY_N(gap->state), DIRECTORY_N(from)),
		&rows);

	gap->start = from;
	gap->end = bytes;
	while (!error && directory_next(rows, &error)) {
		uint64_t offset = directory_get_number(rows, 0);

		if (offset > gap->start) {
			gap->end = offset < bytes ? offset : bytes;
			break;
		}
		gap->start = offset + directory_get_number(rows, 1);
	}
	directory_done(rows);
	return error;
}

/* Cuts a gap where an extent of another lane begins or ends: which domains are taken is the same for all that is left. */
static enum secpool_error cut_gap(struct directory *directory, struct gap *gap)
{
	static const char sql[] =
		"SELECT IFNULL(MIN(b), ?5) FROM (SELECT region_offset AS b FROM extents"
		" WHERE region = ?1 AND lane != ?2 AND state IN (?6, ?7)"
		" UNION SELECT region_offset + bytes FROM extents"
		" WHERE region = ?1 AND lane != ?2 AND state IN (?6, ?7))"
		" WHERE b > ?3 AND b < ?4";

	if (gap->start >= gap->end)
		return SECPOOL_OK;
	return directory_number(directory, sql,
		DIRECTORY_VALUES(DIRECTORY_N(gap->region), DIRECTORY_N(gap->lane),
			DIRECTORY_N(gap->start), DIRECTORY_N(gap->end), DIRECTORY_N(gap->end),
			DIRECTORY_N(EXTENTS_IN_USE), DIRECTORY_N(EXTENTS_TARGET)),
		&gap->end);
}

enum secpool_error extents_fill(struct directory *directory, uint64_t region, uint32_t lanes,
	uint64_t bytes, const struct extents_device *devices, size_t device_count)
{
	uint64_t whole = round_up(bytes);
	enum secpool_error error = SECPOOL_OK, lacking = SECPOOL_OK;

	for (uint32_t lane = 0; lane < lanes && !error; lane++) {
		struct gap gap = {.region = region, .lane = lane, .state = EXTENTS_IN_USE};

		for (uint64_t from = 0; !error && from < whole; from = gap.end) {
			error = find_gap(directory, &gap, from, whole);
			if (!error)
				error = cut_gap(directory, &gap);
			if (error || gap.start >= gap.end)
				break;
			error = fill_gap(directory, &gap, devices, device_count);
			if (error == SECPOOL_E_NO_SPACE) {
				lacking = error;
				error = SECPOOL_OK;
			}
		}
	}
	return error ? error : lacking;
}

enum secpool_error extents_promote(struct directory *directory, uint64_t region)
{
	return directory_run(directory,
		"UPDATE extents AS t SET state = ?2 WHERE region = ?1 AND state = ?3 AND NOT EXISTS"
		" (SELECT 1 FROM extents e WHERE e.region = ?1 AND e.state = ?2 AND e.lane = t.lane"
		" AND e.region_offset < t.region_offset + t.bytes"
		" AND e.region_offset + e.bytes > t.region_offset)",
		DIRECTORY_VALUES(DIRECTORY_N(region), DIRECTORY_N(EXTENTS_IN_USE),
			DIRECTORY_N(EXTENTS_TARGET)));
}

enum secpool_error extents_set_aside(struct directory *directory, uint64_t region, uint64_t slot)
{
	enum secpool_error error = directory_run(directory,
		"UPDATE extents SET state = ?3, epoch = " EXTENTS_EPOCH_SQL
		" WHERE region = ?1 AND slot = ?2 AND state IN (?4, ?5)",
		DIRECTORY_VALUES(DIRECTORY_N(region), DIRECTORY_N(slot),
			DIRECTORY_N(EXTENTS_SET_ASIDE), DIRECTORY_N(EXTENTS_IN_USE),
			DIRECTORY_N(EXTENTS_TARGET)));

	return error ? error : extents_promote(directory, region);
}

/* Targets for a part of a region, as far as it has none. */
static enum secpool_error take_targets(struct directory *directory, const struct extents_row *part,
	const struct extents_device *devices, size_t device_count)
{
	struct gap gap = {.region = part->region, .lane = part->lane, .state = EXTENTS_TARGET};
	uint64_t end = part->region_offset + part->bytes;
	enum secpool_error error = SECPOOL_OK;

	for (uint64_t from = part->region_offset; !error && from < end; from = gap.end) {
		error = find_gap(directory, &gap, from, end);
		if (!error)
			error = cut_gap(directory, &gap);
		if (error || gap.start >= gap.end)
			break;
		error = fill_gap(directory, &gap, devices, device_count);
	}
	return error;
}

enum secpool_error extents_move(struct directory *directory, uint64_t region, uint64_t slot,
	const struct extents_device *devices, size_t device_count)
{
	enum secpool_error error = SECPOOL_OK;

	for (uint64_t n = 0; !error; n++) {
		struct extents_row part;

		error = extents_nth(directory, region, slot, n, &part);
		if (!error)
			error = take_targets(directory, &part, devices, device_count);
	}
	return error == SECPOOL_E_NOT_FOUND ? SECPOOL_OK : error;
}
