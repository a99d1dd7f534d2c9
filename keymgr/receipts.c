/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/receipts.h"

#include <string.h>

#include "enclave/receipt.h"
#include "keymgr/auditlog.h"
#include "keymgr/directory.h"

static enum secpool_error read_document(
	struct daemon *daemon, uint64_t number, char document[MSG_RECEIPT_BYTES])
{
	struct directory_rows *rows = NULL;
	enum secpool_error error =
		directory_query(daemon->directory, "SELECT text FROM receipts WHERE number = ?1",
			DIRECTORY_VALUES(DIRECTORY_N(number)), &rows);

	if (!error && directory_next(rows, &error))
		directory_get_text(rows, 0, document, MSG_RECEIPT_BYTES);
	else if (!error)
		error = err_set(SECPOOL_E_NOT_FOUND, "there is no receipt %llu",
			(unsigned long long)number);
	directory_done(rows);
	return error;
}

/* The facts again, for the enclave to say how they stand now. */
static enum secpool_error sign_again(
	struct daemon *daemon, const struct receipt_facts *facts, struct msg *ret_answer)
{
	struct msg request = {.type = MSG_ENC_RECEIPT};
	struct msg_enc_receipt *again = &request.u.enc_receipt;

	again->region = facts->region;
	MSG_SET(again->tenant, facts->tenant);
	again->bytes = facts->bytes;
	again->copies = facts->copies;
	again->epoch = facts->epoch;
	again->destroyed_ns = facts->destroyed_ns;
	again->generation = facts->generation;
	again->released_ns = facts->released_ns;
	again->scrubbed_bytes = facts->scrubbed_bytes;
	again->unreachable_bytes = facts->unreachable_bytes;
	again->readback = receipt_readback_number(facts->readback);
	again->client = receipt_client_number(facts->client);
	again->number = facts->number;
	memcpy(again->previous, facts->previous, sizeof again->previous);
	return daemon_ask(daemon, &request, -1, MSG_RECEIPT, ret_answer);
}

enum secpool_error receipts_handle_get(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra)
{
	struct daemon *daemon = connection->daemon;
	struct msg answer = {.type = MSG_RECEIPT};
	char *document = answer.u.receipt.document;
	struct receipt_facts facts;
	enum secpool_error error = read_document(daemon, msg->u.receipt_get.number, document);

	(void)extra;
	if (!error)
		error = receipt_verify(document, strlen(document), NULL, &facts);
	if (!error && !facts.durable && facts.generation <= daemon->generation) {
		error = sign_again(daemon, &facts, &answer);
		if (!error)
			error = auditlog_sync(daemon->auditlog);
	}
	if (error)
		return error;
	answer.number = msg->number;
	server_send(connection, &answer, -1);
	return SECPOOL_OK;
}
