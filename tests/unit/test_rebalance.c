/* SPDX-License-Identifier: Apache-2.0 */
/* Which two devices are too far apart, and which share may go from one to the other; and that moving one after the other comes to an end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "keymgr/rebalance.h"

#define MIB (1ull << 20)

static void furthest_apart(void **state)
{
	struct rebalance_device devices[] = {
		{.slot = 1, .used = 50 * MIB, .bytes = 100 * MIB},
		{.slot = 2, .used = 120 * MIB, .bytes = 200 * MIB},
		{.slot = 3, .used = 10 * MIB, .bytes = 50 * MIB},
		{.slot = 4, .used = 0, .bytes = 50 * MIB, .tier = 1},
	};
	size_t from = 9, to = 9;

	(void)state;
	assert_true(rebalance_choose(devices, 4, 10, &from, &to));
	/* the fourth is empty, but slower than the others */
	assert_int_equal(devices[from].slot, 2);
	assert_int_equal(devices[to].slot, 3);
	assert_true(rebalance_choose(devices, 4, 39, &from, &to));
	from = to = 9;
	assert_false(rebalance_choose(devices, 4, 40, &from, &to));
	assert_false(rebalance_choose(devices, 1, 1, &from, &to));
	assert_false(rebalance_choose(devices, 0, 1, &from, &to));
	assert_int_equal(from, 9);
	/* what is on a slower one may come to a faster one */
	devices[3].used = 50 * MIB;
	assert_true(rebalance_choose(devices, 4, 10, &from, &to));
	assert_int_equal(devices[from].slot, 4);
	assert_int_equal(devices[to].slot, 3);
}

static void never_to_and_fro(void **state)
{
	struct rebalance_device from = {.used = 60 * MIB, .bytes = 100 * MIB};
	struct rebalance_device to = {.used = 20 * MIB, .bytes = 100 * MIB};

	(void)state;
	assert_true(rebalance_fits(&from, &to, 2 * MIB));
	assert_true(rebalance_fits(&from, &to, 20 * MIB));
	assert_false(rebalance_fits(&from, &to, 22 * MIB));
	assert_false(rebalance_fits(&from, &to, 62 * MIB));
	to.bytes = 40 * MIB;
	assert_true(rebalance_fits(&from, &to, 2 * MIB));
	assert_false(rebalance_fits(&from, &to, 4 * MIB));
}

/* With shares of any size: each move brings them nearer, so there is a last one. */
static void comes_to_an_end(void **state)
{
	uint64_t shares[4][16], seed = 7;
	struct rebalance_device devices[4];
	unsigned moves = 0;
	size_t from, to;
	bool moved = true;

	(void)state;
	for (size_t d = 0; d < 4; d++) {
		devices[d] =
			(struct rebalance_device){.slot = d + 1, .bytes = (400 + 100 * d) * MIB};
		for (size_t i = 0; i < 16; i++) {
			seed = seed * 6364136223846793005ull + 1442695040888963407ull;
			shares[d][i] = d < 2 ? (seed >> 60) * 2 * MIB : 0;
			devices[d].used += shares[d][i];
		}
	}
	while (moved && rebalance_choose(devices, 4, 1, &from, &to)) {
		moved = false;
		for (size_t i = 0; i < 16 && !moved; i++)
			for (size_t j = 0; j < 16 && !moved; j++) {
				if (shares[from][i] == 0 || shares[to][j] != 0 ||
					!rebalance_fits(
						&devices[from], &devices[to], shares[from][i]))
					continue;
				devices[from].used -= shares[from][i];
				devices[to].used += shares[from][i];
				shares[to][j] = shares[from][i];
				shares[from][i] = 0;
				moved = true;
				assert_true(++moves < 1000);
			}
	}
	assert_true(moves > 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(furthest_apart),
		cmocka_unit_test(never_to_and_fro),
		cmocka_unit_test(comes_to_an_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
