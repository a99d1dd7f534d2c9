/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/addresses.h"

/* What a region takes of the window: whole units, and one behind it that stays empty. */
static uint64_t taken_bytes(uint64_t bytes)
{
	return (bytes + ADDRESSES_ALIGN_BYTES - 1) / ADDRESSES_ALIGN_BYTES * ADDRESSES_ALIGN_BYTES +
	       ADDRESSES_ALIGN_BYTES;
}

/*
 * The gaps of a window between the regions that there are: before the first, and behind each. ?1 base, ?2 end of the window (and a unit for what stays empty
 * behind the last region), ?3 alignment. Regions of an older window that lie below the base, or above the end, take what they have of this one.
 */
static const char make_sql[] =
	"WITH taken AS (SELECT MAX(address, ?1) AS start,"
	"                MIN((address + bytes + ?3 - 1) / ?3 * ?3 + ?3, ?2) AS end FROM regions"
	"                WHERE (address + bytes + ?3 - 1) / ?3 * ?3 + ?3 > ?1 AND address < ?2),"
	"     places AS (SELECT ?1 AS start, IFNULL((SELECT MIN(start) FROM taken), ?2) AS next"
	"      UNION ALL SELECT end, LEAD(start, 1, ?2) OVER (ORDER BY start) FROM taken)"
	"INSERT INTO address_gaps (start, bytes)"
	" SELECT start, next - start FROM places WHERE next > start";

static enum secpool_error make_gaps(
	struct directory *directory, uint64_t window_base, uint64_t window_bytes)
{
	enum secpool_error error =
		directory_run(directory, "DELETE FROM address_gaps", DIRECTORY_VALUES());

	if (!error)
		error = directory_run(directory, make_sql,
			DIRECTORY_VALUES(DIRECTORY_N(window_base),
				DIRECTORY_N(window_base + window_bytes + ADDRESSES_ALIGN_BYTES),
				DIRECTORY_N(ADDRESSES_ALIGN_BYTES)));
	if (!error)
		error = directory_run(directory, "DELETE FROM address_window", DIRECTORY_VALUES());
	if (!error)
		error = directory_run(directory, "INSERT INTO address_window VALUES (?1, ?2)",
			DIRECTORY_VALUES(DIRECTORY_N(window_base), DIRECTORY_N(window_bytes)));
	return error;
}

/* The gaps are those of this window: another one, by a new policy, has them made once. */
static enum secpool_error settle_window(
	struct directory *directory, uint64_t window_base, uint64_t window_bytes)
{
	uint64_t same = 0;
	enum secpool_error error = directory_number(directory,
		"SELECT COUNT(*) FROM address_window WHERE base = ?1 AND bytes = ?2",
		DIRECTORY_VALUES(DIRECTORY_N(window_base), DIRECTORY_N(window_bytes)), &same);

	if (!error && same == 0)
		error = make_gaps(directory, window_base, window_bytes);
	return error;
}

static enum secpool_error cut_gap(
	struct directory *directory, uint64_t start, uint64_t bytes, uint64_t taken)
{
	enum secpool_error error = directory_run(directory,
		"DELETE FROM address_gaps WHERE start = ?1", DIRECTORY_VALUES(DIRECTORY_N(start)));

	if (!error && bytes > taken)
		error = directory_run(directory, "INSERT INTO address_gaps VALUES (?1, ?2)",
			DIRECTORY_VALUES(DIRECTORY_N(start + taken), DIRECTORY_N(bytes - taken)));
	return error;
}

static enum secpool_error find_fitting(
	struct directory *directory, uint64_t taken, uint64_t *ret_start, uint64_t *ret_bytes)
{
	static const char sql[] = "SELECT start, bytes FROM address_gaps WHERE bytes >= ?1"
				  " ORDER BY bytes, start LIMIT 1";
	struct directory_rows *rows = NULL;
	enum secpool_error error =
		directory_query(directory, sql, DIRECTORY_VALUES(DIRECTORY_N(taken)), &rows);

	if (!error && directory_next(rows, &error)) {
		*ret_start = directory_get_number(rows, 0);
		*ret_bytes = directory_get_number(rows, 1);
	} else if (!error) {
		error = SECPOOL_E_NOT_FOUND;
	}
	directory_done(rows);
	return error;
}

enum secpool_error addresses_take(struct directory *directory, uint64_t window_base,
	uint64_t window_bytes, uint64_t bytes, uint64_t *ret_address)
{
	uint64_t start = 0, gap = 0;
	enum secpool_error error;

	if (bytes == 0 || window_base % ADDRESSES_ALIGN_BYTES != 0)
		return err_set(SECPOOL_E_INVALID, "%s",
			bytes == 0 ? "a region has at least one page"
				   : "policy: the window's base must be a multiple of 2 MiB");
	if (bytes > window_bytes)
		return err_set(SECPOOL_E_NO_SPACE, "the region is larger than the address window");
	error = settle_window(directory, window_base, window_bytes);
	if (!error)
		error = find_fitting(directory, taken_bytes(bytes), &start, &gap);
	if (error == SECPOOL_E_NOT_FOUND)
		return err_set(SECPOOL_E_NO_SPACE,
			"the address window has no gap of %llu bytes: release regions or widen it",
			(unsigned long long)bytes);
	if (!error)
		error = cut_gap(directory, start, gap, taken_bytes(bytes));
	if (!error)
		*ret_address = start;
	return error;
}

/* The window that the gaps are of. Errors: SECPOOL_E_NOT_FOUND (none yet), SECPOOL_E_STORE. */
static enum secpool_error read_window(
	struct directory *directory, uint64_t *ret_base, uint64_t *ret_end)
{
	struct directory_rows *rows = NULL;
	enum secpool_error error =
		directory_query(directory, "SELECT base, base + bytes + ?1 FROM address_window",
			DIRECTORY_VALUES(DIRECTORY_N(ADDRESSES_ALIGN_BYTES)), &rows);

	if (!error && directory_next(rows, &error)) {
		*ret_base = directory_get_number(rows, 0);
		*ret_end = directory_get_number(rows, 1);
	} else if (!error) {
		error = SECPOOL_E_NOT_FOUND;
	}
	directory_done(rows);
	return error;
}

/* Takes in the gaps on both sides of a range that is to be one. */
static enum secpool_error join_gaps(struct directory *directory, uint64_t *start, uint64_t *end)
{
	static const char before_sql[] =
		"SELECT start FROM address_gaps WHERE start = (SELECT MAX(start) FROM address_gaps"
		" WHERE start < ?1) AND start + bytes = ?1";
	static const char after_sql[] = "SELECT start + bytes FROM address_gaps WHERE start = ?1";
	enum secpool_error error = directory_number(
		directory, before_sql, DIRECTORY_VALUES(DIRECTORY_N(*start)), start);

	if (!error || error == SECPOOL_E_NOT_FOUND)
		error = directory_number(
			directory, after_sql, DIRECTORY_VALUES(DIRECTORY_N(*end)), end);
	if (!error || error == SECPOOL_E_NOT_FOUND)
		error = directory_run(directory,
			"DELETE FROM address_gaps WHERE start >= ?1 AND start < ?2",
			DIRECTORY_VALUES(DIRECTORY_N(*start), DIRECTORY_N(*end)));
	return error;
}

enum secpool_error addresses_give(struct directory *directory, uint64_t address, uint64_t bytes)
{
	uint64_t base = 0, window_end = 0, start = address, end = address + taken_bytes(bytes);
	enum secpool_error error = read_window(directory, &base, &window_end);

	if (error)
		return error == SECPOOL_E_NOT_FOUND ? SECPOOL_OK : error;
	start = start > base ? start : base;
	end = end < window_end ? end : window_end;
	if (start >= end)
		return SECPOOL_OK;
	error = join_gaps(directory, &start, &end);
	if (!error)
		error = directory_run(directory, "INSERT INTO address_gaps VALUES (?1, ?2)",
			DIRECTORY_VALUES(DIRECTORY_N(start), DIRECTORY_N(end - start)));
	return error;
}
