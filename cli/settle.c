/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/settle.h"

#include <stdio.h>
#include <string.h>

#include "cli/conn.h"
#include "cli/emulated.h"
#include "lib/base/clock.h"

#define STALL_NS (60 * CLOCK_NS_PER_S)
#define STEP_NS	 (50ull * CLOCK_NS_PER_MS)

/* One look at all devices. progress rises with each step forward, whatever it was. */
struct look {
	struct settle_result result;
	size_t pending;
	uint64_t progress;
	const char *waiting_for;
};

static enum secpool_error refused(const struct msg_device_row *row)
{
	return err_set(SECPOOL_E_ATTESTATION, "device %s is %s: %s", row->id,
		msg_device_state_name(row->state),
		row->reason[0] ? row->reason : "no reason given");
}

/* Adds one device to the look. */
static enum secpool_error look_at(const struct msg_device_row *row, const struct msg_use_row *use,
	bool is_new, struct look *look)
{
	uint32_t state = row ? row->state : MSG_DEVICE_DISCOVERED;

	switch (state) {
	case MSG_DEVICE_QUARANTINED:
	case MSG_DEVICE_SUSPECT:
		if (is_new)
			return refused(row);
		look->result.away++;
		return SECPOOL_OK;
	case MSG_DEVICE_ABSENT:
	case MSG_DEVICE_OFFLINE:
	case MSG_DEVICE_DRAINING:
	case MSG_DEVICE_LOST:
		if (!is_new && row) {
			look->result.away++;
			return SECPOOL_OK;
		}
		break;
	case MSG_DEVICE_ONLINE:
		look->progress++;
		if (!use || use->bytes == 0 || use->state != MSG_DEVICE_ONLINE)
			break;
		look->progress += 1 + use->bytes - use->unscrubbed_bytes;
		look->result.free_bytes += use->free_bytes;
		/* of one that was there before some is always on its way, and what can't be scrubbed stays */
		if (is_new && use->unscrubbed_bytes)
			break;
		look->result.online++;
		return SECPOOL_OK;
	default:
		break;
	}
	look->pending++;
	look->waiting_for = msg_device_state_name(state);
	return SECPOOL_OK;
}

static enum secpool_error look_around(
	const char *runtime, uint64_t count, const bool *is_new, struct look *look)
{
	struct conn_devices devices;
	enum secpool_error error = conn_devices_read(runtime, &devices);
	char id[EMULATED_ID_BYTES];

	memset(look, 0, sizeof *look);
	if (!error)
		error = devices.use_error;
	for (uint64_t i = 0; i < count && !error; i++) {
		emulated_id(i, id);
		error = look_at(conn_devices_row(&devices, id), conn_devices_use(&devices, id),
			is_new[i], look);
	}
	conn_devices_done(&devices);
	return error;
}

static enum secpool_error check_daemons(
	const char *runtime, const struct os_process *processes, enum secpool_error so_far)
{
	char line[160];

	for (int i = 0; i < SPAWN_COUNT; i++) {
		if (os_process_alive(&processes[i]))
			continue;
		spawn_last_line(runtime, (enum spawn_daemon)i, line, sizeof line);
		return err_set(SECPOOL_E_DAEMON_GONE, "%s has ended: %s",
			spawn_program((enum spawn_daemon)i), line);
	}
	return so_far;
}

/* A look that was not answered in time is one without a step forward. */
static enum secpool_error no_answer(uint64_t count, struct look *look)
{
	*look = (struct look){.pending = count, .waiting_for = "a daemon does not answer"};
	return SECPOOL_OK;
}

enum secpool_error settle_devices(const char *runtime, const struct os_process *processes,
	uint64_t count, const bool *is_new, struct settle_result *ret_result)
{
	uint64_t until = clock_now_ns() + STALL_NS, best = 0;
	struct look look;

	for (;;) {
		enum secpool_error error = look_around(runtime, count, is_new, &look);

		if (error == SECPOOL_E_TIMEOUT) /* a busy machine: it may be late once */
			error = check_daemons(runtime, processes, no_answer(count, &look));
		else if (error)
			error = check_daemons(runtime, processes, error);
		if (error)
			return error;
		if (look.pending == 0)
			break;
		if (look.progress > best) {
			best = look.progress;
			until = clock_now_ns() + STALL_NS;
		}
		if (spawn_interrupted())
			return err_set(SECPOOL_E_CLOSED, "interrupted");
		if (clock_now_ns() > until)
			return err_set(SECPOOL_E_TIMEOUT,
				"%zu of the devices got no further in 60 s (%s): see %.120s/log",
				look.pending, look.waiting_for, runtime);
		clock_sleep_ns(STEP_NS);
	}
	*ret_result = look.result;
	return SECPOOL_OK;
}
