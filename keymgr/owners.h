/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The processes that own regions, watched by pidfd: a region is released by its process's death, never by its silence. A process that
 * lives but stays away longer than the policy's grace can't take its regions over again; its space stays its own until it is dead.
 * Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_OWNERS_H
#define SECPOOL_KEYMGR_OWNERS_H

#include "keymgr/daemon.h"
#include "lib/base/os.h"

enum secpool_error owners_new(struct owners **ret_owners) MUST_USE;
void owners_free(struct owners *owners);

/* After a start: watches the owners of all live regions, releases regions of the dead, undoes those that were never finished. */
enum secpool_error owners_start(struct daemon *daemon) MUST_USE;

/*
 * Watches a process; one that is watched already is no longer away.
 * Errors: SECPOOL_E_NOT_FOUND (it has ended), SECPOOL_E_SYSTEM, SECPOOL_E_NO_MEMORY.
 */
enum secpool_error owners_watch(struct daemon *daemon, const struct os_process *process) MUST_USE;

/*
 * The process has no session any more. One without a live region is forgotten: so there are never more owners, each with a descriptor, than
 * connections (bounded for each user) and regions (bounded by quotas).
 */
void owners_away(struct daemon *daemon, const struct os_process *process);

/* How many processes are watched. */
unsigned owners_count(const struct owners *owners);

/* Signals the process, with the region's number as the signal's value (si_value, SI_QUEUE). One that has ended is nobody any more. */
void owners_signal(struct daemon *daemon, const struct os_process *process, int number, uint64_t region);

/* Whether it may take its regions over. Errors: SECPOOL_E_SESSION_EXPIRED, SECPOOL_E_NOT_FOUND. */
enum secpool_error owners_may_resume(
	struct daemon *daemon, const struct os_process *process) MUST_USE;

#endif
