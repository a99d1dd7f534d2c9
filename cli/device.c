/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/device.h"

#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/conn.h"
#include "cli/evidence.h"
#include "cli/progress.h"
#include "cli/table.h"
#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "lib/base/size.h"
#include "lib/wire/sock.h"

/* How long a verb may take: plug and attest are answered after the attestation. */
#define VERB_NS (60 * CLOCK_NS_PER_S)
/* Between two looks at a drain or a scrub, which take as long as they take. */
#define LOOK_NS (100 * CLOCK_NS_PER_MS)

static const struct table_column columns[] = {
	{"ID", "id", false},
	{"STATE", "state", false},
	{"KIND", "kind", false},
	{"DOMAIN", "domain", false},
	{"FIRMWARE", "firmware", false},
	{"SIZE", "bytes", true},
	{"TIER", "tier", false},
	{NULL, "latency_ns", true},
	{"USED", "used_bytes", true},
	{"FREE", "free_bytes", true},
	{"UNSCRUBBED", "unscrubbed_bytes", true},
	{NULL, "largest_free_bytes", true},
	{NULL, "free_extents", true},
	{NULL, "fragmentation", true},
	{"PROGRESS", "progress", false},
	{NULL, "differed_bytes", true},
	{NULL, "drain_done_bytes", true},
	{NULL, "drain_bytes", true},
	{NULL, "scrub_done_bytes", true},
	{NULL, "scrub_bytes", true},
	{"EVIDENCE", "evidence_seconds", true},
	{NULL, "returns", true},
	{NULL, "held_seconds", true},
	{NULL, "tag_failures", true},
	{NULL, "faults", true},
	{NULL, "looks", true},
	{NULL, "serial", false},
	{NULL, "memdev", false},
	{NULL, "region", false},
	{NULL, "dax", false},
	{NULL, "persistent_bytes", true},
	{NULL, "volatile_bytes", true},
	{NULL, "numa_node", true},
	{NULL, "read_latency_ns", true},
	{NULL, "health", false},
	{NULL, "poisoned_places", true},
	{NULL, "sanitise", false},
	{"REASON", "reason", false},
};
enum { COLUMN_COUNT = sizeof columns / sizeof *columns };

static const char *health_text(uint32_t health)
{
	return health == UINT32_MAX		 ? "unknown"
	       : health & MSG_HEALTH_REPLACE	 ? "replace"
	       : health & MSG_HEALTH_MEDIA	 ? "media"
	       : health & MSG_HEALTH_MAINTENANCE ? "maintenance"
	       : health & MSG_HEALTH_DEGRADED	 ? "degraded"
						 : "good";
}

/* NULL: there is no such thing. */
static const char *sanitise_text(uint32_t sanitise)
{
	return sanitise == MSG_SANITISE_POSSIBLE  ? "possible"
	       : sanitise == MSG_SANITISE_RUNNING ? "running"
	       : sanitise == MSG_SANITISE_DONE	  ? "done"
	       : sanitise == MSG_SANITISE_FAILED  ? "failed"
						  : NULL;
}

/* What `cxl list` and `daxctl list` show. */
static void add_topology(struct table *table, const struct msg_device_row *row)
{
	table_text(table, row->serial);
	if (!row->memdev[0]) { /* no memory of this machine's */
		for (int i = 0; i < 10; i++)
			table_none(table);
		return;
	}
	table_text(table, row->memdev);
	table_text(table, row->region);
	table_text(table, row->dax);
	table_size(table, row->persistent_bytes);
	table_size(table, row->volatile_bytes);
	if (row->numa_node == UINT32_MAX)
		table_none(table);
	else
		table_number(table, row->numa_node);
	if (row->latency_ns == 0)
		table_none(table);
	else
		table_number(table, row->latency_ns);
	table_text(table, health_text(row->health));
	if (row->poisoned == UINT32_MAX)
		table_none(table);
	else
		table_number(table, row->poisoned);
	if (sanitise_text(row->sanitise))
		table_text(table, sanitise_text(row->sanitise));
	else
		table_none(table);
}

/* What keymgrd says; NULL: it is away, or does not know the device. */
static void add_use(struct table *table, const struct msg_use_row *use)
{
	enum { COLUMNS = 14 };
	char progress[PROGRESS_BYTES];

	if (!use) {
		for (int i = 0; i < COLUMNS; i++)
			table_none(table);
		return;
	}
	table_text(table, use->tier);
	table_number(table, use->latency_ns);
	table_size(table, use->used_bytes);
	table_size(table, use->free_bytes);
	table_size(table, use->unscrubbed_bytes);
	table_size(table, use->largest_free_bytes);
	table_number(table, use->free_extents);
	/* of the free space, what a single extent can't have */
	table_real(table, use->free_bytes == 0
				  ? 0
				  : 1 - (double)use->largest_free_bytes / (double)use->free_bytes);
	table_text(table, progress_text(use, progress));
	table_size(table, use->differed_bytes);
	table_size(table, use->drain_done_bytes);
	table_size(table, use->drain_bytes);
	table_size(table, use->scrub_done_bytes);
	table_size(table, use->scrub_bytes);
}

static void add_row(
	struct table *table, const struct msg_device_row *row, const struct msg_use_row *use)
{
	table_row(table);
	table_text(table, row->id);
	table_text(table, msg_device_state_name(row->state));
	table_text(table, row->kind);
	table_text(table, row->domain);
	table_text(table, row->firmware);
	table_size(table, row->bytes);
	add_use(table, use);
	if (row->expires_s)
		table_number(table, row->expires_s);
	else
		table_none(table);
	table_number(table, row->returns);
	table_number(table, row->held_s);
	table_number(table, row->tag_failures);
	table_number(table, row->faults);
	table_number(table, row->looks);
	add_topology(table, row);
	table_text(table, row->reason);
}

int command_device_list(const struct args *args)
{
	struct conn_devices devices;
	enum secpool_error error = conn_devices_read(args->runtime, &devices);
	struct table *table;
	int status = STATUS_DONE;

	if (error) {
		conn_devices_done(&devices);
		return command_failed(error);
	}
	table = table_new(args->json, columns, COLUMN_COUNT);
	for (size_t i = 0; i < devices.row_count; i++)
		add_row(table, &devices.rows[i], conn_devices_use(&devices, devices.rows[i].id));
	table_print(table, "no devices");
	table_free(table);
	if (devices.use_error) {
		fprintf(stderr,
			"secpool: the key manager did not say what is used (%s): try 'secpool "
			"status'\n",
			err_text(devices.use_error));
		status = STATUS_FAILED;
	}
	conn_devices_done(&devices);
	return status;
}

static enum secpool_error check_id(const char *id)
{
	if (!id[0] || strlen(id) >= MSG_NAME_BYTES)
		return err_set(SECPOOL_E_INVALID,
			"'%.80s' is no device: 'secpool device list' shows them", id);
	return SECPOOL_OK;
}

enum secpool_error device_ask_verb(
	const struct args *args, enum msg_verb verb, uint32_t want, struct msg *ret_answer)
{
	struct msg msg = {.type = MSG_DEVICE_COMMAND};
	struct msg_device_command *command = &msg.u.device_command;
	const char *id = args->words[0];
	enum secpool_error error = check_id(id);
	int fd = -1;

	if (error)
		return error;
	MSG_SET(command->id, id);
	command->verb = verb;
	command->silent_ms = args->silent_ms;
	MSG_SET(command->argument, args->words[1] ? args->words[1] : "");
	error = conn_open(args->runtime, "hotplug.sock", &fd);
	if (!error)
		error = sock_call(
			fd, &msg, NULL, 0, want, ret_answer, NULL, clock_now_ns() + VERB_NS);
	os_close(&fd);
	return error;
}

static int send_verb(const struct args *args, enum msg_verb verb, const char *done)
{
	enum secpool_error error = device_ask_verb(args, verb, MSG_REPLY, NULL);

	if (error)
		return command_failed(error);
	printf("%s: %s\n", args->words[0], done);
	return STATUS_DONE;
}

/* As tpm2_checkquote wants them (tpm2-tools 5.4). Errors: SECPOOL_E_NOT_ATTESTED, SECPOOL_E_SYSTEM naming the file. */
static enum secpool_error save_evidence(const struct args *args)
{
	enum secpool_error error;
	struct msg answer;

	error = device_ask_verb(args, MSG_VERB_EVIDENCE, MSG_DEVICE_EVIDENCE, &answer);
	return error ? error : evidence_write(args->evidence, &answer.u.device_evidence);
}

/* Whether it is offline; a state that does not lead there is an error. */
static enum secpool_error look_drained(const struct args *args, bool *ret_done)
{
	struct conn_devices devices;
	enum secpool_error error = conn_devices_read(args->runtime, &devices);
	const struct msg_device_row *row =
		error ? NULL : conn_devices_row(&devices, args->words[0]);

	if (!error &&
		(!row || (row->state != MSG_DEVICE_DRAINING && row->state != MSG_DEVICE_OFFLINE)))
		error = err_set(SECPOOL_E_DEVICE_GONE, "device %.63s is %s: its drain did not end",
			args->words[0], row ? msg_device_state_name(row->state) : "gone");
	*ret_done = !error && row->state == MSG_DEVICE_OFFLINE;
	conn_devices_done(&devices);
	return error;
}

int command_device_pull(const struct args *args)
{
	return send_verb(args, MSG_VERB_PULL, "pulled");
}

int command_device_plug(const struct args *args)
{
	return send_verb(args, MSG_VERB_PLUG, "plugged, attested and online");
}

int command_device_attest(const struct args *args)
{
	enum secpool_error error;

	if (!args->evidence)
		return send_verb(args, MSG_VERB_ATTEST, "attested and online");
	error = device_ask_verb(args, MSG_VERB_ATTEST, MSG_REPLY, NULL);
	if (!error)
		error = save_evidence(args);
	if (error)
		return command_failed(error);
	printf("%s: attested and online; its evidence is in %s\n", args->words[0], args->evidence);
	return STATUS_DONE;
}

/* The key manager's enclave takes it in; then it is attested, and the key manager stores it. */
static enum secpool_error enrol(const struct args *args, struct msg *ret_answer)
{
	struct msg msg = {.type = MSG_DEVICE_ENROL};
	enum secpool_error error = check_id(args->words[0]);
	int fd = -1;

	if (error)
		return error;
	MSG_SET(msg.u.device_enrol.id, args->words[0]);
	error = conn_open(args->runtime, "keymgr.sock", &fd);
	if (!error)
		error = sock_call(fd, &msg, NULL, 0, MSG_DEVICE_ENROLLED, ret_answer, NULL,
			clock_now_ns() + VERB_NS);
	os_close(&fd);
	return error;
}

int command_device_enrol(const struct args *args)
{
	struct msg enrolled;
	const uint8_t *name = enrolled.u.device_enrolled.ek_name;
	enum secpool_error error = enrol(args, &enrolled);

	if (error)
		return command_failed(error);
	printf("%s: enrolled, EK ", args->words[0]);
	for (size_t i = 0; i < sizeof enrolled.u.device_enrolled.ek_name; i++)
		printf("%02x", name[i]);
	puts("");
	return send_verb(args, MSG_VERB_ATTEST, "attested and online");
}

int command_device_drain(const struct args *args)
{
	enum secpool_error error = SECPOOL_OK;
	bool done = false;

	if (args->no_wait)
		return send_verb(args, MSG_VERB_DRAIN, "is being drained");
	error = device_ask_verb(args, MSG_VERB_DRAIN, MSG_REPLY, NULL);
	while (!error && !done) {
		clock_sleep_ns(LOOK_NS);
		error = look_drained(args, &done);
	}
	if (error)
		return command_failed(error);
	printf("%s: drained and offline\n", args->words[0]);
	return STATUS_DONE;
}

/* What the scrub came to, when nothing is left of it; *run: when it began, by keymgrd. */
static enum secpool_error look_scrubbed(
	const struct args *args, uint64_t *run, struct msg_use_row *ret_use, bool *ret_done)
{
	struct conn_devices devices;
	enum secpool_error error = conn_devices_read(args->runtime, &devices);
	const struct msg_use_row *use;

	if (!error)
		error = devices.use_error;
	use = error ? NULL : conn_devices_use(&devices, args->words[0]);
	if (!error && (!use || use->scrub_run_ns == 0 || (*run && use->scrub_run_ns != *run)))
		error = err_set(SECPOOL_E_CLOSED,
			"the scrub of %.63s was begun anew, or the key manager was: what it came "
			"to "
			"is in 'secpool events'",
			args->words[0]);
	if (!error && use->state != MSG_DEVICE_ONLINE && use->state != MSG_DEVICE_DRAINING)
		error = err_set(SECPOOL_E_DEVICE_GONE, "device %.63s is %s: its scrub did not end",
			args->words[0], msg_device_state_name(use->state));
	if (!error) {
		*run = use->scrub_run_ns;
		*ret_use = *use;
		*ret_done = use->unscrubbed_bytes == use->differed_bytes;
	}
	conn_devices_done(&devices);
	return error;
}

int command_device_scrub(const struct args *args)
{
	char matched[SIZE_TEXT_BYTES], used[SIZE_TEXT_BYTES];
	struct msg_use_row use = {.slot = 0};
	enum secpool_error error;
	bool done = false;
	uint64_t run = 0;

	if (args->no_wait)
		return send_verb(
			args, MSG_VERB_SCRUB, "what no region uses is being overwritten again");
	error = device_ask_verb(args, MSG_VERB_SCRUB, MSG_REPLY, NULL);
	while (!error && !done) {
		error = look_scrubbed(args, &run, &use, &done);
		if (!error && !done)
			clock_sleep_ns(LOOK_NS);
	}
	if (error)
		return command_failed(error);
	printf("%s: %s overwritten and read back, %s in use and left alone\n", args->words[0],
		size_format(use.run_matched_bytes, matched), size_format(use.used_bytes, used));
	if (use.run_differed_bytes == 0 && use.run_failed_bytes == 0)
		return STATUS_DONE;
	return command_failed(err_set(SECPOOL_E_INTEGRITY,
		"%s: %llu bytes were read back otherwise and %llu could not be overwritten: they "
		"are "
		"not used again",
		args->words[0], (unsigned long long)use.run_differed_bytes,
		(unsigned long long)use.run_failed_bytes));
}

int command_device_inject(const struct args *args)
{
	return send_verb(args, MSG_VERB_INJECT, "injected");
}
