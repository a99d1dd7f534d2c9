/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/extents.h"

#include "keymgr/placement.h"
#include "keymgr/totals.h"

static void read_row(struct directory_rows *rows, struct extents_row *row)
{
	*row = (struct extents_row){
		.id = directory_get_number(rows, 0),
		.slot = directory_get_number(rows, 1),
		.offset = directory_get_number(rows, 2),
		.bytes = directory_get_number(rows, 3),
		.region = directory_get_number(rows, 4),
		.lane = directory_get_number(rows, 5),
		.region_offset = directory_get_number(rows, 6),
		.state = (enum extents_state)directory_get_number(rows, 7),
	};
}

enum secpool_error extents_reset_device(struct directory *directory, uint64_t slot, uint64_t bytes)
{
	uint64_t whole = bytes / EXTENTS_UNIT_BYTES * EXTENTS_UNIT_BYTES;
	enum secpool_error error = directory_run(directory, "DELETE FROM extents WHERE slot = ?1",
		DIRECTORY_VALUES(DIRECTORY_N(slot)));

	if (!error && whole > 0)
		error = directory_run(directory,
			"INSERT INTO extents (slot, offset, bytes, state) VALUES (?1, 0, ?2, ?3)",
			DIRECTORY_VALUES(DIRECTORY_N(slot), DIRECTORY_N(whole),
				DIRECTORY_N(EXTENTS_UNKNOWN)));
	return error;
}

enum secpool_error extents_set_aside_device(
	struct directory *directory, uint64_t slot, uint64_t bytes)
{
	/* the gaps before, between and behind what is kept, up to the device's end */
	static const char fill_sql[] =
		"INSERT INTO extents (slot, offset, bytes, state)"
		" SELECT ?1, first, MIN(next, ?2) - first, ?3 FROM"
		" (SELECT offset + bytes AS first, LEAD(offset, 1, ?2) OVER (ORDER BY offset)"
		"  AS next FROM extents WHERE slot = ?1"
		"  UNION ALL SELECT 0, IFNULL(MIN(offset), ?2) FROM extents WHERE slot = ?1)"
		" WHERE MIN(next, ?2) > first";
	uint64_t whole = bytes / EXTENTS_UNIT_BYTES * EXTENTS_UNIT_BYTES;
	enum secpool_error error =
		directory_run(directory, "DELETE FROM extents WHERE slot = ?1 AND region IS NULL",
			DIRECTORY_VALUES(DIRECTORY_N(slot)));

	if (!error)
		error = directory_run(directory,
			"UPDATE extents SET state = CASE state WHEN ?3 THEN ?4 ELSE ?5 END,"
			" epoch = " EXTENTS_EPOCH_SQL " WHERE slot = ?1 AND state IN (?2, ?3, ?6)",
			DIRECTORY_VALUES(DIRECTORY_N(slot), DIRECTORY_N(EXTENTS_IN_USE),
				DIRECTORY_N(EXTENTS_SCRUBBING), DIRECTORY_N(EXTENTS_RELEASING),
				DIRECTORY_N(EXTENTS_SET_ASIDE), DIRECTORY_N(EXTENTS_TARGET)));
	if (!error)
		error = directory_run(directory, fill_sql,
			DIRECTORY_VALUES(DIRECTORY_N(slot), DIRECTORY_N(whole),
				DIRECTORY_N(EXTENTS_UNKNOWN)));
	return error;
}

/* Cuts a row in two: the row keeps its first `bytes`. */
static enum secpool_error split_row(
	struct directory *directory, const struct extents_row *row, uint64_t bytes)
{
	enum secpool_error error;

	if (bytes >= row->bytes)
		return SECPOOL_OK;
	error = directory_run(directory, "UPDATE extents SET bytes = ?2 WHERE id = ?1",
		DIRECTORY_VALUES(DIRECTORY_N(row->id), DIRECTORY_N(bytes)));
	if (error)
		return error;
	return directory_run(directory,
		"INSERT INTO extents (slot, offset, bytes, state) VALUES (?1, ?2, ?3, ?4)",
		DIRECTORY_VALUES(DIRECTORY_N(row->slot), DIRECTORY_N(row->offset + bytes),
			DIRECTORY_N(row->bytes - bytes), DIRECTORY_N(row->state)));
}

/* One row. Errors: SECPOOL_E_NOT_FOUND, saying what is not there; SECPOOL_E_STORE. */
static enum secpool_error find_row(struct directory *directory, const char *sql,
	const struct directory_value *values, const char *none, struct extents_row *ret_row)
{
	struct directory_rows *rows = NULL;
	enum secpool_error error = directory_query(directory, sql, values, &rows);

	if (!error && directory_next(rows, &error))
		read_row(rows, ret_row);
	else if (!error)
		error = err_set(SECPOOL_E_NOT_FOUND, "%s", none);
	directory_done(rows);
	return error;
}

enum secpool_error extents_find_free(
	struct directory *directory, uint64_t slot, uint64_t bytes, struct extents_row *ret_row)
{
	static const char fits_sql[] =
		"SELECT id, slot, offset, bytes, 0, 0, 0, state FROM extents"
		" WHERE state = " TOTALS_FREE " AND slot = ?1 AND bytes >= ?2"
		" ORDER BY bytes, offset LIMIT 1";
	static const char largest_sql[] =
		"SELECT id, slot, offset, bytes, 0, 0, 0, state FROM extents"
		" WHERE state = " TOTALS_FREE " AND slot = ?1 ORDER BY bytes DESC LIMIT 1";
	static const char none[] = "no free space on this device";
	enum secpool_error error = find_row(directory, fits_sql,
		DIRECTORY_VALUES(DIRECTORY_N(slot), DIRECTORY_N(bytes)), none, ret_row);

	if (error == SECPOOL_E_NOT_FOUND)
		error = find_row(
			directory, largest_sql, DIRECTORY_VALUES(DIRECTORY_N(slot)), none, ret_row);
	return error;
}

enum secpool_error extents_use_free(struct directory *directory, const struct extents_row *row,
	uint64_t bytes, const struct extents_row *as)
{
	enum secpool_error error = split_row(directory, row, bytes);

	if (error)
		return error;
	return directory_run(directory,
		"UPDATE extents SET state = ?2, region = ?3, lane = ?4, region_offset = ?5"
		" WHERE id = ?1",
		DIRECTORY_VALUES(DIRECTORY_N(row->id), DIRECTORY_N(as->state),
			DIRECTORY_N(as->region), DIRECTORY_N(as->lane),
			DIRECTORY_N(as->region_offset)));
}

enum secpool_error extents_release(struct directory *directory, uint64_t region)
{
	return directory_run(directory,
		"UPDATE extents SET state = ?2 WHERE region = ?1 AND state IN (?3, ?4, ?5)",
		DIRECTORY_VALUES(DIRECTORY_N(region), DIRECTORY_N(EXTENTS_RELEASING),
			DIRECTORY_N(EXTENTS_IN_USE), DIRECTORY_N(EXTENTS_SET_ASIDE),
			DIRECTORY_N(EXTENTS_TARGET)));
}

enum secpool_error extents_restart(struct directory *directory)
{
	return directory_run(directory,
		"UPDATE extents SET state = CASE WHEN region IS NULL THEN ?1 ELSE ?2 END"
		" WHERE state = " TOTALS_SCRUBBING,
		DIRECTORY_VALUES(DIRECTORY_N(EXTENTS_UNKNOWN), DIRECTORY_N(EXTENTS_RELEASING)));
}

enum secpool_error extents_scrub_back(struct directory *directory, const struct extents_row *row)
{
	return directory_run(directory,
		"UPDATE extents SET state = CASE WHEN region IS NULL THEN ?1 ELSE ?2 END"
		" WHERE id = ?3 AND state = " TOTALS_SCRUBBING,
		DIRECTORY_VALUES(DIRECTORY_N(EXTENTS_UNKNOWN), DIRECTORY_N(EXTENTS_RELEASING),
			DIRECTORY_N(row->id)));
}

/* What was released comes before what is unknown, and older regions before newer ones: space that is released again and again does not keep others waiting. */
static enum secpool_error find_work(
	struct directory *directory, uint64_t slot, bool released_only, struct extents_row *ret_row)
{
#define FIRST(state)                                                                               \
	"SELECT id, slot, offset, bytes, IFNULL(region, 0), lane, region_offset, state"            \
	" FROM extents WHERE state = " state " AND slot = ?1 ORDER BY region, offset LIMIT 1"
	static const char none[] = "nothing to scrub on this device";
	enum secpool_error error = find_row(directory, FIRST(TOTALS_RELEASING),
		DIRECTORY_VALUES(DIRECTORY_N(slot)), none, ret_row);

	if (error == SECPOOL_E_NOT_FOUND && !released_only)
		error = find_row(directory, FIRST(TOTALS_UNKNOWN),
			DIRECTORY_VALUES(DIRECTORY_N(slot)), none, ret_row);
	return error;
}

enum secpool_error extents_scrub_next(
	struct directory *directory, uint64_t slot, bool released_only, struct extents_row *ret_row)
{
	struct extents_row row;
	enum secpool_error error = find_work(directory, slot, released_only, &row);

	if (!error && row.state == EXTENTS_UNKNOWN && row.bytes > EXTENTS_SCRUB_BYTES) {
		error = split_row(directory, &row, EXTENTS_SCRUB_BYTES);
		row.bytes = EXTENTS_SCRUB_BYTES;
	}
	if (!error)
		error = directory_run(directory, "UPDATE extents SET state = ?2 WHERE id = ?1",
			DIRECTORY_VALUES(DIRECTORY_N(row.id), DIRECTORY_N(EXTENTS_SCRUBBING)));
	if (error)
		return error;
	row.state = EXTENTS_SCRUBBING;
	*ret_row = row;
	return SECPOOL_OK;
}

/* Joins a row of this state with neighbours of the same state: the first of them stays. */
static enum secpool_error merge_around(
	struct directory *directory, const struct extents_row *row, enum extents_state state)
{
	/* one neighbour on each side, found by its place; its state is looked at then */
	static const char before_sql[] =
		"SELECT IFNULL(MIN(offset), ?3) FROM extents WHERE slot = ?1 AND offset ="
		" (SELECT MAX(offset) FROM extents WHERE slot = ?1 AND offset < ?3)"
		" AND state = ?2 AND offset + bytes = ?3";
	static const char after_sql[] = "SELECT IFNULL(MAX(offset + bytes), ?3) FROM extents"
					" WHERE slot = ?1 AND state = ?2 AND offset = ?3";
	uint64_t start = 0, end = 0;
	enum secpool_error error;

	error = directory_number(directory, before_sql,
		DIRECTORY_VALUES(
			DIRECTORY_N(row->slot), DIRECTORY_N(state), DIRECTORY_N(row->offset)),
		&start);
	if (!error)
		error = directory_number(directory, after_sql,
			DIRECTORY_VALUES(DIRECTORY_N(row->slot), DIRECTORY_N(state),
				DIRECTORY_N(row->offset + row->bytes)),
			&end);
	if (!error)
		error = directory_run(directory,
			"DELETE FROM extents WHERE slot = ?1 AND offset > ?2 AND offset < ?3",
			DIRECTORY_VALUES(
				DIRECTORY_N(row->slot), DIRECTORY_N(start), DIRECTORY_N(end)));
	if (!error)
		error = directory_run(directory,
			"UPDATE extents SET bytes = ?3 - offset, state = ?4, region = NULL,"
			" lane = 0, region_offset = 0 WHERE slot = ?1 AND offset = ?2",
			DIRECTORY_VALUES(DIRECTORY_N(row->slot), DIRECTORY_N(start),
				DIRECTORY_N(end), DIRECTORY_N(state)));
	return error;
}

enum secpool_error extents_give_back(struct directory *directory, uint64_t region)
{
	static const char sql[] = "SELECT id, slot, offset, bytes, region, lane, region_offset,"
				  " state FROM extents WHERE region = ?1 LIMIT 1";
	enum secpool_error error = SECPOOL_OK;

	while (!error) {
		struct extents_row row;

		error = find_row(directory, sql, DIRECTORY_VALUES(DIRECTORY_N(region)),
			"it has no more", &row);
		if (!error)
			error = merge_around(directory, &row, EXTENTS_FREE);
	}
	return error == SECPOOL_E_NOT_FOUND ? SECPOOL_OK : error;
}

enum secpool_error extents_scrub_end(struct directory *directory, const struct extents_row *row,
	enum msg_readback readback, bool *ret_done)
{
	static const char still_sql[] = "SELECT COUNT(*) FROM extents WHERE id = ?1 AND state = ?2"
					" AND slot = ?3 AND offset = ?4 AND bytes = ?5";
	uint64_t count = 0;
	enum secpool_error error = directory_number(directory, still_sql,
		DIRECTORY_VALUES(DIRECTORY_N(row->id), DIRECTORY_N(EXTENTS_SCRUBBING),
			DIRECTORY_N(row->slot), DIRECTORY_N(row->offset), DIRECTORY_N(row->bytes)),
		&count);

	if (!error && count == 1) {
		switch (readback) {
		case MSG_READBACK_MATCHED:
			error = merge_around(directory, row, EXTENTS_FREE);
			break;
		case MSG_READBACK_UNREACHABLE:
			error = merge_around(directory, row, EXTENTS_UNKNOWN);
			break;
		case MSG_READBACK_DIFFERED:
		case MSG_READBACK_NOT_OVERWRITTEN:
			error = directory_run(directory,
				"UPDATE extents SET state = ?2, region = NULL WHERE id = ?1",
				DIRECTORY_VALUES(
					DIRECTORY_N(row->id), DIRECTORY_N(EXTENTS_DIFFERED)));
			break;
		}
	}
	if (!error)
		*ret_done = count == 1;
	return error;
}

enum secpool_error extents_drop_releasing(struct directory *directory, uint64_t slot)
{
	return directory_run(directory,
		"UPDATE extents SET state = ?2, region = NULL, lane = 0, region_offset = 0"
		" WHERE slot = ?1 AND state = " TOTALS_RELEASING,
		DIRECTORY_VALUES(DIRECTORY_N(slot), DIRECTORY_N(EXTENTS_UNKNOWN)));
}

enum secpool_error extents_list(struct directory *directory, uint64_t region, uint64_t first,
	struct extents_row *rows, size_t most, size_t *ret_count, uint64_t *ret_total)
{
	static const char sql[] = "SELECT id, slot, offset, bytes, region, lane, region_offset,"
				  " state FROM extents WHERE region = ?1 AND state IN (?2, ?5)"
				  " ORDER BY lane, state, region_offset LIMIT ?3 OFFSET ?4";
	struct directory_rows *found = NULL;
	uint64_t total = 0;
	size_t count = 0;
	enum secpool_error error = directory_number(directory,
		"SELECT COUNT(*) FROM extents WHERE region = ?1 AND state IN (?2, ?3)",
		DIRECTORY_VALUES(DIRECTORY_N(region), DIRECTORY_N(EXTENTS_IN_USE),
			DIRECTORY_N(EXTENTS_TARGET)),
		&total);

	if (!error)
		error = directory_query(directory, sql,
			DIRECTORY_VALUES(DIRECTORY_N(region), DIRECTORY_N(EXTENTS_IN_USE),
				DIRECTORY_N(most), DIRECTORY_N(first), DIRECTORY_N(EXTENTS_TARGET)),
			&found);
	while (!error && count < most && directory_next(found, &error))
		read_row(found, &rows[count++]);
	directory_done(found);
	if (!error) {
		*ret_count = count;
		*ret_total = total;
	}
	return error;
}

enum secpool_error extents_count_use(
	struct directory *directory, uint64_t slot, struct extents_use *ret_use)
{
	static const char sql[] = "SELECT state, bytes, extents FROM space"
				  " WHERE state IN (0, 1, 2, 3, 4, 5, 6, 7) AND slot = ?1";
	struct extents_use use = {0};
	struct directory_rows *rows = NULL;
	enum secpool_error error =
		directory_query(directory, sql, DIRECTORY_VALUES(DIRECTORY_N(slot)), &rows);

	while (!error && directory_next(rows, &error)) {
		uint64_t bytes = directory_get_number(rows, 1);

		switch ((enum extents_state)directory_get_number(rows, 0)) {
		case EXTENTS_IN_USE:
		case EXTENTS_SET_ASIDE:
		case EXTENTS_TARGET:
			use.used += bytes;
			break;
		case EXTENTS_FREE:
			use.free = bytes;
			use.free_extents = directory_get_number(rows, 2);
			break;
		case EXTENTS_DIFFERED:
			use.differed = bytes;
			use.unscrubbed += bytes;
			break;
		case EXTENTS_UNKNOWN:
		case EXTENTS_SCRUBBING:
		case EXTENTS_RELEASING:
			use.unscrubbed += bytes;
			break;
		}
	}
	directory_done(rows);
	if (!error)
		error = directory_number(directory,
			"SELECT IFNULL(MAX(bytes), 0) FROM extents WHERE state = " TOTALS_FREE
			" AND slot = ?1",
			DIRECTORY_VALUES(DIRECTORY_N(slot)), &use.largest_free);
	if (!error)
		*ret_use = use;
	return error;
}

enum secpool_error extents_nth(struct directory *directory, uint64_t region, uint64_t slot,
	uint64_t n, struct extents_row *ret_row)
{
	static const char sql[] =
		"SELECT id, slot, offset, bytes, region, lane, region_offset,"
		" state FROM extents WHERE region = ?1 AND slot = ?2 AND state = ?3"
		" ORDER BY lane, region_offset LIMIT 1 OFFSET ?4";

	return find_row(directory, sql,
		DIRECTORY_VALUES(DIRECTORY_N(region), DIRECTORY_N(slot),
			DIRECTORY_N(EXTENTS_IN_USE), DIRECTORY_N(n)),
		"the region has no more there", ret_row);
}

/* Bytes of what the region has there, and of its targets of the same parts. */
static enum secpool_error count_moving(struct directory *directory, uint64_t region, uint64_t slot,
	uint64_t *ret_used, uint64_t *ret_targets)
{
	static const char targets_sql[] =
		"SELECT IFNULL(SUM(t.bytes), 0) FROM extents t WHERE t.region = ?1 AND t.state = ?3"
		" AND EXISTS (SELECT 1 FROM extents e WHERE e.region = ?1 AND e.slot = ?2"
		" AND e.state = ?4 AND e.lane = t.lane AND e.region_offset < t.region_offset + "
		"t.bytes"
		" AND e.region_offset + e.bytes > t.region_offset)";
	enum secpool_error error = directory_number(directory,
		"SELECT IFNULL(SUM(bytes), 0) FROM extents"
		" WHERE region = ?1 AND slot = ?2 AND state = ?3",
		DIRECTORY_VALUES(
			DIRECTORY_N(region), DIRECTORY_N(slot), DIRECTORY_N(EXTENTS_IN_USE)),
		ret_used);

	if (error)
		return error;
	return directory_number(directory, targets_sql,
		DIRECTORY_VALUES(DIRECTORY_N(region), DIRECTORY_N(slot),
			DIRECTORY_N(EXTENTS_TARGET), DIRECTORY_N(EXTENTS_IN_USE)),
		ret_targets);
}

enum secpool_error extents_moved(struct directory *directory, uint64_t region, uint64_t slot)
{
	uint64_t used = 0, targets = 0;
	enum secpool_error error = count_moving(directory, region, slot, &used, &targets);

	if (!error && used != targets)
		error = err_set(SECPOOL_E_BUSY, "%llu bytes are there, and %llu were copied",
			(unsigned long long)used, (unsigned long long)targets);
	/* it stays the region's until it is overwritten: a pull before that is a loss of what its key protects */
	if (!error)
		error = directory_run(directory,
			"UPDATE extents SET state = ?3, epoch = " EXTENTS_EPOCH_SQL
			" WHERE region = ?1 AND slot = ?2 AND state = ?4",
			DIRECTORY_VALUES(DIRECTORY_N(region), DIRECTORY_N(slot),
				DIRECTORY_N(EXTENTS_RELEASING), DIRECTORY_N(EXTENTS_IN_USE)));
	return error ? error : extents_promote(directory, region);
}

enum secpool_error extents_drained(struct directory *directory, uint64_t slot, bool *ret_drained)
{
	uint64_t left = 0;
	enum secpool_error error = directory_number(directory,
		"SELECT IFNULL(SUM(extents), 0) FROM space"
		" WHERE state IN (0, 1, 3, 4, 5, 7) AND slot = ?1",
		DIRECTORY_VALUES(DIRECTORY_N(slot)), &left);

	if (!error)
		*ret_drained = left == 0;
	return error;
}

enum secpool_error extents_scrub_again(struct directory *directory, uint64_t slot)
{
	/* neighbours that are unknown need not be one row for the scrub, which takes them one by one; they are one when they are free */
	return directory_run(directory,
		"UPDATE extents SET state = ?2 WHERE slot = ?1 AND state IN (?3, ?4)",
		DIRECTORY_VALUES(DIRECTORY_N(slot), DIRECTORY_N(EXTENTS_UNKNOWN),
			DIRECTORY_N(EXTENTS_FREE), DIRECTORY_N(EXTENTS_DIFFERED)));
}
