/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/sealed.h"

enum secpool_error sealed_set(struct directory *directory, uint64_t region, const char *name,
	const uint8_t root[SEALED_ROOT_BYTES], uint64_t wrap)
{
	enum secpool_error error = directory_run(directory,
		"UPDATE regions SET state = ?2, name = ?3, root = ?4, wrap = ?5, pid = 0,"
		" start_ticks = 0 WHERE id = ?1 AND state = ?6 AND next_epoch = 0 AND rotate = 0",
		DIRECTORY_VALUES(DIRECTORY_N(region), DIRECTORY_N(MSG_REGION_SEALED),
			DIRECTORY_T(name), DIRECTORY_B(root, SEALED_ROOT_BYTES), DIRECTORY_N(wrap),
			DIRECTORY_N(MSG_REGION_LIVE)));

	if (error == SECPOOL_E_EXISTS)
		return err_set(error, "this tenant has a sealed region '%s' already", name);
	if (!error && directory_changes(directory) != 1)
		error = err_set(SECPOOL_E_BUSY, "region %llu gets a new key: try again",
			(unsigned long long)region);
	return error;
}

enum secpool_error sealed_find(struct directory *directory, const char *tenant, const char *name,
	struct regions_row *ret_row)
{
	_Static_assert(MSG_REGION_SEALED == 3, "as it is in the statement, and in the index");
	struct directory_rows *rows = NULL;
	enum secpool_error error = directory_query(directory,
		"SELECT " REGIONS_COLUMNS " FROM regions WHERE tenant = ?1 AND name = ?2"
		" AND state = 3",
		DIRECTORY_VALUES(DIRECTORY_T(tenant), DIRECTORY_T(name)), &rows);

	if (!error && directory_next(rows, &error))
		regions_read_row(rows, ret_row);
	else if (!error)
		error = err_set(SECPOOL_E_NOT_FOUND,
			"tenant %s has no sealed region '%s', or it is not granted", tenant, name);
	directory_done(rows);
	return error;
}

enum secpool_error sealed_root(
	struct directory *directory, uint64_t region, uint8_t ret_root[SEALED_ROOT_BYTES])
{
	struct directory_rows *rows = NULL;
	enum secpool_error error = directory_query(directory,
		"SELECT root FROM regions WHERE id = ?1 AND root IS NOT NULL",
		DIRECTORY_VALUES(DIRECTORY_N(region)), &rows);

	if (!error &&
		(!directory_next(rows, &error) ||
			directory_get_bytes(rows, 0, ret_root, SEALED_ROOT_BYTES) !=
				SEALED_ROOT_BYTES) &&
		!error)
		error = err_set(SECPOOL_E_NOT_FOUND, "region %llu is not sealed",
			(unsigned long long)region);
	directory_done(rows);
	return error;
}

enum secpool_error sealed_grant(
	struct directory *directory, uint64_t region, const char *tenant, uint64_t wrap)
{
	return directory_run(directory,
		"INSERT INTO grants (region, tenant, wrap) VALUES (?1, ?2, ?3)",
		DIRECTORY_VALUES(DIRECTORY_N(region), DIRECTORY_T(tenant), DIRECTORY_N(wrap)));
}

enum secpool_error sealed_granted(
	struct directory *directory, uint64_t region, const char *tenant, uint64_t *ret_wrap)
{
	enum secpool_error error = directory_number(directory,
		"SELECT wrap FROM grants WHERE region = ?1 AND tenant = ?2",
		DIRECTORY_VALUES(DIRECTORY_N(region), DIRECTORY_T(tenant)), ret_wrap);

	return error == SECPOOL_E_NOT_FOUND
		       ? err_set(error, "tenant %s has no grant of region %llu", tenant,
				 (unsigned long long)region)
		       : error;
}

enum secpool_error sealed_ungrant(struct directory *directory, uint64_t region, const char *tenant)
{
	return directory_run(directory, "DELETE FROM grants WHERE region = ?1 AND tenant = ?2",
		DIRECTORY_VALUES(DIRECTORY_N(region), DIRECTORY_T(tenant)));
}

enum secpool_error sealed_grants(struct directory *directory, uint64_t region,
	uint64_t ret_slots[SEALED_GRANTS_MOST], size_t *ret_count)
{
	struct directory_rows *rows = NULL;
	enum secpool_error error = directory_query(directory,
		"SELECT wrap FROM grants WHERE region = ?1 LIMIT ?2",
		DIRECTORY_VALUES(DIRECTORY_N(region), DIRECTORY_N(SEALED_GRANTS_MOST)), &rows);
	size_t count = 0;

	while (!error && count < SEALED_GRANTS_MOST && directory_next(rows, &error))
		ret_slots[count++] = directory_get_number(rows, 0);
	directory_done(rows);
	*ret_count = count;
	return error;
}
