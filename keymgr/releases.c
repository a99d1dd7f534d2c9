/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/releases.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "enclave/receipt.h"
#include "keymgr/auditlog.h"
#include "keymgr/devices.h"
#include "keymgr/devwork.h"
#include "keymgr/directory.h"
#include "keymgr/drain.h"
#include "keymgr/endings.h"
#include "keymgr/epochs.h"
#include "keymgr/events.h"
#include "keymgr/hotplug.h"
#include "keymgr/regionkeys.h"
#include "keymgr/rotate.h"
#include "keymgr/revocation.h"
#include "keymgr/scrub.h"
#include "keymgr/server.h"
#include "keymgr/turns.h"
#include "keymgr/waiters.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

/* How long a scrub that could not begin (no descriptor, no memory) waits. */
#define RETRY_NS CLOCK_NS_PER_S

/* How long after a start who asks for a release waits for devices that hotplugd did not speak of yet: their space waits for as long as it takes. */
#define SETTLE_NS (30 * CLOCK_NS_PER_S)

/* Regions and ranges that share a wait for the disk; others' turns come between two batches. */
enum { BATCH = 16, SCRUBS = 16 };

struct finished {
	struct regions_row row;
	uint64_t number;
	struct msg receipt;
};

struct releases {
	struct daemon *daemon;
	struct scrub *scrub;
	sd_event_source *scrub_source, *kick_source, *finish_source, *settle_source, *retry_source;
	uint64_t finished_up_to; /* region: where the next batch of receipts goes on */
	struct endings *endings;
	struct waiters waiters;
	unsigned scrubbing; /* ranges that are with the thread */
	struct log_limit failed;
	struct finished finished[BATCH];
};

void releases_forget(struct daemon *daemon, const struct server_connection *connection)
{
	endings_forget(daemon->releases->endings, connection);
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
static enum secpool_error finish_region(struct releases *releases, struct finished *finished)
{
	struct daemon *daemon = releases->daemon;
	const struct regions_row *row = &finished->row;
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
	finished->number = last + 1;
	finished->receipt = answer;
	return SECPOOL_OK;
}

/* After receipts whose records could not be kept. */
static void try_again(struct releases *releases)
{
	if (sd_event_source_set_time_relative(releases->retry_source, RETRY_NS / 1000) < 0 ||
		sd_event_source_set_enabled(releases->retry_source, SD_EVENT_ONESHOT) < 0)
		daemon_fail(releases->daemon, "no-timer",
			err_set(SECPOOL_E_SYSTEM, "releases: the loop refused a timer"));
}

/*
 * The receipts of up to BATCH regions, in one change; their records are on the disk before. Errors: of the store; SECPOOL_E_NOT_FOUND when no region is left, or the audit can't be appended to: then it is tried again after a while.
 */
static enum secpool_error finish_some(struct releases *releases, uint64_t *after, size_t *ret_count)
{
	struct daemon *daemon = releases->daemon;
	enum secpool_error error = directory_begin(daemon->directory), next = SECPOOL_OK, synced;
	bool refused = false;
	size_t count = 0;

	if (error)
		return error;
	while (count < BATCH && !error) {
		struct finished *finished = &releases->finished[count];

		next = regions_next_ended(daemon->directory, *after, &finished->row);
		if (next)
			break;
		*after = finished->row.id;
		error = finish_region(releases, finished);
		count += !error;
		refused = error && auditlog_refuses(daemon->auditlog);
		if (error && (refused || error != SECPOOL_E_STORE) &&
			log_allowed(&releases->failed))
			log_error("release-not-finished", error);
		if (error != SECPOOL_E_STORE && !refused)
			error = SECPOOL_OK; /* it is passed over */
	}
	/* for want of room: those before it are finished */
	error = refused ? SECPOOL_OK : error;
	synced = auditlog_sync(daemon->auditlog);
	error = directory_finish(daemon->directory, error ? error : synced);
	*ret_count = error ? 0 : count;
	if (!refused && !synced)
		return error ? error : next;
	try_again(releases);
	return error && !synced ? error : SECPOOL_E_NOT_FOUND;
}

/* Nobody hears of a receipt that is not on the disk. */
static void tell_finished(struct releases *releases, const struct finished *finished)
{
	const struct regions_row *row = &finished->row;
	struct events_about about = {.tenant = row->tenant, .region = row->id, .bytes = row->bytes};

	events_record(releases->daemon, "released", &about,
		"receipt %llu, %llu bytes scrubbed, %llu unreachable",
		(unsigned long long)finished->number, (unsigned long long)row->scrubbed_bytes,
		(unsigned long long)row->unreachable_bytes);
	waiters_send(&releases->waiters, row->id, &finished->receipt);
}

/* One batch; a program that ended with very many regions makes nobody else wait for more. */
static int on_finish(sd_event_source *source, void *arg)
{
	struct releases *releases = arg;
	size_t count = 0;
	enum secpool_error error = finish_some(releases, &releases->finished_up_to, &count);

	for (size_t i = 0; i < count; i++)
		tell_finished(releases, &releases->finished[i]);
	if (error && error != SECPOOL_E_NOT_FOUND)
		daemon_fail(releases->daemon, "directory-failed", error);
	else if (!error)
		sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return 0;
}

/* From the first region on: one that was passed over may be done with by now. */
static void finish_ready(struct releases *releases)
{
	releases->finished_up_to = 0;
	sd_event_source_set_enabled(releases->finish_source, SD_EVENT_ONESHOT);
}

/* Releasing space on devices that are not there is done with: nobody can overwrite it. Not on those that are on their way, or that hotplugd did not speak of yet: that is done when they come, or are found missing. */
static enum secpool_error drop_unreachable(struct releases *releases)
{
	struct daemon *daemon = releases->daemon;
	enum secpool_error error = SECPOOL_OK;

	for (size_t i = 0; i < daemon->devices->count && !error; i++) {
		const struct devices_row *device = daemon->devices->rows[i];

		if (device->media_fd >= 0 || device->slot == 0 || !device->seen ||
			device->state == MSG_DEVICE_DISCOVERED ||
			device->state == MSG_DEVICE_ATTESTING)
			continue;
		error = directory_begin(daemon->directory);
		if (!error)
			error = directory_finish(daemon->directory,
				regions_drop_releasing(daemon->directory, device->slot));
	}
	return error;
}

/* Nobody knows for how long: their receipts are stored when the device came, or was found missing. */
static enum secpool_error refuse_waiters_on(
	struct releases *releases, const struct devices_row *device)
{
	static const char sql[] =
		"SELECT DISTINCT region FROM extents WHERE slot = ?1 AND region IS NOT NULL"
		" AND state IN (?2, ?3)";
	struct directory_rows *rows = NULL;
	enum secpool_error error = directory_query(releases->daemon->directory, sql,
		DIRECTORY_VALUES(DIRECTORY_N(device->slot), DIRECTORY_N(EXTENTS_RELEASING),
			DIRECTORY_N(EXTENTS_SCRUBBING)),
		&rows);

	while (!error && directory_next(rows, &error)) {
		err_set(SECPOOL_E_TIMEOUT,
			"the region's key is destroyed, and its space on device %s waits for "
			"secpool-hotplugd, which did not speak of the device yet: the receipt is "
			"stored then",
			device->id);
		waiters_refuse(
			&releases->waiters, directory_get_number(rows, 0), SECPOOL_E_TIMEOUT);
	}
	directory_done(rows);
	return error;
}

static enum secpool_error refuse_waiters(struct releases *releases)
{
	const struct daemon *daemon = releases->daemon;
	enum secpool_error error = SECPOOL_OK;

	if (!releases->waiters.first || clock_now_ns() - daemon->start_ns <= SETTLE_NS)
		return SECPOOL_OK;
	for (size_t i = 0; i < daemon->devices->count && !error; i++) {
		const struct devices_row *device = daemon->devices->rows[i];

		if (!device->seen && device->media_fd < 0 && device->slot != 0)
			error = refuse_waiters_on(releases, device);
	}
	return error;
}

/* The thread did not take these ranges: they are tried again after a while. */
static enum secpool_error put_off(struct releases *releases, const struct extents_row *rows,
	size_t count, enum secpool_error error)
{
	struct directory *directory = releases->daemon->directory;

	if (log_allowed(&releases->failed))
		log_error("scrub-put-off", error);
	try_again(releases);
	error = directory_begin(directory);
	if (error)
		return error;
	for (size_t i = 0; i < count && !error; i++)
		error = extents_scrub_back(directory, &rows[i]);
	return directory_finish(directory, error);
}

/* Ranges of all devices by turns, made `scrubbing`. */
static enum secpool_error choose_released(
	struct releases *releases, struct extents_row *rows, size_t most, size_t *count)
{
	const struct devices *devices = releases->daemon->devices;
	bool found = true;

	while (found && *count < most) {
		found = false;
		for (size_t i = 0; i < devices->count && *count < most; i++) {
			enum secpool_error error;

			if (devices->rows[i]->media_fd < 0)
				continue;
			error = extents_scrub_next(releases->daemon->directory,
				devices->rows[i]->slot, true, &rows[*count]);
			if (error == SECPOOL_E_NOT_FOUND)
				continue;
			if (error)
				return error;
			(*count)++;
			found = true;
		}
	}
	return SECPOOL_OK;
}

/* One piece of unknown space, of the first device that has any. */
static enum secpool_error choose_unknown(
	struct releases *releases, struct extents_row *row, size_t *count)
{
	const struct devices *devices = releases->daemon->devices;

	for (size_t i = 0; i < devices->count && *count == 0; i++) {
		enum secpool_error error;

		if (devices->rows[i]->media_fd < 0)
			continue;
		error = extents_scrub_next(
			releases->daemon->directory, devices->rows[i]->slot, false, row);
		if (!error)
			*count = 1;
		else if (error != SECPOOL_E_NOT_FOUND)
			return error;
	}
	return SECPOOL_OK;
}

/*
 * The next ranges for the thread, which has none: released space of any device before unknown space of any. Not before it is done with all: a range that is given to it twice could be overwritten when it is in
 * use again.
 */
static enum secpool_error submit_next(struct releases *releases)
{
	struct daemon *daemon = releases->daemon;
	struct extents_row rows[SCRUBS];
	size_t count = 0;
	enum secpool_error error = directory_begin(daemon->directory);

	if (error)
		return error;
	error = choose_released(releases, rows, SCRUBS, &count);
	if (!error && count == 0)
		error = choose_unknown(releases, rows, &count);
	error = directory_finish(daemon->directory, error);
	for (size_t i = 0; i < count && !error; i++) {
		const struct devices_row *device = devices_at(daemon->devices, rows[i].slot);

		error = scrub_submit(releases->scrub, device->media_fd, device->bytes, &rows[i]);
		if (error)
			return put_off(releases, &rows[i], count - i, error);
		releases->scrubbing++;
	}
	return error;
}

static int on_kick(sd_event_source *source, void *arg)
{
	struct releases *releases = arg;
	enum secpool_error error;

	(void)source;
	error = drop_unreachable(releases);
	if (!error)
		finish_ready(releases);
	if (!error)
		error = refuse_waiters(releases);
	if (!error && releases->scrubbing == 0)
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

/* What the range's end means for the directory; readback: as it was judged. */
static enum secpool_error store_result(struct daemon *daemon, const struct scrub_result *result,
	enum msg_readback readback, bool *ret_done)
{
	enum secpool_error error;

	*ret_done = false;
	if (result->untried)
		return extents_scrub_back(daemon->directory, &result->row);
	error = extents_scrub_end(daemon->directory, &result->row, readback, ret_done);
	if (!error && *ret_done && result->row.region != 0)
		error = regions_add_scrubbed(
			daemon->directory, result->row.region, readback, result->row.bytes);
	/* what a region that lives left there stays there: its key must not stay */
	if (!error && *ret_done && result->row.region != 0 &&
		(readback == MSG_READBACK_DIFFERED || readback == MSG_READBACK_NOT_OVERWRITTEN))
		error = epochs_want_one(daemon->directory, result->row.region);
	return error;
}

/* A region that lives, and has to have a new key: its program hears of it now. */
static void tell_owner(struct daemon *daemon, uint64_t region)
{
	struct regions_row row;

	if (region != 0 && regions_find(daemon->directory, region, &row) == SECPOOL_OK &&
		row.state == MSG_REGION_LIVE && row.rotate)
		rotate_tell(daemon, &row, 1);
}

static enum secpool_error record_result(
	struct daemon *daemon, const struct scrub_result *result, enum msg_readback readback)
{
	struct devices_row *device = devices_at(daemon->devices, result->row.slot);
	struct events_about about = {.device = device ? device->id : NULL,
		.region = result->row.region,
		.offset = result->row.offset,
		.bytes = result->row.bytes};

	if (readback == MSG_READBACK_DIFFERED)
		events_record(daemon, "scrub-differed", &about,
			"the read-back differed: this space is not used again");
	if (readback == MSG_READBACK_NOT_OVERWRITTEN)
		events_record(daemon, "scrub-failed", &about,
			"it could not be overwritten: this space is not used again");
	if (readback == MSG_READBACK_DIFFERED || readback == MSG_READBACK_NOT_OVERWRITTEN)
		tell_owner(daemon, result->row.region);
	return device ? devwork_scrubbed(daemon, device, readback, result->row.bytes) : SECPOOL_OK;
}

/* All that the thread has done, in one change. Judged before: what that finds out of a device is a change of its own. */
static enum secpool_error store_results(struct releases *releases)
{
	struct daemon *daemon = releases->daemon;
	struct scrub_result results[SCRUBS];
	enum msg_readback readbacks[SCRUBS];
	bool done[SCRUBS] = {false};
	size_t count = 0;
	enum secpool_error error;

	while (count < SCRUBS && scrub_take(releases->scrub, &results[count]) == SECPOOL_OK)
		count++;
	releases->scrubbing -= (unsigned)count;
	for (size_t i = 0; i < count; i++)
		readbacks[i] =
			results[i].untried ? MSG_READBACK_UNREACHABLE : judge(daemon, &results[i]);
	error = directory_begin(daemon->directory);
	if (error)
		return error;
	for (size_t i = 0; i < count && !error; i++)
		error = store_result(daemon, &results[i], readbacks[i], &done[i]);
	error = directory_finish(daemon->directory, error);
	for (size_t i = 0; i < count && !error; i++)
		if (done[i])
			error = record_result(daemon, &results[i], readbacks[i]);
	return error;
}

static int on_scrub(sd_event_source *source, int fd, uint32_t events, void *arg)
{
	struct releases *releases = arg;
	enum secpool_error error = store_results(releases);

	(void)source;
	(void)fd;
	(void)events;
	if (error)
		daemon_fail(releases->daemon, "scrub-not-stored", error);
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
		error = endings_new(daemon, &releases->endings);
	if (!error)
		error = scrub_new(&releases->scrub);
	if (!error &&
		(sd_event_add_io(daemon->loop, &releases->scrub_source, scrub_fd(releases->scrub),
			 EPOLLIN, on_scrub, releases) < 0 ||
			sd_event_add_defer(
				daemon->loop, &releases->kick_source, on_kick, releases) < 0 ||
			sd_event_add_defer(
				daemon->loop, &releases->finish_source, on_finish, releases) < 0 ||
			sd_event_source_set_priority(releases->finish_source, TURNS_PRIORITY) < 0 ||
			sd_event_source_set_enabled(releases->finish_source, SD_EVENT_OFF) < 0 ||
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
	endings_free(releases->endings);
	waiters_done(&releases->waiters);
	sd_event_source_disable_unref(releases->scrub_source);
	sd_event_source_disable_unref(releases->kick_source);
	sd_event_source_disable_unref(releases->finish_source);
	sd_event_source_disable_unref(releases->settle_source);
	sd_event_source_disable_unref(releases->retry_source);
	free(releases);
}

void releases_begin(struct daemon *daemon, const struct regions_row *row,
	enum msg_client_end client, struct server_connection *connection, uint32_t number)
{
	const struct ending ending = {
		.region = row->id, .client = client, .connection = connection, .number = number};

	endings_add(daemon->releases->endings, &ending);
}

void releases_begun(struct daemon *daemon, const struct ending *ending)
{
	waiters_add(&daemon->releases->waiters, ending->connection, ending->region, ending->number);
}

void releases_undo(struct daemon *daemon, uint64_t region)
{
	enum secpool_error error = regions_undo(daemon->directory, region);

	if (error)
		daemon_fail(daemon, "create-not-undone", error);
	releases_kick(daemon);
}
