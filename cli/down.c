/* SPDX-License-Identifier: Apache-2.0 */
/* `secpool down`: tells who is still there, ends the daemons, takes everything away. */
#include <stdio.h>

#include "cli/commands.h"
#include "cli/conn.h"
#include "cli/folders.h"
#include "cli/spawn.h"

/* A client is still using a region. */
static void warn_of_region(const struct msg *msg, void *arg)
{
	const struct msg_region_row *row = &msg->u.region_row;
	struct os_process process;

	(void)arg;
	if (row->state != MSG_REGION_LIVE || os_process_find((int32_t)row->pid, &process))
		return;
	fprintf(stderr,
		"secpool: warning: process %u (tenant %s) still uses region %llu: it loses the "
		"pool now\n",
		row->pid, row->tenant, (unsigned long long)row->region);
}

static void warn_of_clients(const char *runtime)
{
	struct os_process process;

	if (!spawn_find(runtime, SPAWN_KEYMGRD, &process))
		return;
	if (conn_list_once(
		    runtime, "keymgr.sock", MSG_LIST_REGIONS, MSG_REGION_ROW, warn_of_region, NULL))
		fprintf(stderr,
			"secpool: warning: the key manager did not say who uses the pool: %s\n",
			err_detail());
}

static enum secpool_error take_down(const char *runtime, bool *ret_ran, bool *ret_left)
{
	enum secpool_error error = SECPOOL_OK;

	*ret_ran = false;
	warn_of_clients(runtime);
	for (int daemon = SPAWN_COUNT - 1; daemon >= 0 && !error; daemon--) {
		bool ran = false;

		error = spawn_stop(runtime, (enum spawn_daemon)daemon, &ran);
		*ret_ran |= ran;
	}
	return error ? error : folders_remove(runtime, ret_left);
}

int command_down(const struct args *args)
{
	bool ran = false, left = false;
	enum secpool_error error;
	int lock = -1;

	spawn_catch_signals(); /* half a removal would be worse than a late one */
	error = folders_lock(args->runtime, &lock);
	if (error == SECPOOL_E_NOT_FOUND) {
		printf("not running in %s\n", args->runtime);
		return STATUS_DONE;
	}
	if (!error)
		error = take_down(args->runtime, &ran, &left);
	os_close(&lock);
	if (error)
		return command_failed(error);
	printf(ran ? "secpool in %s is down, nothing is left\n"
		   : "not running in %s: what was left there has been removed\n",
		args->runtime);
	if (left)
		fprintf(stderr, "secpool: %s stays: it holds files that are not secpool's\n",
			args->runtime);
	return STATUS_DONE;
}
