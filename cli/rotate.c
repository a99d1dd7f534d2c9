/* SPDX-License-Identifier: Apache-2.0 */
/* `secpool tenant rotate T`. */
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/conn.h"
#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "lib/wire/sock.h"

/* How long keymgrd may take to record it; between two looks at the rotations, which take as long as they take. */
#define ASK_NS	(10 * CLOCK_NS_PER_S)
#define LOOK_NS (100 * CLOCK_NS_PER_MS)

struct look {
	const char *tenant;
	uint64_t left; /* regions that are not done */
};

static void count_left(const struct msg *msg, void *arg)
{
	const struct msg_region_row *row = &msg->u.region_row;
	struct look *look = arg;

	look->left += strcmp(row->tenant, look->tenant) == 0 && row->state == MSG_REGION_LIVE &&
		      row->rotation != MSG_ROTATION_NONE;
}

static enum secpool_error ask(const struct args *args, uint64_t *ret_regions)
{
	struct msg msg = {.type = MSG_TENANT_ROTATE}, answer;
	const char *tenant = args->words[0];
	enum secpool_error error;
	int fd = -1;

	if (!tenant[0] || strlen(tenant) >= sizeof msg.u.tenant_rotate.tenant)
		return err_set(SECPOOL_E_UNKNOWN_TENANT,
			"'%.80s' is no tenant: 'secpool tenant list' shows them", tenant);
	MSG_SET(msg.u.tenant_rotate.tenant, tenant);
	error = conn_open(args->runtime, "keymgr.sock", &fd);
	if (!error)
		error = sock_call(fd, &msg, NULL, 0, MSG_TENANT_ROTATING, &answer, NULL,
			clock_now_ns() + ASK_NS);
	os_close(&fd);
	if (!error)
		*ret_regions = answer.u.tenant_rotating.regions;
	return error;
}

int command_tenant_rotate(const struct args *args)
{
	struct look look = {.tenant = args->words[0], .left = 1};
	uint64_t regions = 0;
	enum secpool_error error = ask(args, &regions);

	while (!error && !args->no_wait && look.left > 0) {
		look.left = 0;
		error = conn_list_once(args->runtime, "keymgr.sock", MSG_LIST_REGIONS,
			MSG_REGION_ROW, count_left, &look);
		if (!error && look.left > 0)
			clock_sleep_ns(LOOK_NS);
	}
	if (error)
		return command_failed(error);
	printf("%s: %llu regions %s\n", args->words[0], (unsigned long long)regions,
		args->no_wait ? "get new keys" : "have new keys, and the old ones are destroyed");
	return STATUS_DONE;
}
