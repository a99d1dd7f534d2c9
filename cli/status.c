/* SPDX-License-Identifier: Apache-2.0 */
#include <json-c/json.h>
#include <stdio.h>

#include "cli/commands.h"
#include "cli/conn.h"
#include "cli/spawn.h"
#include "cli/table.h"
#include "lib/base/size.h"

static const struct table_column status_columns[] = {
	{"KEY MANAGER", "name", false}, {"", "value", false}};

static const struct table_column device_columns[] = {{"DEVICE", "id", false},
	{"STATE", "state", false}, {"SIZE", "bytes", true}, {"FREE", "free_bytes", true}};

struct status {
	const struct args *args;
	bool alive[SPAWN_COUNT];
	struct os_process processes[SPAWN_COUNT];
	struct table *rows; /* what the key manager says */
	struct table *devices;
	enum secpool_error rows_error, devices_error;
	char rows_detail[ERR_DETAIL_BYTES], devices_detail[ERR_DETAIL_BYTES];
};

static void add_row(const struct msg *msg, void *arg)
{
	table_row(arg);
	table_text(arg, msg->u.status_row.name);
	table_text(arg, msg->u.status_row.value);
}

static void read_devices(struct status *s)
{
	struct conn_devices devices;

	s->devices_error = conn_devices_read(s->args->runtime, &devices);
	snprintf(s->devices_detail, sizeof s->devices_detail, "%s", err_detail());
	for (size_t i = 0; i < devices.row_count; i++) {
		const struct msg_use_row *use = conn_devices_use(&devices, devices.rows[i].id);

		table_row(s->devices);
		table_text(s->devices, devices.rows[i].id);
		table_text(s->devices, msg_device_state_name(devices.rows[i].state));
		table_size(s->devices, devices.rows[i].bytes);
		if (use)
			table_size(s->devices, use->free_bytes);
		else
			table_none(s->devices);
	}
	conn_devices_done(&devices);
}

static void read_status(struct status *s)
{
	const char *runtime = s->args->runtime;

	for (int i = 0; i < SPAWN_COUNT; i++)
		s->alive[i] = spawn_find(runtime, (enum spawn_daemon)i, &s->processes[i]);
	s->rows_error = conn_list_once(
		runtime, "keymgr.sock", MSG_LIST_STATUS, MSG_STATUS_ROW, add_row, s->rows);
	snprintf(s->rows_detail, sizeof s->rows_detail, "%s", err_detail());
	read_devices(s);
}

static void print_json(struct status *s)
{
	struct json_object *all = json_object_new_object(), *daemons = json_object_new_array();

	for (int i = 0; i < SPAWN_COUNT; i++) {
		struct json_object *daemon = json_object_new_object();

		json_object_object_add(daemon, "name",
			json_object_new_string(spawn_program((enum spawn_daemon)i)));
		json_object_object_add(daemon, "alive", json_object_new_boolean(s->alive[i]));
		json_object_object_add(daemon, "pid",
			s->alive[i] ? json_object_new_int(s->processes[i].pid) : NULL);
		json_object_array_add(daemons, daemon);
	}
	json_object_object_add(all, "runtime_dir", json_object_new_string(s->args->runtime));
	json_object_object_add(all, "daemons", daemons);
	json_object_object_add(all, "keymgr", table_take_json(s->rows));
	json_object_object_add(all, "devices", table_take_json(s->devices));
	table_print_json(all);
}

static void print_text(struct status *s)
{
	printf("runtime folder %s\n", s->args->runtime);
	for (int i = 0; i < SPAWN_COUNT; i++) {
		if (s->alive[i])
			printf("%-17s alive, pid %d\n", spawn_program((enum spawn_daemon)i),
				s->processes[i].pid);
		else
			printf("%-17s not running under 'secpool up'\n",
				spawn_program((enum spawn_daemon)i));
	}
	putchar('\n');
	if (s->rows_error)
		printf("key manager: %s\n", s->rows_detail);
	else
		table_print(s->rows, "the key manager has nothing to say");
	putchar('\n');
	if (s->devices_error)
		printf("devices: %s\n", s->devices_detail);
	else
		table_print(s->devices, "no devices");
}

int command_status(const struct args *args)
{
	struct status s = {.args = args};

	s.rows = table_new(args->json, status_columns, 2);
	s.devices = table_new(args->json, device_columns, 4);
	read_status(&s);
	if (args->json)
		print_json(&s);
	else
		print_text(&s);
	table_free(s.rows);
	table_free(s.devices);
	if (s.rows_error == SECPOOL_E_DENIED || s.devices_error == SECPOOL_E_DENIED)
		return STATUS_REFUSED;
	return s.rows_error || s.devices_error ? STATUS_FAILED : STATUS_DONE;
}
