/* SPDX-License-Identifier: Apache-2.0 */
/* spawn.h: waiting until a daemon is ready. */
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/spawn.h"
#include "lib/base/clock.h"

/* The enclave may take 60 s to start (enclave.h); a step of the waiting. */
#define READY_NS (75 * CLOCK_NS_PER_S)
enum { STEP_MS = 20 };

enum secpool_error spawn_listen(const char *runtime, char *path, size_t path_bytes, int *ret_fd)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	enum secpool_error error = SECPOOL_OK;
	int fd;

	if (snprintf(path, path_bytes, "%s/notify.sock", runtime) >= (int)path_bytes ||
		strlen(path) >= sizeof address.sun_path)
		return err_set(SECPOOL_E_LIMIT, "runtime folder %.100s is too long", runtime);
	memcpy(address.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return os_error("socket");
	unlink(path);
	if (bind(fd, (const struct sockaddr *)&address, sizeof address) != 0)
		error = os_error("bind %s", path);
	else if (chmod(path, 0600) != 0)
		error = os_error("chmod %s", path);
	if (error)
		os_close(&fd);
	else
		*ret_fd = fd;
	return error;
}

void spawn_unlisten(const char *path, int *fd)
{
	if (*fd >= 0)
		unlink(path);
	os_close(fd);
}

/* Whether READY=1 is a line of a message that has come. */
static bool said_ready(int fd)
{
	char text[4096];
	ssize_t count;

	while ((count = recv(fd, text, sizeof text - 1, MSG_DONTWAIT)) > 0) {
		char *rest = text, *line;

		text[count] = '\0';
		while ((line = strsep(&rest, "\n")) != NULL)
			if (strcmp(line, "READY=1") == 0)
				return true;
	}
	return false;
}

static bool accepts(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	bool connected;
	int fd;

	if (strlen(path) >= sizeof address.sun_path)
		return false;
	memcpy(address.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return false;
	connected = connect(fd, (const struct sockaddr *)&address, sizeof address) == 0;
	os_close(&fd);
	return connected;
}

static enum secpool_error ended(const char *runtime, enum spawn_daemon daemon)
{
	char line[160];

	spawn_last_line(runtime, daemon, line, sizeof line);
	return err_set(SECPOOL_E_DAEMON_GONE, "%s did not start: %s", spawn_program(daemon),
		line[0] ? line : "it said nothing");
}

enum secpool_error spawn_wait(const char *runtime, enum spawn_daemon daemon,
	const struct os_process *process, int fd, const char *ready_path)
{
	uint64_t until = clock_now_ns() + READY_NS;

	while (clock_now_ns() < until) {
		struct pollfd poller = {.fd = fd, .events = POLLIN};

		if (fd >= 0 ? said_ready(fd) : accepts(ready_path))
			return SECPOOL_OK;
		if (!os_process_alive(process)) {
			waitpid(process->pid, NULL, WNOHANG);
			return ended(runtime, daemon);
		}
		if (spawn_interrupted())
			return err_set(SECPOOL_E_CLOSED, "interrupted");
		poll(&poller, fd >= 0, STEP_MS);
	}
	return err_set(SECPOOL_E_TIMEOUT, "%s is not ready after %llu s: see %.120s/log/%s.log",
		spawn_program(daemon), READY_NS / CLOCK_NS_PER_S, runtime, spawn_name(daemon));
}
