/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/devices.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "keymgr/directory.h"
#include "keymgr/devstore.h"
#include "keymgr/events.h"
#include "keymgr/lostkeys.h"
#include "keymgr/releases.h"
#include "keymgr/revocation.h"
#include "keymgr/server.h"
#include "keymgr/session.h"
#include "lib/base/clock.h"
#include "lib/base/medialook.h"
#include "lib/base/os.h"
#include "policy/policy.h"

/* The most a device may have, so that sums of offsets never overflow. */
#define DEVICE_BYTES_MOST (1ull << 46)
/* How often in a second one device is looked at because a client asked. */
enum { CHECKS_PER_S = 50 };

struct devices_row *devices_find(struct devices *devices, const char *id)
{
	for (size_t i = 0; i < devices->count; i++)
		if (strcmp(devices->rows[i]->id, id) == 0)
			return devices->rows[i];
	return NULL;
}

struct devices_row *devices_at(struct devices *devices, uint64_t slot)
{
	/* 0 is the slot of a row that is not in the directory yet */
	for (size_t i = 0; i < devices->count && slot != 0; i++)
		if (devices->rows[i]->slot == slot)
			return devices->rows[i];
	return NULL;
}

bool devices_word(const char *text)
{
	static const char allowed[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";

	return *text && strspn(text, allowed) == strlen(text);
}

enum secpool_error devices_expect(
	struct devices *devices, const char *id, struct devices_row **ret_row)
{
	struct devices_row *row;

	if (devices->count == DEVICES_MOST)
		return err_set(SECPOOL_E_LIMIT, "device %s: keymgrd knows %d devices already", id,
			DEVICES_MOST);
	row = calloc(1, sizeof *row);
	if (!row)
		return err_set(SECPOOL_E_NO_MEMORY, "device %s: out of memory", id);
	row->media_fd = -1;
	row->state = MSG_DEVICE_ABSENT;
	row->checks = (struct log_limit){.period_ns = CLOCK_NS_PER_S, .burst = CHECKS_PER_S};
	MSG_SET(row->id, id);
	devices->rows[devices->count++] = row;
	*ret_row = row;
	return SECPOOL_OK;
}

static enum secpool_error tell_enclave_ek(struct daemon *daemon, const struct devices_row *row)
{
	struct msg msg = {.type = MSG_ENC_DEVICE_KNOWN};

	MSG_SET(msg.u.enc_device_known.id, row->id);
	memcpy(msg.u.enc_device_known.ek_name, row->ek, sizeof row->ek);
	msg.u.enc_device_known.resets = row->resets;
	MSG_SET(msg.u.enc_device_known.serial, row->serial);
	return daemon_ask(daemon, &msg, -1, MSG_REPLY, NULL);
}

static enum secpool_error load(struct daemon *daemon, struct devices *devices)
{
	struct directory_rows *rows = NULL;
	enum secpool_error error = directory_query(daemon->directory,
		"SELECT slot, id, media, bytes, domain, ek, boot, file_dev, file_ino, resets, "
		"serial, revoked_ns, revocation FROM devices ORDER BY slot",
		DIRECTORY_VALUES(), &rows);

	while (!error && directory_next(rows, &error)) {
		struct devices_row *row = NULL;
		char id[MSG_NAME_BYTES];

		directory_get_text(rows, 1, id, sizeof id);
		error = devices_expect(devices, id, &row);
		if (error)
			break;
		row->slot = directory_get_number(rows, 0);
		row->media = directory_get_number(rows, 2);
		row->bytes = directory_get_number(rows, 3);
		directory_get_text(rows, 4, row->domain, sizeof row->domain);
		row->ek_known =
			directory_get_bytes(rows, 5, row->ek, sizeof row->ek) == sizeof row->ek;
		directory_get_text(rows, 6, row->file.boot, sizeof row->file.boot);
		row->file.dev = directory_get_number(rows, 7);
		row->file.ino = directory_get_number(rows, 8);
		row->resets = directory_get_number(rows, 9);
		directory_get_text(rows, 10, row->serial, sizeof row->serial);
		row->revoked_ns = directory_get_number(rows, 11);
		row->revocation = (uint32_t)directory_get_number(rows, 12);
		/* another boot: no client from then is alive, and the numbers say nothing */
		if (strcmp(row->file.boot, devices->boot) != 0)
			row->file = (struct devices_file){.dev = 0};
		if (row->ek_known)
			error = tell_enclave_ek(daemon, row);
	}
	directory_done(rows);
	return error;
}

enum secpool_error devices_new(struct daemon *daemon, struct devices **ret_devices)
{
	struct devices *devices = calloc(1, sizeof *devices);
	enum secpool_error error;

	if (!devices)
		return err_set(SECPOOL_E_NO_MEMORY, "devices: out of memory");
	error = devstore_read_boot(devices->boot);
	if (!error)
		error = load(daemon, devices);
	if (error)
		devices_free(devices);
	else
		*ret_devices = devices;
	return error;
}

void devices_free(struct devices *devices)
{
	if (!devices)
		return;
	for (size_t i = 0; i < devices->count; i++) {
		os_close(&devices->rows[i]->media_fd);
		free(devices->rows[i]);
	}
	sd_event_source_disable_unref(devices->missing);
	sd_event_source_disable_unref(devices->revocations);
	free(devices);
}

/* The same media for reading alone; -1: they can't be had so, and the device can't be used. */
static int reopen(int fd)
{
	char path[32];

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	return open(path, O_RDONLY | O_CLOEXEC);
}

static void send_row(struct server_connection *connection, const struct devices_row *row)
{
	struct msg msg = {.type = MSG_DEVICE};
	int fd = -1;

	msg.u.device.slot = row->slot;
	msg.u.device.media = row->media;
	msg.u.device.bytes = row->bytes;
	msg.u.device.state = row->cut_off ? (uint32_t)MSG_DEVICE_LOST : row->state;
	msg.u.device.since_ns = row->since_ns;
	MSG_SET(msg.u.device.id, row->id);
	MSG_SET(msg.u.device.domain, row->domain);
	if (row->state == MSG_DEVICE_ONLINE)
		fd = connection->session->read_only ? reopen(row->media_fd) : row->media_fd;
	server_send(connection, &msg, fd);
	if (fd != row->media_fd)
		os_close(&fd);
}

/* Also what a client that was away, or keymgrd, has not heard yet: it may use the device still. On the way to online is no news. */
static bool is_told(const struct devices_row *row)
{
	switch (row->state) {
	case MSG_DEVICE_ONLINE:
	case MSG_DEVICE_DRAINING:
		return true;
	case MSG_DEVICE_SUSPECT:
	case MSG_DEVICE_QUARANTINED:
	case MSG_DEVICE_LOST:
		return row->seen && row->slot != 0;
	default:
		return false;
	}
}

void devices_tell(struct daemon *daemon, struct server_connection *connection)
{
	/* a peer that is gone, or reads nothing, loses its session by what is sent */
	for (size_t i = 0; i < daemon->devices->count && connection->session; i++)
		if (is_told(daemon->devices->rows[i]))
			send_row(connection, daemon->devices->rows[i]);
}

static void tell_all(struct daemon *daemon, const struct devices_row *row)
{
	for (struct server_connection *c = server_first(daemon->server); c; c = c->next)
		if (c->state == SERVER_SESSION && !c->closing)
			send_row(c, row);
}

/* *ret_until_ns: the end of the evidence's time. */
static enum secpool_error ask_fresh(struct daemon *daemon, const char *id, uint64_t *ret_until_ns)
{
	struct msg msg = {.type = MSG_ENC_DEVICE_CHECK}, answer;
	enum secpool_error error;

	MSG_SET(msg.u.enc_device_check.id, id);
	error = daemon_ask(daemon, &msg, -1, MSG_ATTEST_VERDICT, &answer);
	if (!error && answer.u.attest_verdict.error)
		error = err_set(SECPOOL_E_NOT_ATTESTED, "device %.63s: %.180s", id,
			answer.u.attest_verdict.reason);
	if (!error)
		*ret_until_ns = answer.u.attest_verdict.expires_ns;
	return error;
}

enum secpool_error devices_fresh(struct daemon *daemon, const char *id)
{
	uint64_t until_ns;

	return ask_fresh(daemon, id, &until_ns);
}

void devices_doubt(struct devices *devices)
{
	for (size_t i = 0; i < devices->count; i++)
		devices->rows[i]->fresh_until_ns = 0;
}

static enum secpool_error check_state(
	struct daemon *daemon, const struct msg_device_state *state, int media_fd)
{
	const struct devices_row *row = devices_find(daemon->devices, state->id);
	enum secpool_error error;

	if (!devices_word(state->id) || !devices_word(state->domain) ||
		(state->kind != MSG_KIND_EMULATED && state->kind != MSG_KIND_CXL))
		return err_set(SECPOOL_E_PROTOCOL,
			"hotplugd names a device, domain or kind that is not valid");
	if (state->bytes < EXTENTS_UNIT_BYTES || state->bytes > DEVICE_BYTES_MOST)
		return err_set(SECPOOL_E_PROTOCOL, "device %s: %llu bytes are no possible size",
			state->id, (unsigned long long)state->bytes);
	if (media_fd < 0 || !medialook_there(media_fd, state->bytes))
		return err_set(SECPOOL_E_DEVICE_GONE,
			"device %s: its media is missing or shorter than the device", state->id);
	error = devices_fresh(daemon, state->id);
	if (!error && (!row || row->attested_bytes != state->bytes))
		error = err_set(SECPOOL_E_NOT_ATTESTED,
			"device %s: it comes with %llu bytes, but %llu were attested", state->id,
			(unsigned long long)state->bytes,
			(unsigned long long)(row ? row->attested_bytes : 0));
	return error;
}

static void leave(struct daemon *daemon, struct devices_row *device, uint32_t state,
	const char *cause, bool void_verdict);

/* Its media changed while keymgrd was down, or the device was out: what regions had there is lost to them. */
static void changed_unseen(struct daemon *daemon, const struct devices_row *row,
	const struct msg_device_state *state, bool same_file)
{
	struct events_about about = {.device = row->id, .bytes = state->bytes};

	if (row->bytes != state->bytes)
		events_record(daemon, "device-changed", &about,
			"it had %llu bytes when it was seen last: nothing on it is used again",
			(unsigned long long)row->bytes);
	else
		events_record(daemon, "device-changed", &about, "%s: nothing on it is used again",
			same_file ? "its contents may be others than when it was seen last"
				  : "its media are others than when it was seen last");
	lostkeys_destroy(daemon, row);
}

/* The row, which is there since the attestation, for what hotplugd says: in the directory and here. */
static enum secpool_error settle_row(
	struct daemon *daemon, const struct msg_device_state *state, int media_fd)
{
	struct devices_row *row = devices_find(daemon->devices, state->id);
	struct devices_file file;
	bool same_file, same_media;
	enum secpool_error error = devstore_find_file(daemon->devices->boot, media_fd, &file);

	if (error)
		return error;
	same_file = devstore_same_file(&row->file, &file);
	/* a mark that lies beside another file is not believed; after a boot there is nothing to compare with */
	same_media = row->slot != 0 && row->media == state->media && row->bytes == state->bytes &&
		     (same_file || !row->file.boot[0]);
	if (same_media && same_file && strcmp(row->domain, state->domain) == 0)
		return SECPOOL_OK;
	/* clients hear of the end of the old media before they get the new; the verdict is the new media's already */
	if (!same_media && row->media_fd >= 0)
		leave(daemon, row, MSG_DEVICE_LOST, "its media changed", false);
	else if (!same_media && row->slot != 0 && !row->told_lost)
		changed_unseen(daemon, row, state, same_file);
	if (row->slot == 0)
		error = devstore_add(daemon->directory, row, state, &file);
	else if (same_media)
		error = devstore_update(daemon->directory, row, state, &file);
	else
		error = devstore_change(daemon->directory, row, state, &file);
	if (error)
		return error;
	row->media = state->media;
	row->bytes = state->bytes;
	row->file = file;
	MSG_SET(row->domain, state->domain);
	return SECPOOL_OK;
}

enum secpool_error devices_online(
	struct daemon *daemon, const struct msg_device_state *state, int *media_fd)
{
	struct devices_row *row = devices_find(daemon->devices, state->id);
	struct events_about about = {.device = state->id};
	bool was_online;
	enum secpool_error error = check_state(daemon, state, *media_fd);

	if (!error)
		error = settle_row(daemon, state, *media_fd);
	if (error) {
		os_close(media_fd);
		return error;
	}
	was_online = row->state == MSG_DEVICE_ONLINE;
	os_close(&row->media_fd);
	row->media_fd = *media_fd;
	*media_fd = -1;
	row->seen = true;
	row->told_lost = false;
	row->latency_ns = state->latency_ns;
	row->state = MSG_DEVICE_ONLINE;
	if (was_online)
		return SECPOOL_OK;
	row->since_ns = clock_now_ns();
	revocation_end(daemon, row);
	tell_all(daemon, row);
	about.bytes = row->bytes;
	events_record(daemon, "device-online", &about, "slot %llu, domain %s",
		(unsigned long long)row->slot, row->domain);
	releases_kick(daemon);
	return SECPOOL_OK;
}

static void record_failovers(struct daemon *daemon, const struct devices_row *device)
{
	static const char sql[] =
		"SELECT DISTINCT r.id, r.tenant, r.lanes FROM extents e JOIN regions r"
		" ON r.id = e.region WHERE e.slot = ?1 AND e.state = ?2";
	struct directory_rows *rows = NULL;
	enum secpool_error error = directory_query(daemon->directory, sql,
		DIRECTORY_VALUES(DIRECTORY_N(device->slot), DIRECTORY_N(EXTENTS_IN_USE)), &rows);

	while (!error && directory_next(rows, &error)) {
		char tenant[MSG_NAME_BYTES];
		struct events_about about = {.device = device->id,
			.tenant = tenant,
			.region = directory_get_number(rows, 0)};
		uint64_t lanes = directory_get_number(rows, 2);

		directory_get_text(rows, 1, tenant, sizeof tenant);
		events_record(daemon, lanes > 1 ? "failover" : "region-hit", &about,
			lanes > 1 ? "a lane is gone, the others serve"
				  : "what is on the device and not in local memory is lost");
	}
	directory_done(rows);
	if (error)
		log_error("events-not-stored", error);
}

static void void_evidence(struct daemon *daemon, const struct devices_row *device)
{
	struct msg msg = {.type = MSG_ENC_DEVICE_VOID};

	MSG_SET(msg.u.enc_device_void.id, device->id);
	devices_doubt(daemon->devices);
	if (daemon_ask(daemon, &msg, -1, MSG_REPLY, NULL) != SECPOOL_OK)
		log_event(LOG_LEVEL_WARNING, "verdict-not-void", "device=%s detail=\"%s\"",
			device->id, err_detail());
}

static void leave(struct daemon *daemon, struct devices_row *device, uint32_t state,
	const char *cause, bool void_verdict)
{
	struct events_about about = {.device = device->id};
	bool was_there = device->media_fd >= 0;
	char kind[32] = "device-";

	device->seen = true;
	if (device->state == state && (!was_there || state == MSG_DEVICE_DRAINING))
		return;
	device->state = state;
	device->told_lost = device->told_lost || state == MSG_DEVICE_LOST;
	device->since_ns = clock_now_ns();
	if (state != MSG_DEVICE_DRAINING)
		os_close(&device->media_fd);
	tell_all(daemon, device);
	if (void_verdict)
		void_evidence(daemon, device);
	msg_set_text(kind + 7, sizeof kind - 7, msg_device_state_name(state));
	events_record(daemon, kind, &about, "%s", cause);
	if (was_there && device->media_fd < 0)
		record_failovers(daemon, device);
	/* what is lost or refused only after a start is so as well */
	if ((was_there || state == MSG_DEVICE_LOST || state == MSG_DEVICE_QUARANTINED) &&
		device->media_fd < 0)
		lostkeys_destroy(daemon, device);
	if (state == MSG_DEVICE_LOST && !device->cut_off)
		revocation_end(daemon, device);
	releases_kick(daemon);
}

void devices_leave(
	struct daemon *daemon, struct devices_row *device, uint32_t state, const char *cause)
{
	/* while an attestation is under way or done its verdict stays: hotplugd tells the steps */
	bool on_the_way = device->media_fd < 0 &&
			  (state == MSG_DEVICE_DISCOVERED || state == MSG_DEVICE_ATTESTING);

	leave(daemon, device, state, cause, !on_the_way);
}

bool devices_look(struct daemon *daemon, struct devices_row *device)
{
	if (device->media_fd < 0)
		return true;
	if (medialook_there(device->media_fd, device->bytes))
		return false;
	devices_leave(daemon, device, MSG_DEVICE_LOST, "keymgrd found its media gone");
	return true;
}

enum secpool_error devices_usable(
	struct daemon *daemon, struct extents_device *list, size_t *ret_count)
{
	struct devices *devices = daemon->devices;
	enum secpool_error error = SECPOOL_OK;
	size_t count = 0;

	for (size_t i = 0; i < devices->count && !error; i++) {
		struct devices_row *row = devices->rows[i];

		if (row->state != MSG_DEVICE_ONLINE || devices_look(daemon, row))
			continue;
		if (clock_now_ns() >= row->fresh_until_ns)
			error = ask_fresh(daemon, row->id, &row->fresh_until_ns);
		if (!error)
			list[count++] = (struct extents_device){.slot = row->slot,
				.domain = row->domain,
				.tier = policy_tier(daemon->policy, row->latency_ns)};
		else if (error == SECPOOL_E_NOT_ATTESTED || error == SECPOOL_E_ATTESTATION)
			error = SECPOOL_OK; /* not usable now */
	}
	if (!error)
		*ret_count = count;
	return error;
}
