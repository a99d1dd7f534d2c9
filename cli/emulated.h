/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The emulated devices' folders below the runtime folder. Their media are on tmpfs: where the runtime folder is not, `devices` is a link
 * to a folder of ours in /dev/shm. Threads: none.
 */
#ifndef SECPOOL_CLI_EMULATED_H
#define SECPOOL_CLI_EMULATED_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/err.h"

/* Longest id that emulated_id makes, with its NUL. */
enum { EMULATED_ID_BYTES = 16 };

/* "dev7" into id, which is returned. */
const char *emulated_id(uint64_t index, char id[EMULATED_ID_BYTES]);

/*
 * Makes the folders of devices dev0 .. dev<count-1> that are not there, each with its identity.json. is_new has count entries and
 * says which were made.
 * Errors: SECPOOL_E_NO_SPACE (the tmpfs is too small, with the numbers), SECPOOL_E_DENIED (the folder in /dev/shm is not ours), SECPOOL_E_SYSTEM.
 */
enum secpool_error emulated_make(
	const char *runtime, uint64_t count, uint64_t device_bytes, bool *is_new) MUST_USE;

/* Removes all devices with their contents. None: no error. */
enum secpool_error emulated_remove(const char *runtime) MUST_USE;

#endif
