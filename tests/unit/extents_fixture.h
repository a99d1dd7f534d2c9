/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of extents.h share: a directory with three devices of 512 MiB in domains of their own, none of it scrubbed; at the end each must be covered without overlap. Threads: one. */
#ifndef SECPOOL_TESTS_UNIT_EXTENTS_FIXTURE_H
#define SECPOOL_TESTS_UNIT_EXTENTS_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "keymgr/extents.h"
#include "keymgr/regions.h"
#include "lib/base/os.h"

#define MIB  (1ull << 20)
#define BASE 0x110000000000ull

static char folder[64];
static struct directory *directory;
static const struct extents_device devices[] = {{1, "left", 0}, {2, "middle", 0}, {3, "right", 0}};

/* Begins a change, runs, and keeps it: the result of both. */
#define CHANGE(call)                                                                               \
	({                                                                                         \
		assert_int_equal(directory_begin(directory), SECPOOL_OK);                          \
		directory_finish(directory, (call));                                               \
	})

static inline void add_device(uint64_t slot, const char *domain, uint64_t bytes)
{
	char id[16];

	snprintf(id, sizeof id, "dev%d", (int)slot);
	assert_int_equal(directory_run(directory,
				 "INSERT INTO devices (slot, id, media, bytes, domain, state,"
				 " boot, file_dev, file_ino)"
				 " VALUES (?1, ?2, 1, ?3, ?4, 3, '', 0, 0)",
				 DIRECTORY_VALUES(DIRECTORY_N(slot), DIRECTORY_T(id),
					 DIRECTORY_N(bytes), DIRECTORY_T(domain))),
		SECPOOL_OK);
	assert_int_equal(CHANGE(extents_reset_device(directory, slot, bytes)), SECPOOL_OK);
}

static inline void scrub_all(uint64_t slot)
{
	struct extents_row row;
	enum secpool_error error;
	bool done;

	for (;;) {
		error = CHANGE(extents_scrub_next(directory, slot, false, &row));
		if (error == SECPOOL_E_NOT_FOUND)
			return;
		assert_int_equal(error, SECPOOL_OK);
		assert_int_equal(
			CHANGE(extents_scrub_end(directory, &row, MSG_READBACK_MATCHED, &done)),
			SECPOOL_OK);
		assert_true(done);
	}
}

static inline int set_up(void **state)
{
	char path[96];

	(void)state;
	snprintf(folder, sizeof folder, "/tmp/secpool-extents-XXXXXX");
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof path, "%s/directory.db", folder);
	if (directory_open(path, &directory) != SECPOOL_OK)
		return -1;
	for (size_t i = 0; i < 3; i++)
		add_device(devices[i].slot, devices[i].domain, 512 * MIB);
	return 0;
}

/* The extents of each device cover all of it, without overlap, and no mergeable neighbours are left. */
static inline void check_cover(uint64_t slot, uint64_t bytes)
{
	struct directory_rows *rows = NULL;
	enum secpool_error error = SECPOOL_OK;
	uint64_t at = 0, last_state = 99;

	assert_int_equal(directory_query(directory,
				 "SELECT offset, bytes, state FROM extents WHERE slot = ?1"
				 " ORDER BY offset",
				 DIRECTORY_VALUES(DIRECTORY_N(slot)), &rows),
		SECPOOL_OK);
	while (directory_next(rows, &error)) {
		uint64_t extent = directory_get_number(rows, 1);
		uint64_t kind = directory_get_number(rows, 2);

		assert_int_equal(directory_get_number(rows, 0), at);
		assert_int_equal(extent % EXTENTS_UNIT_BYTES, 0);
		assert_false(kind == EXTENTS_FREE && last_state == EXTENTS_FREE);
		last_state = kind;
		at += extent;
	}
	directory_done(rows);
	assert_int_equal(at, bytes);
}

static inline int tear_down(void **state)
{
	(void)state;
	for (size_t i = 0; i < 3; i++)
		check_cover(devices[i].slot, 512 * MIB);
	directory_close(directory);
	directory = NULL;
	return os_remove_tree(folder) == SECPOOL_OK ? 0 : -1;
}

static inline enum secpool_error create_on(uint64_t mib, uint32_t copies, const struct extents_device *on,
	size_t count, uint64_t *ret_region)
{
	struct regions_row row = {.bytes = mib * MIB,
		.page_bytes = 4096,
		.data = 1,
		.lanes = copies,
		.on_loss = MSG_ON_LOSS_SIGBUS,
		.process = {.pid = 1, .start_ticks = 2}};
	enum secpool_error error;

	MSG_SET(row.tenant, "t");
	error = regions_create(directory, &row, BASE, 1ull << 40, on, count);
	if (!error)
		*ret_region = row.id;
	return error;
}

static inline enum secpool_error create(uint64_t mib, uint32_t copies, uint64_t *ret_region)
{
	return create_on(mib, copies, devices, 3, ret_region);
}

/* What the region has on a device is given up, and space for it taken on others. */
static inline enum secpool_error replace(
	uint64_t region, uint64_t slot, const struct extents_device *on, size_t count)
{
	struct regions_row row;
	enum secpool_error error = regions_find(directory, region, &row);

	if (!error)
		error = extents_set_aside(directory, region, slot);
	return error ? error
		     : extents_fill(
			       directory, region, row.lanes, regions_lane_bytes(&row), on, count);
}

static inline struct extents_use use_of(uint64_t slot)
{
	struct extents_use use = {0};

	assert_int_equal(extents_count_use(directory, slot, &use), SECPOOL_OK);
	return use;
}

/* No two copies of one byte of the region in one domain; every copy whole. */
static inline void check_copies(uint64_t region, uint64_t bytes, uint32_t copies)
{
	struct extents_row rows[64];
	uint64_t total = 0, sum[MSG_LANES_MAX] = {0};
	size_t count = 0;

	assert_int_equal(extents_list(directory, region, 0, rows, 64, &count, &total), SECPOOL_OK);
	assert_int_equal(count, total);
	for (size_t i = 0; i < count; i++) {
		assert_int_equal(rows[i].region_offset, sum[rows[i].lane]);
		sum[rows[i].lane] += rows[i].bytes;
		for (size_t j = 0; j < i; j++)
			if (rows[i].lane != rows[j].lane && rows[i].slot == rows[j].slot)
				assert_true(rows[i].region_offset + rows[i].bytes <=
						    rows[j].region_offset ||
					    rows[j].region_offset + rows[j].bytes <=
						    rows[i].region_offset);
	}
	for (uint32_t copy = 0; copy < copies; copy++)
		assert_int_equal(sum[copy], bytes);
}

static inline void release_and_scrub(uint64_t region)
{
	assert_int_equal(regions_release(directory, region, MSG_CLIENT_ACKNOWLEDGED), SECPOOL_OK);
	for (uint64_t slot = 1; slot <= 3; slot++)
		scrub_all(slot);
}

#endif
