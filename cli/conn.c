/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/conn.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "lib/wire/sock.h"

/* How long a daemon may take between two rows. */
#define ROW_NS (10 * CLOCK_NS_PER_S)

enum secpool_error conn_open(const char *runtime, const char *socket, int *ret_fd)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof path, "%s/%s", runtime, socket) >= (int)sizeof path)
		return err_set(SECPOOL_E_LIMIT, "runtime folder %.100s is too long", runtime);
	return sock_connect_as(path, MSG_ROLE_ADMIN, ret_fd);
}

enum secpool_error conn_list(
	int fd, uint32_t what, uint64_t after, uint32_t row_type, conn_row *each, void *arg)
{
	struct msg msg = {.type = MSG_LIST, .number = what};
	bool follow = after & MSG_FOLLOW;
	enum secpool_error error;

	msg.u.list.what = what;
	msg.u.list.after = after;
	error = sock_send(fd, &msg, NULL, 0, clock_now_ns() + ROW_NS);
	while (!error) {
		error = sock_receive(fd, &msg, NULL, clock_now_ns() + ROW_NS);
		if (error == SECPOOL_E_TIMEOUT && follow) {
			error = SECPOOL_OK;
			continue;
		}
		if (error)
			break;
		if (msg.type == row_type) {
			each(&msg, arg);
		} else if (msg.type != MSG_REPLY) {
			error = err_set(
				SECPOOL_E_PROTOCOL, "LIST was answered by %s", msg_name(msg.type));
		} else if (msg.u.reply.error) {
			error = err_set(err_from_number(msg.u.reply.error), "%s",
				msg.u.reply.detail[0]
					? msg.u.reply.detail
					: err_text(err_from_number(msg.u.reply.error)));
		} else if (!follow) {
			return SECPOOL_OK;
		}
	}
	return error;
}

enum secpool_error conn_list_once(const char *runtime, const char *socket, uint32_t what,
	uint32_t row_type, conn_row *each, void *arg)
{
	enum secpool_error error;
	int fd = -1;

	error = conn_open(runtime, socket, &fd);
	if (!error)
		error = conn_list(fd, what, 0, row_type, each, arg);
	os_close(&fd);
	return error;
}

/* Ends the process when there is no memory: a command has nothing to save. */
static void *grow(void *rows, size_t count, size_t bytes)
{
	void *more = reallocarray(rows, count, bytes);

	if (!more) {
		fputs("secpool: out of memory\n", stderr);
		exit(1);
	}
	return more;
}

static void keep_row(const struct msg *row, void *arg)
{
	struct conn_devices *devices = arg;

	devices->rows = grow(devices->rows, devices->row_count + 1, sizeof *devices->rows);
	devices->rows[devices->row_count++] = row->u.device_row;
}

static void keep_use(const struct msg *row, void *arg)
{
	struct conn_devices *devices = arg;

	devices->uses = grow(devices->uses, devices->use_count + 1, sizeof *devices->uses);
	devices->uses[devices->use_count++] = row->u.use_row;
}

/* dev2 before dev10 */
static int by_id(const void *a, const void *b)
{
	return strverscmp(
		((const struct msg_device_row *)a)->id, ((const struct msg_device_row *)b)->id);
}

enum secpool_error conn_devices_read(const char *runtime, struct conn_devices *ret_devices)
{
	enum secpool_error error;

	memset(ret_devices, 0, sizeof *ret_devices);
	ret_devices->use_error = conn_list_once(
		runtime, "keymgr.sock", MSG_LIST_USE, MSG_USE_ROW, keep_use, ret_devices);
	error = conn_list_once(
		runtime, "hotplug.sock", MSG_LIST_DEVICES, MSG_DEVICE_ROW, keep_row, ret_devices);
	if (ret_devices->row_count)
		qsort(ret_devices->rows, ret_devices->row_count, sizeof *ret_devices->rows, by_id);
	return error;
}

void conn_devices_done(struct conn_devices *devices)
{
	free(devices->rows);
	free(devices->uses);
	memset(devices, 0, sizeof *devices);
}

const struct msg_device_row *conn_devices_row(const struct conn_devices *devices, const char *id)
{
	for (size_t i = 0; i < devices->row_count; i++)
		if (strcmp(devices->rows[i].id, id) == 0)
			return &devices->rows[i];
	return NULL;
}

const struct msg_use_row *conn_devices_use(const struct conn_devices *devices, const char *id)
{
	for (size_t i = 0; i < devices->use_count; i++)
		if (strcmp(devices->uses[i].id, id) == 0)
			return &devices->uses[i];
	return NULL;
}
