/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/owners.h"

#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>

#include "keymgr/directory.h"
#include "keymgr/events.h"
#include "keymgr/regions.h"
#include "keymgr/releases.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "policy/policy.h"

enum { BUCKETS = 4096 };

struct owner {
	struct owner *next, *previous; /* of one bucket */
	struct daemon *daemon;
	struct os_process process;
	uint64_t away_since_ns; /* 0: it has a session */
	bool expired;		/* it was away for too long: for good */
	int pidfd;
	sd_event_source *source;
};

struct owners {
	struct owner *buckets[BUCKETS]; /* by process number */
	unsigned count;
};

static struct owner **bucket_of(struct owners *owners, const struct os_process *process)
{
	return &owners->buckets[(uint32_t)process->pid % BUCKETS];
}

static struct owner *find_owner(struct owners *owners, const struct os_process *process)
{
	for (struct owner *owner = *bucket_of(owners, process); owner; owner = owner->next)
		if (owner->process.pid == process->pid &&
			owner->process.start_ticks == process->start_ticks)
			return owner;
	return NULL;
}

static void free_owner(struct owner *owner)
{
	sd_event_source_disable_unref(owner->source);
	os_close(&owner->pidfd);
	free(owner);
}

static void drop_owner(struct owners *owners, struct owner *owner)
{
	if (owner->previous)
		owner->previous->next = owner->next;
	else
		*bucket_of(owners, &owner->process) = owner->next;
	if (owner->next)
		owner->next->previous = owner->previous;
	owners->count--;
	free_owner(owner);
}

enum secpool_error owners_new(struct owners **ret_owners)
{
	struct owners *owners = calloc(1, sizeof *owners);

	if (!owners)
		return err_set(SECPOOL_E_NO_MEMORY, "owners: out of memory");
	*ret_owners = owners;
	return SECPOOL_OK;
}

void owners_free(struct owners *owners)
{
	for (size_t i = 0; owners && i < BUCKETS; i++)
		while (owners->buckets[i])
			drop_owner(owners, owners->buckets[i]);
	free(owners);
}

static void release_regions(struct daemon *daemon, const struct os_process *process)
{
	struct regions_row row = {.id = 0};
	enum secpool_error error;

	while (!(error = regions_next_of(daemon->directory, process, row.id, &row)))
		if (row.state == MSG_REGION_LIVE)
			releases_begin(daemon, &row, MSG_CLIENT_DEAD, NULL, 0);
	if (error != SECPOOL_E_NOT_FOUND)
		daemon_fail(daemon, "directory-failed", error);
}

static int on_death(sd_event_source *source, int fd, uint32_t events, void *arg)
{
	struct owner *owner = arg;
	struct daemon *daemon = owner->daemon;
	struct os_process process = owner->process;

	(void)source;
	(void)fd;
	(void)events;
	drop_owner(daemon->owners, owner);
	log_event(LOG_LEVEL_INFO, "client-ended", "pid=%d", process.pid);
	release_regions(daemon, &process);
	return 0;
}

static enum secpool_error add_owner(
	struct daemon *daemon, const struct os_process *process, struct owner **ret_owner)
{
	struct owner *owner = calloc(1, sizeof *owner), **bucket;
	enum secpool_error error = SECPOOL_E_INTERNAL;

	if (!owner)
		return err_set(SECPOOL_E_NO_MEMORY, "owners: out of memory");
	*owner = (struct owner){.daemon = daemon, .process = *process, .pidfd = -1};
	/* before: a dead process's number may be a thread's by now, which pidfd_open refuses; after: or another process's */
	if (os_process_alive(process))
		owner->pidfd = pidfd_open(process->pid, 0);
	if (!os_process_alive(process))
		error = err_set(SECPOOL_E_NOT_FOUND, "process %d has ended", process->pid);
	else if (owner->pidfd < 0)
		error = os_error("pidfd_open of process %d", process->pid);
	else if (sd_event_add_io(
			 daemon->loop, &owner->source, owner->pidfd, EPOLLIN, on_death, owner) < 0)
		error = err_set(SECPOOL_E_SYSTEM, "process %d can't be watched", process->pid);
	else
		error = SECPOOL_OK;
	if (error) {
		free_owner(owner);
		return error;
	}
	bucket = bucket_of(daemon->owners, process);
	owner->next = *bucket;
	if (*bucket)
		(*bucket)->previous = owner;
	*bucket = owner;
	daemon->owners->count++;
	*ret_owner = owner;
	return SECPOOL_OK;
}

/* Whether the owner has been away for longer than the policy's grace; remembered and recorded once. */
static bool is_expired(struct owner *owner)
{
	struct events_about about = {0};
	uint64_t grace = policy_settings(owner->daemon->policy)->grace_ns;

	if (owner->expired)
		return true;
	if (owner->away_since_ns == 0 || clock_now_ns() - owner->away_since_ns <= grace)
		return false;
	owner->expired = true;
	events_record(owner->daemon, "client-away", &about,
		"process %d was away for more than %llu s: its space waits for its end",
		owner->process.pid, (unsigned long long)(grace / CLOCK_NS_PER_S));
	return true;
}

enum secpool_error owners_watch(struct daemon *daemon, const struct os_process *process)
{
	struct owner *owner = find_owner(daemon->owners, process);
	enum secpool_error error = SECPOOL_OK;

	if (!owner)
		error = add_owner(daemon, process, &owner);
	if (!error && !is_expired(owner))
		owner->away_since_ns = 0;
	return error;
}

void owners_away(struct daemon *daemon, const struct os_process *process)
{
	struct owner *owner = find_owner(daemon->owners, process);
	bool has_regions = true;

	if (!owner)
		return;
	if (regions_of_process(daemon->directory, process, &has_regions) != SECPOOL_OK)
		log_error("regions-not-counted", SECPOOL_E_STORE);
	if (!has_regions)
		drop_owner(daemon->owners, owner); /* its descriptor must not be held for nothing */
	else if (owner->away_since_ns == 0)
		owner->away_since_ns = clock_now_ns();
}

unsigned owners_count(const struct owners *owners)
{
	return owners->count;
}

void owners_signal(
	struct daemon *daemon, const struct os_process *process, int number, uint64_t region)
{
	const struct owner *owner = find_owner(daemon->owners, process);
	siginfo_t info = {.si_signo = number, .si_code = SI_QUEUE};

	if (!owner)
		return;
	info.si_value.sival_ptr = (void *)(uintptr_t)region; /* lint: a number, never a place */
	info.si_pid = getpid();
	info.si_uid = getuid();
	if (pidfd_send_signal(owner->pidfd, number, &info, 0) != 0)
		log_error("signal-not-sent", os_error("signal to process %d", process->pid));
}

enum secpool_error owners_may_resume(struct daemon *daemon, const struct os_process *process)
{
	struct owner *owner = find_owner(daemon->owners, process);

	if (!owner)
		return err_set(SECPOOL_E_NOT_FOUND, "process %d is not known", process->pid);
	if (is_expired(owner))
		return err_set(SECPOOL_E_SESSION_EXPIRED,
			"process %d was away for longer than the policy's grace: end it and start "
			"it again",
			process->pid);
	return SECPOOL_OK;
}

static void start_region(struct daemon *daemon, const struct regions_row *row)
{
	struct owner *owner = find_owner(daemon->owners, &row->process);
	enum secpool_error error = SECPOOL_OK;

	if (row->state == MSG_REGION_SEALED)
		return; /* nobody's end is its end */
	if (row->state == MSG_REGION_LIVE && !owner)
		error = add_owner(daemon, &row->process, &owner);
	if (row->state == MSG_REGION_LIVE && !error) {
		owner->away_since_ns = daemon->start_ns;
		return;
	}
	if (row->state == MSG_REGION_LIVE && error != SECPOOL_E_NOT_FOUND) {
		daemon_fail(daemon, "client-not-watched", error);
		return;
	}
	if (row->state == REGIONS_CREATING)
		releases_undo(daemon, row->id);
	else
		releases_begin(daemon, row, MSG_CLIENT_DEAD, NULL, 0);
}

enum secpool_error owners_start(struct daemon *daemon)
{
	struct regions_row row = {.id = 0};
	enum secpool_error error;

	while (!(error = regions_next(daemon->directory, row.id, &row)))
		start_region(daemon, &row);
	return error == SECPOOL_E_NOT_FOUND ? SECPOOL_OK : error;
}
