/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What ties the key tree to the TPM: a root key sealed for one generation, which is the value of a counter in the TPM's NV memory (docs/keys.md, "Generations").
 *
 * anchor_start opens the generation that the counter is at, or makes the first one; files are read and written there, before the sandbox. Afterwards a new generation is made in two steps: anchor_seal makes its file, which the
 * front writes and syncs; anchor_commit counts. Of two roots that were ever sealed at most one opens at the counter's value when it rests: each gets a greater last value than all before (the front remembers the greatest
 * across crashes), opens from the next value up to that, and the counter is driven up to it.
 * Threads: one at a time for each anchor.
 */
#ifndef SECPOOL_ENCLAVE_ANCHOR_H
#define SECPOOL_ENCLAVE_ANCHOR_H

#include <stdbool.h>
#include <stdint.h>

#include "enclave/keytree.h"
#include "enclave/recovery.h"
#include "enclave/tpm.h"
#include "lib/base/err.h"

/* STEPS_MOST: what the TPM counts in one call; a hardware TPM takes some tens of ms for each. */
enum { ANCHOR_AUDIT_BYTES = 32, ANCHOR_STEPS_MOST = 64, ANCHOR_SKIPPED_MOST = 1024 };

/* What is sealed: also the audit log's head and lengths as of that moment. */
struct anchor {
	struct tpm *tpm; /* stays open */
	uint32_t pcrs, counter_index;
	uint64_t generation; /* the counter's value and base: that of the tree's root */
	uint64_t counted;    /* the generation that the counter stands for while it is driven up to the next one */
	uint64_t base;       /* 0 until the store was recovered to another TPM */
	uint64_t asserted;   /* the generation whose freshness an operator asserted when it was recovered, 0: none; then no TPM's counter says so of what was before */
	uint64_t sealed;     /* the last value of the newest root that was sealed in this run */
	bool pending;	     /* a root was sealed, and is neither committed nor given up */
	uint64_t skipped_most; /* how far above the generation the next one may be: ANCHOR_SKIPPED_MOST unless its owner sets it, from the policy */
	uint8_t *auth;	     /* secret: the counter's */
	uint8_t audit_head[ANCHOR_AUDIT_BYTES];
	uint64_t audit_count, audit_bytes;
	bool has_recovery; /* each generation's root is encrypted to recovery_public too */
	uint8_t recovery_public[RECOVERY_PUBLIC_BYTES];
	bool taking; /* the store was recovered to this TPM, and anchor_taken is still to be called */
	int wraps_fd; /* the file of wrapped keys, to be read; -1 before anchor_start */
};

/* What a start is told. */
struct anchor_options {
	const char *tpm;       /* tpm_open's `where` */
	const char *state_dir;
	uint32_t pcrs;         /* of the SHA-256 bank: what roots are sealed to */
	bool may_provision;    /* a store may be made where there is none */
	bool recovery;         /* one that is made gets a recovery key (policy) */
	int recovery_fd;       /* where a new recovery key's text goes; 0: nowhere, and one that is needed is an error */
};

/*
 * Opens the store, or makes it where there is none and may_provision. tree: all zero. The TPM stays open in the anchor. Where the store was recovered (recover.h) and not taken yet its records are put in their places, and `taking` is set.
 * Errors: SECPOOL_E_STORE (rolled back: it says so, and what to put back; missing; damaged), SECPOOL_E_TPM, SECPOOL_E_POLICY (a recovery key, and nowhere to show it), SECPOOL_E_NO_LOCKED_MEMORY, SECPOOL_E_SYSTEM. anchor_done is called in any case.
 */
enum secpool_error anchor_start(struct anchor *anchor, struct keytree *tree, const struct anchor_options *options, bool *ret_provisioned) MUST_USE;

/*
 * What else belongs to the TPM that the store was recovered to is on the disk: from now on root.sealed is of it. The counter of the store before, if this very TPM has it, is removed.
 * Errors: SECPOOL_E_STORE, SECPOOL_E_TPM: the next start does it.
 */
enum secpool_error anchor_taken(struct anchor *anchor, const char *state_dir) MUST_USE;

/* Whether no generation was made since the store was recovered. */
static inline bool anchor_is_recovered(const struct anchor *anchor)
{
	return anchor->asserted > 0 && anchor->asserted == anchor->generation;
}

/* Wipes and closes; allowed on one that is all zero, where nothing was opened. The tree is its owner's. */
void anchor_done(struct anchor *anchor);

/* What the next generation seals as the audit log's head (SHA-256 of its newest record), how many records it has, and where in the file that one ends. */
void anchor_set_audit(struct anchor *anchor, const uint8_t head[ANCHOR_AUDIT_BYTES], uint64_t count, uint64_t bytes);

/*
 * Renews the tree and writes the new generation's file (keyfile.h) into writer. last: greater than that of every root that was ever sealed for this store, at most skipped_most above the generation.
 * Errors: SECPOOL_E_INVALID (last; or one is pending), SECPOOL_E_TPM, those of keytree_renew: nothing is pending.
 */
enum secpool_error anchor_seal(struct anchor *anchor, struct keytree *tree, uint64_t last, struct buf_writer *writer) MUST_USE;

/*
 * The file is on the disk: counts up to the new generation, at most ANCHOR_STEPS_MOST of the values that lie between; it is pending until none is left, and this is called again. Errors: SECPOOL_E_TPM: it may have counted or not, so the enclave must end: a new start finds out which. SECPOOL_E_INVALID: nothing is pending.
 */
enum secpool_error anchor_commit(struct anchor *anchor, struct keytree *tree) MUST_USE;

/* The file could not be written: the old generation stays. */
void anchor_give_up(struct anchor *anchor, struct keytree *tree);

#endif
