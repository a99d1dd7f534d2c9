/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/addresses.h"

/*
 * Each place where a range could start (the window's base, and behind each region) with the region that comes next.
 * ?1 base, ?2 end of the window, ?3 bytes with their gap, ?4 alignment. Regions of an older window below the base don't count.
 */
static const char find_sql[] =
	"WITH taken AS (SELECT address, address + bytes AS end FROM regions"
	"               WHERE address + bytes + ?4 > ?1 AND address < ?2),"
	"     places AS (SELECT ?1 AS start, (SELECT MIN(address) FROM taken) AS next"
	"      UNION ALL SELECT (end + ?4 - 1) / ?4 * ?4 + ?4, LEAD(address) OVER (ORDER BY "
	"address)"
	"                FROM taken)"
	"SELECT start FROM places WHERE start >= ?1 AND start + ?3 <= IFNULL(next, ?2 + ?4)"
	" AND start + ?3 - ?4 <= ?2 ORDER BY start LIMIT 1";

enum secpool_error addresses_find(struct directory *directory, uint64_t window_base,
	uint64_t window_bytes, uint64_t bytes, uint64_t *ret_address)
{
	uint64_t with_gap = bytes + ADDRESSES_ALIGN_BYTES;
	enum secpool_error error;

	if (bytes == 0 || window_base % ADDRESSES_ALIGN_BYTES != 0)
		return err_set(SECPOOL_E_INVALID, "%s",
			bytes == 0 ? "a region has at least one page"
				   : "policy: the window's base must be a multiple of 2 MiB");
	if (bytes > window_bytes)
		return err_set(SECPOOL_E_NO_SPACE, "the region is larger than the address window");
	error = directory_number(directory, find_sql,
		DIRECTORY_VALUES(DIRECTORY_N(window_base), DIRECTORY_N(window_base + window_bytes),
			DIRECTORY_N(with_gap), DIRECTORY_N(ADDRESSES_ALIGN_BYTES)),
		ret_address);
	if (error == SECPOOL_E_NOT_FOUND)
		error = err_set(SECPOOL_E_NO_SPACE,
			"the address window has no gap of %llu bytes: release regions or widen it",
			(unsigned long long)bytes);
	return error;
}
