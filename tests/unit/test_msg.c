/* SPDX-License-Identifier: Apache-2.0 */
/* lib/wire/msg.c: every message there and back, and any other bytes refused with nothing changed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/wire/msg.h"

static const uint32_t types[] = {
#define MESSAGE(number, NAME, name, fields) number,
#include "lib/wire/msg.def"
#undef MESSAGE
};
static const char *const names[] = {
#define MESSAGE(number, NAME, name, fields) #NAME,
#include "lib/wire/msg.def"
#undef MESSAGE
};
enum { TYPES = sizeof types / sizeof *types };

/* Fills a message's fields: numbers and bytes at random, texts terminated. */
static uint64_t any_number(void)
{
	return (uint64_t)rand() << 40 ^ (uint64_t)rand() << 20 ^ (uint64_t)rand();
}

static void fill_text(char *field, size_t bytes, size_t length)
{
	memset(field, 0, bytes);
	for (size_t i = 0; i < length; i++)
		field[i] = (char)('a' + rand() % 26);
}

#define U32(f)	   at->f = (uint32_t)any_number();
#define U64(f)	   at->f = any_number();
#define TEXT(f, n) fill_text(at->f, n, full ? n - 1 : (size_t)rand() % n);
#define BYTES(f, n)                                                                                \
	for (size_t i = 0; i < n; i++)                                                             \
		at->f[i] = (uint8_t)rand();
#define U64S(f, n)                                                                                 \
	for (size_t i = 0; i < n; i++)                                                             \
		at->f[i] = any_number();
#define MESSAGE(number, NAME, name, fields)                                                        \
	static void fill_##name(struct msg_##name *at, bool full)                                  \
	{                                                                                          \
		(void)full;                                                                        \
		fields                                                                             \
	}
#include "lib/wire/msg.def"
#undef MESSAGE
#undef U32
#undef U64
#undef TEXT
#undef BYTES
#undef U64S

static void fill(struct msg *msg, uint32_t type, bool full)
{
	memset(msg, 0, sizeof *msg);
	msg->type = type;
	msg->number = (uint32_t)any_number();
	switch (type) {
#define MESSAGE(number, NAME, name, fields)                                                        \
	case number:                                                                               \
		fill_##name(&msg->u.name, full);                                                   \
		break;
#include "lib/wire/msg.def"
#undef MESSAGE
	default:
		fail();
	}
}

static void test_round_trip(void **state)
{
	uint8_t bytes[MSG_BYTES_MAX];

	(void)state;
	for (unsigned round = 0; round < 20; round++) {
		for (size_t i = 0; i < TYPES; i++) {
			struct msg msg, back;
			size_t count = 0;

			fill(&msg, types[i], round == 0);
			assert_int_equal(msg_encode(&msg, bytes, sizeof bytes, &count), SECPOOL_OK);
			memset(&back, 0x77, sizeof back);
			assert_int_equal(msg_decode(bytes, count, &back), SECPOOL_OK);
			assert_memory_equal(&back, &msg, sizeof msg);
		}
	}
}

static void test_layout(void **state)
{
	static const uint8_t expected[] = {
		0x53, 0x50, 2, 0, 4, 3, 2, 1, 8, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0};
	struct msg msg = {.type = MSG_HELLO, .number = 0x01020304};
	uint8_t bytes[MSG_BYTES_MAX];
	size_t count = 0;

	(void)state;
	msg.u.hello.version = 1;
	msg.u.hello.role = MSG_ROLE_ADMIN;
	assert_int_equal(msg_encode(&msg, bytes, sizeof bytes, &count), SECPOOL_OK);
	assert_int_equal(count, sizeof expected);
	assert_memory_equal(bytes, expected, sizeof expected);
}

static void expect_refused(const uint8_t *bytes, size_t count)
{
	struct msg back, before;
	uint8_t *exact =
		malloc(count ? count : 1); /* so that a sanitizer sees a step over the end */

	memcpy(exact, bytes, count);
	memset(&back, 0x77, sizeof back);
	before = back;
	assert_int_equal(msg_decode(exact, count, &back), SECPOOL_E_PROTOCOL);
	assert_memory_equal(&back, &before, sizeof back);
	free(exact);
}

static void test_wrong_length(void **state)
{
	uint8_t bytes[MSG_BYTES_MAX + 1];

	(void)state;
	for (size_t i = 0; i < TYPES; i++) {
		struct msg msg;
		size_t count = 0;

		fill(&msg, types[i], true);
		memset(bytes, 0, sizeof bytes);
		assert_int_equal(msg_encode(&msg, bytes, MSG_BYTES_MAX, &count), SECPOOL_OK);
		for (size_t shorter = 0; shorter < count; shorter += 1 + count / 97)
			expect_refused(bytes, shorter);
		expect_refused(bytes, count - 1);
		expect_refused(bytes, count + 1);
		bytes[8]++; /* the length in the header */
		expect_refused(bytes, count);
		expect_refused(bytes, count + 1);
	}
}

static void test_header(void **state)
{
	struct msg msg = {.type = MSG_HELLO};
	uint8_t bytes[MSG_BYTES_MAX], bad[MSG_BYTES_MAX];
	size_t count = 0;

	(void)state;
	assert_int_equal(msg_encode(&msg, bytes, sizeof bytes, &count), SECPOOL_OK);
	for (size_t at = 0; at < 2; at++) {
		memcpy(bad, bytes, count);
		bad[at] ^= 1;
		expect_refused(bad, count);
	}
	for (unsigned type = 0; type < 300; type++) {
		memcpy(bad, bytes, count);
		bad[2] = (uint8_t)type;
		bad[3] = (uint8_t)(type >> 8);
		if (strcmp(msg_name(type), "?") == 0)
			expect_refused(bad, count);
	}
	memcpy(bad, bytes, count);
	memset(bad + 8, 0xff, 4);
	expect_refused(bad, count);
	expect_refused((const uint8_t *)"", 0);
}

static void test_text(void **state)
{
	struct msg msg = {.type = MSG_SESSION_OPEN};
	uint8_t bytes[MSG_BYTES_MAX];
	size_t count = 0;

	(void)state;
	MSG_SET(msg.u.session_open.tenant, "t");
	assert_int_equal(msg_encode(&msg, bytes, sizeof bytes, &count), SECPOOL_OK);
	bytes[12 + 40] = 'x'; /* bytes after the end */
	expect_refused(bytes, count);
	memset(bytes + 12, 'x', 64); /* no end */
	expect_refused(bytes, count);
}

static void test_encode_errors(void **state)
{
	struct msg msg = {.type = 9999};
	uint8_t bytes[MSG_BYTES_MAX];
	size_t count = 77;

	(void)state;
	assert_int_equal(msg_encode(&msg, bytes, sizeof bytes, &count), SECPOOL_E_INVALID);
	msg.type = MSG_RECEIPT;
	assert_int_equal(msg_encode(&msg, bytes, 100, &count), SECPOOL_E_LIMIT);
	assert_int_equal(count, 77);
}

/* Random bytes, and good messages with one byte changed: a message or a refusal, and a message encodes to the same bytes. */
static void test_any_bytes(void **state)
{
	uint8_t bytes[MSG_BYTES_MAX], again[MSG_BYTES_MAX];

	(void)state;
	for (unsigned round = 0; round < 20000; round++) {
		struct msg msg, back;
		size_t count = 0, again_count = 0;

		fill(&msg, types[(size_t)rand() % TYPES], false);
		assert_int_equal(msg_encode(&msg, bytes, sizeof bytes, &count), SECPOOL_OK);
		bytes[(size_t)rand() % count] ^= (uint8_t)(1 + rand() % 255);
		if (msg_decode(bytes, count, &back) != SECPOOL_OK)
			continue;
		assert_int_equal(msg_encode(&back, again, sizeof again, &again_count), SECPOOL_OK);
		assert_int_equal(again_count, count);
		assert_memory_equal(again, bytes, count);
	}
}

static void test_set_text(void **state)
{
	char field[4] = "zzz";

	(void)state;
	msg_set_text(field, sizeof field, "a");
	assert_memory_equal(field, "a\0\0", 4);
	msg_set_text(field, sizeof field, "abcdef");
	assert_string_equal(field, "abc");
	msg_set_text(field, sizeof field, "");
	assert_memory_equal(field, "\0\0\0", 4);
}

static void test_names(void **state)
{
	(void)state;
	for (size_t i = 0; i < TYPES; i++)
		assert_string_equal(msg_name(types[i]), names[i]);
	assert_string_equal(msg_name(0), "?");
	for (uint32_t s = 0; s < MSG_DEVICE_STATES; s++)
		assert_string_not_equal(msg_device_state_name(s), "?");
	assert_string_equal(msg_device_state_name(MSG_DEVICE_ONLINE), "online");
	assert_string_equal(msg_device_state_name(MSG_DEVICE_STATES), "?");
	assert_string_equal(msg_cause_name(MSG_CAUSE_TAG), "integrity");
	assert_string_equal(msg_cause_name(0), "?");
	assert_string_equal(msg_on_loss_name(MSG_ON_LOSS_FAILOVER), "failover");
	assert_string_equal(msg_on_loss_name(0), "?");
	assert_int_equal(msg_on_loss_read("failover"), MSG_ON_LOSS_FAILOVER);
	assert_int_equal(msg_on_loss_read("refill"), MSG_ON_LOSS_REFILL);
	assert_int_equal(msg_on_loss_read("?"), 0);
	assert_int_equal(msg_on_loss_read(""), 0);
}

static void test_redundancy(void **state)
{
	static const char *const not_shapes[] = {
		"", "none ", "mirror:1", "mirror:5", "mirror:02", "ec:1+1", "ec:4+5", "ec:4", "ec"};
	char text[MSG_REDUNDANCY_BYTES];
	uint32_t read_data, read_lanes;
	unsigned valid = 0;

	(void)state;
	for (uint32_t data = 0; data <= 20; data++)
		for (uint32_t lanes = 0; lanes <= 20; lanes++) {
			if (!msg_redundancy_valid(data, lanes))
				continue;
			valid++;
			assert_true(msg_redundancy_read(
				msg_redundancy_name(data, lanes, text), &read_data, &read_lanes));
			assert_int_equal(read_data, data);
			assert_int_equal(read_lanes, lanes);
		}
	for (size_t i = 0; i < sizeof not_shapes / sizeof *not_shapes; i++)
		assert_false(msg_redundancy_read(not_shapes[i], &read_data, &read_lanes));
	/* none and three mirrors; for M parity lanes 2 to 16 - M data lanes */
	assert_int_equal(valid, 4 + 14 + 13 + 12 + 11);
	assert_string_equal(msg_redundancy_name(1, 1, text), "none");
	assert_string_equal(msg_redundancy_name(1, 3, text), "mirror:3");
	assert_string_equal(msg_redundancy_name(12, 16, text), "ec:12+4");
	assert_string_equal(msg_redundancy_name(UINT32_MAX, UINT32_MAX, text), "ec:95+0");
	assert_int_equal(msg_lane_bytes(10 * 4096, 4096, 1), 10 * 4096);
	assert_int_equal(msg_lane_bytes(10 * 4096, 4096, 4), 3 * 4096);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_layout),
		cmocka_unit_test(test_wrong_length),
		cmocka_unit_test(test_header),
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_encode_errors),
		cmocka_unit_test(test_any_bytes),
		cmocka_unit_test(test_set_text),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_redundancy),
	};

	srand(1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
