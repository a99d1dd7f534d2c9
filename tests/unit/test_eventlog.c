/* SPDX-License-Identifier: Apache-2.0 */
/* The event log's bytes, against the profile's tables; what tpm2_eventlog reads of it: tests/integration/test_evidence.sh. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "enclave/eventlog.h"

/* PCRIndex, EventType, SHA-1 digest, event size; then the TCG_EfiSpecIdEvent with one algorithm. */
enum {
	HEADER_BYTES = 4 + 4 + 20 + 4 + 16 + 4 + 4 + 4 + 4 + 1,
	EVENT_BYTES = 4 + 4 + 4 + 2 + 32 + 4
};

static void test_bytes(void **state)
{
	static const struct eventlog_event events[] = {
		{.pcr = 0, .type = EVENTLOG_CRTM_VERSION, .text = "abc"},
		{.pcr = 2, .type = EVENTLOG_NONHOST_INFO, .text = ""},
	};
	/* FIPS 180-4's example: SHA-256 of "abc" begins and ends so */
	static const uint8_t starts[] = {0xba, 0x78, 0x16, 0xbf}, ends[] = {0xf2, 0x00, 0x15, 0xad};
	uint8_t log[EVENTLOG_BYTES_MOST];
	const uint8_t *first = log + HEADER_BYTES, *second = first + EVENT_BYTES + 3;
	size_t bytes = 0;

	(void)state;
	assert_int_equal(eventlog_make(events, 2, log, &bytes), SECPOOL_OK);
	assert_int_equal(bytes, HEADER_BYTES + 2 * EVENT_BYTES + 3);
	assert_int_equal(log[4], 3);
	assert_string_equal((const char *)log + 32, "Spec ID Event03");
	assert_int_equal(first[0], 0);
	assert_int_equal(first[4], 8);
	assert_memory_equal(first + 14, starts, sizeof starts);
	assert_memory_equal(first + 14 + 28, ends, sizeof ends);
	assert_int_equal(first[46], 3);
	assert_memory_equal(first + EVENT_BYTES, "abc", 3);
	assert_int_equal(second[0], 2);
	assert_int_equal(second[4], 17);
}

static void test_too_much(void **state)
{
	static char text[EVENTLOG_BYTES_MOST];
	struct eventlog_event event = {.text = text};
	uint8_t log[EVENTLOG_BYTES_MOST];
	size_t bytes = 0;

	(void)state;
	memset(text, 'x', sizeof text - 1);
	assert_int_equal(eventlog_make(&event, 1, log, &bytes), SECPOOL_E_LIMIT);
	text[EVENTLOG_BYTES_MOST - HEADER_BYTES - EVENT_BYTES] = '\0';
	assert_int_equal(eventlog_make(&event, 1, log, &bytes), SECPOOL_OK);
	assert_int_equal(bytes, EVENTLOG_BYTES_MOST);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_too_much),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
