/* SPDX-License-Identifier: Apache-2.0 */
/* `secpool top`: what goes on, again every second; once when the output is no terminal. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/conn.h"
#include "cli/progress.h"
#include "cli/table.h"
#include "lib/base/clock.h"

static const struct table_column region_columns[] = {
	{"REGION", "region", true},
	{"NAME", "name", false},
	{"TENANT", "tenant", false},
	{"PID", "pid", true},
	{"SIZE", "bytes", true},
	{"REDUNDANCY", "redundancy", false},
	{"LIVE", "live", false},
	{"REBUILD", "rebuild", false},
	{"ROTATION", "rotation", false},
};

static const struct table_column use_columns[] = {
	{"DEVICE", "id", false},
	{"SIZE", "bytes", true},
	{"USED", "used_bytes", true},
	{"FREE", "free_bytes", true},
	{"TO SCRUB", "unscrubbed_bytes", true},
	{"STATE", "state", false},
	{"DRAIN", "drain", false},
	{"SCRUB", "scrub", false},
};

static volatile sig_atomic_t over;

static void on_end(int number)
{
	(void)number;
	over = 1;
}

static void add_region(const struct msg *msg, void *arg)
{
	const struct msg_region_row *row = &msg->u.region_row;
	char redundancy[MSG_REDUNDANCY_BYTES], live[24], progress[PROGRESS_BYTES];
	struct table *table = arg;

	snprintf(live, sizeof live, "%u of %u", row->live_lanes, row->lanes);
	table_row(table);
	table_number(table, row->region);
	table_text(table, row->name);
	table_text(table, row->tenant);
	table_number(table, row->pid);
	table_size(table, row->bytes);
	table_text(table, msg_redundancy_name(row->data, row->lanes, redundancy));
	table_text(table, live);
	table_text(table, progress_bar(row->rebuilt_bytes, row->rebuild_bytes, progress));
	table_text(table, progress_bar(row->rotated_bytes, row->rotation_bytes, progress));
}

static void add_use(const struct msg *msg, void *arg)
{
	const struct msg_use_row *row = &msg->u.use_row;
	char progress[PROGRESS_BYTES];
	struct table *table = arg;

	table_row(table);
	table_text(table, row->id);
	table_size(table, row->bytes);
	table_size(table, row->used_bytes);
	table_size(table, row->free_bytes);
	table_size(table, row->unscrubbed_bytes);
	table_text(table, msg_device_state_name(row->state));
	table_text(table, progress_bar(row->drain_done_bytes, row->drain_bytes, progress));
	table_text(table, progress_bar(row->scrub_done_bytes, row->scrub_bytes, progress));
}

/* Both lists are asked for before anything is printed: the screen does not flicker, and an error leaves it as it was. */
static enum secpool_error show(const struct args *args, bool clear)
{
	struct table *regions =
		table_new(false, region_columns, sizeof region_columns / sizeof *region_columns);
	struct table *devices =
		table_new(false, use_columns, sizeof use_columns / sizeof *use_columns);
	enum secpool_error error = conn_list_once(args->runtime, "keymgr.sock", MSG_LIST_REGIONS,
		MSG_REGION_ROW, add_region, regions);

	if (!error)
		error = conn_list_once(
			args->runtime, "keymgr.sock", MSG_LIST_USE, MSG_USE_ROW, add_use, devices);
	if (!error) {
		if (clear)
			fputs("\033[H\033[J", stdout);
		table_print(regions, "no regions");
		putchar('\n');
		table_print(devices, "no devices");
		fflush(stdout);
	}
	table_free(regions);
	table_free(devices);
	return error;
}

int command_top(const struct args *args)
{
	bool terminal = isatty(STDOUT_FILENO);
	struct sigaction action = {.sa_handler = on_end};
	enum secpool_error error;

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	error = show(args, terminal);
	while (!error && terminal && !over) {
		clock_sleep_ns(CLOCK_NS_PER_S);
		if (!over)
			error = show(args, true);
	}
	return error ? command_failed(error) : STATUS_DONE;
}
