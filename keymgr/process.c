/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/process.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/clock.h"

/* asm-generic/socket.h of Linux 6.5; the C library's headers are older */
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

uint64_t process_boot_ns(void)
{
	struct timespec now = {0};

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * CLOCK_NS_PER_S + (uint64_t)now.tv_nsec;
}

static enum secpool_error ended(int32_t pid)
{
	return err_set(SECPOOL_E_NOT_FOUND,
		"process %d, which connected, has ended: its number is no name any more", pid);
}

static bool read_pidfd(int fd, int *ret_pidfd)
{
	socklen_t bytes = sizeof *ret_pidfd;

	return getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, ret_pidfd, &bytes) == 0;
}

/* Whether this kernel has SO_PEERPIDFD: then a connection without one has no live peer. */
static bool has_pidfds(void)
{
	int pair[2], pidfd = -1;
	bool has;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
		return true; /* not known: then fail closed */
	has = read_pidfd(pair[0], &pidfd);
	os_close(&pidfd);
	os_close(&pair[0]);
	os_close(&pair[1]);
	return has;
}

static enum secpool_error of_pidfd(int pidfd, int32_t pid, struct os_process *ret_process)
{
	struct pollfd end = {.fd = pidfd, .events = POLLIN};
	struct os_process process;
	enum secpool_error error = os_process_find(pid, &process);

	if (error)
		return error;
	/* it lives still, so the number was its own when /proc was read */
	if (poll(&end, 1, 0) != 0)
		return ended(pid);
	*ret_process = process;
	return SECPOOL_OK;
}

/* The effective user of the process that has a number now (proc(5), status). */
static enum secpool_error read_user(int32_t pid, uint32_t *ret_uid)
{
	char path[32], *text = NULL, *line;
	size_t bytes = 0;
	uint32_t uid = 0;
	enum secpool_error error;

	snprintf(path, sizeof path, "/proc/%d/status", pid);
	error = os_read_file(path, 65536, &text, &bytes);
	if (error)
		return error;
	line = strstr(text, "\nUid:");
	if (!line || sscanf(line, "\nUid: %*u %" SCNu32, &uid) != 1)
		error = err_set(SECPOOL_E_SYSTEM, "%s can't be understood", path);
	else
		*ret_uid = uid;
	free(text);
	return error;
}

enum secpool_error process_of_number(
	const struct sock_peer *peer, uint64_t accepted_ns, struct os_process *ret_process)
{
	uint64_t tick_ns = CLOCK_NS_PER_S / (uint64_t)sysconf(_SC_CLK_TCK);
	struct os_process process;
	uint32_t uid = 0;
	enum secpool_error error = os_process_find(peer->pid, &process);

	if (!error)
		error = read_user(peer->pid, &uid);
	if (error)
		return error;
	/* both were read of one process */
	if (uid != peer->uid || process.start_ticks > accepted_ns / tick_ns ||
		!os_process_alive(&process))
		return ended(peer->pid);
	*ret_process = process;
	return SECPOOL_OK;
}

enum secpool_error process_of_peer(
	int fd, const struct sock_peer *peer, uint64_t accepted_ns, struct os_process *ret_process)
{
	int pidfd = -1;
	enum secpool_error error;

	if (!read_pidfd(fd, &pidfd))
		return has_pidfds() ? ended(peer->pid)
				    : process_of_number(peer, accepted_ns, ret_process);
	error = of_pidfd(pidfd, peer->pid, ret_process);
	os_close(&pidfd);
	return error;
}

uint64_t process_memlock(const struct os_process *process)
{
	const char *name = "Max locked memory", *line;
	uint64_t bytes = 0;
	char path[64], *text;
	size_t text_bytes;

	snprintf(path, sizeof path, "/proc/%d/limits", process->pid);
	if (os_read_file(path, 1 << 14, &text, &text_bytes) != SECPOOL_OK)
		return 0;
	line = strstr(text, name);
	if (line) {
		line += strlen(name);
		line += strspn(line, " ");
		bytes = strncmp(line, "unlimited", 9) == 0 ? RLIM_INFINITY
							   : strtoull(line, NULL, 10);
	}
	free(text);
	return bytes;
}
