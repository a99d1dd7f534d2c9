/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A real secpool-vtpm process for a test, in a folder of its own: started, waited for, signalled
 * and ended here. The program is $SECPOOL_BIN/secpool-vtpm, else ../../bin/secpool-vtpm beside
 * the test. Any failure ends the test. Threads: one.
 */
#ifndef SECPOOL_TESTS_UNIT_VTPM_PROCESS_H
#define SECPOOL_TESTS_UNIT_VTPM_PROCESS_H

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <poll.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/os.h"

/*
 * How long a start or an end may take on a busy machine, in milliseconds; most arguments beyond
 * the usual ones.
 */
enum { VTPM_WAIT_MS = 20000, VTPM_MORE_MOST = 8 };

struct vtpm {
	char folder[64]; /* holds state/ and sock */
	char socket[96];
	char where[112]; /* for tpm_open */
	pid_t pid;	 /* 0: not running */
};

static inline void vtpm_fail(const char *what)
{
	fprintf(stderr, "vtpm_process.h: %s: %s\n", what, strerror(errno));
	exit(1);
}

static inline void vtpm_program(char *path, size_t bytes)
{
	const char *folder = getenv("SECPOOL_BIN");
	char self[PATH_MAX] = "";

	if (folder) {
		snprintf(path, bytes, "%s/secpool-vtpm", folder);
		return;
	}
	if (readlink("/proc/self/exe", self, sizeof self - 1) < 0)
		vtpm_fail("readlink /proc/self/exe");
	snprintf(path, bytes, "%.3000s/../../bin/secpool-vtpm", dirname(self));
}

static inline void vtpm_init(struct vtpm *vtpm)
{
	memset(vtpm, 0, sizeof *vtpm);
	snprintf(vtpm->folder, sizeof vtpm->folder, "/tmp/secpool-vtpm-XXXXXX");
	if (!mkdtemp(vtpm->folder))
		vtpm_fail("mkdtemp");
	snprintf(vtpm->socket, sizeof vtpm->socket, "%s/sock", vtpm->folder);
	snprintf(vtpm->where, sizeof vtpm->where, "unix:%s", vtpm->socket);
}

/* Starts the program with these further arguments (NULL at the end); does not wait. */
static inline void vtpm_spawn(struct vtpm *vtpm, const char *const *more)
{
	char program[PATH_MAX], state[96];
	const char *args[6 + VTPM_MORE_MOST] = {
		"secpool-vtpm", "--state", state, "--socket", vtpm->socket};

	for (unsigned i = 0; more && more[i] && i < VTPM_MORE_MOST; i++)
		args[5 + i] = more[i];
	vtpm_program(program, sizeof program);
	snprintf(state, sizeof state, "%s/state", vtpm->folder);
	vtpm->pid = fork();
	if (vtpm->pid < 0)
		vtpm_fail("fork");
	if (vtpm->pid == 0) {
		int log = open("/dev/null", O_WRONLY);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (!getenv("VTPM_LOG"))
			dup2(log, STDERR_FILENO);
		execv(program, (char *const *)args);
		_exit(127);
	}
}

/* A connection, or -1. */
static inline int vtpm_connect(const struct vtpm *vtpm)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof address.sun_path, "%s", vtpm->socket);
	if (connect(fd, (const struct sockaddr *)&address, sizeof address) == 0)
		return fd;
	close(fd);
	return -1;
}

/* The exit status once it ended; -1: it still runs after VTPM_WAIT_MS; 1000 + signal. */
static inline int vtpm_wait(struct vtpm *vtpm)
{
	int status;

	for (unsigned i = 0; i < VTPM_WAIT_MS; i++) {
		if (waitpid(vtpm->pid, &status, WNOHANG) == vtpm->pid) {
			vtpm->pid = 0;
			return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
		}
		clock_sleep_ns(CLOCK_NS_PER_MS);
	}
	return -1;
}

/* Starts it and waits until it accepts. */
static inline void vtpm_start(struct vtpm *vtpm, const char *const *more)
{
	vtpm_spawn(vtpm, more);
	for (unsigned i = 0; i < VTPM_WAIT_MS; i++) {
		int fd = vtpm_connect(vtpm);
		if (fd >= 0) {
			close(fd);
			return;
		}
		if (waitpid(vtpm->pid, NULL, WNOHANG) == vtpm->pid)
			break;
		clock_sleep_ns(CLOCK_NS_PER_MS);
	}
	vtpm_fail("secpool-vtpm did not start");
}

static inline int vtpm_end(struct vtpm *vtpm, int signal_number)
{
	if (vtpm->pid == 0)
		return 0;
	kill(vtpm->pid, signal_number);
	kill(vtpm->pid, SIGCONT);
	return vtpm_wait(vtpm);
}

static inline void vtpm_done(struct vtpm *vtpm)
{
	vtpm_end(vtpm, SIGKILL);
	if (os_remove_tree(vtpm->folder))
		vtpm_fail("remove the test's folder");
}

#endif
