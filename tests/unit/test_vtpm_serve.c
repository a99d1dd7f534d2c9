/* SPDX-License-Identifier: Apache-2.0 */
/* secpool-vtpm under bad clients. */
#include "tests/unit/vtpm_fixture.h"

static void malformed_frames_close_only_theirs(void **state)
{
	static const uint8_t sizes[][4] = {{0, 0, 0, 0}, {0, 0, 0, 9}, {0, 0, 0x10, 1},
		{0x7f, 0xff, 0xff, 0xff}, {0xff, 0xff, 0xff, 0xff}};
	uint8_t frame[sizeof GET_RANDOM], got[10];
	int good, fd;

	(void)state;
	vtpm_start(&vtpm, PROVISION);
	good = connect_or_fail();
	for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		fd = connect_or_fail();
		memcpy(frame, GET_RANDOM, sizeof frame);
		memcpy(frame + 2, sizes[i], 4);
		assert_int_equal(send(fd, frame, 10, MSG_NOSIGNAL), 10);
		expect_closed(fd);
		ask(good);
		expect_random(good);
	}
	/* what is a frame but no command is answered by the TPM itself */
	memset(frame, 0xee, sizeof frame);
	memcpy(frame + 2, (const uint8_t[4]){0, 0, 0, sizeof frame}, 4);
	assert_int_equal(send(good, frame, sizeof frame, MSG_NOSIGNAL), sizeof frame);
	assert_int_equal(recv(good, got, sizeof got, MSG_WAITALL), sizeof got);
	assert_int_not_equal(got[8] << 8 | got[9], 0);
	ask(good);
	expect_random(good);
	close(good);
}

static void pieces_and_bursts_are_served(void **state)
{
	int fd;

	(void)state;
	vtpm_start(&vtpm, PROVISION);
	fd = connect_or_fail();
	for (size_t i = 0; i < sizeof GET_RANDOM; i++) {
		assert_int_equal(send(fd, GET_RANDOM + i, 1, MSG_NOSIGNAL), 1);
		clock_sleep_ns(CLOCK_NS_PER_MS);
	}
	expect_random(fd);
	for (unsigned i = 0; i < 50; i++)
		ask(fd);
	for (unsigned i = 0; i < 50; i++)
		expect_random(fd);
	close(fd);
}

static void stalled_clients_cost_others_nothing(void **state)
{
	int half, header, deaf;

	(void)state;
	vtpm_start(&vtpm, PROVISION);
	half = connect_or_fail();
	header = connect_or_fail();
	deaf = connect_or_fail();
	assert_int_equal(send(half, GET_RANDOM, 4, MSG_NOSIGNAL), 4);
	assert_int_equal(send(header, GET_RANDOM, 11, MSG_NOSIGNAL), 11);
	/* asks until its answers fill the socket, and reads none */
	while (send(deaf, GET_RANDOM, sizeof GET_RANDOM, MSG_NOSIGNAL | MSG_DONTWAIT) > 0)
		;
	expect_served();
	assert_int_equal(send(half, GET_RANDOM + 4, 8, MSG_NOSIGNAL), 8);
	expect_random(half);
	assert_int_equal(send(header, GET_RANDOM + 11, 1, MSG_NOSIGNAL), 1);
	expect_random(header);
	close(half);
	close(header);
	close(deaf);
	expect_served();
}

static void many_clients_are_served(void **state)
{
	int fds[CONNECTIONS];

	(void)state;
	vtpm_start(&vtpm, PROVISION);
	for (unsigned i = 0; i < CONNECTIONS; i++) {
		fds[i] = connect_or_fail();
		ask(fds[i]);
	}
	for (unsigned i = 0; i < CONNECTIONS; i++) { /* the last ones wait until others go */
		expect_random(fds[i]);
		close(fds[i]);
	}
	expect_served();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			malformed_frames_close_only_theirs, setup, teardown),
		cmocka_unit_test_setup_teardown(pieces_and_bursts_are_served, setup, teardown),
		cmocka_unit_test_setup_teardown(
			stalled_clients_cost_others_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(many_clients_are_served, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
