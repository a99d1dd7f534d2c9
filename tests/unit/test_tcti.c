/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tcti.h: against a socket of the test's own that answers as badly as it likes, and
 * against secpool-vtpm.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "enclave/tcti.h"
#include "tests/unit/vtpm_process.h"

enum { TIMEOUT_MS = 200, AT_MOST_MS = 3000 };

/* TPM2_GetRandom(8), and an answer to it */
static const uint8_t COMMAND[12] = {0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x7b, 0, 8};
static const uint8_t ANSWER[20] = {
	0x80, 0x01, 0, 0, 0, 20, 0, 0, 0, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8};

static char path[64];
static int listener = -1, peer = -1;
static TSS2_TCTI_CONTEXT *tcti;

static int setup(void **state)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	(void)state;
	snprintf(path, sizeof path, "/tmp/secpool-tcti-%d", getpid());
	unlink(path);
	memcpy(address.sun_path, path, strlen(path));
	listener = socket(AF_UNIX, SOCK_STREAM, 0);
	if (bind(listener, (const struct sockaddr *)&address, sizeof address) ||
		listen(listener, 4) || tcti_open_socket(path, TIMEOUT_MS, &tcti))
		return -1;
	peer = accept(listener, NULL, NULL);
	return peer < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	(void)state;
	tcti_free(tcti);
	tcti = NULL;
	os_close(&peer);
	os_close(&listener);
	unlink(path);
	return 0;
}

static void transmit(void)
{
	uint8_t got[sizeof COMMAND];

	assert_int_equal(Tss2_Tcti_Transmit(tcti, sizeof COMMAND, COMMAND), TSS2_RC_SUCCESS);
	assert_int_equal(recv(peer, got, sizeof got, MSG_WAITALL), sizeof got);
	assert_memory_equal(got, COMMAND, sizeof got);
}

static void answer(const uint8_t *bytes, size_t count)
{
	assert_int_equal(send(peer, bytes, count, MSG_NOSIGNAL), count);
}

static TSS2_RC receive(int32_t timeout)
{
	uint8_t got[TCTI_BUFFER_BYTES] = {0};
	size_t count = sizeof got;
	TSS2_RC rc = Tss2_Tcti_Receive(tcti, &count, got, timeout);

	if (!rc) {
		assert_int_equal(count, sizeof ANSWER);
		assert_memory_equal(got, ANSWER, sizeof ANSWER);
	}
	return rc;
}

/* After an error of the transport: the peer sees the end, and nothing works any more. */
static void expect_broken(void)
{
	char byte;

	assert_true(recv(peer, &byte, 1, MSG_DONTWAIT) <= 0);
	assert_int_equal(Tss2_Tcti_Transmit(tcti, sizeof COMMAND, COMMAND), TSS2_TCTI_RC_IO_ERROR);
	assert_int_equal(receive(TSS2_TCTI_TIMEOUT_BLOCK), TSS2_TCTI_RC_IO_ERROR);
}

static void opens_or_says_why(void **state)
{
	TSS2_TCTI_CONTEXT *other = NULL;
	char too_long[200];

	(void)state;
	assert_int_equal(
		tcti_open_socket("/tmp/there-is-no-such-socket", 0, &other), SECPOOL_E_TPM);
	assert_non_null(strstr(err_detail(), "/tmp/there-is-no-such-socket"));
	memset(too_long, 'x', sizeof too_long);
	too_long[sizeof too_long - 1] = '\0';
	assert_int_equal(tcti_open_socket(too_long, 0, &other), SECPOOL_E_TPM);
	assert_null(other);
	tcti_free(NULL);
}

static void passes_commands_and_answers(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		transmit();
		answer(ANSWER, sizeof ANSWER);
		assert_int_equal(receive(TSS2_TCTI_TIMEOUT_BLOCK), TSS2_RC_SUCCESS);
	}
}

static void puts_pieces_together(void **state)
{
	(void)state;
	transmit();
	for (size_t at = 0; at + 1 < sizeof ANSWER; at++) {
		answer(ANSWER + at, 1);
		assert_int_equal(receive(TSS2_TCTI_TIMEOUT_NONE), TSS2_TCTI_RC_TRY_AGAIN);
	}
	answer(ANSWER + sizeof ANSWER - 1, 1);
	assert_int_equal(receive(TSS2_TCTI_TIMEOUT_NONE), TSS2_RC_SUCCESS);
}

static void tells_the_size(void **state)
{
	uint8_t got[sizeof ANSWER];
	size_t count = 0;

	(void)state;
	transmit();
	answer(ANSWER, sizeof ANSWER);
	assert_int_equal(
		Tss2_Tcti_Receive(tcti, &count, NULL, TSS2_TCTI_TIMEOUT_BLOCK), TSS2_RC_SUCCESS);
	assert_int_equal(count, sizeof ANSWER);
	count = sizeof ANSWER - 1;
	assert_int_equal(Tss2_Tcti_Receive(tcti, &count, got, TSS2_TCTI_TIMEOUT_BLOCK),
		TSS2_TCTI_RC_INSUFFICIENT_BUFFER);
	assert_int_equal(count, sizeof ANSWER);
	assert_int_equal(receive(TSS2_TCTI_TIMEOUT_BLOCK), TSS2_RC_SUCCESS);
}

static void hung_peer_is_an_error(void **state)
{
	uint64_t start_ns = clock_now_ns(), took_ms;

	(void)state;
	transmit();
	answer(ANSWER, 15);
	assert_int_equal(receive(10), TSS2_TCTI_RC_TRY_AGAIN);
	assert_int_equal(receive(TSS2_TCTI_TIMEOUT_BLOCK), TSS2_TCTI_RC_IO_ERROR);
	took_ms = (clock_now_ns() - start_ns) / CLOCK_NS_PER_MS;
	assert_in_range(took_ms, TIMEOUT_MS, AT_MOST_MS);
	expect_broken();
}

static void long_wait_ends_at_the_commands_deadline(void **state)
{
	uint64_t start_ns = clock_now_ns();

	(void)state;
	transmit();
	assert_int_equal(receive(3600 * 1000), TSS2_TCTI_RC_IO_ERROR);
	assert_true(clock_now_ns() - start_ns < (uint64_t)AT_MOST_MS * CLOCK_NS_PER_MS);
	expect_broken();
}

static void closed_peer_is_an_error(void **state)
{
	(void)state;
	transmit();
	answer(ANSWER, 3);
	os_close(&peer);
	assert_int_equal(receive(TSS2_TCTI_TIMEOUT_BLOCK), TSS2_TCTI_RC_IO_ERROR);
	assert_int_equal(Tss2_Tcti_Transmit(tcti, sizeof COMMAND, COMMAND), TSS2_TCTI_RC_IO_ERROR);
}

static void closed_peer_refuses_a_command(void **state)
{
	(void)state;
	os_close(&peer);
	assert_int_equal(Tss2_Tcti_Transmit(tcti, sizeof COMMAND, COMMAND), TSS2_TCTI_RC_IO_ERROR);
}

static void malformed_size_is_an_error(void **state)
{
	static const uint8_t sizes[][4] = {
		{0, 0, 0, 0}, {0, 0, 0, 9}, {0, 0, 0x10, 1}, {0xff, 0xff, 0xff, 0xff}};
	uint8_t bad[sizeof ANSWER];

	for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		transmit();
		memcpy(bad, ANSWER, sizeof bad);
		memcpy(bad + 2, sizes[i], 4);
		answer(bad, sizeof bad);
		assert_int_equal(receive(TSS2_TCTI_TIMEOUT_BLOCK), TSS2_TCTI_RC_MALFORMED_RESPONSE);
		expect_broken();
		teardown(state);
		assert_int_equal(setup(state), 0);
	}
}

static void order_and_arguments_are_checked(void **state)
{
	uint8_t bad[sizeof COMMAND], byte;
	size_t count = 1;

	(void)state;
	assert_int_equal(receive(TSS2_TCTI_TIMEOUT_BLOCK), TSS2_TCTI_RC_BAD_SEQUENCE);
	memcpy(bad, COMMAND, sizeof bad);
	bad[5]++;
	assert_int_equal(Tss2_Tcti_Transmit(tcti, sizeof bad, bad), TSS2_TCTI_RC_BAD_VALUE);
	assert_int_equal(Tss2_Tcti_Transmit(tcti, 9, COMMAND), TSS2_TCTI_RC_BAD_VALUE);
	assert_int_equal(Tss2_Tcti_Transmit(tcti, 12, NULL), TSS2_TCTI_RC_BAD_REFERENCE);
	transmit();
	assert_int_equal(
		Tss2_Tcti_Transmit(tcti, sizeof COMMAND, COMMAND), TSS2_TCTI_RC_BAD_SEQUENCE);
	assert_int_equal(receive(-2), TSS2_TCTI_RC_BAD_VALUE);
	assert_int_equal(Tss2_Tcti_Receive(tcti, NULL, &byte, TSS2_TCTI_TIMEOUT_BLOCK),
		TSS2_TCTI_RC_BAD_REFERENCE);
	assert_int_equal(Tss2_Tcti_Receive(tcti, &count, &byte, TSS2_TCTI_TIMEOUT_NONE),
		TSS2_TCTI_RC_TRY_AGAIN);
	answer(ANSWER, sizeof ANSWER);
	assert_int_equal(receive(TSS2_TCTI_TIMEOUT_BLOCK), TSS2_RC_SUCCESS);
}

static void the_rest_of_the_interface(void **state)
{
	TSS2_TCTI_POLL_HANDLE handle = {.fd = -1};
	TPM2_HANDLE object = 0;
	size_t count = 0;

	(void)state;
	assert_int_equal(Tss2_Tcti_Cancel(tcti), TSS2_TCTI_RC_NOT_IMPLEMENTED);
	assert_int_equal(Tss2_Tcti_SetLocality(tcti, 1), TSS2_TCTI_RC_NOT_IMPLEMENTED);
	assert_int_equal(Tss2_Tcti_MakeSticky(tcti, &object, 1), TSS2_TCTI_RC_NOT_IMPLEMENTED);
	assert_int_equal(
		Tss2_Tcti_GetPollHandles(tcti, &handle, &count), TSS2_TCTI_RC_INSUFFICIENT_BUFFER);
	assert_int_equal(Tss2_Tcti_GetPollHandles(tcti, NULL, &count), TSS2_RC_SUCCESS);
	assert_int_equal(count, 1);
	assert_int_equal(Tss2_Tcti_GetPollHandles(tcti, &handle, &count), TSS2_RC_SUCCESS);
	assert_true(handle.fd >= 0);
	assert_int_equal(handle.events, POLLIN);
	Tss2_Tcti_Finalize(tcti);
	expect_broken();
}

static void works_with_the_vtpm(void **state)
{
	static const char *const provision[] = {"--provision", NULL};
	uint8_t got[TCTI_BUFFER_BYTES];
	TSS2_TCTI_CONTEXT *real = NULL;
	size_t count = sizeof got;
	struct vtpm vtpm;

	(void)state;
	vtpm_init(&vtpm);
	vtpm_start(&vtpm, provision);
	assert_int_equal(tcti_open_socket(vtpm.socket, 0, &real), SECPOOL_OK);
	assert_int_equal(Tss2_Tcti_Transmit(real, sizeof COMMAND, COMMAND), TSS2_RC_SUCCESS);
	assert_int_equal(
		Tss2_Tcti_Receive(real, &count, got, TSS2_TCTI_TIMEOUT_BLOCK), TSS2_RC_SUCCESS);
	assert_int_equal(count, sizeof ANSWER);
	assert_memory_equal(got, ANSWER, 12);
	tcti_free(real);
	vtpm_done(&vtpm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(opens_or_says_why),
		cmocka_unit_test_setup_teardown(passes_commands_and_answers, setup, teardown),
		cmocka_unit_test_setup_teardown(puts_pieces_together, setup, teardown),
		cmocka_unit_test_setup_teardown(tells_the_size, setup, teardown),
		cmocka_unit_test_setup_teardown(hung_peer_is_an_error, setup, teardown),
		cmocka_unit_test_setup_teardown(
			long_wait_ends_at_the_commands_deadline, setup, teardown),
		cmocka_unit_test_setup_teardown(closed_peer_is_an_error, setup, teardown),
		cmocka_unit_test_setup_teardown(closed_peer_refuses_a_command, setup, teardown),
		cmocka_unit_test_setup_teardown(malformed_size_is_an_error, setup, teardown),
		cmocka_unit_test_setup_teardown(order_and_arguments_are_checked, setup, teardown),
		cmocka_unit_test_setup_teardown(the_rest_of_the_interface, setup, teardown),
		cmocka_unit_test(works_with_the_vtpm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
