/* SPDX-License-Identifier: Apache-2.0 */
/* What the front asks the enclave about a region's keys: a new one, and the end of one. Threads: one (the loop's). */
#ifndef SECPOOL_KEYMGR_REGIONKEYS_H
#define SECPOOL_KEYMGR_REGIONKEYS_H

#include "keymgr/regions.h"
#include "keymgr/server.h"

/*
 * The enclave makes a key of this epoch for the client of the connection, and holds it until regionkeys_send; *ret_wrapped is what the caller stores before that.
 * Errors: SECPOOL_E_NOT_ATTESTED (a device that the region has places on has no fresh evidence), SECPOOL_E_EXISTS, SECPOOL_E_LIMIT,
 * SECPOOL_E_SESSION_EXPIRED, SECPOOL_E_STORE, those of an audit that can't be appended to. No key is left then.
 */
enum secpool_error regionkeys_make(struct server_connection *connection, const struct regions_row *region, uint64_t epoch, struct msg_enc_key_wrapped *ret_wrapped) MUST_USE;

/*
 * Stores what regionkeys_make gave, all or none: it is on the disk when this returns. Errors: SECPOOL_E_STORE; the daemon ends where nodes of the key tree can't be stored, since later keys would lie below them.
 */
enum secpool_error regionkeys_keep(struct daemon *daemon, const struct msg_enc_key_wrapped *const *keys, size_t count) MUST_USE;

/* A key that is held, and how its sending ended; error: SECPOOL_E_BUSY and SECPOOL_E_CLOSED are the client's affair, SECPOOL_E_SESSION_EXPIRED. */
struct regionkeys_sent {
	uint64_t region, epoch;
	enum secpool_error error;
};

/*
 * The enclave sends up to MSG_KEYS_MAX keys that it holds to their clients, by itself, once the records of all are on disk. One that was not sent is the caller's to end (regionkeys_end).
 * Errors: those of an audit that can't be appended to, SECPOOL_E_BUSY (a generation is under way): none was sent.
 */
enum secpool_error regionkeys_send(struct daemon *daemon, struct regionkeys_sent *keys, size_t count) MUST_USE;

/* This thread's sentence for one that was not sent to process pid. */
enum secpool_error regionkeys_not_sent(enum secpool_error error, int pid) MUST_USE;

/* Overwrites what is stored in the slots, and lets the enclave forget it: its program may go on with the key. Errors: SECPOOL_E_STORE. */
enum secpool_error regionkeys_erase(struct daemon *daemon, const uint64_t *slots, size_t count) MUST_USE;

/*
 * Ends the enclave's handle on the key of an epoch, or on all (epoch 0). One that it does not hold (it was started anew) is gone as well: its only copy was the wrapped one. ret_answer: ENC_KEY_DESTROYED, may be NULL.
 * It becomes durable with the next generation of the key tree (anchor.h). The record is on disk when this returns. Errors: those of an audit that can't be appended to: it has not ended.
 */
enum secpool_error regionkeys_end(struct daemon *daemon, uint64_t region, uint64_t epoch, struct msg *ret_answer) MUST_USE;
/* The same for one of many: it counts as destroyed after auditlog_sync, which the caller calls once for all. */
enum secpool_error regionkeys_end_unsynced(struct daemon *daemon, uint64_t region, uint64_t epoch, struct msg *ret_answer) MUST_USE;

#endif
