/* SPDX-License-Identifier: Apache-2.0 */
#include <json-c/json.h>
#include <stdio.h>

#include "cli/commands.h"
#include "cli/conn.h"
#include "cli/table.h"
#include "lib/base/os.h"

static const struct table_column region_columns[] = {
	{"REGION", "region", true},
	{"NAME", "name", false},
	{"TENANT", "tenant", false},
	{"PID", "pid", true},
	{"ADDRESS", "address", false},
	{"SIZE", "bytes", true},
	{"PAGE", "page_bytes", true},
	{"REDUNDANCY", "redundancy", false},
	{"LANES", "lanes", true},
	{"LIVE", "live_lanes", true},
	{"REBUILT", "rebuilt_bytes", true},
	{"OF", "rebuild_bytes", true},
	{"EPOCH", "epoch", true},
	{"ROTATION", "rotation", false},
	{"ROTATED", "rotated_bytes", true},
	{"OF", "rotation_bytes", true},
	{"ON-LOSS", "on_loss", false},
	{"STATE", "state", false},
	{"DEVICES", "devices", false},
};

static const struct table_column tenant_columns[] = {
	{"TENANT", "tenant", false},
	{"BYTES", "bytes_used", true},
	{"OF", "bytes_quota", true},
	{"REGIONS", "regions_used", true},
	{"OF", "regions_quota", true},
	{"SESSIONS", "sessions", true},
	{"OF", "sessions_quota", true},
	{"USERS", "users", false},
};

static const struct table_column event_columns[] = {
	{"NUMBER", "number", true},
	{"TIME", "time_ns", false},
	{"KIND", "kind", false},
	{"DEVICE", "device", false},
	{"TENANT", "tenant", false},
	{"REGION", "region", true},
	{NULL, "offset", true},
	{NULL, "bytes", true},
	{"DETAIL", "detail", false},
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const char *region_state_name(uint32_t state)
{
	switch (state) {
	case MSG_REGION_LIVE:
		return "live";
	case MSG_REGION_SEALED:
		return "sealed";
	case MSG_REGION_RELEASING:
		return "releasing";
	default:
		return "?";
	}
}

static const char *rotation_name(uint32_t rotation)
{
	switch (rotation) {
	case MSG_ROTATION_NONE:
		return "none";
	case MSG_ROTATION_WANTED:
		return "wanted";
	case MSG_ROTATION_RUNNING:
		return "running";
	default:
		return "?";
	}
}

static void add_region(const struct msg *msg, void *arg)
{
	const struct msg_region_row *row = &msg->u.region_row;
	char redundancy[MSG_REDUNDANCY_BYTES];
	struct table *table = arg;

	table_row(table);
	table_number(table, row->region);
	table_text(table, row->name);
	table_text(table, row->tenant);
	table_number(table, row->pid);
	table_address(table, row->address);
	table_size(table, row->bytes);
	table_size(table, row->page_bytes);
	table_text(table, msg_redundancy_name(row->data, row->lanes, redundancy));
	table_number(table, row->lanes);
	table_number(table, row->live_lanes);
	table_size(table, row->rebuilt_bytes);
	table_size(table, row->rebuild_bytes);
	table_number(table, row->epoch);
	table_text(table, rotation_name(row->rotation));
	table_size(table, row->rotated_bytes);
	table_size(table, row->rotation_bytes);
	table_text(table, msg_on_loss_name(row->on_loss));
	table_text(table, region_state_name(row->state));
	table_text(table, row->devices);
}

static void add_tenant(const struct msg *msg, void *arg)
{
	const struct msg_tenant_row *row = &msg->u.tenant_row;
	struct table *table = arg;

	table_row(table);
	table_text(table, row->tenant);
	table_size(table, row->bytes_used);
	table_size(table, row->bytes_quota);
	table_number(table, row->regions_used);
	table_number(table, row->regions_quota);
	table_number(table, row->sessions);
	table_number(table, row->sessions_quota);
	table_text(table, row->users);
}

static void add_event(const struct msg *msg, void *arg)
{
	const struct msg_event_row *row = &msg->u.event_row;
	struct table *table = arg;

	table_row(table);
	table_number(table, row->number);
	table_time(table, row->time_ns);
	table_text(table, row->kind);
	table_text(table, row->device);
	table_text(table, row->tenant);
	if (row->region)
		table_number(table, row->region);
	else
		table_none(table);
	table_number(table, row->offset);
	table_number(table, row->bytes);
	table_text(table, row->detail);
}

static int show(const struct args *args, uint32_t what, uint32_t row_type, conn_row *add,
	const struct table_column *columns, size_t count, const char *none)
{
	struct table *table = table_new(args->json, columns, count);
	enum secpool_error error =
		conn_list_once(args->runtime, "keymgr.sock", what, row_type, add, table);
	int status = STATUS_DONE;

	if (error)
		status = command_failed(error);
	else
		table_print(table, none);
	table_free(table);
	return status;
}

int command_region_list(const struct args *args)
{
	return show(args, MSG_LIST_REGIONS, MSG_REGION_ROW, add_region, region_columns,
		COUNT(region_columns), "no regions");
}

int command_tenant_list(const struct args *args)
{
	return show(args, MSG_LIST_TENANTS, MSG_TENANT_ROW, add_tenant, tenant_columns,
		COUNT(tenant_columns), "no tenants: see the policy");
}

/* A text from a peer: what a terminal would act on is replaced. */
static void print_text(const char *name, const char *text)
{
	if (!text[0])
		return;
	printf(" %s", name);
	for (; *text; text++)
		putchar((unsigned char)*text < ' ' || *text == 0x7f ? '?' : *text);
}

/* A line at once, for people. */
static void print_event(const struct msg *msg, void *arg)
{
	const struct msg_event_row *row = &msg->u.event_row;
	char time[32];

	(void)arg;
	printf("%s", table_format_time(row->time_ns, time));
	print_text("", row->kind);
	print_text("device=", row->device);
	print_text("tenant=", row->tenant);
	if (row->region)
		printf(" region=%llu", (unsigned long long)row->region);
	if (row->bytes)
		printf(" offset=%llu bytes=%llu", (unsigned long long)row->offset,
			(unsigned long long)row->bytes);
	print_text("", row->detail);
	putchar('\n');
	fflush(stdout);
}

/* An object a line, for programs. */
static void print_event_json(const struct msg *msg, void *arg)
{
	struct table *table = table_new(true, event_columns, COUNT(event_columns));
	struct json_object *array;

	(void)arg;
	add_event(msg, table);
	array = table_take_json(table);
	puts(json_object_to_json_string_ext(json_object_array_get_idx(array, 0),
		JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
	fflush(stdout);
	json_object_put(array);
	table_free(table);
}

int command_events(const struct args *args)
{
	enum secpool_error error;
	int fd = -1;

	if (!args->follow)
		return show(args, MSG_LIST_EVENTS, MSG_EVENT_ROW, add_event, event_columns,
			COUNT(event_columns), "no events");
	error = conn_open(args->runtime, "keymgr.sock", &fd);
	if (!error)
		error = conn_list(fd, MSG_LIST_EVENTS, MSG_FOLLOW, MSG_EVENT_ROW,
			args->json ? print_event_json : print_event, NULL);
	os_close(&fd);
	return command_failed(error);
}
