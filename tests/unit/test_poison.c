/* SPDX-License-Identifier: Apache-2.0 */
/* hotplug/poison.c: what is counted of a trace's lines, and a kernel that has no list. The list itself: tests/vm (leg newer). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "hotplug/poison.h"

#define HEAD "# tracer: nop\n#\n#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION\n"
#define LINE(memdev, type, dpa)                                                                    \
	"              sh-157     [000] .....     3.877616: cxl_poison: memdev=" memdev            \
	" host=0000:19:00.0 serial=4097 trace_type=" type                                          \
	" region=region1 region_uuid=00000000-0000-0000-0000-000000000000 hpa=0x150400000 "        \
	"dpa=" dpa " dpa_length=0x40 source=Internal flags= overflow_time=0\n"

static void lines_of_the_list_are_counted(void **state)
{
	(void)state;
	assert_int_equal(poison_count("", "mem0"), 0);
	assert_int_equal(poison_count(HEAD, "mem0"), 0);
	assert_int_equal(poison_count(HEAD LINE("mem0", "List", "0x0"), "mem0"), 1);
	assert_int_equal(poison_count(HEAD LINE("mem0", "List", "0x0") LINE("mem1", "List", "0x40")
					      LINE("mem0", "List", "0x80"),
				 "mem0"),
		2);
}

static void others_are_not(void **state)
{
	(void)state;
	assert_int_equal(poison_count(LINE("mem10", "List", "0x0"), "mem1"), 0);
	assert_int_equal(poison_count(LINE("mem1", "List", "0x0"), "mem10"), 0);
	/* somebody injects or clears while the list is read */
	assert_int_equal(poison_count(LINE("mem0", "Inject", "0x0"), "mem0"), 0);
	assert_int_equal(poison_count(LINE("mem0", "Clear", "0x0"), "mem0"), 0);
	assert_int_equal(
		poison_count("x: cxl_memory: memdev=mem0 trace_type=List region=\n", "mem0"), 0);
	assert_int_equal(poison_count("memdev=mem0 trace_type=List\n", "mem0"), 0);
}

static void cut_lines_are_safe(void **state)
{
	char text[] = HEAD LINE("mem0", "List", "0x0");
	uint32_t whole = 0;

	(void)state;
	for (size_t length = sizeof text - 1; length > 0; length--) {
		text[length] = '\0';
		whole += poison_count(text, "mem0");
	}
	assert_true(whole > 0);
}

static void a_kernel_without_is_told(void **state)
{
	uint32_t places = 77;

	(void)state;
	assert_int_not_equal(poison_read("no-such-memdev", &places), SECPOOL_OK);
	assert_int_equal(places, 77);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines_of_the_list_are_counted),
		cmocka_unit_test(others_are_not),
		cmocka_unit_test(cut_lines_are_safe),
		cmocka_unit_test(a_kernel_without_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
