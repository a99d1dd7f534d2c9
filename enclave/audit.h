/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The audit: a record for each thing that decides over keys, chained by SHA-256 and signed by the enclave with the key that signs receipts (docs/audit.md has the format).
 * The chain's state lives here; the front only appends lines to a file, because the enclave can't open one.
 *
 * A record is kept (audit_keep) before what it tells of is done: where it can't be appended, nothing is done. Where many come together it is added (audit_add), and one wait for the disk is for all of them: the front's, before it
 * tells anybody (ENC_SESSION_OPEN, ENC_KEY_DESTROY, ENC_RECEIPT), or the enclave's own (audit_sync), before it sends keys. What can't be refused (a session that ended, a refusal) is told
 * (audit_tell): a record of that kind that was not kept is counted in the next one's `missed`.
 *
 * audit_verify (enclave/audit_verify.h) is the other side, for untrusted bytes. Threads: one at a time for each struct audit.
 */
#ifndef SECPOOL_ENCLAVE_AUDIT_H
#define SECPOOL_ENCLAVE_AUDIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "enclave/receipt.h"
#include "lib/base/err.h"
#include "lib/base/log.h"

/* AUDIT_KIND(name in the code, word in the record) */
#define AUDIT_KINDS(AUDIT_KIND)                                                                    \
	AUDIT_KIND(PROVISIONED, "provisioned")     /* a start that made a new root key; with the signing key's certificate, and the SHA-256 of the policy file */ \
	AUDIT_KIND(UNSEALED, "unsealed")           /* a start that unsealed it; the same */             \
	AUDIT_KIND(RECOVERED, "recovered")         /* a start on another TPM, by the recovery key; the same */ \
	AUDIT_KIND(SESSION_OPENED, "session-opened")                                               \
	AUDIT_KIND(SESSION_CLOSED, "session-closed")                                               \
	AUDIT_KIND(KEY_CREATED, "key-created")     /* a region's key of an epoch above 1 is a rotation */ \
	AUDIT_KIND(KEY_DESTROYED, "key-destroyed") /* epoch 0: all of the region's keys */           \
	AUDIT_KIND(STORED_KEY_DESTROYED, "stored-key-destroyed") /* what is stored alone; its program may have the key */ \
	AUDIT_KIND(KEY_SEALED, "key-sealed")       /* sha256 is the manifest's root */                \
	AUDIT_KIND(KEY_GRANTED, "key-granted")     /* detail: to which tenant */                      \
	AUDIT_KIND(KEY_REVOKED, "key-revoked")     /* detail: from which tenant */                    \
	AUDIT_KIND(KEY_ATTACHED, "key-attached")   /* a key of a sealed region goes to who attaches it */ \
	AUDIT_KIND(RECEIPT, "receipt")             /* of a scrub; sha256 is the receipt's */          \
	AUDIT_KIND(ATTESTED, "device-attested")                                                    \
	AUDIT_KIND(NOT_ATTESTED, "attestation-refused")                                            \
	AUDIT_KIND(DEVICE_ENROLLED, "device-enrolled")                                             \
	AUDIT_KIND(DEVICE_VOID, "device-void")     /* lost or refused: its evidence ended */          \
	AUDIT_KIND(REFUSED, "refused")                                                             \
	/* what the front alone knows: by its word */                                              \
	AUDIT_KIND(ROTATION_ASKED, "rotation-asked")                                               \
	AUDIT_KIND(POLICY_LOADED, "policy-loaded")                                                 \
	AUDIT_KIND(POLICY_REFUSED, "policy-refused")                                               \
	AUDIT_KIND(REVOKED, "revoked")             /* a new policy ended this region */               \
	AUDIT_KIND(STOPPING, "stopping")

enum audit_kind {
#define AUDIT_ENUM(NAME, word) AUDIT_##NAME,
	AUDIT_KINDS(AUDIT_ENUM)
#undef AUDIT_ENUM
	AUDIT_KIND_COUNT,
};

enum {
	AUDIT_LINE_BYTES = 4096,  /* longest record, with its line end */
	AUDIT_ANCHOR_BYTES = 512, /* longest anchor, with its line end */
	AUDIT_DIGEST_BYTES = 32,
	AUDIT_REFUSALS = 120,     /* refusals that are recorded in a minute; the rest are counted */
};

/* What a record says beside its number, time and kind; what is 0 or NULL is left out. Texts are borrowed. */
struct audit_entry {
	enum audit_kind kind;
	bool by_front;              /* the front's word, not the enclave's */
	bool has_peer;              /* uid and pid are those of who asked */
	uint32_t uid, pid;
	const char *tenant, *device, *detail;
	uint64_t session, region, epoch, generation, bytes, receipt;
	enum secpool_error error;
	const uint8_t *sha256;      /* AUDIT_DIGEST_BYTES */
};

/* Appends a line (without its line end) to the file, "": none; wait: only once all of the file is on disk. On error nothing was appended, or the wait was in vain. */
typedef enum secpool_error audit_sink(void *arg, const char *line, bool wait);

struct audit {
	const struct receipt_signer *signer; /* borrowed */
	audit_sink *sink;
	void *sink_arg;
	uint64_t count;                   /* records in the file */
	uint64_t bytes;                   /* of the file */
	uint64_t missed;                  /* records that were not kept since the last one */
	uint8_t head[AUDIT_DIGEST_BYTES]; /* SHA-256 of the last line; zeros when there is none */
	struct log_limit refusals;
};

/* An empty chain. Without a sink every record is refused. */
void audit_init(struct audit *audit, const struct receipt_signer *signer);

/*
 * Takes the chain's end from <state_dir>/audit: the last anchor (<state_dir>/audit.anchor) must be of this signer, and every record behind it signed and in its place. fresh: no
 * store exists yet, or the operator begins a new audit; only then both files may be missing, and an anchor of no records is written. Runs before the sandbox.
 * Errors: SECPOOL_E_STORE (missing, damaged, cut off, of another signer) naming the file; SECPOOL_E_SYSTEM. The chain stays as it was.
 */
enum secpool_error audit_resume(struct audit *audit, const char *state_dir, bool fresh) MUST_USE;

/*
 * After audit_resume: whether the file has what was sealed with the key store: so many records, the last of them with this digest, ending so many bytes into it. Runs before the sandbox.
 * Errors: SECPOOL_E_STORE (fewer records: rolled back; another record in its place: another audit), SECPOOL_E_SYSTEM.
 */
enum secpool_error audit_check_sealed(const struct audit *audit, const char *state_dir, const uint8_t head[AUDIT_DIGEST_BYTES], uint64_t count, uint64_t bytes) MUST_USE;

/* Appends a record, on disk when this returns. Errors: the sink's, SECPOOL_E_CRYPTO, SECPOOL_E_LIMIT; the chain is as it was, and what the record tells of must not be done. */
enum secpool_error audit_keep(struct audit *audit, const struct audit_entry *entry) MUST_USE;

/* Appends a record, which is on disk after the next wait. Errors: as audit_keep. */
enum secpool_error audit_add(struct audit *audit, const struct audit_entry *entry) MUST_USE;

/* All records are on disk when this returns. Errors: the sink's: nobody knows which are. */
enum secpool_error audit_sync(const struct audit *audit) MUST_USE;

/* Appends a record of what was done already, or of a refusal (these are limited). One that can't be kept is counted. */
void audit_tell(struct audit *audit, const struct audit_entry *entry);

/*
 * The signed head: a line that says how many records there are and what the last one is. anchor: AUDIT_ANCHOR_BYTES, NUL-terminated, with its line end. Who holds it finds the loss of any record before it.
 * Errors: SECPOOL_E_CRYPTO.
 */
enum secpool_error audit_anchor(const struct audit *audit, char *anchor) MUST_USE;

#endif
