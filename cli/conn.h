/* SPDX-License-Identifier: Apache-2.0 */
/* Connections of the command to the daemons, as MSG_ROLE_ADMIN. Threads: one at a time for each connection. */
#ifndef SECPOOL_CLI_CONN_H
#define SECPOOL_CLI_CONN_H

#include <stdint.h>

#include "lib/wire/msg.h"

/* Called for each row; it and its message are gone afterwards. */
typedef void conn_row(const struct msg *row, void *arg);

/* socket: "keymgr.sock" or "hotplug.sock" below the runtime folder. Errors: as sock_connect_as. */
enum secpool_error conn_open(const char *runtime, const char *socket, int *ret_fd) MUST_USE;

/*
 * Asks for a list and calls each for every row, in order. with MSG_FOLLOW in `after` it returns only on an error.
 * Errors: SECPOOL_E_PROTOCOL (another message than row_type), the daemon's own, SECPOOL_E_DAEMON_GONE, SECPOOL_E_TIMEOUT.
 */
enum secpool_error conn_list(int fd, uint32_t what, uint64_t after, uint32_t row_type,
	conn_row *each, void *arg) MUST_USE;

/* Opens, lists, closes. */
enum secpool_error conn_list_once(const char *runtime, const char *socket, uint32_t what,
	uint32_t row_type, conn_row *each, void *arg) MUST_USE;

/* Both daemons' rows about devices, copied. */
struct conn_devices {
	struct msg_device_row *rows;
	size_t row_count;
	struct msg_use_row *uses;
	size_t use_count;
	enum secpool_error use_error; /* why there are no uses: the key manager may be away */
};

/* Errors: hotplugd's; keymgrd's is in use_error. conn_devices_done frees, also what a failed call left. */
enum secpool_error conn_devices_read(const char *runtime, struct conn_devices *ret_devices) MUST_USE;
void conn_devices_done(struct conn_devices *devices);
const struct msg_device_row *conn_devices_row(const struct conn_devices *devices, const char *id);
const struct msg_use_row *conn_devices_use(const struct conn_devices *devices, const char *id);

#endif
