/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/epochs.h"

#include "keymgr/extents.h"
#include "lib/base/clock.h"

uint64_t epochs_new(const struct regions_row *row)
{
	return (row->next_epoch > row->epoch ? row->next_epoch : row->epoch) + 1;
}

static enum secpool_error one_changed(
	struct directory *directory, enum secpool_error error, uint64_t region, const char *what)
{
	if (!error && directory_changes(directory) != 1)
		error = err_set(SECPOOL_E_NOT_FOUND, "region %llu is not %s",
			(unsigned long long)region, what);
	return error;
}

enum secpool_error epochs_begin(
	struct directory *directory, uint64_t region, uint64_t epoch, uint64_t wrap)
{
	enum secpool_error error = directory_run(directory,
		"UPDATE regions SET next_epoch = ?2, next_wrap = ?3, rotate = 0, key_ns = ?4"
		" WHERE id = ?1 AND state = ?5",
		DIRECTORY_VALUES(DIRECTORY_N(region), DIRECTORY_N(epoch), DIRECTORY_N(wrap),
			DIRECTORY_N(clock_calendar_ns()), DIRECTORY_N(MSG_REGION_LIVE)));

	return one_changed(directory, error, region, "live");
}

enum secpool_error epochs_drop_next(struct directory *directory, uint64_t region)
{
	return directory_run(directory, "UPDATE regions SET next_wrap = 0 WHERE id = ?1",
		DIRECTORY_VALUES(DIRECTORY_N(region)));
}

enum secpool_error epochs_end(struct directory *directory, uint64_t region, uint64_t epoch)
{
	enum secpool_error error = directory_run(directory,
		"UPDATE regions SET epoch = next_epoch, wrap = next_wrap, next_epoch = 0,"
		" next_wrap = 0 WHERE id = ?1 AND next_epoch = ?2 AND state = ?3",
		DIRECTORY_VALUES(
			DIRECTORY_N(region), DIRECTORY_N(epoch), DIRECTORY_N(MSG_REGION_LIVE)));

	return one_changed(directory, error, region, "rotated to this epoch");
}

enum secpool_error epochs_want(struct directory *directory, const char *tenant, uint64_t *ret_count)
{
	enum secpool_error error = directory_run(directory,
		"UPDATE regions SET rotate = 1 WHERE tenant = ?1 AND state = ?2",
		DIRECTORY_VALUES(DIRECTORY_T(tenant), DIRECTORY_N(MSG_REGION_LIVE)));

	if (!error)
		*ret_count = directory_changes(directory);
	return error;
}

enum secpool_error epochs_want_all(struct directory *directory)
{
	return directory_run(directory, "UPDATE regions SET rotate = 1 WHERE state = ?1",
		DIRECTORY_VALUES(DIRECTORY_N(MSG_REGION_LIVE)));
}

enum secpool_error epochs_want_one(struct directory *directory, uint64_t region)
{
	return directory_run(directory,
		"UPDATE regions SET rotate = 1 WHERE id = ?1 AND state = ?2",
		DIRECTORY_VALUES(DIRECTORY_N(region), DIRECTORY_N(MSG_REGION_LIVE)));
}

enum secpool_error epochs_want_older(
	struct directory *directory, uint64_t before_ns, uint64_t *ret_count)
{
	enum secpool_error error = directory_run(directory,
		"UPDATE regions SET rotate = 1 WHERE state = ?1 AND rotate = 0 AND next_epoch = 0"
		" AND key_ns < ?2",
		DIRECTORY_VALUES(DIRECTORY_N(MSG_REGION_LIVE), DIRECTORY_N(before_ns)));

	if (!error)
		*ret_count = directory_changes(directory);
	return error;
}

enum secpool_error epochs_wanted(
	struct directory *directory, uint64_t after, struct regions_row *ret_row)
{
	_Static_assert(MSG_REGION_LIVE == 1, "as it is in the statement");
	return regions_select(directory,
		"SELECT " REGIONS_COLUMNS
		" FROM regions WHERE id > ?1 AND rotate != 0 AND state = 1 ORDER BY id LIMIT 1",
		after, ret_row);
}

static bool is_among(const struct regions_row *rows, size_t count, uint64_t region)
{
	for (size_t i = 0; i < count; i++)
		if (rows[i].id == region)
			return true;
	return false;
}

enum secpool_error epochs_forget(struct directory *directory, uint64_t slot, uint64_t *offset,
	struct regions_row *rows, size_t most, size_t *ret_count)
{
	/* by the device's places; what was given up under an earlier key holds nothing of a later one */
	static const char sql[] =
		"SELECT " REGIONS_COLUMNS ", place FROM (SELECT region AS owner, offset AS place,"
		" state AS kind, epoch AS since FROM extents WHERE slot = ?2 AND offset >= ?7)"
		" CROSS JOIN regions ON id = owner WHERE state = ?1"
		" AND (wrap != 0 OR next_wrap != 0) AND (kind NOT IN (?4, ?5, ?6) OR since >= "
		"epoch)"
		" ORDER BY place LIMIT ?3";
	struct directory_rows *found = NULL;
	size_t count = 0;
	uint64_t next = *offset;
	enum secpool_error error = directory_query(directory, sql,
		DIRECTORY_VALUES(DIRECTORY_N(MSG_REGION_LIVE), DIRECTORY_N(slot), DIRECTORY_N(most),
			DIRECTORY_N(EXTENTS_SET_ASIDE), DIRECTORY_N(EXTENTS_RELEASING),
			DIRECTORY_N(EXTENTS_SCRUBBING), DIRECTORY_N(next)),
		&found);

	while (!error && count < most && directory_next(found, &error)) {
		regions_read_row(found, &rows[count]);
		next = directory_get_number(found, REGIONS_COLUMN_COUNT) + 1;
		if (!is_among(rows, count, rows[count].id))
			count++;
	}
	directory_done(found);
	for (size_t i = 0; i < count && !error; i++)
		error = directory_run(directory,
			"UPDATE regions SET wrap = 0, next_wrap = 0, rotate = 1 WHERE id = ?1",
			DIRECTORY_VALUES(DIRECTORY_N(rows[i].id)));
	if (!error) {
		*ret_count = count;
		*offset = next;
	}
	return error;
}

enum secpool_error epochs_forget_region(struct directory *directory, uint64_t region)
{
	return directory_run(directory,
		"UPDATE regions SET wrap = 0, next_wrap = 0, rotate = 0 WHERE id = ?1",
		DIRECTORY_VALUES(DIRECTORY_N(region)));
}
