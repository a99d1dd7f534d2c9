/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/devwork.h"

#include "keymgr/events.h"
#include "lib/base/clock.h"

static uint64_t drain_left(const struct extents_use *use)
{
	return 2 * use->used + (use->unscrubbed - use->differed);
}

static uint64_t scrub_left(const struct extents_use *use)
{
	return use->unscrubbed - use->differed;
}

/* What is left was all of it at most; when nothing is left, it begins anew with what comes. */
static void note_most(uint64_t *all, uint64_t left)
{
	if (left == 0 || left > *all)
		*all = left;
}

static void end_run(struct daemon *daemon, struct devices_row *device)
{
	const struct devices_work *work = &device->work;
	struct events_about about = {.device = device->id, .bytes = work->matched_bytes};

	device->work.run_over = true;
	events_record(daemon, "device-scrubbed", &about,
		"%llu bytes overwritten and read back, %llu read back otherwise, %llu not "
		"overwritten",
		(unsigned long long)work->matched_bytes, (unsigned long long)work->differed_bytes,
		(unsigned long long)work->failed_bytes);
}

enum secpool_error devwork_look(
	struct daemon *daemon, struct devices_row *device, struct extents_use *ret_use)
{
	struct extents_use use = {0};
	enum secpool_error error = extents_count_use(daemon->directory, device->slot, &use);

	if (error)
		return error;
	note_most(&device->work.drain_bytes,
		device->state == MSG_DEVICE_DRAINING ? drain_left(&use) : 0);
	note_most(&device->work.scrub_bytes, scrub_left(&use));
	if (device->work.run_ns != 0 && !device->work.run_over && scrub_left(&use) == 0)
		end_run(daemon, device);
	if (ret_use)
		*ret_use = use;
	return SECPOOL_OK;
}

void devwork_drain(const struct devices_row *device, const struct extents_use *use,
	uint64_t *ret_done, uint64_t *ret_all)
{
	*ret_all = device->work.drain_bytes;
	*ret_done = device->work.drain_bytes > 0 ? device->work.drain_bytes - drain_left(use) : 0;
}

void devwork_scrub(const struct devices_row *device, const struct extents_use *use,
	uint64_t *ret_done, uint64_t *ret_all)
{
	*ret_all = device->work.scrub_bytes;
	*ret_done = device->work.scrub_bytes - scrub_left(use);
}

enum secpool_error devwork_scrub_begin(struct daemon *daemon, struct devices_row *device)
{
	device->work = (struct devices_work){
		.drain_bytes = device->work.drain_bytes, .run_ns = clock_calendar_ns()};
	return devwork_look(daemon, device, NULL);
}

enum secpool_error devwork_scrubbed(struct daemon *daemon, struct devices_row *device,
	enum msg_readback readback, uint64_t bytes)
{
	struct devices_work *work = &device->work;

	if (!work->run_over) {
		work->matched_bytes += readback == MSG_READBACK_MATCHED ? bytes : 0;
		work->differed_bytes += readback == MSG_READBACK_DIFFERED ? bytes : 0;
		work->failed_bytes += readback == MSG_READBACK_NOT_OVERWRITTEN ? bytes : 0;
	}
	return devwork_look(daemon, device, NULL);
}
