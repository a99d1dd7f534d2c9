/* SPDX-License-Identifier: Apache-2.0 */
/* Receipts that are stored, as they stand now. Threads: one (the loop's). */
#ifndef SECPOOL_KEYMGR_RECEIPTS_H
#define SECPOOL_KEYMGR_RECEIPTS_H

#include "keymgr/server.h"

/*
 * RECEIPT_GET, answered by RECEIPT: the one with this number. Where the key's destruction has become durable since it was signed, the same facts are signed anew and say so; the stored one, which the next one's `previous` is of, stays.
 * Errors: SECPOOL_E_NOT_FOUND (none has this number, or it is older than REGIONS_RECEIPTS_KEPT), SECPOOL_E_STORE.
 */
enum secpool_error receipts_handle_get(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra) MUST_USE;

#endif
