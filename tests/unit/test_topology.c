/* SPDX-License-Identifier: Apache-2.0 */
/* hotplug/topology.c without CXL memory: what is read of a function's configuration space, and a machine that has none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "hotplug/topology.h"

enum { CONFIG = 4096, ATS = 0x000f, AER = 0x0001, ENABLE = 0x8000 };

static uint8_t config[CONFIG];

/* An extended capability: id, version 1, and where the next one is; the ATS control register is at its byte 6. */
static void put(size_t at, uint32_t id, uint32_t next, uint16_t control)
{
	uint32_t header = id | 1u << 16 | next << 20;

	memcpy(config + at, &header, sizeof header);
	memcpy(config + at + 6, &control, sizeof control);
}

static int set_up(void **state)
{
	(void)state;
	memset(config, 0, sizeof config);
	return 0;
}

static void ats_is_found(void **state)
{
	(void)state;
	assert_false(topology_ats_may_be_on(config, CONFIG)); /* no extended capabilities */
	put(0x100, AER, 0x200, ENABLE);
	put(0x200, ATS, 0, 0);
	assert_false(topology_ats_may_be_on(config, CONFIG));
	put(0x200, ATS, 0, ENABLE);
	assert_true(topology_ats_may_be_on(config, CONFIG));
	put(0x100, AER, 0, ENABLE); /* it is in no list */
	assert_false(topology_ats_may_be_on(config, CONFIG));
}

static void what_is_not_shown_may_be_on(void **state)
{
	(void)state;
	assert_true(topology_ats_may_be_on(config, 0));
	assert_true(topology_ats_may_be_on(config, 64));
	assert_true(topology_ats_may_be_on(config, CONFIG - 1));
}

/* Lists without end, that lead out, or to the middle of one: the walk ends, within the bytes. */
static void odd_lists_end(void **state)
{
	(void)state;
	put(0x100, AER, 0x100, 0);
	assert_false(topology_ats_may_be_on(config, CONFIG));
	put(0x100, AER, 0xffc, 0);
	put(0xff8, ATS, 0, ENABLE);
	(void)topology_ats_may_be_on(config, CONFIG);
	for (unsigned seed = 1; seed < 2000; seed++) {
		uint8_t *exact = malloc(CONFIG); /* so that a sanitizer sees each byte beyond */
		assert_non_null(exact);
		srand(seed);
		for (size_t i = 0; i < CONFIG; i++)
			exact[i] = (uint8_t)rand();
		(void)topology_ats_may_be_on(exact, CONFIG);
		free(exact);
	}
}

static void a_machine_is_read(void **state)
{
	static struct topology_device list[TOPOLOGY_MOST];
	size_t count = TOPOLOGY_MOST + 1;

	(void)state;
	assert_int_equal(topology_read(list, &count), SECPOOL_OK);
	assert_in_range(count, 0, TOPOLOGY_MOST);
	for (size_t i = 0; i < count; i++)
		assert_true(list[i].memdev[0] && (list[i].dax[0] || list[i].advice[0]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(ats_is_found, set_up),
		cmocka_unit_test_setup(what_is_not_shown_may_be_on, set_up),
		cmocka_unit_test_setup(odd_lists_end, set_up),
		cmocka_unit_test(a_machine_is_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
