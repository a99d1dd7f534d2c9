/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a region, in this order and resumed after a crash at any point: key destroyed in the enclave, with its audit record -> durable record (regions_release) -> every extent overwritten and read back -> receipt signed, stored, sent -> the row is gone. Also
 * the background scrub of space whose past is unknown. Threads: one (the loop's); the overwriting is scrub.h's thread.
 */
#ifndef SECPOOL_KEYMGR_RELEASES_H
#define SECPOOL_KEYMGR_RELEASES_H

#include "keymgr/daemon.h"
#include "keymgr/regions.h"

struct server_connection;

/* Starts the scrub thread; what a crash left half done is made ready to be done again. */
enum secpool_error releases_new(struct daemon *daemon, struct releases **ret_releases) MUST_USE;
void releases_free(struct releases *releases);

/*
 * Ends a region; calling it again for one that is releasing goes on with it. It begins when the loop is back, together with all others that were asked for meanwhile, so that the disk is waited for
 * once for each step and not for each region. connection: who gets the RECEIPT with this
 * number, or NULL. A failure is answered to the connection; one of the store ends the daemon.
 */
void releases_begin(struct daemon *daemon, const struct regions_row *row, enum msg_client_end client,
	struct server_connection *connection, uint32_t number);

struct ending;
/* endings.h: the region's key is destroyed; the connection that asked gets its receipt when its space is done with. */
void releases_begun(struct daemon *daemon, const struct ending *ending);

/*
 * A region that never was live: its key, if the enclave made one, is destroyed, its space is free, its row is gone. No receipt: there was nothing to
 * release. A failure ends the daemon.
 */
void releases_undo(struct daemon *daemon, uint64_t region);

/* The connection has ended: its receipts are only stored. */
void releases_forget(struct daemon *daemon, const struct server_connection *connection);

/* Something changed (a device came or went, space was released): goes on with what can be done. */
void releases_kick(struct daemon *daemon);

#endif
