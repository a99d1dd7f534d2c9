/* SPDX-License-Identifier: Apache-2.0 */
/* `secpool device retire`: the keys first, then the card. */
#include <stdio.h>

#include "cli/commands.h"
#include "cli/conn.h"
#include "cli/device.h"
#include "cli/keystore.h"
#include "lib/base/clock.h"

/* Between two looks at a card that sanitises itself, which takes as long as it takes. */
#define LOOK_NS (200 * CLOCK_NS_PER_MS)

static enum secpool_error look(const struct args *args, struct msg_device_row *ret_row)
{
	const char *id = args->words[0];
	struct conn_devices devices;
	enum secpool_error error = conn_devices_read(args->runtime, &devices);
	const struct msg_device_row *row = error ? NULL : conn_devices_row(&devices, id);

	if (!error && !row)
		error = err_set(SECPOOL_E_NOT_FOUND,
			"there is no device %.40s: see 'secpool device list'", id);
	if (!error)
		*ret_row = *row;
	conn_devices_done(&devices);
	return error;
}

/* Whether hotplugd would begin; what keeps it from that it says itself. */
static bool may_begin(const struct msg_device_row *row)
{
	return (row->sanitise == MSG_SANITISE_POSSIBLE || row->sanitise == MSG_SANITISE_DONE ||
		       row->sanitise == MSG_SANITISE_FAILED) &&
	       (row->state == MSG_DEVICE_OFFLINE || row->state == MSG_DEVICE_ABSENT ||
		       row->state == MSG_DEVICE_LOST);
}

static enum secpool_error await_end(const struct args *args)
{
	struct msg_device_row row = {.sanitise = MSG_SANITISE_RUNNING};
	enum secpool_error error = SECPOOL_OK;

	while (!error && row.sanitise == MSG_SANITISE_RUNNING) {
		clock_sleep_ns(LOOK_NS);
		error = look(args, &row);
	}
	if (!error && row.sanitise == MSG_SANITISE_FAILED)
		error = err_set(
			SECPOOL_E_SYSTEM, "device %.63s: %.160s", args->words[0], row.reason);
	else if (!error && row.sanitise != MSG_SANITISE_DONE)
		error = err_set(SECPOOL_E_CLOSED,
			"device %.63s came back, or hotplugd was started again meanwhile: whether "
			"it was sanitised is not known",
			args->words[0]);
	return error;
}

int command_device_retire(const struct args *args)
{
	struct msg_keystore_anchored anchored = {.generation = 0};
	struct msg_device_row row;
	enum secpool_error error = look(args, &row);

	if (!error && may_begin(&row))
		error = keystore_anchor(args->runtime, &anchored);
	if (!error)
		error = device_ask_verb(args, MSG_VERB_RETIRE, MSG_REPLY, NULL);
	if (!error && !args->no_wait)
		error = await_end(args);
	if (error)
		return command_failed(error);
	printf("%s: %s; keys that were destroyed are so durably, by generation %llu\n",
		args->words[0],
		args->no_wait ? "sanitises itself" : "was sanitised by its own command",
		(unsigned long long)anchored.generation);
	return STATUS_DONE;
}
