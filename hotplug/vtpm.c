/* SPDX-License-Identifier: Apache-2.0 */
#include "hotplug/vtpm.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/os.h"

/* How long an ending process may take before it is killed; the waits before another start.
 * Milliseconds. */
enum { STOP_MS = 2000, RESTART_LEAST_MS = 50, RESTART_MOST_MS = 5000, NS_PER_US = 1000 };

/* A process that lived this long was fine: its end does not lengthen the wait. */
#define FINE_NS (10 * CLOCK_NS_PER_S)

struct vtpm {
	sd_event *loop;
	const char *program, *folder;
	vtpm_started *started;
	void *arg;
	struct identity identity;
	bool wanted; /* it has power */
	pid_t pid;   /* 0: no process */
	bool ending; /* the process was told to end */
	uint64_t started_ns;
	unsigned wait_ms;
	sd_event_source *child, *timer;
};

static void spawn(struct vtpm *vtpm);

static int on_restart(sd_event_source *source, uint64_t usec, void *arg)
{
	struct vtpm *vtpm = arg;

	(void)source;
	(void)usec;
	vtpm->timer = sd_event_source_disable_unref(vtpm->timer);
	if (vtpm->wanted && vtpm->pid == 0)
		spawn(vtpm);
	return 0;
}

static int on_overdue(sd_event_source *source, uint64_t usec, void *arg)
{
	struct vtpm *vtpm = arg;

	(void)source;
	(void)usec;
	vtpm->timer = sd_event_source_disable_unref(vtpm->timer);
	if (vtpm->pid > 0)
		kill(vtpm->pid, SIGKILL);
	return 0;
}

/* One timer serves both: a process that ends, and the wait for the next, exclude each other. */
static void arm(struct vtpm *vtpm, unsigned ms, sd_event_time_handler_t handler)
{
	vtpm->timer = sd_event_source_disable_unref(vtpm->timer);
	if (sd_event_add_time_relative(vtpm->loop, &vtpm->timer, CLOCK_MONOTONIC,
		    (uint64_t)ms * NS_PER_US, 1, handler, vtpm) < 0)
		log_event(LOG_LEVEL_ERROR, "vtpm-timer", "device=%s", vtpm->identity.id);
}

static void restart_later(struct vtpm *vtpm)
{
	if (vtpm->wait_ms == 0)
		vtpm->wait_ms = RESTART_LEAST_MS;
	arm(vtpm, vtpm->wait_ms, on_restart);
	vtpm->wait_ms = vtpm->wait_ms * 2 < RESTART_MOST_MS ? vtpm->wait_ms * 2 : RESTART_MOST_MS;
}

static int on_exit_of(sd_event_source *source, const siginfo_t *info, void *arg)
{
	struct vtpm *vtpm = arg;
	bool asked = vtpm->ending;

	(void)source;
	vtpm->child = sd_event_source_disable_unref(vtpm->child);
	vtpm->timer = sd_event_source_disable_unref(vtpm->timer);
	vtpm->pid = 0;
	vtpm->ending = false;
	if (!asked)
		log_event(LOG_LEVEL_WARNING, "vtpm-died", "device=%s %s=%d", vtpm->identity.id,
			info->si_code == CLD_EXITED ? "status" : "signal", info->si_status);
	if (!vtpm->wanted)
		return 0;
	if (asked) {
		spawn(vtpm);
		return 0;
	}
	if (clock_now_ns() - vtpm->started_ns > FINE_NS)
		vtpm->wait_ms = 0;
	restart_later(vtpm);
	return 0;
}

/* Only async-signal-safe calls: other threads of the parent may hold any lock. */
_Noreturn static void become(const char *const *arguments, pid_t parent)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* SIGKILL: a state that is written by rename loses nothing, and the successor must not wait
	 * for the folder's lock */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
		_exit(126);
	execv(arguments[0], (char *const *)arguments);
	_exit(127);
}

/* A TPM is manufactured once: when its folder is new. A state that vanished later is never silently
 * another TPM. */
static bool is_new(const char *state)
{
	return rmdir(state) == 0 || access(state, F_OK) != 0;
}

/* swtpm(8), of Debian's package; it takes a comma for the end of a path. */
#define SWTPM_PROGRAM "/usr/bin/swtpm"
enum { ARGUMENTS_MOST = 12 };

struct texts {
	char state[PATH_MAX], socket[PATH_MAX];
	char firmware[sizeof((struct identity_measured *)0)->firmware + 2];
	char device[sizeof((struct identity_measured *)0)->device + 2];
	char tpmstate[PATH_MAX + 8], server[PATH_MAX + 32]; /* swtpm's */
};

static enum secpool_error fill_texts(const struct vtpm *vtpm, struct texts *texts)
{
	struct identity_measured measured;

	identity_measure(&vtpm->identity, &measured);
	if (snprintf(texts->state, PATH_MAX, "%s/tpm", vtpm->folder) >= PATH_MAX ||
		snprintf(texts->socket, PATH_MAX, "%s/tpm.sock", vtpm->folder) >= PATH_MAX)
		return err_set(SECPOOL_E_LIMIT, "path too long: %s", vtpm->folder);
	snprintf(texts->firmware, sizeof texts->firmware, "0:%s", measured.firmware);
	snprintf(texts->device, sizeof texts->device, "2:%s", measured.device);
	return SECPOOL_OK;
}

/* secpool-vtpm measures by itself, before it listens. */
static enum secpool_error own_arguments(
	const struct vtpm *vtpm, struct texts *texts, const char *arguments[ARGUMENTS_MOST])
{
	const char *const all[] = {vtpm->program, "--state", texts->state, "--socket",
		texts->socket, "--extend", texts->firmware, "--extend", texts->device,
		is_new(texts->state) ? "--provision" : NULL};

	memcpy(arguments, all, sizeof all);
	return os_make_dir(texts->state, 0700);
}

/*
 * swtpm is measured into by attest.c. Without a state it would make itself a new TPM: that is swtpm_setup's to do, once.
 */
static enum secpool_error swtpm_arguments(
	const struct vtpm *vtpm, struct texts *texts, const char *arguments[ARGUMENTS_MOST])
{
	const char *const all[] = {SWTPM_PROGRAM, "socket", "--tpm2", "--tpmstate", texts->tpmstate,
		"--server", texts->server, "--flags", "not-need-init,startup-clear"};
	char path[PATH_MAX + 32];

	snprintf(path, sizeof path, "%s/tpm2-00.permall", texts->state);
	if (access(path, R_OK | W_OK) != 0)
		return err_set(SECPOOL_E_TPM,
			"%s has no TPM for swtpm: make one with 'swtpm_setup --tpm2 --tpmstate %s'",
			vtpm->folder, texts->state);
	if (strchr(texts->state, ','))
		return err_set(
			SECPOOL_E_INVALID, "swtpm can't use a path with a comma: %s", texts->state);
	snprintf(texts->tpmstate, sizeof texts->tpmstate, "dir=%s", texts->state);
	snprintf(texts->server, sizeof texts->server, "type=unixio,path=%s,mode=0600",
		texts->socket);
	memcpy(arguments, all, sizeof all);
	return SECPOOL_OK;
}

static enum secpool_error make_arguments(
	const struct vtpm *vtpm, struct texts *texts, const char *arguments[ARGUMENTS_MOST])
{
	enum secpool_error error = fill_texts(vtpm, texts);

	if (error)
		return error;
	return vtpm->identity.tpm == IDENTITY_TPM_SWTPM ? swtpm_arguments(vtpm, texts, arguments)
							: own_arguments(vtpm, texts, arguments);
}

static enum secpool_error try_spawn(struct vtpm *vtpm)
{
	const char *arguments[ARGUMENTS_MOST] = {NULL};
	pid_t parent = getpid();
	enum secpool_error error;
	struct texts texts;
	pid_t pid;

	error = make_arguments(vtpm, &texts, arguments);
	if (error)
		return error;
	unlink(texts.socket); /* one of before must not be taken for this one's */
	pid = fork();
	if (pid < 0)
		return os_error("fork for %s", arguments[0]);
	if (pid == 0)
		become(arguments, parent);
	vtpm->pid = pid;
	vtpm->started_ns = clock_now_ns();
	if (sd_event_add_child(vtpm->loop, &vtpm->child, pid, WEXITED, on_exit_of, vtpm) < 0) {
		kill(pid, SIGKILL);
		while (waitpid(pid, NULL, 0) < 0 && os_interrupted())
			continue;
		vtpm->pid = 0;
		return err_set(SECPOOL_E_SYSTEM, "can't watch process %d", (int)pid);
	}
	return SECPOOL_OK;
}

static void spawn(struct vtpm *vtpm)
{
	enum secpool_error error = try_spawn(vtpm);

	if (error) {
		log_error("vtpm-not-started", error);
		restart_later(vtpm);
		return;
	}
	log_event(LOG_LEVEL_INFO, "vtpm-started", "device=%s pid=%d", vtpm->identity.id,
		(int)vtpm->pid);
	vtpm->started(vtpm->arg);
}

enum secpool_error vtpm_new(sd_event *loop, const char *program, const char *folder,
	vtpm_started *started, void *arg, struct vtpm **ret_vtpm)
{
	struct vtpm *vtpm = calloc(1, sizeof *vtpm);

	if (!vtpm)
		return err_set(SECPOOL_E_NO_MEMORY, "%s: out of memory", folder);
	vtpm->loop = loop;
	vtpm->program = program;
	vtpm->folder = folder;
	vtpm->started = started;
	vtpm->arg = arg;
	*ret_vtpm = vtpm;
	return SECPOOL_OK;
}

void vtpm_start(struct vtpm *vtpm, const struct identity *identity)
{
	vtpm->identity = *identity;
	vtpm->wanted = true;
	vtpm->wait_ms = 0;
	if (vtpm->pid > 0 && !vtpm->ending) { /* the PCRs must tell of this start */
		vtpm_stop(vtpm);
		vtpm->wanted = true;
	}
	if (vtpm->pid == 0)
		spawn(vtpm);
}

void vtpm_stop(struct vtpm *vtpm)
{
	vtpm->wanted = false;
	if (vtpm->pid == 0 || vtpm->ending) {
		if (vtpm->pid == 0)
			vtpm->timer = sd_event_source_disable_unref(vtpm->timer);
		return;
	}
	vtpm->ending = true;
	kill(vtpm->pid, SIGTERM);
	arm(vtpm, STOP_MS, on_overdue);
}

void vtpm_free(struct vtpm *vtpm, uint64_t deadline_ns)
{
	bool gone;

	if (!vtpm)
		return;
	vtpm_stop(vtpm);
	sd_event_source_disable_unref(vtpm->timer);
	if (vtpm->child) /* from here on this function waits for the child, not the loop */
		sd_event_source_disable_unref(vtpm->child);
	gone = vtpm->pid == 0;
	while (!gone && clock_now_ns() < deadline_ns) {
		gone = waitpid(vtpm->pid, NULL, WNOHANG) != 0;
		if (!gone)
			clock_sleep_ns(CLOCK_NS_PER_MS);
	}
	if (!gone) {
		kill(vtpm->pid, SIGKILL);
		while (waitpid(vtpm->pid, NULL, 0) < 0 && os_interrupted())
			continue;
	}
	free(vtpm);
}

int32_t vtpm_pid(const struct vtpm *vtpm)
{
	return (int32_t)vtpm->pid;
}
