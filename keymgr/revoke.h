/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a new policy takes back: a live region whose tenant, or whose user, may not have it any more. Its stored keys are overwritten and the enclave's record of them ends; the audit and an event say so. Its
 * program, whose session ended when the policy came and gets no new one, gives the region up when it is told that (lib/giveup.h). The space waits for the program's end: it may still map it.
 *
 * Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_REVOKE_H
#define SECPOOL_KEYMGR_REVOKE_H

#include "keymgr/daemon.h"
#include "lib/base/os.h"

/* After a start: regions of tenants that the policy does not name. Errors: those of the directory, of the audit and of the keys' file. */
enum secpool_error revoke_unknown_tenants(struct daemon *daemon) MUST_USE;

/*
 * After a start: tenants that use more than the policy gives them, each with an event (`over-quota`). Nothing is taken back: no more regions are made for them until they are below. Errors: those of the directory.
 */
enum secpool_error revoke_tell_quotas(struct daemon *daemon) MUST_USE;

/*
 * The policy refused this process a session as the tenant: its regions of that tenant. Errors: those of an audit that can't be appended to: what is left of them waits for the next call. Another failure ends the daemon.
 */
enum secpool_error revoke_refused(struct daemon *daemon, const struct os_process *process, const char *tenant) MUST_USE;

#endif
