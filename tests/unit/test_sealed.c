/* SPDX-License-Identifier: Apache-2.0 */
/* Sealed regions in the directory: no process's any more, found by their tenant's name for them, with their grants, until they end. */
#include "keymgr/sealed.h"
#include "keymgr/epochs.h"
#include "tests/unit/extents_fixture.h"

static const uint8_t root[SEALED_ROOT_BYTES] = {1, 2, 3};
static const struct os_process process = {.pid = 11, .start_ticks = 22};

/* A live region with its key in slot 5. */
static uint64_t make(const char *tenant)
{
	struct regions_row row = {.bytes = 4 * MIB,
		.page_bytes = 4096,
		.data = 1,
		.lanes = 1,
		.on_loss = MSG_ON_LOSS_SIGBUS,
		.process = process};

	for (uint64_t slot = 1; slot <= 3; slot++)
		scrub_all(slot);
	MSG_SET(row.tenant, tenant);
	assert_int_equal(regions_create(directory, &row, BASE, 1ull << 40, devices, 1), SECPOOL_OK);
	assert_int_equal(regions_set_live(directory, row.id, 5), SECPOOL_OK);
	return row.id;
}

static void test_it_is_no_process_s(void **state)
{
	uint64_t region = make("t"), other = make("t");
	uint8_t got[SEALED_ROOT_BYTES] = {0};
	struct regions_row row;
	bool has = false;

	(void)state;
	assert_int_equal(sealed_find(directory, "t", "list", &row), SECPOOL_E_NOT_FOUND);
	assert_int_equal(sealed_root(directory, region, got), SECPOOL_E_NOT_FOUND);
	assert_int_equal(sealed_set(directory, region, "list", root, 9), SECPOOL_OK);
	assert_int_equal(sealed_find(directory, "t", "list", &row), SECPOOL_OK);
	assert_int_equal(row.id, region);
	assert_int_equal(row.state, MSG_REGION_SEALED);
	assert_int_equal(row.wrap, 9);
	assert_int_equal(row.process.pid, 0);
	assert_int_equal(sealed_root(directory, region, got), SECPOOL_OK);
	assert_memory_equal(got, root, sizeof root);
	assert_int_equal(sealed_find(directory, "u", "list", &row), SECPOOL_E_NOT_FOUND);
	assert_int_equal(regions_next_of(directory, &process, 0, &row), SECPOOL_OK);
	assert_int_equal(row.id, other);
	/* what is done to live regions passes it by */
	assert_int_equal(epochs_want_one(directory, region), SECPOOL_OK);
	assert_int_equal(regions_find(directory, region, &row), SECPOOL_OK);
	assert_false(row.rotate);
	assert_int_equal(regions_release(directory, other, MSG_CLIENT_DEAD), SECPOOL_OK);
	assert_int_equal(regions_of_process(directory, &process, &has), SECPOOL_OK);
	assert_false(has);
}

static void test_what_can_not_be_sealed(void **state)
{
	uint64_t first = make("t"), second = make("t"), foreign = make("u");
	struct regions_row row;

	(void)state;
	assert_int_equal(sealed_set(directory, first, "list", root, 9), SECPOOL_OK);
	assert_int_equal(sealed_set(directory, first, "again", root, 9), SECPOOL_E_BUSY);
	assert_int_equal(sealed_set(directory, second, "list", root, 9), SECPOOL_E_EXISTS);
	assert_int_equal(regions_find(directory, second, &row), SECPOOL_OK);
	assert_int_equal(row.state, MSG_REGION_LIVE);
	assert_int_equal(row.wrap, 5);
	assert_int_equal(epochs_want_one(directory, second), SECPOOL_OK);
	assert_int_equal(sealed_set(directory, second, "other", root, 9), SECPOOL_E_BUSY);
	assert_int_equal(sealed_set(directory, foreign, "list", root, 9), SECPOOL_OK);
	/* the name is free again with the region's end */
	assert_int_equal(regions_release(directory, first, MSG_CLIENT_READERS), SECPOOL_OK);
	assert_int_equal(sealed_find(directory, "t", "list", &row), SECPOOL_E_NOT_FOUND);
	second = make("t");
	assert_int_equal(sealed_set(directory, second, "list", root, 9), SECPOOL_OK);
}

static void test_grants(void **state)
{
	uint64_t region = make("t"), slots[SEALED_GRANTS_MOST], wrap = 0;
	size_t count = 7;

	(void)state;
	assert_int_equal(sealed_set(directory, region, "list", root, 9), SECPOOL_OK);
	assert_int_equal(sealed_grants(directory, region, slots, &count), SECPOOL_OK);
	assert_int_equal(count, 0);
	assert_int_equal(sealed_granted(directory, region, "a", &wrap), SECPOOL_E_NOT_FOUND);
	assert_int_equal(sealed_grant(directory, region, "a", 20), SECPOOL_OK);
	assert_int_equal(sealed_grant(directory, region, "b", 21), SECPOOL_OK);
	assert_int_equal(sealed_grant(directory, region, "a", 22), SECPOOL_E_EXISTS);
	assert_int_equal(sealed_granted(directory, region, "a", &wrap), SECPOOL_OK);
	assert_int_equal(wrap, 20);
	assert_int_equal(sealed_grants(directory, region, slots, &count), SECPOOL_OK);
	assert_int_equal(count, 2);
	assert_int_equal(slots[0] + slots[1], 41);
	assert_int_equal(sealed_ungrant(directory, region, "a"), SECPOOL_OK);
	assert_int_equal(sealed_granted(directory, region, "a", &wrap), SECPOOL_E_NOT_FOUND);
	assert_int_equal(sealed_granted(directory, region, "b", &wrap), SECPOOL_OK);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_it_is_no_process_s),
		TEST(test_what_can_not_be_sealed),
		TEST(test_grants),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
