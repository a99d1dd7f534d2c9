/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thread that overwrites space which nobody may read any more, and reads it back (overwrite.h; DESIGN.md section 6).
 *
 * Jobs are done one after the other; the loop learns of an end by a descriptor. The thread never touches the directory.
 * Threads: the loop's for all functions; guarded_copy_install and an unblocked SIGBUS are the caller's.
 */
#ifndef SECPOOL_KEYMGR_SCRUB_H
#define SECPOOL_KEYMGR_SCRUB_H

#include <stdbool.h>
#include <stdint.h>

#include "keymgr/extents.h"
#include "lib/base/err.h"
#include "lib/wire/msg.h"

struct scrub;

struct scrub_result {
	struct extents_row row; /* as it was submitted */
	enum msg_readback readback;
	bool untried; /* the device did not answer to the range before it: nothing was done */
};

/* Starts the thread. Errors: SECPOOL_E_NO_MEMORY, SECPOOL_E_SYSTEM, SECPOOL_E_CRYPTO. */
enum secpool_error scrub_new(struct scrub **ret_scrub) MUST_USE;

/* Ends the thread after at most 1 MiB; what was not finished is done again after the next start. NULL is allowed. */
void scrub_free(struct scrub *scrub);

/*
 * Queues a range of the media for overwriting. media_fd is borrowed (a duplicate is kept). capacity: the device's, behind which its control page is. A device that does not show its canary before and
 * after, within SCRUB_ANSWER_NS, is MSG_READBACK_UNREACHABLE whatever was read: one that is silent must not pass.
 * Ranges of the same device (the row's slot) that wait behind one that was MSG_READBACK_UNREACHABLE come back untried: they do not hold up the others.
 * Errors: SECPOOL_E_NO_MEMORY, SECPOOL_E_SYSTEM: nothing is queued.
 */
enum secpool_error scrub_submit(struct scrub *scrub, int media_fd, uint64_t capacity, const struct extents_row *row) MUST_USE;
#define SCRUB_ANSWER_NS (2000000000ull)

/* Readable while results wait. */
int scrub_fd(const struct scrub *scrub);

/* Takes one result. Errors: SECPOOL_E_NO_EVENT. */
enum secpool_error scrub_take(struct scrub *scrub, struct scrub_result *ret_result) MUST_USE;

#endif
