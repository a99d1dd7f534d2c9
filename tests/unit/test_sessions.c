/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions: handles that end, and never reach another's session. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "enclave/sessions.h"

enum { MOST = 3 };

static struct sessions sessions;

static int set_up(void **state)
{
	(void)state;
	sessions_init(&sessions, MOST);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	sessions_done(&sessions);
	return 0;
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static uint64_t open_one(uint64_t expires_ns, uint32_t uid)
{
	const struct session session = {.expires_ns = expires_ns, .uid = uid, .tenant = "five"};
	int fd = memfd_create("client", MFD_CLOEXEC);
	uint64_t handle = 0;

	assert_int_equal(sessions_open(&sessions, &session, &fd, &handle), SECPOOL_OK);
	assert_int_equal(fd, -1);
	assert_int_not_equal(handle, 0);
	return handle;
}

static void session_lives_and_ends(void **state)
{
	const struct session *session = NULL;
	uint64_t handle = open_one(100, 7), endless = open_one(0, 8);

	(void)state;
	assert_int_equal(sessions_get(&sessions, handle, 99, &session), SECPOOL_OK);
	assert_int_equal(session->uid, 7);
	assert_string_equal(session->tenant, "five");
	int fd = session->socket;
	assert_true(is_open(fd));
	session = NULL;
	assert_int_equal(sessions_get(&sessions, handle, 100, &session), SECPOOL_E_SESSION_EXPIRED);
	assert_null(session);
	assert_int_equal(sessions_get(&sessions, endless, UINT64_MAX, &session), SECPOOL_OK);
	assert_int_equal(sessions.count, 2);
	assert_int_equal(sessions_close(&sessions, handle), SECPOOL_OK);
	assert_false(is_open(fd));
	assert_int_equal(sessions.count, 1);
	assert_int_equal(sessions_close(&sessions, handle), SECPOOL_E_SESSION_EXPIRED);
	assert_int_equal(sessions_get(&sessions, handle, 1, &session), SECPOOL_E_SESSION_EXPIRED);
	assert_int_equal(sessions.count, 1);
}

static void old_handle_never_reaches_another(void **state)
{
	const struct session *session = NULL;
	uint64_t old = open_one(0, 1), handles[] = {0, 1, old + MOST, old ^ 1ull << 32, UINT64_MAX};

	(void)state;
	for (size_t i = 0; i < sizeof handles / sizeof *handles; i++) {
		assert_int_equal(sessions_get(&sessions, handles[i], 1, &session),
			SECPOOL_E_SESSION_EXPIRED);
		assert_int_equal(sessions_close(&sessions, handles[i]), SECPOOL_E_SESSION_EXPIRED);
	}
	assert_int_equal(sessions_close(&sessions, old), SECPOOL_OK);
	uint64_t next = open_one(0, 2);
	assert_int_not_equal(next, old);
	assert_int_equal((uint32_t)next, (uint32_t)old); /* the same place */
	assert_int_equal(sessions_get(&sessions, old, 1, &session), SECPOOL_E_SESSION_EXPIRED);
	assert_int_equal(sessions_get(&sessions, next, 1, &session), SECPOOL_OK);
	assert_int_equal(session->uid, 2);
}

static void table_is_bounded(void **state)
{
	const struct session session = {.uid = 1};
	int fd = memfd_create("client", MFD_CLOEXEC), kept = fd;
	uint64_t handle = 4711, first = open_one(0, 1);

	(void)state;
	open_one(0, 1);
	open_one(0, 1);
	assert_int_equal(sessions_open(&sessions, &session, &fd, &handle), SECPOOL_E_LIMIT);
	assert_int_equal(fd, kept);
	assert_true(is_open(kept));
	assert_int_equal(handle, 4711);
	assert_int_equal(sessions_close(&sessions, first), SECPOOL_OK);
	assert_int_equal(sessions_open(&sessions, &session, &fd, &handle), SECPOOL_OK);
	sessions_done(&sessions);
	assert_false(is_open(kept));
	assert_int_equal(sessions.count, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(session_lives_and_ends, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			old_handle_never_reaches_another, set_up, tear_down),
		cmocka_unit_test_setup_teardown(table_is_bounded, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
