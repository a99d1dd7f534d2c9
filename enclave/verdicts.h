/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the enclave knows about devices: open challenges, the EK that belongs to an id, the highest reset counter of each EK, and the verdicts
 * with their end. Kept in memory for this run; the time is always an argument, so that the rules can be tested.
 *
 * A device's identity is its EK's name (TPM 2.0 part 1, section 16); the id is a label. Threads: one at a time.
 */
#ifndef SECPOOL_ENCLAVE_VERDICTS_H
#define SECPOOL_ENCLAVE_VERDICTS_H

#include <stdbool.h>
#include <stdint.h>

#include "enclave/quote_verify.h"
#include "lib/base/clock.h"
#include "lib/base/err.h"
#include "lib/wire/msg.h"

/* Devices known at once; challenges open at once: one more drops the oldest. */
enum { VERDICTS_DEVICES_MOST = 256, VERDICTS_CHALLENGES_MOST = 32 };
/* How long a challenge may wait for its evidence. A TPM's part was measured at 30 ms in software; discrete TPMs need up to some seconds. */
#define VERDICTS_CHALLENGE_NS (60 * CLOCK_NS_PER_S)

/* What was asked of a device. */
struct verdicts_challenge {
	struct msg_attest_begin claim; /* claim.id is empty in a free place */
	uint8_t ek_name[QUOTE_NAME_BYTES];
	uint8_t nonce[QUOTE_NONCE_BYTES];
	uint8_t secret[QUOTE_SECRET_BYTES]; /* what only the EK's TPM can give back */
	bool certified;                     /* the EK's certificate is good by the policy's CAs */
	char uncertified[192];              /* why not */
	uint64_t made_ns;
};

struct verdicts_device {
	char id[MSG_NAME_BYTES]; /* empty in a free place */
	uint8_t ek_name[QUOTE_NAME_BYTES];
	bool known;          /* ek_name is the EK this id was first accepted with, or an operator enrolled */
	char serial[MSG_NAME_BYTES]; /* of a known one; "": not known */
	bool offered;        /* the last evidence was refused, and it proved this: */
	uint8_t offered_ek[QUOTE_NAME_BYTES];
	char offered_serial[MSG_NAME_BYTES];
	bool live;           /* accepted, and not refused or void since */
	uint64_t expires_ns; /* of a live one */
	char reason[256];    /* of one that is not live */
};

struct verdicts_counter {
	uint8_t ek_name[QUOTE_NAME_BYTES];
	bool used;
	uint64_t resets; /* verdicts_resets */
};

struct verdicts {
	struct verdicts_device devices[VERDICTS_DEVICES_MOST];
	struct verdicts_counter counters[VERDICTS_DEVICES_MOST];
	struct verdicts_challenge challenges[VERDICTS_CHALLENGES_MOST];
};

/* An empty one is all zero. */

/* What a device's evidence proved. */
struct verdicts_proof {
	const char *id, *serial;
	const uint8_t *ek_name;
	uint64_t resets; /* verdicts_resets */
	bool listed;     /* the policy itself names this EK for the id */
};

/* A TPM's two counters as one that never goes back (TPM 2.0 part 2, section 10.11): resetCount rises with each TPM2_Startup(CLEAR), and restartCount begins again with it. */
static inline uint64_t verdicts_resets(uint32_t reset_count, uint32_t restart_count)
{
	return (uint64_t)reset_count << 32 | restart_count;
}

/*
 * Remembers the EK of an id, its serial ("": not known) and its highest counters, from an earlier run; counters only grow.
 * Errors: SECPOOL_E_EXISTS when another EK is known for it; SECPOOL_E_LIMIT; SECPOOL_E_INVALID (empty id). Nothing changed.
 */
enum secpool_error verdicts_know(struct verdicts *verdicts, const char *id, const uint8_t ek_name[QUOTE_NAME_BYTES], const char *serial, uint64_t resets) MUST_USE;

/* Keeps a challenge (copied, with its made_ns); it takes the place of an older one of the same id, or of the oldest of all. */
void verdicts_put_challenge(struct verdicts *verdicts, const struct verdicts_challenge *challenge);

/*
 * Takes an id's challenge out: it is answered once. Errors: SECPOOL_E_ATTESTATION when there is none (evidence that was replayed, or too late).
 */
enum secpool_error verdicts_take_challenge(struct verdicts *verdicts, const char *id, uint64_t now_ns, struct verdicts_challenge *ret_challenge) MUST_USE;

/*
 * Whether this id may come with this EK and serial: the EK is the one known for the id, or none is (listed overrules the one that was known); the serial is no other id's that has another EK:
 * serials are labels, and the first who had one keeps it. Whether another live id has the EK is seen when the device is accepted (verdicts_accept).
 * Errors: SECPOOL_E_ATTESTATION, with the reason.
 */
enum secpool_error verdicts_may_claim(const struct verdicts *verdicts, const struct verdicts_proof *proof) MUST_USE;

/* Whether this EK is known for the id: first accepted, enrolled, or from an earlier run. */
bool verdicts_is_known(const struct verdicts *verdicts, const char *id, const uint8_t ek_name[QUOTE_NAME_BYTES]);

/*
 * Takes a device in whose evidence was good; the EK and the serial are remembered for the id, the counters for the EK. Checks verdicts_may_claim again, and that the counters (verdicts_resets) did not go
 * back: smaller ones are an older state put back.
 * An EK that another live id has proved too ends that one's verdict: both are refused, and stay so until one is attested alone.
 * Errors: SECPOOL_E_ATTESTATION, SECPOOL_E_LIMIT. Nothing else changed.
 */
enum secpool_error verdicts_accept(struct verdicts *verdicts, const struct verdicts_proof *proof, uint64_t expires_ns) MUST_USE;

/* The evidence that proved this was refused for who the device is; an operator may take it in (verdicts_enrol). Without room for the id: nothing. */
void verdicts_offer(struct verdicts *verdicts, const struct verdicts_proof *proof);

/*
 * An operator takes in what the id offered last: its EK and serial are the id's now, in the place of others; other ids that are not live lose that serial. It is attested anew afterwards. *ret_device: what was taken in.
 * Errors: SECPOOL_E_NOT_FOUND (nothing was offered since the start or the last acceptance); SECPOOL_E_EXISTS (a live id has the serial). Nothing changed.
 */
enum secpool_error verdicts_enrol(struct verdicts *verdicts, const char *id, struct verdicts_device *ret_device) MUST_USE;

/* The id's evidence is void from now on. An id that is not known: nothing. */
void verdicts_void(struct verdicts *verdicts, const char *id, const char *reason);

/* Whether an id may get data now. Errors: SECPOOL_E_NOT_ATTESTED naming it, with the reason. */
enum secpool_error verdicts_fresh(const struct verdicts *verdicts, const char *id, uint64_t now_ns, struct verdicts_device *ret_device) MUST_USE;

#endif
