/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/regionkeys.h"

#include "keymgr/anchor.h"
#include "keymgr/auditlog.h"
#include "keymgr/directory.h"
#include "keymgr/extents.h"
#include "keymgr/session.h"
#include "keymgr/wraps.h"

/* The ids of the devices that a region has places on, as many as the message has fields; the front has checked all of them. */
static enum secpool_error name_devices(
	struct daemon *daemon, uint64_t region, struct msg_enc_key_create *create)
{
	struct directory_rows *rows = NULL;
	enum secpool_error error = directory_query(daemon->directory,
		"SELECT d.id FROM devices d WHERE d.slot IN (SELECT slot FROM extents"
		" WHERE region = ?1 AND state IN (?3, ?4)) ORDER BY d.slot LIMIT ?2",
		DIRECTORY_VALUES(DIRECTORY_N(region), DIRECTORY_N(MSG_LANES_MAX),
			DIRECTORY_N(EXTENTS_IN_USE), DIRECTORY_N(EXTENTS_TARGET)),
		&rows);

	while (!error && directory_next(rows, &error))
		directory_get_text(rows, 0,
			(char *)create->devices + MSG_NAME_BYTES * create->device_count++,
			MSG_NAME_BYTES);
	directory_done(rows);
	return error;
}

enum secpool_error regionkeys_make(struct server_connection *connection,
	const struct regions_row *region, uint64_t epoch, struct msg_enc_key_wrapped *ret_wrapped)
{
	struct daemon *daemon = connection->daemon;
	struct msg request = {.type = MSG_ENC_KEY_CREATE}, answer;
	struct msg_enc_key_create *create = &request.u.enc_key_create;
	const struct msg_enc_key_wrapped *wrapped = &answer.u.enc_key_wrapped;
	enum secpool_error error;

	create->session = connection->session->id;
	create->region = region->id;
	create->epoch = epoch;
	create->page_bytes = region->page_bytes;
	error = name_devices(daemon, region->id, create);
	if (!error)
		error = daemon_ask(daemon, &request, -1, MSG_ENC_KEY_WRAPPED, &answer);
	if (!error &&
		(wrapped->wrapped_bytes == 0 || wrapped->wrapped_bytes > sizeof wrapped->wrapped ||
			wrapped->region != region->id || wrapped->epoch != epoch ||
			wrapped->slot == 0))
		error = err_set(SECPOOL_E_INTERNAL, "the enclave gave no key for region %llu",
			(unsigned long long)region->id);
	if (!error)
		*ret_wrapped = *wrapped;
	return error;
}

enum secpool_error regionkeys_send(
	struct daemon *daemon, struct regionkeys_sent *keys, size_t count)
{
	struct msg request = {.type = MSG_ENC_KEYS_SEND}, answer;
	struct msg_enc_keys_send *send = &request.u.enc_keys_send;
	enum secpool_error error;

	if (count == 0)
		return SECPOOL_OK;
	if (count > MSG_KEYS_MAX)
		return err_set(SECPOOL_E_INTERNAL, "%zu keys are to be sent at once", count);
	send->count = (uint32_t)count;
	for (size_t i = 0; i < count; i++) {
		send->regions[i] = keys[i].region;
		send->epochs[i] = keys[i].epoch;
	}
	error = daemon_ask(daemon, &request, -1, MSG_ENC_KEYS_SENT, &answer);
	for (size_t i = 0; i < count && !error; i++)
		keys[i].error =
			answer.u.enc_keys_sent.errors[i]
				? err_from_number((uint32_t)answer.u.enc_keys_sent.errors[i])
				: SECPOOL_OK;
	return error;
}

enum secpool_error regionkeys_not_sent(enum secpool_error error, int pid)
{
	if (error == SECPOOL_E_BUSY)
		return err_set(
			error, "process %d does not read its socket: its key can't be sent", pid);
	if (error == SECPOOL_E_CLOSED)
		return err_set(
			error, "process %d has closed its socket: its key can't be sent", pid);
	return err_set(error, "the key of process %d was not sent", pid);
}

enum secpool_error regionkeys_end(
	struct daemon *daemon, uint64_t region, uint64_t epoch, struct msg *ret_answer)
{
	enum secpool_error error = regionkeys_end_unsynced(daemon, region, epoch, ret_answer);

	return error ? error : auditlog_sync(daemon->auditlog);
}

enum secpool_error regionkeys_end_unsynced(
	struct daemon *daemon, uint64_t region, uint64_t epoch, struct msg *ret_answer)
{
	struct msg request = {.type = MSG_ENC_KEY_DESTROY};

	request.u.enc_key_destroy.region = region;
	request.u.enc_key_destroy.epoch = epoch;
	anchor_wanted(daemon);
	return daemon_ask(daemon, &request, -1, MSG_ENC_KEY_DESTROYED, ret_answer);
}

enum secpool_error regionkeys_keep(
	struct daemon *daemon, const struct msg_enc_key_wrapped *const *keys, size_t count)
{
	enum secpool_error error = wraps_put_all(daemon->wraps, keys, count);
	bool nodes = false;

	for (size_t i = 0; i < count; i++)
		nodes = nodes || keys[i]->node_count > 0;
	if (error && nodes)
		daemon_fail(daemon, "key-tree-not-stored", error);
	return error;
}

enum secpool_error regionkeys_erase(struct daemon *daemon, const uint64_t *slots, size_t count)
{
	struct msg request = {.type = MSG_ENC_LEAF_DROP};
	struct msg_enc_leaf_drop *drop = &request.u.enc_leaf_drop;
	enum secpool_error error = SECPOOL_OK;

	for (size_t i = 0; i < count && !error; i++) {
		if (slots[i] != 0)
			drop->slots[drop->count++] = slots[i];
		if (drop->count == MSG_LEAVES_MAX || (i + 1 == count && drop->count > 0)) {
			error = daemon_ask(daemon, &request, -1, MSG_REPLY, NULL);
			drop->count = 0;
		}
	}
	anchor_wanted(daemon);
	return error ? error : wraps_erase_all(daemon->wraps, slots, count);
}
