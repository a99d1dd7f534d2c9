/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/anchor.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "keymgr/auditlog.h"
#include "keymgr/directory.h"
#include "keymgr/events.h"
#include "keymgr/wraps.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/os.h"
#include "policy/policy.h"

/* A hardware TPM seals in seconds, and each of its answers may take 30 s (tpm_open.c). */
#define ASK_NS (120 * CLOCK_NS_PER_S)
/* After one that failed; twice as long after each further one, for it may have used up a number. */
#define RETRY_NS      (60 * CLOCK_NS_PER_S)
#define RETRY_MOST_NS (3600 * CLOCK_NS_PER_S)

struct anchor {
	struct daemon *daemon;
	const char *state_dir;
	char next_path[PATH_MAX];
	sd_event_source *timer;
	bool armed;
	uint64_t retry_ns; /* after the next that fails */
	struct log_limit failed;
};

/* ---- start ---- */

/* An older directory knows of no root as new as the one that the TPM opened. */
static enum secpool_error check_directory(struct daemon *daemon)
{
	uint64_t sealed = 0;
	enum secpool_error error = directory_number(daemon->directory,
		"SELECT sealed FROM anchor WHERE id = 1", DIRECTORY_VALUES(), &sealed);

	if (error == SECPOOL_E_NOT_FOUND)
		return directory_run(daemon->directory,
			"INSERT INTO anchor (id, sealed) VALUES (1, ?1)",
			DIRECTORY_VALUES(DIRECTORY_N(daemon->generation)));
	if (!error && sealed < daemon->generation)
		error = err_set(SECPOOL_E_STORE,
			"directory.db was rolled back: it is of generation %llu, and the key tree "
			"of %llu: put back the newest state folder",
			(unsigned long long)sealed, (unsigned long long)daemon->generation);
	return error;
}

static enum secpool_error send_claims(
	struct daemon *daemon, struct msg *request, bool all, bool *ret_dirty)
{
	struct msg answer;
	enum secpool_error error;

	request->u.enc_leaf_claim.all = all;
	error = daemon_ask_within(daemon, ASK_NS, request, -1, MSG_ENC_LEAVES, &answer);
	request->u.enc_leaf_claim.count = 0;
	if (!error && all) {
		*ret_dirty = answer.u.enc_leaves.dirty != 0;
		if (answer.u.enc_leaves.dropped > 0)
			log_event(LOG_LEVEL_INFO, "keys-without-region", "count=%llu",
				(unsigned long long)answer.u.enc_leaves.dropped);
	}
	return error;
}

static enum secpool_error claim_leaves(struct daemon *daemon, bool *ret_dirty)
{
	struct msg request = {.type = MSG_ENC_LEAF_CLAIM};
	struct msg_enc_leaf_claim *claim = &request.u.enc_leaf_claim;
	struct directory_rows *rows = NULL;
	enum secpool_error error = directory_query(daemon->directory,
		"SELECT wrap, id, epoch FROM regions WHERE wrap != 0 UNION ALL"
		" SELECT next_wrap, id, next_epoch FROM regions WHERE next_wrap != 0 UNION ALL"
		" SELECT g.wrap, g.region, r.epoch FROM grants g JOIN regions r"
		"  ON r.id = g.region AND r.state = 3",
		DIRECTORY_VALUES(), &rows);

	while (!error && directory_next(rows, &error)) {
		claim->slots[claim->count] = directory_get_number(rows, 0);
		claim->regions[claim->count] = directory_get_number(rows, 1);
		claim->epochs[claim->count++] = directory_get_number(rows, 2);
		if (claim->count == MSG_LEAVES_MAX)
			error = send_claims(daemon, &request, false, ret_dirty);
	}
	directory_done(rows);
	if (!error)
		error = send_claims(daemon, &request, true, ret_dirty);
	return error ? error : wraps_erase_unnamed(daemon->wraps);
}

/* ---- one generation ---- */

enum secpool_error anchor_take_number(struct directory *directory, uint64_t *ret_last)
{
	enum secpool_error error = directory_run(directory,
		"UPDATE anchor SET sealed = sealed + 1 WHERE id = 1", DIRECTORY_VALUES());

	return error ? error
		     : directory_number(directory, "SELECT sealed FROM anchor WHERE id = 1",
			       DIRECTORY_VALUES(), ret_last);
}

/* Nothing was sealed for it. */
static void give_back_number(struct daemon *daemon)
{
	if (directory_run(daemon->directory, "UPDATE anchor SET sealed = sealed - 1 WHERE id = 1",
		    DIRECTORY_VALUES()) != SECPOOL_OK)
		log_error("generation-skipped", SECPOOL_E_STORE);
}

static enum secpool_error seal(
	struct daemon *daemon, uint64_t last, int memory_fd, uint64_t *ret_bytes)
{
	struct msg request = {.type = MSG_ENC_ANCHOR_SEAL}, answer;
	enum secpool_error error;

	request.u.enc_anchor_seal.last = last;
	error = daemon_ask_within(
		daemon, ASK_NS, &request, memory_fd, MSG_ENC_ANCHOR_SEALED, &answer);
	if (!error)
		*ret_bytes = answer.u.enc_anchor_sealed.bytes;
	return error;
}

static enum secpool_error end(struct daemon *daemon, bool commit, struct msg *ret_answer)
{
	struct msg request = {.type = MSG_ENC_ANCHOR_END};

	request.u.enc_anchor_end.commit = commit;
	return daemon_ask_within(
		daemon, ASK_NS, &request, -1, commit ? MSG_ENC_ANCHORED : MSG_REPLY, ret_answer);
}

/* Over numbers that were skipped the TPM counts too, some at a time. */
static enum secpool_error count(struct daemon *daemon, uint64_t last, struct msg *ret_answer)
{
	uint64_t before;
	enum secpool_error error;

	ret_answer->u.enc_anchored.generation = 0;
	do {
		before = ret_answer->u.enc_anchored.generation;
		error = end(daemon, true, ret_answer);
	} while (!error && ret_answer->u.enc_anchored.generation > before &&
		 ret_answer->u.enc_anchored.generation < last);
	if (!error && ret_answer->u.enc_anchored.generation != last)
		error = err_set(SECPOOL_E_INTERNAL, "the enclave counted to %llu instead of %llu",
			(unsigned long long)ret_answer->u.enc_anchored.generation,
			(unsigned long long)last);
	return error;
}

/* Before the count all can be given up; from the count on there is no way back, and what fails is done by the next start. */
static enum secpool_error write_and_count(struct anchor *anchor, const uint8_t *bytes,
	uint64_t length, struct msg_enc_anchored *ret_anchored)
{
	struct daemon *daemon = anchor->daemon;
	struct keyfile_root root;
	char reason[ERR_DETAIL_BYTES];
	struct msg answer;
	enum secpool_error error = keyfile_parse_root(bytes, length, &root);

	if (!error)
		error = os_write_file_durable(anchor->next_path, bytes, length, 0600);
	if (error) {
		msg_set_text(reason, sizeof reason, err_detail());
		/* what may be there of it was not counted, and must not be taken for one that was when the TPM is lost */
		if (end(daemon, false, NULL) != SECPOOL_OK ||
			os_remove_file_durable(anchor->next_path) != SECPOOL_OK)
			daemon_fail(daemon, "generation-not-given-up", SECPOOL_E_INTERNAL);
		return err_set(error, "%s", reason);
	}
	error = count(daemon, root.last, &answer);
	if (!error)
		error = wraps_apply(daemon->wraps, &root);
	if (!error)
		error = keyfile_take_next(&root, anchor->state_dir);
	if (error)
		daemon_fail(daemon, "generation-not-finished", error);
	else
		*ret_anchored = answer.u.enc_anchored;
	return error;
}

static enum secpool_error make_generation(
	struct anchor *anchor, struct msg_enc_anchored *ret_anchored)
{
	struct daemon *daemon = anchor->daemon;
	int fd = memfd_create("secpool-generation", MFD_CLOEXEC);
	void *bytes = MAP_FAILED;
	uint64_t last = 0, count = 0;
	enum secpool_error error = SECPOOL_E_INTERNAL;

	if (fd < 0 || ftruncate(fd, KEYFILE_ROOT_BYTES_MOST) != 0) {
		error = os_error("memory for a new generation");
		goto out;
	}
	bytes = mmap(NULL, KEYFILE_ROOT_BYTES_MOST, PROT_READ, MAP_SHARED, fd, 0);
	if (bytes == MAP_FAILED) {
		error = os_error("memory for a new generation");
		goto out;
	}
	/* the records that it counts are on disk before it is */
	error = auditlog_sync(daemon->auditlog);
	if (!error)
		error = anchor_take_number(daemon->directory, &last);
	if (error)
		goto out;
	error = seal(daemon, last, fd, &count);
	if (error) {
		char reason[ERR_DETAIL_BYTES];

		msg_set_text(reason, sizeof reason, err_detail());
		give_back_number(daemon);
		error = err_set(error, "%s", reason);
		goto out;
	}
	error = count <= KEYFILE_ROOT_BYTES_MOST
			? write_and_count(anchor, bytes, count, ret_anchored)
			: err_set(SECPOOL_E_INTERNAL, "the enclave made too long a generation");
out:
	if (bytes != MAP_FAILED)
		munmap(bytes, KEYFILE_ROOT_BYTES_MOST);
	os_close(&fd);
	return error;
}

/* Arms the timer, or with 0 stops it. */
static void arm(struct anchor *anchor, uint64_t after_ns)
{
	anchor->armed = after_ns > 0;
	if (sd_event_source_set_time_relative(anchor->timer, after_ns / 1000) < 0 ||
		sd_event_source_set_enabled(
			anchor->timer, after_ns > 0 ? SD_EVENT_ONESHOT : SD_EVENT_OFF) < 0)
		daemon_fail(anchor->daemon, "no-timer",
			err_set(SECPOOL_E_SYSTEM, "anchor: the loop refused a timer"));
}

/* One generation, with its event; ret_anchored may be looked at when it succeeded. */
static enum secpool_error run(struct anchor *anchor, struct msg_keystore_anchored *ret_anchored)
{
	struct daemon *daemon = anchor->daemon;
	struct events_about about = {0};
	struct msg_enc_anchored done;
	uint64_t began = clock_now_ns();
	enum secpool_error error = make_generation(anchor, &done);

	if (error)
		return error;
	arm(anchor, 0);
	anchor->retry_ns = RETRY_NS;
	daemon->generation = done.generation;
	*ret_anchored = (struct msg_keystore_anchored){.generation = done.generation,
		.erased = done.erased,
		.took_ns = clock_now_ns() - began};
	events_record(daemon, "anchored", &about,
		"generation %llu: %llu keys are destroyed durably, in %llu ms",
		(unsigned long long)done.generation, (unsigned long long)done.erased,
		(unsigned long long)(ret_anchored->took_ns / CLOCK_NS_PER_MS));
	return SECPOOL_OK;
}

enum secpool_error anchor_now(struct daemon *daemon)
{
	struct msg_keystore_anchored done;

	return run(daemon->anchor, &done);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *arg)
{
	struct anchor *anchor = arg;
	struct events_about about = {0};
	struct msg_keystore_anchored done;
	enum secpool_error error;

	(void)source;
	(void)usec;
	error = run(anchor, &done);
	if (!error)
		return 0;
	if (log_allowed(&anchor->failed))
		events_record(anchor->daemon, "not-anchored", &about, "%.200s", err_detail());
	arm(anchor, anchor->retry_ns);
	anchor->retry_ns =
		2 * anchor->retry_ns < RETRY_MOST_NS ? 2 * anchor->retry_ns : RETRY_MOST_NS;
	return 0;
}

void anchor_wanted(struct daemon *daemon)
{
	uint64_t after_ns;

	if (!daemon->anchor || daemon->anchor->armed)
		return;
	after_ns = policy_settings(daemon->policy)->anchor_after_ns;
	if (after_ns > 0)
		arm(daemon->anchor, after_ns);
}

enum secpool_error anchor_handle_now(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra)
{
	struct msg answer = {.type = MSG_KEYSTORE_ANCHORED, .number = msg->number};
	enum secpool_error error = run(connection->daemon->anchor, &answer.u.keystore_anchored);

	(void)extra;
	if (!error)
		server_send(connection, &answer, -1);
	return error;
}

enum secpool_error anchor_new(
	struct daemon *daemon, const char *state_dir, struct anchor **ret_anchor)
{
	struct anchor *anchor = calloc(1, sizeof *anchor);
	enum secpool_error error = SECPOOL_E_INTERNAL;
	bool dirty = false;

	if (!anchor)
		return err_set(SECPOOL_E_NO_MEMORY, "anchor: out of memory");
	anchor->daemon = daemon;
	anchor->state_dir = state_dir;
	anchor->retry_ns = RETRY_NS;
	anchor->failed = (struct log_limit){.period_ns = 600 * CLOCK_NS_PER_S, .burst = 3};
	if (snprintf(anchor->next_path, PATH_MAX, "%s/" KEYFILE_NEXT, state_dir) >= PATH_MAX)
		error = err_set(SECPOOL_E_LIMIT, "the state folder's path is too long");
	else
		error = check_directory(daemon);
	if (!error)
		error = claim_leaves(daemon, &dirty);
	if (!error && (sd_event_add_time_relative(daemon->loop, &anchor->timer, CLOCK_MONOTONIC,
			       UINT64_MAX / 4, 0, on_timer, anchor) < 0 ||
			      sd_event_source_set_enabled(anchor->timer, SD_EVENT_OFF) < 0))
		error = err_set(SECPOOL_E_SYSTEM, "anchor: the loop refused a timer");
	if (error) {
		anchor_free(anchor);
		return error;
	}
	*ret_anchor = anchor;
	daemon->anchor = anchor;
	if (dirty)
		anchor_wanted(daemon);
	return SECPOOL_OK;
}

void anchor_free(struct anchor *anchor)
{
	if (!anchor)
		return;
	sd_event_source_disable_unref(anchor->timer);
	free(anchor);
}
