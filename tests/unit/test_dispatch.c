/* SPDX-License-Identifier: Apache-2.0 */
/* Every message in every state and role: what is allowed stands here once more, and everything else must be refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "keymgr/dispatch.h"

static const struct {
	uint32_t type;
	enum server_state state;
	uint32_t role;
} allowed[] = {
	{MSG_HELLO, SERVER_NEW, 0},
	{MSG_SESSION_OPEN, SERVER_READY, MSG_ROLE_CLIENT},
	{MSG_SESSION_CLOSE, SERVER_SESSION, MSG_ROLE_CLIENT},
	{MSG_REGION_CREATE, SERVER_SESSION, MSG_ROLE_CLIENT},
	{MSG_EXTENTS_GET, SERVER_SESSION, MSG_ROLE_CLIENT},
	{MSG_REGION_REPLACE, SERVER_SESSION, MSG_ROLE_CLIENT},
	{MSG_REGION_MOVE, SERVER_SESSION, MSG_ROLE_CLIENT},
	{MSG_REGION_MOVED, SERVER_SESSION, MSG_ROLE_CLIENT},
	{MSG_REGION_RELEASE, SERVER_SESSION, MSG_ROLE_CLIENT},
	{MSG_REGION_RESUME, SERVER_SESSION, MSG_ROLE_CLIENT},
	{MSG_REGION_FILL, SERVER_SESSION, MSG_ROLE_CLIENT},
	{MSG_REGION_PROGRESS, SERVER_SESSION, MSG_ROLE_CLIENT},
	{MSG_REGION_SEAL, SERVER_SESSION, MSG_ROLE_CLIENT},
	{MSG_REGION_GRANT, SERVER_SESSION, MSG_ROLE_CLIENT},
	{MSG_REGION_ATTACH, SERVER_SESSION, MSG_ROLE_CLIENT},
	{MSG_REGION_ROTATE, SERVER_SESSION, MSG_ROLE_CLIENT},
	{MSG_REGION_ROTATED, SERVER_SESSION, MSG_ROLE_CLIENT},
	{MSG_TENANT_ROTATE, SERVER_READY, MSG_ROLE_ADMIN},
	{MSG_DEVICE_REPORT, SERVER_SESSION, MSG_ROLE_CLIENT},
	{MSG_REGION_LOST, SERVER_SESSION, MSG_ROLE_CLIENT},
	{MSG_LIST, SERVER_READY, MSG_ROLE_ADMIN},
	{MSG_KEYSTORE_ANCHOR, SERVER_READY, MSG_ROLE_ADMIN},
	{MSG_RECEIPT_GET, SERVER_READY, MSG_ROLE_ADMIN},
	{MSG_DEVICE_ENROL, SERVER_READY, MSG_ROLE_ADMIN},
	{MSG_ATTEST_BEGIN, SERVER_READY, MSG_ROLE_HOTPLUG},
	{MSG_ATTEST_EVIDENCE, SERVER_READY, MSG_ROLE_HOTPLUG},
	{MSG_DEVICE_STATE, SERVER_READY, MSG_ROLE_HOTPLUG},
	{MSG_DEVICE_SCRUB, SERVER_READY, MSG_ROLE_HOTPLUG},
};

static int is_allowed(uint32_t type, enum server_state state, uint32_t role)
{
	for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
		if (allowed[i].type == type && allowed[i].state == state &&
			(state == SERVER_NEW || allowed[i].role == role))
			return 1;
	return 0;
}

static void test_every_message_state_and_role(void **state)
{
	unsigned taken = 0;

	(void)state;
	for (uint32_t type = 0; type < 256; type++)
		for (int s = 0; s < SERVER_STATES; s++)
			for (uint32_t role = 1; role < 5; role++) {
				enum secpool_error error;

				err_clear();
				error = dispatch_allowed(type, (enum server_state)s, role);
				if (is_allowed(type, (enum server_state)s, role)) {
					assert_int_equal(error, SECPOOL_OK);
					taken++;
				} else {
					assert_int_equal(error, SECPOOL_E_PROTOCOL);
					assert_true(strlen(err_detail()) > 0);
				}
			}
	/* HELLO counts for each of the four roles */
	assert_int_equal(taken, sizeof allowed / sizeof *allowed + 3);
}

static void test_the_enclaves_messages_are_nobodys(void **state)
{
	(void)state;
	for (uint32_t type = MSG_ENC_SESSION_OPEN; type <= MSG_ENC_STOP; type++)
		for (uint32_t role = 1; role < 4; role++)
			assert_int_equal(
				dispatch_allowed(type, SERVER_SESSION, role), SECPOOL_E_PROTOCOL);
}

static void test_reasons_say_what_is_missing(void **state)
{
	(void)state;
	assert_int_equal(dispatch_allowed(MSG_LIST, SERVER_NEW, 0), SECPOOL_E_PROTOCOL);
	assert_non_null(strstr(err_detail(), "HELLO"));
	assert_int_equal(dispatch_allowed(MSG_REGION_CREATE, SERVER_READY, MSG_ROLE_CLIENT),
		SECPOOL_E_PROTOCOL);
	assert_non_null(strstr(err_detail(), "session"));
	assert_int_equal(dispatch_allowed(MSG_DEVICE_STATE, SERVER_READY, MSG_ROLE_CLIENT),
		SECPOOL_E_PROTOCOL);
	assert_non_null(strstr(err_detail(), "role"));
	assert_int_equal(dispatch_allowed(MSG_LIST, SERVER_READY, 4000000000u), SECPOOL_E_PROTOCOL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_message_state_and_role),
		cmocka_unit_test(test_the_enclaves_messages_are_nobodys),
		cmocka_unit_test(test_reasons_say_what_is_missing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
