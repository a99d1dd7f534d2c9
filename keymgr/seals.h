/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sealed regions as clients ask for them (docs/sealed.md): sealing, grants, attaching, and their end. The enclave decides whether a wish is the owner's and whether a tenant may attach; here is what it takes to
 * remember that. Manifests are copied one after the other, a piece in each turn of the loop. Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_SEALS_H
#define SECPOOL_KEYMGR_SEALS_H

#include "keymgr/regions.h"
#include "keymgr/server.h"

struct seals;

/* state_dir: borrowed for the call. Errors: SECPOOL_E_STORE, SECPOOL_E_NO_MEMORY, SECPOOL_E_SYSTEM. */
enum secpool_error seals_new(struct daemon *daemon, const char *state_dir, struct seals **ret_seals) MUST_USE;
/* NULL is allowed. */
void seals_free(struct seals *seals);

/* Handlers of the dispatch table. */
enum secpool_error seals_handle_seal(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra) MUST_USE;
enum secpool_error seals_handle_grant(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra) MUST_USE;
enum secpool_error seals_handle_attach(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra) MUST_USE;

/* The connection has ended: what it asked for is given up. */
void seals_forget(struct daemon *daemon, const struct server_connection *connection);

/*
 * A sealed region that the session may read: its tenant's own, one that was granted to it, or one that it has attached. Errors: SECPOOL_E_NOT_FOUND (also for one that is not sealed), SECPOOL_E_STORE.
 */
enum secpool_error seals_readable(const struct server_connection *connection, uint64_t region, struct regions_row *ret_row) MUST_USE;

/* The region's row names no key any more: what is stored for its grantees is overwritten, its manifest goes, and who has attached it is told. Errors: SECPOOL_E_STORE. */
enum secpool_error seals_ended(struct daemon *daemon, uint64_t region) MUST_USE;

#endif
