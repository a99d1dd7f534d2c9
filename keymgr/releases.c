/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/releases.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "enclave/receipt.h"
#include "keymgr/devices.h"
#include "keymgr/devwork.h"
#include "keymgr/directory.h"
#include "keymgr/drain.h"
#include "keymgr/epochs.h"
#include "keymgr/events.h"
#include "keymgr/hotplug.h"
#include "keymgr/regionkeys.h"
#include "keymgr/revocation.h"
#include "keymgr/scrub.h"
#include "keymgr/server.h"
#include "keymgr/waiters.h"
#include "keymgr/wraps.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

/* How long a scrub that could not begin (no descriptor, no memory) waits. */
#define RETRY_NS CLOCK_NS_PER_S

/* How long a start waits for hotplugd to speak of a device before releasing space there counts as unreachable. */
#define SETTLE_NS (30 * CLOCK_NS_PER_S)

struct releases {
	struct daemon *daemon;
	struct scrub *scrub;
	sd_event_source *scrub_source, *kick_source, *settle_source, *retry_source;
	struct waiters waiters;
	bool scrubbing; /* one range is with the thread */
	struct log_limit failed;
};

void releases_forget(struct daemon *daemon, const struct server_connection *connection)
{
	waiters_forget(&daemon->releases->waiters, connection);
}

static enum msg_readback readback_of(const struct regions_row *row)
{
	if (row->differed > 0)
		return MSG_READBACK_DIFFERED;
	if (row->scrubbed_bytes == 0 && row->unreachable_bytes > 0)
		return MSG_READBACK_UNREACHABLE;
	return MSG_READBACK_MATCHED;
}

/* All of the region's space is done with: the receipt, and the end of its row. */
static enum secpool_error finish_region(struct releases *releases, const struct regions_row *row)
{
	struct daemon *daemon = releases->daemon;
	struct events_about about = {.tenant = row->tenant, .region = row->id, .bytes = row->bytes};
	struct msg request = {.type = MSG_ENC_RECEIPT}, answer;
	struct msg_enc_receipt *facts = &request.u.enc_receipt;
	struct receipt_facts found;
	uint64_t last = 0;
	enum secpool_error error = regions_last_receipt(daemon->directory, &last, facts->previous);

	if (error)
		return error;
	facts->region = row->id;
	MSG_SET(facts->tenant, row->tenant);
	facts->bytes = row->bytes;
	facts->copies = row->lanes;
	/* of the newest key that its client may have had */
	facts->epoch = row->next_epoch ? row->next_epoch : row->epoch;
	facts->destroyed_ns = row->destroyed_ns;
	facts->generation = row->generation;
	facts->released_ns = row->released_ns;
	facts->scrubbed_bytes = row->scrubbed_bytes;
	facts->unreachable_bytes = row->unreachable_bytes;
	facts->readback = readback_of(row);
	facts->client = row->client;
	facts->number = last + 1;
	error = daemon_ask(daemon, &request, -1, MSG_RECEIPT, &answer);
	if (!error)
		error = receipt_verify(
			answer.u.receipt.document, strlen(answer.u.receipt.document), NULL, &found);
	if (!error)
		error = regions_finish(daemon->directory, row->id, last + 1,
			answer.u.receipt.document, found.digest);
	if (error)
		return error;
	events_record(daemon, "released", &about,
		"receipt %llu, %llu bytes scrubbed, %llu unreachable",
		(unsigned long long)(last + 1), (unsigned long long)row->scrubbed_bytes,
		(unsigned long long)row->unreachable_bytes);
	waiters_send(&releases->waiters, row->id, &answer);
	return SECPOOL_OK;
}

static void finish_ready(struct releases *releases)
{
	struct directory *directory = releases->daemon->directory;
	struct regions_row row = {.id = 0};
	enum secpool_error error;

	while (!(error = regions_next_ended(directory, row.id, &row))) {
		error = finish_region(releases, &row);
		if (error == SECPOOL_E_STORE)
			break;
		if (error && log_allowed(&releases->failed))
			log_error("release-not-finished", error);
	}
	if (error == SECPOOL_E_STORE)
		daemon_fail(releases->daemon, "directory-failed", error);
}

/* Releasing space on devices that are not there is done with: nobody can overwrite it. */
static enum secpool_error drop_unreachable(struct releases *releases)
{
	struct daemon *daemon = releases->daemon;
	bool settled = clock_now_ns() - daemon->start_ns > SETTLE_NS;
	enum secpool_error error = SECPOOL_OK;

	for (size_t i = 0; i < daemon->devices->count && !error; i++) {
		const struct devices_row *device = daemon->devices->rows[i];

		if (device->media_fd >= 0 || device->slot == 0 || !(device->seen || settled))
			continue;
		error = directory_begin(daemon->directory);
		if (!error)
			error = directory_finish(daemon->directory,
				regions_drop_releasing(daemon->directory, device->slot));
	}
	return error;
}

/* The thread did not take the range (no other is with it): it is tried again after a while. */
static enum secpool_error put_off(struct releases *releases, enum secpool_error error)
{
	struct directory *directory = releases->daemon->directory;

	if (log_allowed(&releases->failed))
		log_error("scrub-put-off", error);
	if (sd_event_source_set_time_relative(releases->retry_source, RETRY_NS / 1000) < 0 ||
		sd_event_source_set_enabled(releases->retry_source, SD_EVENT_ONESHOT) < 0)
		return err_set(SECPOOL_E_SYSTEM, "releases: the loop refused a timer");
	error = directory_begin(directory);
	if (!error)
		error = directory_finish(directory, extents_restart(directory));
	return error;
}

/* The next range for the thread: released space of any device before unknown space of any. */
static enum secpool_error submit_next(struct releases *releases)
{
	struct daemon *daemon = releases->daemon;

	for (int pass = 0; pass < 2; pass++)
		for (size_t i = 0; i < daemon->devices->count; i++) {
			const struct devices_row *device = daemon->devices->rows[i];
			struct extents_row row;
			enum secpool_error error;

			if (device->media_fd < 0)
				continue;
			error = directory_begin(daemon->directory);
			if (error)
				return error;
			error = directory_finish(
				daemon->directory, extents_scrub_next(daemon->directory,
							   device->slot, pass == 0, &row));
			if (error == SECPOOL_E_NOT_FOUND)
				continue;
			if (error)
				return error;
			error = scrub_submit(
				releases->scrub, device->media_fd, device->bytes, &row);
			if (error)
				return put_off(releases, error);
			releases->scrubbing = true;
			return SECPOOL_OK;
		}
	return SECPOOL_OK;
}

static int on_kick(sd_event_source *source, void *arg)
{
	struct releases *releases = arg;
	enum secpool_error error;

	(void)source;
	error = drop_unreachable(releases);
	if (!error)
		finish_ready(releases);
	if (!error && !releases->scrubbing)
		error = submit_next(releases);
	if (error)
		daemon_fail(releases->daemon, "scrub-failed", error);
	else
		drain_look(releases->daemon);
	if (!error)
		revocation_look(releases->daemon);
	return 0;
}

void releases_kick(struct daemon *daemon)
{
	if (daemon->releases)
		sd_event_source_set_enabled(daemon->releases->kick_source, SD_EVENT_ONESHOT);
}

/* A range that is there and could not be overwritten is never handed out, as one that differed. */
static enum msg_readback judge(struct daemon *daemon, const struct scrub_result *result)
{
	struct devices_row *device = devices_at(daemon->devices, result->row.slot);

	if (device && result->readback == MSG_READBACK_DIFFERED)
		hotplug_check(daemon, device, MSG_CAUSE_TAG, 0);
	if (result->readback != MSG_READBACK_UNREACHABLE)
		return result->readback;
	if (!device || devices_look(daemon, device))
		return MSG_READBACK_UNREACHABLE;
	hotplug_check(daemon, device, MSG_CAUSE_FAULT, 0);
	return MSG_READBACK_NOT_OVERWRITTEN;
}

static enum secpool_error store_result(struct daemon *daemon, const struct scrub_result *result)
{
	enum msg_readback readback = judge(daemon, result);
	struct devices_row *device = devices_at(daemon->devices, result->row.slot);
	struct events_about about = {.device = device ? device->id : NULL,
		.region = result->row.region,
		.offset = result->row.offset,
		.bytes = result->row.bytes};
	bool done = false;
	enum secpool_error error = directory_begin(daemon->directory);

	if (error)
		return error;
	error = extents_scrub_end(daemon->directory, &result->row, readback, &done);
	if (!error && done && result->row.region != 0)
		error = regions_add_scrubbed(
			daemon->directory, result->row.region, readback, result->row.bytes);
	/* what a region that lives left there stays there: its key must not stay */
	if (!error && done && result->row.region != 0 &&
		(readback == MSG_READBACK_DIFFERED || readback == MSG_READBACK_NOT_OVERWRITTEN))
		error = epochs_want_one(daemon->directory, result->row.region);
	error = directory_finish(daemon->directory, error);
	if (!error && done && readback == MSG_READBACK_DIFFERED)
		events_record(daemon, "scrub-differed", &about,
			"the read-back differed: this space is not used again");
	if (!error && done && readback == MSG_READBACK_NOT_OVERWRITTEN)
		events_record(daemon, "scrub-failed", &about,
			"it could not be overwritten: this space is not used again");
	if (!error && done && device)
		error = devwork_scrubbed(daemon, device, readback, result->row.bytes);
	return error;
}

static int on_scrub(sd_event_source *source, int fd, uint32_t events, void *arg)
{
	struct releases *releases = arg;
	struct scrub_result result;

	(void)source;
	(void)fd;
	(void)events;
	while (scrub_take(releases->scrub, &result) == SECPOOL_OK) {
		enum secpool_error error = store_result(releases->daemon, &result);

		releases->scrubbing = false;
		if (error)
			daemon_fail(releases->daemon, "scrub-not-stored", error);
	}
	releases_kick(releases->daemon);
	return 0;
}

static int on_settled(sd_event_source *source, uint64_t usec, void *arg)
{
	struct releases *releases = arg;

	(void)source;
	(void)usec;
	releases_kick(releases->daemon);
	return 0;
}

enum secpool_error releases_new(struct daemon *daemon, struct releases **ret_releases)
{
	struct releases *releases = calloc(1, sizeof *releases);
	enum secpool_error error = SECPOOL_E_INTERNAL;
	uint64_t settle_us = (SETTLE_NS + CLOCK_NS_PER_S) / 1000;

	if (!releases)
		return err_set(SECPOOL_E_NO_MEMORY, "releases: out of memory");
	releases->daemon = daemon;
	releases->failed = (struct log_limit){.period_ns = 10 * CLOCK_NS_PER_S, .burst = 3};
	error = directory_begin(daemon->directory);
	if (!error)
		error = directory_finish(daemon->directory, extents_restart(daemon->directory));
	if (!error)
		error = scrub_new(&releases->scrub);
	if (!error &&
		(sd_event_add_io(daemon->loop, &releases->scrub_source, scrub_fd(releases->scrub),
			 EPOLLIN, on_scrub, releases) < 0 ||
			sd_event_add_defer(
				daemon->loop, &releases->kick_source, on_kick, releases) < 0 ||
			sd_event_add_time_relative(daemon->loop, &releases->settle_source,
				CLOCK_MONOTONIC, settle_us, 0, on_settled, releases) < 0 ||
			sd_event_add_time_relative(daemon->loop, &releases->retry_source,
				CLOCK_MONOTONIC, UINT64_MAX / 4, 0, on_settled, releases) < 0 ||
			sd_event_source_set_enabled(releases->retry_source, SD_EVENT_OFF) < 0))
		error = err_set(SECPOOL_E_SYSTEM, "releases: the loop refused a source");
	if (error)
		releases_free(releases);
	else
		*ret_releases = releases;
	return error;
}

void releases_free(struct releases *releases)
{
	if (!releases)
		return;
	scrub_free(releases->scrub);
	waiters_done(&releases->waiters);
	sd_event_source_disable_unref(releases->scrub_source);
	sd_event_source_disable_unref(releases->kick_source);
	sd_event_source_disable_unref(releases->settle_source);
	sd_event_source_disable_unref(releases->retry_source);
	free(releases);
}

static enum secpool_error destroy_key(struct daemon *daemon, uint64_t region)
{
	struct msg answer;
	enum secpool_error error = regionkeys_end(daemon, region, 0, &answer);

	if (error)
		return error;
	return regions_set_destroyed(daemon->directory, region,
		answer.u.enc_key_destroyed.destroyed_ns, answer.u.enc_key_destroyed.generation);
}

void releases_begin(struct daemon *daemon, const struct regions_row *row,
	enum msg_client_end client, struct server_connection *connection, uint32_t number)
{
	enum secpool_error error = regions_release(daemon->directory, row->id, client);

	if (!error && row->destroyed_ns == 0)
		error = destroy_key(daemon, row->id);
	if (!error)
		error = wraps_erase(daemon->wraps, row->wrap);
	if (!error)
		error = wraps_erase(daemon->wraps, row->next_wrap);
	if (!error && connection)
		waiters_add(&daemon->releases->waiters, connection, row->id, number);
	if (error && connection)
		server_reply(connection, number, error);
	if (error)
		daemon_fail(daemon, "release-failed", error);
	releases_kick(daemon);
}

void releases_undo(struct daemon *daemon, uint64_t region)
{
	enum secpool_error error = regionkeys_end(daemon, region, 0, NULL);

	if (!error)
		error = regions_undo(daemon->directory, region);
	if (error)
		daemon_fail(daemon, "create-not-undone", error);
	releases_kick(daemon);
}
