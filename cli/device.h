/* SPDX-License-Identifier: Apache-2.0 */
/* What commands about a device share. Threads: none. */
#ifndef SECPOOL_CLI_DEVICE_H
#define SECPOOL_CLI_DEVICE_H

#include "cli/commands.h"
#include "lib/wire/msg.h"

/* Has hotplugd do this with the device that the first word names. want, ret_answer: as for sock_call. Errors: SECPOOL_E_INVALID (no device's name), those of the connection, hotplugd's. */
enum secpool_error device_ask_verb(const struct args *args, enum msg_verb verb, uint32_t want, struct msg *ret_answer) MUST_USE;

#endif
