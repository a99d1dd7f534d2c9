/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the enclave answers: one table of requests with the states in which each is allowed, the descriptors it needs, and its handler
 * (STYLE.md rule 20). A request that the table does not allow ends the enclave, because only a broken or hostile front sends one.
 *
 * A handler checks everything, then does it; an error means that nothing changed. The front is not believed: who a client is comes from its socket, what a
 * tenant may do from the policy that the starter opened, which devices are good from evidence.
 * Threads: one at a time for each struct requests.
 */
#ifndef SECPOOL_ENCLAVE_REQUESTS_H
#define SECPOOL_ENCLAVE_REQUESTS_H

#include <stdbool.h>
#include <stdint.h>

#include "enclave/audit.h"
#include "enclave/hostkeys.h"
#include "enclave/sessions.h"
#include "enclave/vault.h"
#include "enclave/verdicts.h"
#include "enclave/verifier.h"
#include "lib/wire/sock.h"
#include "policy/policy.h"

enum requests_state {
	REQUESTS_STARTING = 0, /* not in the sandbox yet */
	REQUESTS_SERVING = 1,
	REQUESTS_STOPPING = 2, /* ENC_STOP was taken */
	REQUESTS_STATES = 3,
};

/* A key that was made and is not with its client yet. */
struct requests_held {
	uint64_t session, region, epoch, page_bytes;
	int fd; /* secret: its page */
};

/* All that an enclave has. Large: static, not on a stack. */
struct requests {
	enum requests_state state;
	const struct policy *policy; /* borrowed */
	struct hostkeys keys;
	struct keytree tree;
	struct vault vault;          /* over the tree */
	struct sessions sessions;
	struct verdicts verdicts;
	struct verifier verifier;
	struct audit audit;
	struct requests_held held[MSG_KEYS_MAX];
	size_t held_count;
	uint8_t policy_sha256[32]; /* of the policy file */
};

/* Whether a request of this type is allowed in this state. */
bool requests_allowed(uint32_t type, enum requests_state state);

/* How many descriptors must come with it; 0 also for one that is not in the table. */
unsigned requests_fds(uint32_t type);

/*
 * Serves one request. extra: its descriptors; those that were not taken are closed. ret_answer is the answer to send (number included), a REPLY where the request failed or has none
 * of its own. False when the enclave must end after sending it: the request was not allowed, or was ENC_STOP.
 */
bool requests_serve(struct requests *requests, const struct msg *request, struct sock_extra *extra, struct msg *ret_answer);

/* Makes answer a REPLY with this error and the thread's detail. */
void requests_refuse(struct msg *answer, enum secpool_error error);

/* The handlers of the key tree (requests_tree.c). */
enum secpool_error requests_key_create(struct requests *requests, const struct msg *request, struct sock_extra *extra, struct msg *answer) MUST_USE;
enum secpool_error requests_keys_send(struct requests *requests, const struct msg *request, struct sock_extra *extra, struct msg *answer) MUST_USE;
enum secpool_error requests_key_destroy(struct requests *requests, const struct msg *request, struct sock_extra *extra, struct msg *answer) MUST_USE;
enum secpool_error requests_leaf_claim(struct requests *requests, const struct msg *request, struct sock_extra *extra, struct msg *answer) MUST_USE;
enum secpool_error requests_leaf_drop(struct requests *requests, const struct msg *request, struct sock_extra *extra, struct msg *answer) MUST_USE;
enum secpool_error requests_anchor_seal(struct requests *requests, const struct msg *request, struct sock_extra *extra, struct msg *answer) MUST_USE;
enum secpool_error requests_anchor_end(struct requests *requests, const struct msg *request, struct sock_extra *extra, struct msg *answer) MUST_USE;

/* Keys that no client has are closed: at the end. */
void requests_drop_held(struct requests *requests);
/* Of sealed regions (requests_seal.c). */
enum secpool_error requests_key_seal(struct requests *requests, const struct msg *request, struct sock_extra *extra, struct msg *answer) MUST_USE;
enum secpool_error requests_key_grant(struct requests *requests, const struct msg *request, struct sock_extra *extra, struct msg *answer) MUST_USE;
enum secpool_error requests_key_revoke(struct requests *requests, const struct msg *request, struct sock_extra *extra, struct msg *answer) MUST_USE;
enum secpool_error requests_key_attach(struct requests *requests, const struct msg *request, struct sock_extra *extra, struct msg *answer) MUST_USE;

/* ---- what both share ---- */

/* While a new generation is neither committed nor given up the tree stays as it is. Errors: SECPOOL_E_BUSY. */
enum secpool_error requests_check_resting(const struct requests *requests) MUST_USE;
/* Each of the devices named (MSG_NAME_BYTES each; 1 to MSG_LANES_MAX) must have evidence that is fresh now. */
enum secpool_error requests_check_devices(const struct requests *requests, const uint8_t *devices, uint32_t count) MUST_USE;
/* Sends a key to the client, which checks the sender's credentials. Never waits for one that does not read. Errors: SECPOOL_E_BUSY (it does not read its socket), SECPOOL_E_CLOSED (it closed it), without a sentence. */
enum secpool_error requests_send_key(const struct session *session, const struct requests_held *held) MUST_USE;
/* Makes answer ENC_KEY_WRAPPED of this leaf. */
void requests_put_leaf(const struct pagecipher_binding *binding, const struct keytree_added *leaf, struct msg *answer);

/* What the front asks of the audit (requests_audit.c), as the table calls it. */
enum secpool_error requests_audit_note(struct requests *requests, const struct msg *request, struct sock_extra *extra, struct msg *answer) MUST_USE;
enum secpool_error requests_audit_anchor(struct requests *requests, const struct msg *request, struct sock_extra *extra, struct msg *answer) MUST_USE;

/* Records that a request was refused with this error and the thread's detail. */
void requests_tell_refusal(struct requests *requests, const struct msg *request, enum secpool_error error);

/* The handlers of attestation (requests_attest.c), as the table calls them. */
enum secpool_error requests_attest_begin(struct requests *requests, const struct msg *request, struct sock_extra *extra, struct msg *answer) MUST_USE;
enum secpool_error requests_attest_evidence(struct requests *requests, const struct msg *request, struct sock_extra *extra, struct msg *answer) MUST_USE;
enum secpool_error requests_device_check(struct requests *requests, const struct msg *request, struct sock_extra *extra, struct msg *answer) MUST_USE;
enum secpool_error requests_device_void(struct requests *requests, const struct msg *request, struct sock_extra *extra, struct msg *answer) MUST_USE;
enum secpool_error requests_device_enrol(struct requests *requests, const struct msg *request, struct sock_extra *extra, struct msg *answer) MUST_USE;
enum secpool_error requests_device_known(struct requests *requests, const struct msg *request, struct sock_extra *extra, struct msg *answer) MUST_USE;

#endif
