/* SPDX-License-Identifier: Apache-2.0 */
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/conn.h"
#include "cli/table.h"
#include "enclave/receipt.h"
#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "lib/base/size.h"
#include "lib/wire/sock.h"

/* How long keymgrd may take: it may be making a new generation of its keys. */
#define ASK_NS (150 * CLOCK_NS_PER_S)

enum { ANCHOR_BYTES_MOST = 65536, HEX_BYTES = 65 };

static const char *hex(const uint8_t digest[32], char text[HEX_BYTES])
{
	for (size_t i = 0; i < 32; i++)
		snprintf(text + 2 * i, 3, "%02x", digest[i]);
	return text;
}

static void print_json(const struct receipt_facts *f, bool anchored)
{
	struct json_object *o = json_object_new_object();
	char text[HEX_BYTES];

	json_object_object_add(o, "valid", json_object_new_boolean(1));
	json_object_object_add(o, "anchor_checked", json_object_new_boolean(anchored));
	json_object_object_add(o, "number", json_object_new_uint64(f->number));
	json_object_object_add(o, "tenant", json_object_new_string(f->tenant));
	json_object_object_add(o, "region", json_object_new_uint64(f->region));
	json_object_object_add(o, "key_destroyed_ns", json_object_new_uint64(f->destroyed_ns));
	json_object_object_add(o, "generation", json_object_new_uint64(f->generation));
	json_object_object_add(o, "epoch", json_object_new_uint64(f->epoch));
	json_object_object_add(o, "durable", json_object_new_boolean(f->durable));
	json_object_object_add(o, "backup_proof", json_object_new_boolean(f->backup_proof));
	json_object_object_add(o, "scrubbed_bytes", json_object_new_uint64(f->scrubbed_bytes));
	json_object_object_add(
		o, "unreachable_bytes", json_object_new_uint64(f->unreachable_bytes));
	json_object_object_add(o, "readback", json_object_new_string(f->readback));
	json_object_object_add(o, "client", json_object_new_string(f->client));
	json_object_object_add(o, "sha256", json_object_new_string(hex(f->digest, text)));
	json_object_object_add(
		o, "previous_sha256", json_object_new_string(hex(f->previous, text)));
	json_object_object_add(o, "attestation_key", json_object_new_string(f->ak_fingerprint));
	table_print_json(o);
}

static void print_text(const struct receipt_facts *f, bool anchored)
{
	char time[32], scrubbed[SIZE_TEXT_BYTES], unreachable[SIZE_TEXT_BYTES], text[HEX_BYTES];

	printf("the receipt is genuine: its signature and its key's certificate are right\n");
	printf("  number           %llu of this key manager\n", (unsigned long long)f->number);
	printf("  region           %llu of tenant %s\n", (unsigned long long)f->region, f->tenant);
	printf("  key destroyed    %s, generation %llu, epoch %llu, durable: %s, backup-proof: "
	       "%s\n",
		table_format_time(f->destroyed_ns, time), (unsigned long long)f->generation,
		(unsigned long long)f->epoch, f->durable ? "yes" : "no",
		f->backup_proof ? "yes" : "no");
	if (!f->durable)
		printf("                   an older copy of the key store may still give it back: "
		       "'secpool receipt get %llu' says when none does any more\n",
			(unsigned long long)f->number);
	printf("  overwritten      %s, read-back: %s\n", size_format(f->scrubbed_bytes, scrubbed),
		f->readback);
	if (f->unreachable_bytes)
		printf("  not reached      %s on devices that were gone\n",
			size_format(f->unreachable_bytes, unreachable));
	printf("  client           %s\n", f->client);
	printf("  SHA-256          %s\n", hex(f->digest, text));
	printf("  the one before   %s\n", hex(f->previous, text));
	printf("  attestation key  %s\n", f->ak_fingerprint);
	if (!anchored)
		printf("the attestation key was not compared with one that you know: "
		       "--anchor PEM does (state/anchor.pem)\n");
}

int command_receipt_verify(const struct args *args)
{
	char *document = NULL, *anchor = NULL;
	struct receipt_facts facts;
	size_t bytes = 0, anchor_bytes = 0;
	int status = STATUS_DONE;
	enum secpool_error error;

	error = os_read_file(args->words[0], RECEIPT_DOCUMENT_BYTES, &document, &bytes);
	if (!error && args->anchor)
		error = os_read_file(args->anchor, ANCHOR_BYTES_MOST, &anchor, &anchor_bytes);
	if (!error)
		error = receipt_verify(document, bytes, anchor, &facts);
	if (error) {
		status = command_failed(error);
	} else if (args->json) {
		print_json(&facts, anchor != NULL);
	} else {
		print_text(&facts, anchor != NULL);
	}
	free(document);
	free(anchor);
	return status;
}

int command_receipt_get(const struct args *args)
{
	struct msg msg = {.type = MSG_RECEIPT_GET}, answer;
	const char *text = args->words[0];
	char *rest = NULL;
	enum secpool_error error = SECPOOL_OK;
	int fd = -1;

	msg.u.receipt_get.number = strtoull(text, &rest, 10);
	if (text[0] < '0' || text[0] > '9' || *rest != '\0' || msg.u.receipt_get.number == 0)
		error = err_set(SECPOOL_E_NOT_FOUND, "'%.40s' is no receipt's number", text);
	if (!error)
		error = conn_open(args->runtime, "keymgr.sock", &fd);
	if (!error)
		error = sock_call(
			fd, &msg, NULL, 0, MSG_RECEIPT, &answer, NULL, clock_now_ns() + ASK_NS);
	os_close(&fd);
	if (error)
		return command_failed(error);
	fputs(answer.u.receipt.document, stdout);
	return STATUS_DONE;
}
