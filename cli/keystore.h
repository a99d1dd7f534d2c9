/* SPDX-License-Identifier: Apache-2.0 */
/* The key store, as commands ask for it. Threads: none. */
#ifndef SECPOOL_CLI_KEYSTORE_H
#define SECPOOL_CLI_KEYSTORE_H

#include "lib/wire/msg.h"

/* Has keymgrd make a new generation of the key tree now: no older copy of the key store gives a key back that was destroyed before. Errors: those of the connection, keymgrd's. */
enum secpool_error keystore_anchor(const char *runtime, struct msg_keystore_anchored *ret_anchored) MUST_USE;

#endif
