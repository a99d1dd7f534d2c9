/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lists that `secpool` shows, one row at a time, so that no list ever holds up the loop. Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_LISTS_H
#define SECPOOL_KEYMGR_LISTS_H

#include "keymgr/daemon.h"

/* Whether the key manager has this list (enum msg_list_kind). */
bool lists_known(uint32_t what);

/*
 * The row after *after, whose number becomes the new *after. ret_row's type and fields are set, its number kept.
 * Errors: SECPOOL_E_NOT_FOUND at the end; SECPOOL_E_STORE.
 */
enum secpool_error lists_next(
	struct daemon *daemon, uint32_t what, uint64_t *after, struct msg *ret_row) MUST_USE;

#endif
