/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting until the devices of `secpool up` are online, and the space of new ones is scrubbed. Threads: none. */
#ifndef SECPOOL_CLI_SETTLE_H
#define SECPOOL_CLI_SETTLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/spawn.h"

struct settle_result {
	size_t online, away; /* away: devices that were there before, and are pulled or refused */
	uint64_t free_bytes;
};

/*
 * Waits for dev0 .. dev<count-1>; as long as something moves on, and 60 s without that. is_new: devices that must come online, for they were made just now and nobody is to take them in; the others
 * may be away. processes: the daemons, in the order of enum spawn_daemon.
 * Errors: SECPOOL_E_ATTESTATION (a new device was refused, with the reason), SECPOOL_E_TIMEOUT, SECPOOL_E_DAEMON_GONE, SECPOOL_E_CLOSED (interrupted).
 */
enum secpool_error settle_devices(const char *runtime, const struct os_process *processes,
	uint64_t count, const bool *is_new, struct settle_result *ret_result) MUST_USE;

#endif
