/* SPDX-License-Identifier: Apache-2.0 */
/* `secpool audit`: reads the audit's file by itself, so that it can be checked without a daemon, and on another machine. */
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/table.h"
#include "enclave/audit_verify.h"
#include "lib/base/clock.h"
#include "lib/base/os.h"

/* A record that is just being appended is waited for so often. */
enum { TRIES = 20, PEM_BYTES_MOST = 65536 };
#define TRY_NS (100ull * CLOCK_NS_PER_MS)

/* What to do with each record, in order. */
typedef void each_record(void *arg, const struct audit_record *record);

/* The file that was named, else the embedded default's, else the system's. */
static enum secpool_error find_audit(
	const struct args *args, char path[PATH_MAX], char anchor[PATH_MAX])
{
	int count = snprintf(path, PATH_MAX, "%s%s", args->audit ? args->audit : args->runtime,
		args->audit ? "" : "/state/audit");

	if (!args->audit && count < PATH_MAX && access(path, F_OK) != 0)
		count = snprintf(path, PATH_MAX, "/var/lib/secpool/audit");
	if (count >= PATH_MAX || snprintf(anchor, PATH_MAX, "%s.anchor", path) >= PATH_MAX)
		return err_set(SECPOOL_E_LIMIT, "path too long: %.100s", path);
	return SECPOOL_OK;
}

/* All lines. ret_torn: bytes behind the last line end. */
static enum secpool_error verify_lines(struct audit_verifier *verifier, const char *path,
	each_record *each, void *arg, size_t *ret_torn)
{
	FILE *file = fopen(path, "re");
	enum secpool_error error = SECPOOL_OK;
	struct audit_record record;
	char *line = NULL;
	size_t room = 0;
	ssize_t got;

	if (!file)
		return os_error("%s", path);
	*ret_torn = 0;
	while (!error && (got = getline(&line, &room, file)) > 0) {
		if (line[got - 1] != '\n') {
			*ret_torn = (size_t)got;
			break;
		}
		error = audit_verify_line(verifier, line, (size_t)got - 1, &record);
		if (!error && each)
			each(arg, &record);
	}
	if (!error && ferror(file))
		error = os_error("read %s", path);
	free(line);
	fclose(file);
	return error;
}

struct inputs {
	char path[PATH_MAX], anchor_path[PATH_MAX];
	char *pem; /* NULL: none */
	bool has_receipt;
	uint8_t receipt[AUDIT_DIGEST_BYTES];
};

static enum secpool_error read_inputs(const struct args *args, struct inputs *inputs)
{
	struct receipt_facts facts;
	char *document = NULL;
	size_t bytes = 0;
	enum secpool_error error = find_audit(args, inputs->path, inputs->anchor_path);

	if (!error && args->anchor)
		error = os_read_file(args->anchor, PEM_BYTES_MOST, &inputs->pem, &bytes);
	if (error || !args->receipt)
		return error;
	error = os_read_file(args->receipt, RECEIPT_DOCUMENT_BYTES, &document, &bytes);
	if (!error)
		error = receipt_verify(document, bytes, inputs->pem, &facts);
	if (!error) {
		memcpy(inputs->receipt, facts.digest, sizeof inputs->receipt);
		inputs->has_receipt = true;
	}
	free(document);
	return error;
}

/* One look at both files; the anchor first, so that the records that it counts are there when they are read. */
static enum secpool_error verify_once(const struct inputs *inputs, each_record *each, void *arg,
	struct audit_report *ret_report, size_t *ret_torn)
{
	struct audit_verifier *verifier = NULL;
	char *anchor = NULL;
	size_t bytes = 0;
	enum secpool_error error =
		os_read_file(inputs->anchor_path, AUDIT_ANCHOR_BYTES, &anchor, &bytes);

	if (error)
		error = err_set(SECPOOL_E_INTEGRITY,
			"%.150s: without the anchor nobody can tell whether records are missing "
			"at the end",
			err_detail());
	else
		error = audit_verifier_new(
			inputs->pem, inputs->has_receipt ? inputs->receipt : NULL, &verifier);
	if (!error)
		error = verify_lines(verifier, inputs->path, each, arg, ret_torn);
	if (!error && *ret_torn == 0)
		error = audit_verify_end(verifier, anchor, bytes, ret_report);
	audit_verifier_free(verifier);
	free(anchor);
	return error;
}

static enum secpool_error verify(const struct inputs *inputs, struct audit_report *ret_report)
{
	size_t torn = 0;
	enum secpool_error error;

	for (int i = 0; i < TRIES; i++) {
		error = verify_once(inputs, NULL, NULL, ret_report, &torn);
		if (error || torn == 0)
			return error;
		clock_sleep_ns(TRY_NS);
	}
	return err_set(SECPOOL_E_INTEGRITY,
		"the last %zu bytes are no whole record: keymgrd ended while it appended it (its "
		"next start cuts it off), or they were changed",
		torn);
}

static void print_report(const struct audit_report *r, const struct args *args)
{
	char time[32];

	printf("the audit is whole: each record is signed and in its place\n");
	printf("  records          %llu, of %llu starts\n", (unsigned long long)r->records,
		(unsigned long long)r->starts);
	printf("  anchored         %llu, at %s\n", (unsigned long long)r->anchored,
		table_format_time(r->anchor_ns, time));
	printf("  unanchored       %llu\n", (unsigned long long)(r->records - r->anchored));
	if (r->missed)
		printf("  not kept         %llu, by the enclave's count: refusals beyond the "
		       "limit, or no room\n",
			(unsigned long long)r->missed);
	printf("  head             %s\n", r->head);
	printf("  attestation key  %s\n", r->ak_fingerprint);
	if (args->receipt)
		printf("  receipt          is in it\n");
	if (!args->anchor)
		printf("the attestation key was not compared with one that you know: "
		       "--anchor PEM does (state/anchor.pem)\n");
}

static void print_json(const struct audit_report *r, const struct args *args)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "valid", json_object_new_boolean(1));
	json_object_object_add(o, "anchor_checked", json_object_new_boolean(args->anchor != NULL));
	json_object_object_add(
		o, "receipt_checked", json_object_new_boolean(args->receipt != NULL));
	json_object_object_add(o, "records", json_object_new_uint64(r->records));
	json_object_object_add(o, "anchored", json_object_new_uint64(r->anchored));
	json_object_object_add(o, "unanchored", json_object_new_uint64(r->records - r->anchored));
	json_object_object_add(o, "anchor_ns", json_object_new_uint64(r->anchor_ns));
	json_object_object_add(o, "not_kept", json_object_new_uint64(r->missed));
	json_object_object_add(o, "starts", json_object_new_uint64(r->starts));
	json_object_object_add(o, "head", json_object_new_string(r->head));
	json_object_object_add(o, "attestation_key", json_object_new_string(r->ak_fingerprint));
	table_print_json(o);
}

int command_audit_verify(const struct args *args)
{
	struct inputs inputs = {.pem = NULL};
	struct audit_report report;
	enum secpool_error error = read_inputs(args, &inputs);

	if (!error)
		error = verify(&inputs, &report);
	free(inputs.pem);
	if (error)
		return command_failed(error);
	if (args->json)
		print_json(&report, args);
	else
		print_report(&report, args);
	return STATUS_DONE;
}

/* ---- list ---- */

static const struct table_column columns[] = {
	{"NUMBER", "number", true},
	{"TIME", "time_ns", false},
	{"KIND", "kind", false},
	{"BY", "by", false},
	{"TENANT", "tenant", false},
	{"DEVICE", "device", false},
	{"UID", "uid", true},
	{"PID", "pid", true},
	{NULL, "session", true},
	{"REGION", "region", true},
	{"EPOCH", "epoch", true},
	{NULL, "generation", true},
	{NULL, "bytes", true},
	{NULL, "receipt", true},
	{NULL, "sha256", false},
	{NULL, "missed", true},
	{"ERROR", "error", false},
	{"DETAIL", "detail", false},
};

static void add_text(struct table *table, const char *text)
{
	if (text[0])
		table_text(table, text);
	else
		table_none(table);
}

static void add_number(struct table *table, bool there, uint64_t number)
{
	if (there)
		table_number(table, number);
	else
		table_none(table);
}

static void add_row(void *arg, const struct audit_record *r)
{
	struct table *table = arg;

	table_row(table);
	table_number(table, r->number);
	table_time(table, r->time_ns);
	table_text(table, r->kind);
	table_text(table, r->by_front ? "front" : "enclave");
	add_text(table, r->tenant);
	add_text(table, r->device);
	add_number(table, r->has_peer, r->uid);
	add_number(table, r->has_peer, r->pid);
	add_number(table, r->session != 0, r->session);
	add_number(table, r->region != 0, r->region);
	add_number(table, r->epoch != 0, r->epoch);
	add_number(table, r->generation != 0, r->generation);
	add_number(table, r->bytes != 0, r->bytes);
	add_number(table, r->receipt != 0, r->receipt);
	add_text(table, r->sha256);
	add_number(table, r->missed != 0, r->missed);
	add_text(table, r->error);
	add_text(table, r->detail);
}

int command_audit_list(const struct args *args)
{
	struct table *table = table_new(args->json, columns, sizeof columns / sizeof *columns);
	struct inputs inputs = {.pem = NULL};
	struct audit_report report;
	size_t torn = 0;
	enum secpool_error error = read_inputs(args, &inputs);

	/* what is good is shown, also where something behind it is not */
	if (!error)
		error = verify_once(&inputs, add_row, table, &report, &torn);
	table_print(table, "no records");
	table_free(table);
	return error ? command_failed(error) : STATUS_DONE;
}
