/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runtime folder of `secpool up`, with a mark that it is ours, and the taking away of all that is in it.
 * Only what carries the mark is ever removed. Threads: none.
 */
#ifndef SECPOOL_CLI_FOLDERS_H
#define SECPOOL_CLI_FOLDERS_H

#include <stdbool.h>

#include "lib/base/err.h"

/*
 * Makes or takes over the runtime folder with its log/ and state/, and locks it against another up or down; *ret_lock is closed at the end.
 * Errors: SECPOOL_E_EXISTS (a folder with other things in it), SECPOOL_E_DENIED (another user's, or others may write there), SECPOOL_E_SYSTEM.
 */
enum secpool_error folders_open(const char *runtime, int *ret_lock) MUST_USE;

/*
 * Locks an existing runtime folder. Errors: SECPOOL_E_NOT_FOUND (there is none, or an empty one), SECPOOL_E_EXISTS (not made by `secpool up`).
 */
enum secpool_error folders_lock(const char *runtime, int *ret_lock) MUST_USE;

/* Removes all that `secpool up` and the daemons made. ret_left: other things were in the runtime folder, which stays with them. */
enum secpool_error folders_remove(const char *runtime, bool *ret_left) MUST_USE;

#endif
