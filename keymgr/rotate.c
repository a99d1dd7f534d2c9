/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/rotate.h"

#include <string.h>

#include "keymgr/auditlog.h"
#include "keymgr/epochs.h"
#include "keymgr/events.h"
#include "keymgr/regionkeys.h"
#include "keymgr/session.h"
#include "keymgr/wraps.h"
#include "lib/base/clock.h"
#include "policy/policy.h"

/* Ages are looked at so often in the time that a key may have, and how long that is at least and at most. */
enum { LOOKS = 16 };
#define LOOK_NS_LEAST CLOCK_NS_PER_S
#define LOOK_NS_MOST  (60 * CLOCK_NS_PER_S)

static void tell_connection(
	struct server_connection *connection, const struct regions_row *regions, size_t count)
{
	struct msg msg = {.type = MSG_REGION_RENEW};
	struct msg_region_renew *renew = &msg.u.region_renew;

	for (size_t i = 0; i < count; i++) {
		if (!session_owns(connection, &regions[i]))
			continue;
		renew->regions[renew->region_count++] = regions[i].id;
		if (renew->region_count < MSG_RENEW_MAX)
			continue;
		server_send(connection, &msg, -1);
		*renew = (struct msg_region_renew){.region_count = 0};
	}
	if (renew->region_count > 0)
		server_send(connection, &msg, -1);
}

void rotate_tell(struct daemon *daemon, const struct regions_row *regions, size_t count)
{
	struct server_connection *connection = daemon->server ? server_first(daemon->server) : NULL;

	for (; connection && count > 0; connection = connection->next)
		tell_connection(connection, regions, count);
}

/* All that wait for it. */
static void tell_wanted(struct daemon *daemon)
{
	static struct regions_row rows[4 * MSG_RENEW_MAX];
	const size_t most = sizeof rows / sizeof *rows;
	enum secpool_error error = SECPOOL_OK;
	uint64_t after = 0;

	while (!error) {
		size_t count = 0;

		while (count < most &&
			!(error = epochs_wanted(daemon->directory, after, &rows[count])))
			after = rows[count++].id;
		rotate_tell(daemon, rows, count);
	}
	if (error != SECPOOL_E_NOT_FOUND)
		daemon_fail(daemon, "directory-failed", error);
}

/* ---- clients ---- */

/* Stores the new key before the client has it. On error there is none. */
static enum secpool_error keep_next(struct daemon *daemon, const struct regions_row *region,
	const struct msg_enc_key_wrapped *wrapped)
{
	struct regionkeys_sent key = {.region = region->id, .epoch = wrapped->epoch};
	char reason[ERR_DETAIL_BYTES];
	enum secpool_error error = regionkeys_keep(daemon, &wrapped, 1);
	uint64_t slot = error ? 0 : wrapped->slot;

	if (!error)
		error = regionkeys_send(daemon, &key, 1);
	if (!error && key.error)
		error = regionkeys_not_sent(key.error, region->process.pid);

	if (!error)
		error = epochs_begin(daemon->directory, region->id, wrapped->epoch, wrapped->slot);
	if (!error)
		return SECPOOL_OK;
	msg_set_text(reason, sizeof reason, err_detail());
	if (wraps_erase(daemon->wraps, slot) != SECPOOL_OK ||
		regionkeys_end(daemon, region->id, wrapped->epoch, NULL) != SECPOOL_OK)
		daemon_fail(daemon, "key-not-erased", SECPOOL_E_STORE);
	return err_set(error, "%s", reason);
}

/* One that its client never took. The record of its end first, as of every other: where that can't be kept the enclave has the key still, and all stays as it is. */
static enum secpool_error drop_next(struct daemon *daemon, const struct regions_row *region)
{
	enum secpool_error error = regionkeys_end(daemon, region->id, region->next_epoch, NULL);

	if (error)
		return error;
	error = epochs_drop_next(daemon->directory, region->id);
	if (!error)
		error = wraps_erase(daemon->wraps, region->next_wrap);
	if (error)
		daemon_fail(daemon, "key-not-erased", error);
	return error;
}

static enum secpool_error check_begin(const struct regions_row *region, uint64_t epoch)
{
	if (region->next_epoch != 0 && epoch == region->next_epoch)
		return err_set(SECPOOL_E_BUSY, "region %llu moves to epoch %llu already",
			(unsigned long long)region->id, (unsigned long long)epoch);
	if (epoch != region->epoch)
		return err_set(SECPOOL_E_INVALID, "region %llu has epoch %llu, not %llu",
			(unsigned long long)region->id, (unsigned long long)region->epoch,
			(unsigned long long)epoch);
	return SECPOOL_OK;
}

enum secpool_error rotate_handle_begin(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra)
{
	const struct msg_region_rotate *rotate = &msg->u.region_rotate;
	struct msg answer = {.type = MSG_REGION_ROTATING, .number = msg->number};
	struct daemon *daemon = connection->daemon;
	struct events_about about = {.tenant = connection->session->tenant};
	struct msg_enc_key_wrapped wrapped;
	struct regions_row region;
	enum secpool_error error = session_region(connection, rotate->region, &region);

	(void)extra;
	if (!error)
		error = check_begin(&region, rotate->epoch);
	if (!error && region.next_epoch != 0)
		error = drop_next(daemon, &region);
	if (!error)
		error = regionkeys_make(connection, &region, epochs_new(&region), &wrapped);
	if (!error)
		error = keep_next(daemon, &region, &wrapped);
	if (error)
		return error;
	about.region = region.id;
	about.bytes = region.bytes;
	events_record(daemon, "key-rotating", &about, "pages move from epoch %llu to %llu",
		(unsigned long long)region.epoch, (unsigned long long)wrapped.epoch);
	answer.u.region_rotating.region = region.id;
	answer.u.region_rotating.epoch = wrapped.epoch;
	server_send(connection, &answer, -1);
	return SECPOOL_OK;
}

/* The record of its end first: where that can't be kept all stays as it is, and the client tells again. Then the row names the key before no more, and its stored copy goes. */
static enum secpool_error destroy_before(struct daemon *daemon, const struct regions_row *before,
	uint64_t epoch, struct msg_enc_key_destroyed *ret_end)
{
	struct msg answer;
	enum secpool_error error = regionkeys_end(daemon, before->id, before->epoch, &answer);

	if (error)
		return error;
	error = epochs_end(daemon->directory, before->id, epoch);
	if (!error)
		error = wraps_erase(daemon->wraps, before->wrap);
	if (error)
		daemon_fail(daemon, "key-not-destroyed", error);
	else
		*ret_end = answer.u.enc_key_destroyed;
	return error;
}

enum secpool_error rotate_handle_end(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra)
{
	const struct msg_region_rotated *rotated = &msg->u.region_rotated;
	struct daemon *daemon = connection->daemon;
	struct events_about about = {.tenant = connection->session->tenant};
	struct msg_enc_key_destroyed destroyed = {.generation = 0};
	struct regions_row region;
	enum secpool_error error = session_region(connection, rotated->region, &region);

	(void)extra;
	if (error)
		return error;
	if (region.epoch == rotated->epoch) { /* the answer was lost with a keymgrd */
		server_reply(connection, msg->number, SECPOOL_OK);
		if (region.rotate)
			rotate_tell(daemon, &region, 1);
		return SECPOOL_OK;
	}
	if (region.next_epoch == 0 || region.next_epoch != rotated->epoch)
		return err_set(SECPOOL_E_INVALID, "region %llu does not move to epoch %llu",
			(unsigned long long)region.id, (unsigned long long)rotated->epoch);
	error = destroy_before(daemon, &region, rotated->epoch, &destroyed);
	if (error)
		return error;
	about.region = region.id;
	about.bytes = region.bytes;
	events_record(daemon, "key-rotated", &about,
		"epoch %llu: the key of epoch %llu is destroyed, generation %llu",
		(unsigned long long)rotated->epoch, (unsigned long long)region.epoch,
		(unsigned long long)destroyed.generation);
	server_reply(connection, msg->number, SECPOOL_OK);
	if (region.rotate) /* it was asked for again meanwhile */
		rotate_tell(daemon, &region, 1);
	return SECPOOL_OK;
}

/* ---- by command, and by age ---- */

static bool is_tenant(const struct daemon *daemon, const char *tenant)
{
	const char *name;

	for (size_t i = 0; (name = policy_tenant_name(daemon->policy, i)) != NULL; i++)
		if (strcmp(name, tenant) == 0)
			return true;
	return false;
}

enum secpool_error rotate_handle_tenant(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra)
{
	const char *tenant = msg->u.tenant_rotate.tenant;
	struct daemon *daemon = connection->daemon;
	struct msg answer = {.type = MSG_TENANT_ROTATING, .number = msg->number};
	struct events_about about = {.tenant = tenant};
	uint64_t count = 0;
	enum secpool_error error =
		auditlog_note(daemon, MSG_NOTE_ROTATION_ASKED, &connection->peer, tenant, 0, "");

	(void)extra;
	if (!error)
		error = epochs_want(daemon->directory, tenant, &count);
	/* one that went from the policy may have regions still */
	if (!error && count == 0 && !is_tenant(daemon, tenant))
		error = err_set(SECPOOL_E_UNKNOWN_TENANT, "there is no tenant '%s'", tenant);
	if (error)
		return error;
	events_record(daemon, "rotation-asked", &about, "new keys for %llu regions",
		(unsigned long long)count);
	answer.u.tenant_rotating.regions = count;
	server_send(connection, &answer, -1);
	tell_wanted(daemon);
	return SECPOOL_OK;
}

static uint64_t look_ns(const struct daemon *daemon)
{
	uint64_t ns = policy_settings(daemon->policy)->rotate_after_ns / LOOKS;

	return ns < LOOK_NS_LEAST ? LOOK_NS_LEAST : ns > LOOK_NS_MOST ? LOOK_NS_MOST : ns;
}

static int on_look(sd_event_source *source, uint64_t usec, void *arg)
{
	struct daemon *daemon = arg;
	uint64_t now = clock_calendar_ns(), age = policy_settings(daemon->policy)->rotate_after_ns;
	struct events_about about = {0};
	uint64_t count = 0;
	enum secpool_error error = SECPOOL_OK;

	(void)usec;
	if (now > age)
		error = epochs_want_older(daemon->directory, now - age, &count);
	if (!error && count > 0) {
		events_record(daemon, "rotation-due", &about,
			"the keys of %llu regions are older than %llu s", (unsigned long long)count,
			(unsigned long long)(age / CLOCK_NS_PER_S));
		tell_wanted(daemon);
	}
	if (!error && (sd_event_source_set_time_relative(source, look_ns(daemon) / 1000) < 0 ||
			      sd_event_source_set_enabled(source, SD_EVENT_ONESHOT) < 0))
		error = err_set(SECPOOL_E_SYSTEM, "rotation: the loop refused a timer");
	if (error)
		daemon_fail(daemon, "rotation-failed", error);
	return 0;
}

enum secpool_error rotate_start(struct daemon *daemon, sd_event_source **ret_source)
{
	if (policy_settings(daemon->policy)->rotate_after_ns == 0)
		return SECPOOL_OK;
	if (sd_event_add_time_relative(daemon->loop, ret_source, CLOCK_MONOTONIC,
		    look_ns(daemon) / 1000, 0, on_look, daemon) < 0)
		return err_set(SECPOOL_E_SYSTEM, "rotation: the loop refused a timer");
	return SECPOOL_OK;
}
