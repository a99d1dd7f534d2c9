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
	bool known;          /* ek_name is the EK this id was first accepted with */
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

/* A TPM's two counters as one that never goes back (TPM 2.0 part 2, section 10.11): resetCount rises with each TPM2_Startup(CLEAR), and restartCount begins again with it. */
static inline uint64_t verdicts_resets(uint32_t reset_count, uint32_t restart_count)
{
	return (uint64_t)reset_count << 32 | restart_count;
}

/*
 * Remembers the EK of an id, and its highest counters, from an earlier run; counters only grow.
 * Errors: SECPOOL_E_EXISTS when another EK is known for it; SECPOOL_E_LIMIT; SECPOOL_E_INVALID (empty id). Nothing changed.
 */
enum secpool_error verdicts_know(struct verdicts *verdicts, const char *id, const uint8_t ek_name[QUOTE_NAME_BYTES], uint64_t resets) MUST_USE;

/* Keeps a challenge (copied, with its made_ns); it takes the place of an older one of the same id, or of the oldest of all. */
void verdicts_put_challenge(struct verdicts *verdicts, const struct verdicts_challenge *challenge);

/*
 * Takes an id's challenge out: it is answered once. Errors: SECPOOL_E_ATTESTATION when there is none (evidence that was replayed, or too late).
 */
enum secpool_error verdicts_take_challenge(struct verdicts *verdicts, const char *id, uint64_t now_ns, struct verdicts_challenge *ret_challenge) MUST_USE;

/*
 * Whether this id may come with this EK: it is the one known for the id, or none is. listed: the policy itself names this EK for the id, which
 * overrules the one that was known. Whether another live id has it is seen when it is proved (verdicts_accept): the name alone proves nothing.
 * Errors: SECPOOL_E_ATTESTATION, with the reason.
 */
enum secpool_error verdicts_may_claim(const struct verdicts *verdicts, const char *id, const uint8_t ek_name[QUOTE_NAME_BYTES], bool listed) MUST_USE;

/*
 * Takes a device in whose evidence was good; the EK is remembered for the id, the counters for the EK. Checks verdicts_may_claim again, and that the counters (verdicts_resets) did not go
 * back: smaller ones are an older state put back.
 * An EK that another live id has proved too ends that one's verdict: both are refused, and stay so until one is attested alone.
 * Errors: SECPOOL_E_ATTESTATION, SECPOOL_E_LIMIT. Nothing else changed.
 */
enum secpool_error verdicts_accept(struct verdicts *verdicts, const char *id, const uint8_t ek_name[QUOTE_NAME_BYTES], bool listed, uint64_t resets, uint64_t expires_ns) MUST_USE;

/* The id's evidence is void from now on. An id that is not known: nothing. */
void verdicts_void(struct verdicts *verdicts, const char *id, const char *reason);

/* Whether an id may get data now. Errors: SECPOOL_E_NOT_ATTESTED naming it, with the reason. */
enum secpool_error verdicts_fresh(const struct verdicts *verdicts, const char *id, uint64_t now_ns, struct verdicts_device *ret_device) MUST_USE;

#endif
