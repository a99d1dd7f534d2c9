/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/session.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "keymgr/auditlog.h"
#include "keymgr/creates.h"
#include "keymgr/devices.h"
#include "keymgr/directory.h"
#include "keymgr/dispatch.h"
#include "keymgr/events.h"
#include "keymgr/owners.h"
#include "keymgr/process.h"
#include "keymgr/releases.h"
#include "keymgr/revoke.h"
#include "keymgr/seals.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"

/* What a client locks beside its regions and their pages: stacks, metadata, secret memory. */
#define MEMLOCK_EXTRA_BYTES (256ull << 20)

/* By process; tenants in a list of their own, for there are few. NOT_RAISED_PER_S: clients whose limit could not be raised, as events. */
enum { BUCKETS = 4096, NOT_RAISED_PER_S = 10 };

struct session_tenant {
	struct session_tenant *next;
	char name[MSG_NAME_BYTES];
	uint64_t sessions;
};

struct sessions {
	struct session *buckets[BUCKETS];
	struct session_tenant *tenants;
	struct session_walk *walks;
	uint64_t count;
	struct log_limit not_raised;
};

enum secpool_error session_new_table(struct sessions **ret_sessions)
{
	struct sessions *sessions = calloc(1, sizeof *sessions);

	if (!sessions)
		return err_set(SECPOOL_E_NO_MEMORY, "sessions: out of memory");
	sessions->not_raised =
		(struct log_limit){.period_ns = CLOCK_NS_PER_S, .burst = NOT_RAISED_PER_S};
	*ret_sessions = sessions;
	return SECPOOL_OK;
}

static void free_walks(struct sessions *sessions, const struct session *session)
{
	struct session_walk **at = &sessions->walks;

	while (*at) {
		struct session_walk *walk = *at;

		if (walk->session != session) {
			at = &walk->next;
			continue;
		}
		*at = walk->next;
		free(walk);
	}
}

static struct session **bucket_of(struct sessions *sessions, const struct os_process *process)
{
	return &sessions->buckets[(uint32_t)process->pid % BUCKETS];
}

static struct session_tenant *find_tenant(const struct sessions *sessions, const char *name)
{
	struct session_tenant *tenant = sessions->tenants;

	while (tenant && strcmp(tenant->name, name) != 0)
		tenant = tenant->next;
	return tenant;
}

/* Takes a session in: it is the table's. Errors: SECPOOL_E_NO_MEMORY. */
static enum secpool_error add_session(struct sessions *sessions, struct session *session)
{
	struct session **bucket = bucket_of(sessions, &session->process);
	struct session_tenant *tenant = find_tenant(sessions, session->tenant);

	if (!tenant) {
		tenant = calloc(1, sizeof *tenant);
		if (!tenant)
			return err_set(SECPOOL_E_NO_MEMORY, "sessions: out of memory");
		MSG_SET(tenant->name, session->tenant);
		tenant->next = sessions->tenants;
		sessions->tenants = tenant;
	}
	tenant->sessions++;
	sessions->count++;
	session->table = sessions;
	session->counted = tenant;
	session->next = *bucket;
	if (*bucket)
		(*bucket)->previous = session;
	*bucket = session;
	return SECPOOL_OK;
}

/* Takes it out; it is the caller's. */
static void remove_session(struct session *session)
{
	struct sessions *sessions = session->table;

	if (session->previous)
		session->previous->next = session->next;
	else
		*bucket_of(sessions, &session->process) = session->next;
	if (session->next)
		session->next->previous = session->previous;
	session->counted->sessions--;
	sessions->count--;
	free_walks(sessions, session);
	while (session->attached)
		session_detach(session, session->attached->region);
}

void session_free_table(struct sessions *sessions)
{
	if (!sessions)
		return;
	for (size_t i = 0; i < BUCKETS; i++)
		while (sessions->buckets[i]) {
			struct session *session = sessions->buckets[i];

			remove_session(session);
			free(session);
		}
	while (sessions->tenants) {
		struct session_tenant *tenant = sessions->tenants;

		sessions->tenants = tenant->next;
		free(tenant);
	}
	free(sessions);
}

uint64_t session_count(const struct sessions *sessions, const char *tenant)
{
	const struct session_tenant *one;

	if (!tenant)
		return sessions->count;
	one = find_tenant(sessions, tenant);
	return one ? one->sessions : 0;
}

bool session_of_process(const struct sessions *sessions, const struct os_process *process)
{
	const struct session *s = sessions->buckets[(uint32_t)process->pid % BUCKETS];

	for (; s; s = s->next)
		if (s->process.pid == process->pid &&
			s->process.start_ticks == process->start_ticks)
			return true;
	return false;
}

void session_walk_of(const struct sessions *sessions, uint64_t region, uint32_t kind,
	uint64_t *ret_done_bytes, uint64_t *ret_all_bytes)
{
	*ret_done_bytes = *ret_all_bytes = 0;
	for (const struct session_walk *w = sessions->walks; w; w = w->next)
		if (w->region == region && w->kind == kind) {
			*ret_done_bytes = w->done_bytes;
			*ret_all_bytes = w->all_bytes;
			return;
		}
}

enum secpool_error session_note_walk(struct session *session, uint64_t region, uint32_t kind,
	uint64_t done_bytes, uint64_t all_bytes)
{
	struct session_walk **at = &session->table->walks, *walk;

	while (*at && ((*at)->session != session || (*at)->region != region || (*at)->kind != kind))
		at = &(*at)->next;
	walk = *at;
	if (done_bytes >= all_bytes) {
		if (walk)
			*at = walk->next;
		free(walk);
		return SECPOOL_OK;
	}
	if (!walk)
		walk = *at = calloc(1, sizeof *walk);
	if (!walk)
		return err_set(SECPOOL_E_NO_MEMORY, "progress of a walk: out of memory");
	walk->session = session;
	walk->region = region;
	walk->kind = kind;
	walk->done_bytes = done_bytes;
	walk->all_bytes = all_bytes;
	return SECPOOL_OK;
}

enum secpool_error session_handle_progress(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra)
{
	const struct msg_region_progress *progress = &msg->u.region_progress;
	struct regions_row region;
	enum secpool_error error = session_region(connection, progress->region, &region);

	(void)extra;
	if (!error && progress->kind >= MSG_PROGRESSES)
		error = err_set(SECPOOL_E_PROTOCOL, "there is no walk %u", progress->kind);
	if (!error)
		error = session_note_walk(connection->session, region.id, progress->kind,
			progress->done_bytes, progress->all_bytes);
	return error;
}

static enum secpool_error check_quota(const struct server_connection *connection,
	const struct msg_session_open *open, struct policy_quota *ret_quota)
{
	const struct daemon *daemon = connection->daemon;
	struct policy_quota quota;
	enum secpool_error error = policy_may_be_tenant(
		daemon->policy, open->tenant, connection->peer.uid, connection->peer.gid, &quota);

	if (error)
		return error;
	if (session_count(daemon->sessions, open->tenant) >= quota.sessions)
		return err_set(SECPOOL_E_QUOTA,
			"tenant %s has its %llu sessions already: close one or raise "
			"quota.sessions",
			open->tenant, (unsigned long long)quota.sessions);
	if (open->local_bytes > quota.local_bytes)
		return err_set(SECPOOL_E_QUOTA,
			"tenant %s may have %llu MiB of local memory for a session, %llu were "
			"asked for",
			open->tenant, (unsigned long long)(quota.local_bytes >> 20),
			(unsigned long long)(open->local_bytes >> 20));
	*ret_quota = quota;
	return SECPOOL_OK;
}

static enum secpool_error open_in_enclave(struct server_connection *connection, const char *tenant,
	struct msg_enc_session_opened *ret_opened)
{
	struct msg request = {.type = MSG_ENC_SESSION_OPEN}, answer;
	enum secpool_error error;

	MSG_SET(request.u.enc_session_open.tenant, tenant);
	error = daemon_ask(
		connection->daemon, &request, connection->fd, MSG_ENC_SESSION_OPENED, &answer);
	if (!error)
		*ret_opened = answer.u.enc_session_opened;
	return error;
}

static void close_in_enclave(struct daemon *daemon, uint64_t id)
{
	struct msg msg = {.type = MSG_ENC_SESSION_CLOSE};

	msg.u.enc_session_close.session = id;
	if (daemon_ask(daemon, &msg, -1, MSG_REPLY, NULL) != SECPOOL_OK)
		log_event(LOG_LEVEL_WARNING, "session-not-closed", "session=%llu detail=\"%s\"",
			(unsigned long long)id, err_detail());
}

/* Root's programs need no limit: capabilities(7), CAP_IPC_LOCK. */
static void tell_not_raised(const struct server_connection *connection,
	const struct session *session, uint64_t has, uint64_t need)
{
	if (connection->peer.uid == 0)
		log_event(LOG_LEVEL_WARNING, "memlock-not-raised", "pid=%d bytes=%llu",
			session->process.pid, (unsigned long long)need);
	else if (log_allowed(&session->table->not_raised))
		events_record(connection->daemon, "memlock-not-raised",
			&(struct events_about){.tenant = session->tenant},
			"process %d of user %u may lock %llu KiB, its quota wants %llu: give "
			"keymgrd "
			"CAP_SYS_RESOURCE, or the user a higher limit (LimitMEMLOCK=, limits.conf)",
			session->process.pid, connection->peer.uid, (unsigned long long)(has >> 10),
			(unsigned long long)(need >> 10));
}

/* The client locks its mappings whole (mlock2 with ONFAULT): without this its limit is too small. Never lowered; failure is not fatal. */
static void raise_memlock(const struct server_connection *connection, const struct session *session)
{
	struct rlimit limit, wanted;
	rlim_t need = session->quota.bytes, more;

	if (__builtin_add_overflow(session->quota.local_bytes, MEMLOCK_EXTRA_BYTES, &more) ||
		__builtin_add_overflow(need, more, &need))
		need = RLIM_INFINITY;
	for (const struct session_attached *at = session->attached; at; at = at->next)
		if (__builtin_add_overflow(need, at->bytes, &need))
			need = RLIM_INFINITY;

	limit.rlim_cur = limit.rlim_max = process_memlock(&session->process);
	if (limit.rlim_cur >= need)
		return;
	if (prlimit(session->process.pid, RLIMIT_MEMLOCK, NULL, &limit) == 0) {
		/* the number may be another process's by now, which is left alone; all that was read is this one's when it lives still */
		if (!os_process_alive(&session->process))
			return;
		wanted = (struct rlimit){.rlim_cur = need,
			.rlim_max = limit.rlim_max > need ? limit.rlim_max : need};
		if (prlimit(session->process.pid, RLIMIT_MEMLOCK, &wanted, NULL) == 0)
			return;
		/* as far as it goes without privilege: a process of our own user's */
		wanted.rlim_cur = wanted.rlim_max = limit.rlim_max;
		if (limit.rlim_cur < limit.rlim_max &&
			prlimit(session->process.pid, RLIMIT_MEMLOCK, &wanted, NULL) == 0)
			limit = wanted;
	}
	if (limit.rlim_cur < need)
		tell_not_raised(connection, session, limit.rlim_cur, need);
}

enum secpool_error session_attach(
	struct server_connection *connection, const struct regions_row *region)
{
	struct session *session = connection->session;
	struct session_attached *attached;
	enum secpool_error error = owners_watch(connection->daemon, &session->process);

	if (error)
		return error;
	for (attached = session->attached; attached; attached = attached->next)
		if (attached->region == region->id)
			return SECPOOL_OK;
	attached = calloc(1, sizeof *attached);
	if (!attached)
		return err_set(SECPOOL_E_NO_MEMORY, "a session's sealed regions: out of memory");
	*attached = (struct session_attached){
		.region = region->id, .bytes = region->bytes, .next = session->attached};
	session->attached = attached;
	raise_memlock(connection, session);
	return SECPOOL_OK;
}

bool session_detach(struct session *session, uint64_t region)
{
	for (struct session_attached **at = &session->attached; *at; at = &(*at)->next) {
		struct session_attached *attached = *at;

		if (attached->region != region)
			continue;
		*at = attached->next;
		free(attached);
		return true;
	}
	return false;
}

static void send_opened(struct server_connection *connection, uint32_t number)
{
	const struct daemon *daemon = connection->daemon;
	const struct policy_settings *settings = policy_settings(daemon->policy);
	struct msg msg = {.type = MSG_SESSION_OPENED, .number = number};
	struct msg_session_opened *opened = &msg.u.session_opened;

	opened->session = connection->session->id;
	opened->window_base = settings->window_base;
	opened->window_bytes = settings->window_bytes;
	opened->local_bytes_most = connection->session->quota.local_bytes;
	opened->allow_unlocked = settings->allow_unlocked_memory;
	opened->faultfd_passed = daemon->faultfd >= 0;
	opened->rebuild_bytes_per_second = settings->rebuild_bytes_per_second;
	opened->grace_ms = settings->grace_ns / CLOCK_NS_PER_MS;
	opened->patrol_bytes_per_second = settings->patrol_bytes_per_second;
	opened->suspect_after_ms = settings->suspect_after_ms;
	opened->gone_after_ms = settings->gone_after_ms;
	opened->rotate_after_bytes = settings->rotate_after_bytes;
	opened->read_only = connection->session->read_only;
	server_send(connection, &msg, daemon->faultfd);
}

/* The record is on disk, or can't be made sure of: then there is no session. */
static void recorded(
	struct server_connection *connection, uint32_t number, enum secpool_error error)
{
	struct daemon *daemon = connection->daemon;
	char reason[ERR_DETAIL_BYTES];

	if (error) {
		msg_set_text(reason, sizeof reason, err_detail());
		session_end(connection);
		dispatch_refuse(connection, number, err_set(error, "%s", reason));
		return;
	}
	connection->state = SERVER_SESSION;
	/* first: one that reads nothing loses its session by what is sent */
	log_event(LOG_LEVEL_INFO, "session-opened", "tenant=%s pid=%d uid=%u",
		connection->session->tenant, connection->peer.pid, connection->peer.uid);
	send_opened(connection, number);
	devices_tell(daemon, connection);
}

/* The policy does not let the peer be the tenant: what it has as that, from before, ends. Errors: the audit's, and it does not end yet: the program asks again. */
static enum secpool_error revoke_of_peer(
	struct server_connection *connection, const char *tenant, enum secpool_error refusal)
{
	char reason[ERR_DETAIL_BYTES];
	struct os_process process;
	enum secpool_error error = SECPOOL_OK;

	msg_set_text(reason, sizeof reason, err_detail());
	/* one that has ended is looked after by its end */
	if (process_of_peer(connection->fd, &connection->peer, connection->accepted_ns, &process) ==
		SECPOOL_OK)
		error = revoke_refused(connection->daemon, &process, tenant);
	return error ? error : err_set(refusal, "%s", reason);
}

enum secpool_error session_handle_open(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra)
{
	const struct msg_session_open *open = &msg->u.session_open;
	struct daemon *daemon = connection->daemon;
	struct session *session = calloc(1, sizeof *session);
	struct msg_enc_session_opened opened = {.session = 0};
	enum secpool_error error = SECPOOL_E_INTERNAL;
	bool in_enclave = false, by_policy = false;

	(void)extra;
	if (!session) {
		error = err_set(SECPOOL_E_NO_MEMORY, "session: out of memory");
		goto out;
	}
	MSG_SET(session->tenant, open->tenant);
	session->read_only = open->read_only != 0;
	session->caused =
		(struct log_limit){.period_ns = CLOCK_NS_PER_S, .burst = SESSION_CAUSED_PER_S};
	error = check_quota(connection, open, &session->quota);
	/* who may have no region writes nowhere */
	session->read_only = session->read_only || session->quota.regions == 0;
	by_policy = error == SECPOOL_E_UNKNOWN_TENANT || error == SECPOOL_E_DENIED;
	if (by_policy)
		error = revoke_of_peer(connection, open->tenant, error);
	if (!error)
		error = process_of_peer(connection->fd, &connection->peer, connection->accepted_ns,
			&session->process);
	if (!error)
		error = owners_watch(daemon, &session->process);
	if (error)
		goto out;
	error = open_in_enclave(connection, open->tenant, &opened);
	in_enclave = opened.session != 0;
	if (!error && (opened.uid != connection->peer.uid ||
			      opened.pid != (uint32_t)connection->peer.pid))
		error = err_set(SECPOOL_E_INTERNAL, "the enclave sees another peer than keymgrd");
	if (error)
		goto out;
	session->id = opened.session;
	error = add_session(daemon->sessions, session);
	if (error)
		goto out;
	raise_memlock(connection, session);
	connection->session = session;
	session = NULL;
	auditlog_await(daemon, connection, msg->number, recorded);
out:
	/* the client gives all up when the policy refuses it: a system call that is not permitted must not look so */
	if (error == SECPOOL_E_DENIED && !by_policy)
		error = SECPOOL_E_SYSTEM;
	if (error && in_enclave)
		close_in_enclave(daemon, opened.session);
	if (error && session && !session_of_process(daemon->sessions, &session->process))
		owners_away(daemon, &session->process);
	free(session);
	return error;
}

enum secpool_error session_handle_close(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra)
{
	(void)extra;
	if (msg->u.session_close.session != connection->session->id)
		return err_set(SECPOOL_E_PROTOCOL, "SESSION_CLOSE names another session");
	server_close(connection);
	return SECPOOL_OK;
}

void session_end(struct server_connection *connection)
{
	struct daemon *daemon = connection->daemon;
	struct session *session = connection->session;

	if (!session)
		return;
	remove_session(session);
	connection->session = NULL;
	auditlog_forget(daemon, connection);
	creates_forget(daemon, connection);
	seals_forget(daemon, connection);
	releases_forget(daemon, connection);
	close_in_enclave(daemon, session->id);
	if (!session_of_process(daemon->sessions, &session->process))
		owners_away(daemon, &session->process);
	log_event(LOG_LEVEL_INFO, "session-ended", "tenant=%s pid=%d", session->tenant,
		session->process.pid);
	free(session);
}

bool session_owns(const struct server_connection *connection, const struct regions_row *region)
{
	const struct session *session = connection->session;

	return session && connection->state == SERVER_SESSION && !connection->closing &&
	       session->process.pid == region->process.pid &&
	       session->process.start_ticks == region->process.start_ticks &&
	       connection->peer.uid == region->uid && strcmp(session->tenant, region->tenant) == 0;
}

enum secpool_error session_region(
	const struct server_connection *connection, uint64_t region, struct regions_row *ret_row)
{
	const struct session *session = connection->session;
	struct regions_row row;
	enum secpool_error error = regions_find(connection->daemon->directory, region, &row);

	if (error)
		return error;
	if (row.process.pid != session->process.pid ||
		row.process.start_ticks != session->process.start_ticks ||
		row.uid != connection->peer.uid || strcmp(row.tenant, session->tenant) != 0)
		return err_set(
			SECPOOL_E_NOT_FOUND, "there is no region %llu", (unsigned long long)region);
	if (row.state != MSG_REGION_LIVE)
		return err_set(SECPOOL_E_KEY_GONE, "region %llu is being released",
			(unsigned long long)region);
	*ret_row = row;
	return SECPOOL_OK;
}
