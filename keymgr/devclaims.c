/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/devclaims.h"

#include <string.h>

#include "keymgr/directory.h"
#include "keymgr/events.h"
#include "keymgr/hotplug.h"

void devclaims_made(struct devices *devices, const char *id, uint64_t bytes)
{
	struct devices_claim *claim = NULL;

	for (size_t i = 0; i < DEVICES_CLAIMS_MOST && !claim; i++)
		if (strcmp(devices->claims[i].id, id) == 0)
			claim = &devices->claims[i];
	if (!claim)
		claim = &devices->claims[devices->next_claim++ % DEVICES_CLAIMS_MOST];
	MSG_SET(claim->id, id);
	claim->bytes = bytes;
}

void devclaims_proved(struct devices *devices, struct devices_row *row)
{
	row->attested_bytes = 0;
	for (size_t i = 0; i < DEVICES_CLAIMS_MOST; i++)
		if (strcmp(devices->claims[i].id, row->id) == 0)
			row->attested_bytes = devices->claims[i].bytes;
}

/* A row that is not in the directory yet gets there with these when it comes online. */
static enum secpool_error store(struct daemon *daemon, const struct devices_row *row,
	const struct msg_attest_verdict *verdict)
{
	return directory_run(daemon->directory,
		"UPDATE devices SET ek = ?2, resets = ?3, serial = ?4 WHERE slot = ?1",
		DIRECTORY_VALUES(DIRECTORY_N(row->slot),
			DIRECTORY_B(verdict->ek_name, DEVICES_EK_BYTES),
			DIRECTORY_N(verdict->resets), DIRECTORY_T(verdict->serial)));
}

static void keep(struct devices_row *row, const struct msg_attest_verdict *verdict)
{
	memcpy(row->ek, verdict->ek_name, sizeof row->ek);
	row->ek_known = true;
	row->resets = verdict->resets;
	MSG_SET(row->serial, verdict->serial);
}

enum secpool_error devclaims_remember(
	struct daemon *daemon, struct devices_row *row, const struct msg_attest_verdict *verdict)
{
	struct msg_attest_verdict told = *verdict;
	/* lint: memcmp of public bytes */
	bool same = memcmp(row->ek, told.ek_name, sizeof row->ek) == 0;
	enum secpool_error error;

	/* another TPM, which the policy names for the id, is the policy's to remember */
	if (row->ek_known && !same)
		return SECPOOL_OK;
	if (row->ek_known && told.resets < row->resets)
		told.resets = row->resets;
	if (row->ek_known && told.resets == row->resets && strcmp(row->serial, told.serial) == 0)
		return SECPOOL_OK;
	error = store(daemon, row, &told);
	if (!error)
		keep(row, &told);
	return error;
}

enum secpool_error devclaims_handle_enrol(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra)
{
	struct daemon *daemon = connection->daemon;
	struct msg ask = {.type = MSG_ENC_DEVICE_ENROL}, answer;
	struct events_about about = {.device = msg->u.device_enrol.id};
	const struct msg_attest_verdict *verdict = &answer.u.attest_verdict;
	struct devices_row *row = devices_find(daemon->devices, about.device);
	struct msg done = {.type = MSG_DEVICE_ENROLLED, .number = msg->number};
	enum secpool_error error;

	(void)extra;
	if (!devices_word(about.device))
		return err_set(SECPOOL_E_INVALID, "no device has such a name");
	MSG_SET(ask.u.enc_device_enrol.id, about.device);
	error = daemon_ask(daemon, &ask, -1, MSG_ATTEST_VERDICT, &answer);
	devices_doubt(daemon->devices);
	if (!error && !row)
		error = devices_expect(daemon->devices, about.device, &row);
	if (!error)
		error = directory_run(daemon->directory,
			"UPDATE devices SET serial = '' WHERE serial = ?1 AND id <> ?2",
			DIRECTORY_VALUES(DIRECTORY_T(verdict->serial), DIRECTORY_T(about.device)));
	if (!error)
		error = store(daemon, row, verdict);
	if (error)
		return error;
	keep(row, verdict);
	events_record(daemon, "device-enrolled", &about, "serial %.63s, EK %02x%02x%02x%02x...",
		verdict->serial, verdict->ek_name[2], verdict->ek_name[3], verdict->ek_name[4],
		verdict->ek_name[5]);
	MSG_SET(done.u.device_enrolled.id, about.device);
	memcpy(done.u.device_enrolled.ek_name, verdict->ek_name, DEVICES_EK_BYTES);
	server_send(connection, &done, -1);
	return SECPOOL_OK;
}

void devclaims_doubt(struct daemon *daemon, const char *id, const uint8_t ek[DEVICES_EK_BYTES])
{
	for (size_t i = 0; i < daemon->devices->count; i++) {
		struct devices_row *row = daemon->devices->rows[i];
		char reason[ERR_DETAIL_BYTES];

		if (row->state != MSG_DEVICE_ONLINE || !row->ek_known || strcmp(row->id, id) == 0 ||
			memcmp(row->ek, ek, sizeof row->ek) != 0) /* lint: memcmp of public bytes */
			continue;
		if (devices_fresh(daemon, row->id) == SECPOOL_OK)
			continue;
		msg_set_text(reason, sizeof reason, err_detail());
		hotplug_check(daemon, row, MSG_CAUSE_TAG, 0);
		devices_leave(daemon, row, MSG_DEVICE_SUSPECT, reason);
	}
}
