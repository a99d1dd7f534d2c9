/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/regions.h"

#include <string.h>

#include "keymgr/addresses.h"
#include "keymgr/totals.h"
#include "lib/base/clock.h"

#define COLUMNS "SELECT " REGIONS_COLUMNS " FROM regions "

/* The first epoch of a region; later ones come with rotation. */
enum { FIRST_EPOCH = 1 };

void regions_read_row(struct directory_rows *rows, struct regions_row *row)
{
	*row = (struct regions_row){
		.id = directory_get_number(rows, 0),
		.address = directory_get_number(rows, 1),
		.bytes = directory_get_number(rows, 2),
		.page_bytes = directory_get_number(rows, 3),
		.epoch = directory_get_number(rows, 4),
		.data = (uint32_t)directory_get_number(rows, 5),
		.on_loss = (uint32_t)directory_get_number(rows, 6),
		.uid = (uint32_t)directory_get_number(rows, 7),
		.state = (uint32_t)directory_get_number(rows, 8),
		.process = {.pid = (int32_t)directory_get_number(rows, 9),
			.start_ticks = directory_get_number(rows, 10)},
		.released_ns = directory_get_number(rows, 13),
		.destroyed_ns = directory_get_number(rows, 14),
		.generation = directory_get_number(rows, 15),
		.scrubbed_bytes = directory_get_number(rows, 16),
		.unreachable_bytes = directory_get_number(rows, 17),
		.differed = directory_get_number(rows, 18),
		.client = (uint32_t)directory_get_number(rows, 19),
		.wrap = directory_get_number(rows, 20),
		.lanes = (uint32_t)directory_get_number(rows, 21),
		.signal = (uint32_t)directory_get_number(rows, 22),
		.next_epoch = directory_get_number(rows, 23),
		.next_wrap = directory_get_number(rows, 24),
		.rotate = directory_get_number(rows, 25) != 0,
	};
	directory_get_text(rows, 11, row->tenant, sizeof row->tenant);
	directory_get_text(rows, 12, row->name, sizeof row->name);
}

static enum secpool_error insert_row(struct directory *directory, struct regions_row *row)
{
	static const char sql[] =
		"INSERT INTO regions (tenant, uid, pid, start_ticks, address, bytes, page_bytes,"
		" data, lanes, on_loss, name, state, epoch, signal, key_ns)"
		" VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
	enum secpool_error error = directory_run(directory, sql,
		DIRECTORY_VALUES(DIRECTORY_T(row->tenant), DIRECTORY_N(row->uid),
			DIRECTORY_N(row->process.pid), DIRECTORY_N(row->process.start_ticks),
			DIRECTORY_N(row->address), DIRECTORY_N(row->bytes),
			DIRECTORY_N(row->page_bytes), DIRECTORY_N(row->data),
			DIRECTORY_N(row->lanes), DIRECTORY_N(row->on_loss), DIRECTORY_T(row->name),
			DIRECTORY_N(REGIONS_CREATING), DIRECTORY_N(FIRST_EPOCH),
			DIRECTORY_N(row->signal), DIRECTORY_N(clock_calendar_ns())));

	if (!error) {
		row->id = directory_last_id(directory);
		row->epoch = FIRST_EPOCH;
		row->state = REGIONS_CREATING;
	}
	return error;
}

enum secpool_error regions_create(struct directory *directory, struct regions_row *row,
	uint64_t window_base, uint64_t window_bytes, const struct extents_device *devices,
	size_t device_count)
{
	struct regions_row made = *row;
	bool part = false;
	enum secpool_error error = directory_enter(directory, &part);

	if (error)
		return error;
	error = addresses_take(directory, window_base, window_bytes, made.bytes, &made.address);
	if (!error)
		error = insert_row(directory, &made);
	if (!error)
		error = extents_take(directory, made.id, made.lanes, regions_lane_bytes(&made),
			devices, device_count);
	error = directory_end(directory, part, error);
	if (!error)
		*row = made;
	return error;
}

enum secpool_error regions_set_live(struct directory *directory, uint64_t region, uint64_t wrap)
{
	enum secpool_error error = directory_run(directory,
		"UPDATE regions SET state = ?2, wrap = ?3 WHERE id = ?1 AND state = ?4",
		DIRECTORY_VALUES(DIRECTORY_N(region), DIRECTORY_N(MSG_REGION_LIVE),
			DIRECTORY_N(wrap), DIRECTORY_N(REGIONS_CREATING)));

	if (!error && directory_changes(directory) != 1)
		error = err_set(SECPOOL_E_NOT_FOUND, "region %llu is not being created",
			(unsigned long long)region);
	return error;
}

/* id: for the error */
static enum secpool_error find_one(struct directory *directory, const char *sql,
	const struct directory_value *values, uint64_t id, struct regions_row *ret_row)
{
	struct directory_rows *rows = NULL;
	enum secpool_error error = directory_query(directory, sql, values, &rows);

	if (!error && directory_next(rows, &error))
		regions_read_row(rows, ret_row);
	else if (!error)
		error = err_set(
			SECPOOL_E_NOT_FOUND, "there is no region %llu", (unsigned long long)id);
	directory_done(rows);
	return error;
}

enum secpool_error regions_select(
	struct directory *directory, const char *sql, uint64_t id, struct regions_row *ret_row)
{
	return find_one(directory, sql, DIRECTORY_VALUES(DIRECTORY_N(id)), id, ret_row);
}

enum secpool_error regions_find(
	struct directory *directory, uint64_t region, struct regions_row *ret_row)
{
	return regions_select(directory, COLUMNS "WHERE id = ?1", region, ret_row);
}

enum secpool_error regions_next(
	struct directory *directory, uint64_t after, struct regions_row *ret_row)
{
	return regions_select(
		directory, COLUMNS "WHERE id > ?1 ORDER BY id LIMIT 1", after, ret_row);
}

enum secpool_error regions_next_of(struct directory *directory, const struct os_process *process,
	uint64_t after, struct regions_row *ret_row)
{
	return find_one(directory,
		COLUMNS "WHERE pid = ?1 AND start_ticks = ?2 AND id > ?3 ORDER BY id LIMIT 1",
		DIRECTORY_VALUES(DIRECTORY_N(process->pid), DIRECTORY_N(process->start_ticks),
			DIRECTORY_N(after)),
		after, ret_row);
}

/* The state as text, as in the partial index (totals.c). */
enum secpool_error regions_next_ended(
	struct directory *directory, uint64_t after, struct regions_row *ret_row)
{
	return regions_select(directory,
		COLUMNS "INDEXED BY regions_ended WHERE state = 2 AND held = 0 AND id > ?1"
			" ORDER BY id LIMIT 1",
		after, ret_row);
}

enum secpool_error regions_release(
	struct directory *directory, uint64_t region, enum msg_client_end client)
{
	bool part = false;
	enum secpool_error error = directory_enter(directory, &part);

	if (error)
		return error;
	error = directory_run(directory,
		"UPDATE regions SET state = ?2, wrap = 0, next_wrap = 0, released_ns = ?3,"
		" client = ?4 WHERE id = ?1 AND state != ?2",
		DIRECTORY_VALUES(DIRECTORY_N(region), DIRECTORY_N(MSG_REGION_RELEASING),
			DIRECTORY_N(clock_calendar_ns()), DIRECTORY_N(client)));
	if (!error)
		error = extents_release(directory, region);
	return directory_end(directory, part, error);
}

/* The row, if it is there, and the addresses that were the region's. */
static enum secpool_error drop_row(struct directory *directory, uint64_t region)
{
	struct regions_row row;
	enum secpool_error error = regions_find(directory, region, &row);

	if (!error)
		error = addresses_give(directory, row.address, row.bytes);
	if (!error)
		error = directory_run(directory, "DELETE FROM grants WHERE region = ?1",
			DIRECTORY_VALUES(DIRECTORY_N(region)));
	if (!error)
		error = directory_run(directory, "DELETE FROM regions WHERE id = ?1",
			DIRECTORY_VALUES(DIRECTORY_N(region)));
	return error == SECPOOL_E_NOT_FOUND ? SECPOOL_OK : error;
}

enum secpool_error regions_undo(struct directory *directory, uint64_t region)
{
	bool part = false;
	enum secpool_error error = directory_enter(directory, &part);

	if (error)
		return error;
	error = directory_run(directory,
		"UPDATE regions SET name = '' WHERE id = ?1 AND state = ?2",
		DIRECTORY_VALUES(DIRECTORY_N(region), DIRECTORY_N(REGIONS_CREATING)));
	if (!error && directory_changes(directory) != 1)
		error = err_set(SECPOOL_E_NOT_FOUND, "region %llu is not being created",
			(unsigned long long)region);
	if (!error)
		error = extents_give_back(directory, region);
	if (!error)
		error = drop_row(directory, region);
	return directory_end(directory, part, error);
}

enum secpool_error regions_of_process(
	struct directory *directory, const struct os_process *process, bool *ret_has)
{
	uint64_t count = 0;
	enum secpool_error error = directory_number(directory,
		"SELECT EXISTS (SELECT 1 FROM regions WHERE pid = ?1 AND start_ticks = ?2"
		" AND state != ?3)",
		DIRECTORY_VALUES(DIRECTORY_N(process->pid), DIRECTORY_N(process->start_ticks),
			DIRECTORY_N(MSG_REGION_RELEASING)),
		&count);

	if (!error)
		*ret_has = count > 0;
	return error;
}

enum secpool_error regions_touch(struct directory *directory, const struct regions_row *owner,
	uint64_t slot, uint64_t offset, uint64_t bytes, bool *ret_touch)
{
	/* CROSS: the process's regions first, which are few, and not all that is on the device */
#define OWNED                                                                                      \
	"SELECT COUNT(*) FROM regions r CROSS JOIN extents e ON e.region = r.id"                   \
	" WHERE r.pid = ?1 AND r.start_ticks = ?2 AND r.tenant = ?3 AND r.uid = ?4"                \
	" AND r.state = ?5 AND e.slot = ?7 AND e.state IN (?8, ?9) AND (?11 = 0 OR"                \
	" (?10 < e.offset + e.bytes AND e.offset - ?10 < ?11))"
	static const char any_sql[] = OWNED " AND ?6 = 0", one_sql[] = OWNED " AND r.id = ?6";
	uint64_t count = 0;
	enum secpool_error error = directory_number(directory, owner->id ? one_sql : any_sql,
		DIRECTORY_VALUES(DIRECTORY_N(owner->process.pid),
			DIRECTORY_N(owner->process.start_ticks), DIRECTORY_T(owner->tenant),
			DIRECTORY_N(owner->uid), DIRECTORY_N(MSG_REGION_LIVE),
			DIRECTORY_N(owner->id), DIRECTORY_N(slot), DIRECTORY_N(EXTENTS_IN_USE),
			DIRECTORY_N(EXTENTS_SET_ASIDE), DIRECTORY_N(offset), DIRECTORY_N(bytes)),
		&count);

	if (!error)
		*ret_touch = count > 0;
	return error;
}

enum secpool_error regions_set_destroyed(
	struct directory *directory, uint64_t region, uint64_t destroyed_ns, uint64_t generation)
{
	return directory_run(directory,
		"UPDATE regions SET destroyed_ns = ?2, generation = ?3 WHERE id = ?1",
		DIRECTORY_VALUES(
			DIRECTORY_N(region), DIRECTORY_N(destroyed_ns), DIRECTORY_N(generation)));
}

enum secpool_error regions_add_scrubbed(
	struct directory *directory, uint64_t region, enum msg_readback readback, uint64_t bytes)
{
	bool overwritten = readback == MSG_READBACK_MATCHED || readback == MSG_READBACK_DIFFERED;

	return directory_run(directory,
		"UPDATE regions SET scrubbed_bytes = scrubbed_bytes + ?2,"
		" unreachable_bytes = unreachable_bytes + ?3, differed = differed + ?4"
		" WHERE id = ?1",
		DIRECTORY_VALUES(DIRECTORY_N(region), DIRECTORY_N(overwritten ? bytes : 0),
			DIRECTORY_N(overwritten ? 0 : bytes),
			DIRECTORY_N(readback == MSG_READBACK_DIFFERED)));
}

enum secpool_error regions_lose_device(struct directory *directory, uint64_t slot)
{
	return directory_run(directory,
		"UPDATE regions SET unreachable_bytes = unreachable_bytes + (SELECT SUM(bytes)"
		" FROM extents WHERE region = regions.id AND slot = ?1)"
		" WHERE id IN (SELECT region FROM extents WHERE slot = ?1)",
		DIRECTORY_VALUES(DIRECTORY_N(slot)));
}

enum secpool_error regions_drop_releasing(struct directory *directory, uint64_t slot)
{
	enum secpool_error error = directory_run(directory,
		"UPDATE regions SET unreachable_bytes = unreachable_bytes + (SELECT SUM(bytes)"
		" FROM extents WHERE region = regions.id AND slot = ?1 AND +state "
		"= " TOTALS_RELEASING
		") WHERE id IN (SELECT region FROM extents WHERE slot = ?1 AND state"
		" = " TOTALS_RELEASING ")",
		DIRECTORY_VALUES(DIRECTORY_N(slot)));

	if (!error)
		error = extents_drop_releasing(directory, slot);
	return error;
}

enum secpool_error regions_extents_left(
	struct directory *directory, uint64_t region, uint64_t *ret_count)
{
	return directory_number(directory, "SELECT COUNT(*) FROM extents WHERE region = ?1",
		DIRECTORY_VALUES(DIRECTORY_N(region)), ret_count);
}

enum secpool_error regions_last_receipt(
	struct directory *directory, uint64_t *ret_number, uint8_t ret_digest[32])
{
	struct directory_rows *rows = NULL;
	enum secpool_error error = directory_query(directory,
		"SELECT number, digest FROM receipts ORDER BY number DESC LIMIT 1",
		DIRECTORY_VALUES(), &rows);
	uint8_t digest[32] = {0};
	uint64_t number = 0;

	if (!error && directory_next(rows, &error)) {
		number = directory_get_number(rows, 0);
		if (directory_get_bytes(rows, 1, digest, sizeof digest) != sizeof digest)
			error = err_set(SECPOOL_E_STORE, "receipt %llu has no digest",
				(unsigned long long)number);
	}
	directory_done(rows);
	if (!error) {
		*ret_number = number;
		memcpy(ret_digest, digest, sizeof digest);
	}
	return error;
}

enum secpool_error regions_finish(struct directory *directory, uint64_t region, uint64_t number,
	const char *text, const uint8_t digest[32])
{
	bool part = false;
	enum secpool_error error = directory_enter(directory, &part);

	if (error)
		return error;
	error = directory_run(directory,
		"INSERT INTO receipts (number, region, text, digest) VALUES (?1, ?2, ?3, ?4)",
		DIRECTORY_VALUES(DIRECTORY_N(number), DIRECTORY_N(region), DIRECTORY_T(text),
			DIRECTORY_B(digest, 32)));
	if (!error)
		error = directory_run(directory, "DELETE FROM receipts WHERE number <= ?1 - ?2",
			DIRECTORY_VALUES(DIRECTORY_N(number), DIRECTORY_N(REGIONS_RECEIPTS_KEPT)));
	if (!error)
		error = drop_row(directory, region);
	return directory_end(directory, part, error);
}

uint64_t regions_lane_bytes(const struct regions_row *row)
{
	return msg_lane_bytes(row->bytes, row->page_bytes, row->data);
}

uint64_t regions_quota_bytes(uint64_t bytes)
{
	if (bytes > UINT64_MAX - (EXTENTS_UNIT_BYTES - 1))
		return UINT64_MAX;
	return (bytes + EXTENTS_UNIT_BYTES - 1) / EXTENTS_UNIT_BYTES * EXTENTS_UNIT_BYTES;
}

enum secpool_error regions_count_use(
	struct directory *directory, const char *tenant, struct regions_use *ret_use)
{
	static const char sql[] = "SELECT regions, bytes FROM tenant_use WHERE tenant = ?1";
	struct directory_rows *rows = NULL;
	enum secpool_error error =
		directory_query(directory, sql, DIRECTORY_VALUES(DIRECTORY_T(tenant)), &rows);

	struct regions_use use = {.regions = 0};

	if (!error && directory_next(rows, &error))
		use = (struct regions_use){.regions = directory_get_number(rows, 0),
			.bytes = directory_get_number(rows, 1)};
	directory_done(rows);
	if (!error)
		*ret_use = use;
	return error;
}
