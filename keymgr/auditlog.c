/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/auditlog.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#include "keymgr/server.h"
#include "lib/base/log.h"
#include "lib/base/os.h"

/* How much is looked at in one step for the last line end, and the longest line that is appended. */
enum { STEP_BYTES = 4096, LINE_BYTES = 4096 };

/* Refusals that are told of in this time: a flood of them is no way to fill the disk. */
#define REFUSED_NS (60 * CLOCK_NS_PER_S)
enum { REFUSED_MOST = 100 };

/* Who is answered when its record is on disk. */
struct waiting {
	struct waiting *next;
	struct server_connection *connection;
	uint32_t number;
	auditlog_done *done;
};

struct auditlog {
	int fd;
	off_t bytes;
	bool broken; /* what is in the file is not known */
	bool unsynced;
	bool refuses; /* the last record was not appended */
	struct waiting *first, **last;
	unsigned since_anchor; /* records */
	struct log_limit refusals;
	uint64_t missed; /* refusals beyond the limit: counted, in the next note */
	char anchor[PATH_MAX];
	sd_event_source *timer, *defer;
};

/* The length up to and with the last line end. */
static enum secpool_error whole_lines(int fd, off_t end, off_t *ret_bytes)
{
	char part[STEP_BYTES];

	while (end > 0) {
		size_t count = end < STEP_BYTES ? (size_t)end : STEP_BYTES;
		ssize_t got = pread(fd, part, count, end - (off_t)count);

		if (got < 0 && os_interrupted())
			continue;
		if (got != (ssize_t)count)
			return os_error("read the audit");
		for (; count > 0 && part[count - 1] != '\n'; count--)
			end--;
		if (count > 0)
			break;
	}
	*ret_bytes = end;
	return SECPOOL_OK;
}

static enum secpool_error cut_rest(struct auditlog *log, const char *path)
{
	enum secpool_error error;
	struct stat status;

	if (fstat(log->fd, &status) != 0)
		return os_error("%s", path);
	error = whole_lines(log->fd, status.st_size, &log->bytes);
	if (error || log->bytes == status.st_size)
		return error;
	log_event(LOG_LEVEL_WARNING, "audit-rest-cut", "bytes=%lld",
		(long long)(status.st_size - log->bytes));
	if (ftruncate(log->fd, log->bytes) != 0 || fsync(log->fd) != 0)
		return os_error("%s", path);
	return SECPOOL_OK;
}

/* A new file is there after a crash only if its folder is on disk. */
static enum secpool_error sync_folder(const char *state_dir)
{
	int fd = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	enum secpool_error error = SECPOOL_OK;

	if (fd < 0 || fsync(fd) != 0)
		error = os_error("sync %s", state_dir);
	os_close(&fd);
	return error;
}

enum secpool_error auditlog_open(const char *state_dir, struct auditlog **ret_log)
{
	struct auditlog *log = calloc(1, sizeof *log);
	enum secpool_error error = SECPOOL_OK;
	char path[PATH_MAX];

	if (!log)
		return err_set(SECPOOL_E_NO_MEMORY, "audit: out of memory");
	log->fd = -1;
	log->last = &log->first;
	log->refusals = (struct log_limit){.period_ns = REFUSED_NS, .burst = REFUSED_MOST};
	if (snprintf(path, sizeof path, "%s/audit", state_dir) >= (int)sizeof path ||
		snprintf(log->anchor, sizeof log->anchor, "%s/audit.anchor", state_dir) >=
			(int)sizeof log->anchor)
		error = err_set(SECPOOL_E_LIMIT, "path too long: %.100s", state_dir);
	if (!error)
		log->fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (!error && log->fd < 0)
		error = os_error("open %s", path);
	if (!error)
		error = sync_folder(state_dir);
	if (!error)
		error = cut_rest(log, path);
	if (error)
		auditlog_close(log);
	else
		*ret_log = log;
	return error;
}

void auditlog_close(struct auditlog *log)
{
	if (!log)
		return;
	sd_event_source_disable_unref(log->timer);
	sd_event_source_disable_unref(log->defer);
	while (log->first) {
		struct waiting *waiting = log->first;

		log->first = waiting->next;
		free(waiting);
	}
	os_close(&log->fd);
	free(log);
}

static enum secpool_error is_broken(void)
{
	return err_set(SECPOOL_E_STORE,
		"the audit can't be appended to since an earlier failure: see to its disk and "
		"start keymgrd again");
}

/* After a sync that failed nobody knows what is on disk (fsync(2)), and the next one may say that all is well: nothing is appended any more. */
enum secpool_error auditlog_sync(struct auditlog *log)
{
	if (!log)
		return SECPOOL_OK;
	if (log->broken)
		return is_broken();
	if (!log->unsynced)
		return SECPOOL_OK;
	if (fdatasync(log->fd) != 0) {
		log->broken = true;
		return os_error("sync the audit");
	}
	log->unsynced = false;
	return SECPOOL_OK;
}

bool auditlog_refuses(const struct auditlog *log)
{
	return log && (log->broken || log->refuses);
}

/* The line with its end, in one write; what was written of one that did not fit is taken back. */
static enum secpool_error append(struct auditlog *log, const char *line, size_t bytes)
{
	char text[LINE_BYTES];
	enum secpool_error error;

	if (bytes >= sizeof text)
		return err_set(SECPOOL_E_LIMIT, "a record of %zu bytes", bytes);
	memcpy(text, line, bytes);
	text[bytes] = '\n';
	error = os_write_all(log->fd, text, bytes + 1);
	if (!error) {
		log->bytes += (off_t)bytes + 1;
		log->unsynced = true;
		return SECPOOL_OK;
	}
	if (ftruncate(log->fd, log->bytes) != 0)
		log->broken = true;
	return err_set(error, "the audit can't be appended to: %.200s", err_detail());
}

/* What nobody waits for is synced when the loop is back. */
static void sync_later(struct auditlog *log)
{
	if (log->defer &&
		(log->unsynced || log->first || log->since_anchor >= AUDITLOG_ANCHOR_RECORDS))
		sd_event_source_set_enabled(log->defer, SD_EVENT_ONESHOT);
}

enum secpool_error auditlog_keep(void *arg, const char *line, bool wait)
{
	struct auditlog *log = arg;
	enum secpool_error error;

	if (!log || log->broken)
		return is_broken();
	if (line[0] == '\0')
		return wait ? auditlog_sync(log) : SECPOOL_OK;
	error = append(log, line, strlen(line));
	log->refuses = error != SECPOOL_OK;
	if (!error && wait)
		error = auditlog_sync(log);
	if (error)
		return error;
	log->since_anchor++;
	sync_later(log);
	/* a copy: without a journal there is none */
	(void)sd_journal_send("MESSAGE=audit: %s", line, "PRIORITY=%i", LOG_LEVEL_INFO,
		"SYSLOG_IDENTIFIER=secpool-keymgrd", "SECPOOL_AUDIT=1", NULL);
	return SECPOOL_OK;
}

/* ---- who waits ---- */

void auditlog_await(struct daemon *daemon, struct server_connection *connection, uint32_t number,
	auditlog_done *done)
{
	struct auditlog *log = daemon->auditlog;
	struct waiting *waiting = log && log->defer ? calloc(1, sizeof *waiting) : NULL;

	/* nowhere to wait: at once */
	if (!waiting) {
		done(connection, number, auditlog_sync(log));
		return;
	}
	*waiting = (struct waiting){.connection = connection, .number = number, .done = done};
	*log->last = waiting;
	log->last = &waiting->next;
	server_hold(connection);
	sync_later(log);
}

void auditlog_forget(struct daemon *daemon, const struct server_connection *connection)
{
	struct waiting *waiting = daemon->auditlog ? daemon->auditlog->first : NULL;

	for (; waiting; waiting = waiting->next)
		if (waiting->connection == connection)
			waiting->connection = NULL;
}

/* One after the other: each may end connections, also others that wait. */
static void answer_waiting(struct auditlog *log, enum secpool_error error)
{
	char reason[ERR_DETAIL_BYTES];

	msg_set_text(reason, sizeof reason, err_detail());
	while (log->first) {
		struct waiting *waiting = log->first;
		struct server_connection *connection = waiting->connection;

		log->first = waiting->next;
		if (!log->first)
			log->last = &log->first;
		if (connection) {
			waiting->done(connection, waiting->number,
				error ? err_set(error, "%s", reason) : SECPOOL_OK);
			server_resume(connection);
		}
		free(waiting);
	}
}

/* The records that it counts are on disk before it is. */
static enum secpool_error write_anchor(struct daemon *daemon)
{
	struct auditlog *log = daemon->auditlog;
	struct msg request = {.type = MSG_ENC_AUDIT_ANCHOR}, answer;
	const char *text = answer.u.enc_audit_anchored.text;
	enum secpool_error error = auditlog_sync(log);

	if (!error)
		error = daemon_ask(daemon, &request, -1, MSG_ENC_AUDIT_ANCHORED, &answer);
	if (!error)
		error = os_write_file_durable(log->anchor, text, strlen(text), 0600);
	if (!error)
		log->since_anchor = 0;
	else
		log_error("audit-not-anchored", error);
	return error;
}

static int on_defer(sd_event_source *source, void *arg)
{
	struct daemon *daemon = arg;
	enum secpool_error error = auditlog_sync(daemon->auditlog);

	(void)source;
	if (error)
		log_error("audit-not-synced", error);
	answer_waiting(daemon->auditlog, error);
	/* one that can't be written is tried again with the next records, or by the timer */
	if (daemon->auditlog->since_anchor >= AUDITLOG_ANCHOR_RECORDS &&
		write_anchor(daemon) != SECPOOL_OK)
		return 0;
	return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *arg)
{
	struct daemon *daemon = arg;

	(void)usec;
	if (daemon->auditlog->since_anchor > 0 && write_anchor(daemon) != SECPOOL_OK)
		log_event(LOG_LEVEL_WARNING, "audit-unanchored", "records=%u",
			daemon->auditlog->since_anchor);
	if (sd_event_source_set_time_relative(source, AUDITLOG_ANCHOR_NS / 1000) < 0 ||
		sd_event_source_set_enabled(source, SD_EVENT_ONESHOT) < 0)
		daemon_fail(daemon, "audit-timer",
			err_set(SECPOOL_E_SYSTEM, "the loop refused a timer"));
	return 0;
}

enum secpool_error auditlog_start(struct daemon *daemon)
{
	struct auditlog *log = daemon->auditlog;

	if (sd_event_add_defer(daemon->loop, &log->defer, on_defer, daemon) < 0 ||
		sd_event_source_set_enabled(log->defer, SD_EVENT_OFF) < 0 ||
		sd_event_add_time_relative(daemon->loop, &log->timer, CLOCK_MONOTONIC,
			AUDITLOG_ANCHOR_NS / 1000, 0, on_timer, daemon) < 0)
		return err_set(SECPOOL_E_SYSTEM, "audit: the loop refused a source");
	return write_anchor(daemon);
}

void auditlog_stop(struct daemon *daemon)
{
	if (!daemon->auditlog)
		return;
	if (auditlog_note(daemon, MSG_NOTE_STOPPING, NULL, "", 0, "") != SECPOOL_OK)
		log_error("audit-no-stop", SECPOOL_E_STORE);
	if (write_anchor(daemon) != SECPOOL_OK)
		log_event(LOG_LEVEL_WARNING, "audit-unanchored", "records=%u",
			daemon->auditlog->since_anchor);
}

/* Fills in what all notes have, and asks. */
static enum secpool_error send_note(
	struct daemon *daemon, struct msg *request, const struct sock_peer *peer)
{
	struct msg_enc_audit_note *note = &request->u.enc_audit_note;
	uint64_t missed = daemon->auditlog ? daemon->auditlog->missed : 0;
	enum secpool_error error;

	request->type = MSG_ENC_AUDIT_NOTE;
	note->missed = missed;
	if (peer) {
		note->peer = 1;
		note->uid = peer->uid;
		note->pid = (uint32_t)peer->pid;
	}
	error = daemon_ask(daemon, request, -1, MSG_REPLY, NULL);
	if (daemon->auditlog)
		daemon->auditlog->missed -= missed;
	return error;
}

enum secpool_error auditlog_note(struct daemon *daemon, enum msg_note kind,
	const struct sock_peer *peer, const char *tenant, uint64_t region, const char *detail)
{
	struct msg request = {.number = 0};
	struct msg_enc_audit_note *note = &request.u.enc_audit_note;

	note->kind = kind;
	note->region = region;
	MSG_SET(note->tenant, tenant);
	MSG_SET(note->detail, detail);
	return send_note(daemon, &request, peer);
}

void auditlog_refused(struct daemon *daemon, const struct sock_peer *peer, enum secpool_error error)
{
	struct msg request = {.number = 0};
	struct msg_enc_audit_note *note = &request.u.enc_audit_note;

	if (daemon->auditlog && !log_allowed(&daemon->auditlog->refusals)) {
		daemon->auditlog->missed++;
		return;
	}
	note->kind = MSG_NOTE_REFUSED;
	note->error = (uint32_t)error;
	MSG_SET(note->detail, err_detail());
	/* an enclave that is gone has ended the loop by then */
	if (send_note(daemon, &request, peer) != SECPOOL_OK)
		log_error("refusal-not-told", SECPOOL_E_DAEMON_GONE);
	err_set(error, "%s", note->detail);
}
