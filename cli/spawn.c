/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/spawn.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/clock.h"

enum { TERM_MS = 10000, KILL_MS = 5000 };

static const struct {
	const char *name, *program;
} daemons[SPAWN_COUNT] = {
	[SPAWN_VTPM] = {"vtpm", "secpool-vtpm"},
	[SPAWN_KEYMGRD] = {"keymgrd", "secpool-keymgrd"},
	[SPAWN_HOTPLUGD] = {"hotplugd", "secpool-hotplugd"},
};

static volatile sig_atomic_t interrupted;

const char *spawn_name(enum spawn_daemon daemon)
{
	return daemons[daemon].name;
}

const char *spawn_program(enum spawn_daemon daemon)
{
	return daemons[daemon].program;
}

static void on_signal(int number)
{
	(void)number;
	interrupted = 1;
}

void spawn_catch_signals(void)
{
	struct sigaction action = {.sa_handler = on_signal};

	sigemptyset(&action.sa_mask);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
}

bool spawn_interrupted(void)
{
	return interrupted;
}

static enum secpool_error pid_path(
	const char *runtime, enum spawn_daemon daemon, char path[PATH_MAX])
{
	if (snprintf(path, PATH_MAX, "%s/%s.pid", runtime, daemons[daemon].name) >= PATH_MAX)
		return err_set(SECPOOL_E_LIMIT, "runtime folder %.100s is too long", runtime);
	return SECPOOL_OK;
}

bool spawn_find(const char *runtime, enum spawn_daemon daemon, struct os_process *ret_process)
{
	struct os_process process;
	unsigned long long ticks;
	char path[PATH_MAX], *text = NULL;
	size_t bytes;
	bool alive;

	if (pid_path(runtime, daemon, path) || os_read_file(path, 64, &text, &bytes))
		return false;
	alive = sscanf(text, "%d %llu", &process.pid, &ticks) == 2 && process.pid > 0;
	free(text);
	process.start_ticks = ticks;
	if (!alive || !os_process_alive(&process))
		return false;
	*ret_process = process;
	return true;
}

/*
 * The child's side: never returns. go: a byte comes when the pid file is written; its end without
 * one means that it could not be.
 */
static _Noreturn void run_child(int go, int log, char **argv, const char *notify, int pass)
{
	int null = open("/dev/null", O_RDONLY);
	struct sigaction action = {.sa_handler = SIG_DFL};
	sigset_t none;
	char byte;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	if (setsid() < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(log, STDOUT_FILENO) < 0 ||
		dup2(log, STDERR_FILENO) < 0 || chdir("/") != 0)
		_exit(126);
	if (read(go, &byte, 1) != 1)
		_exit(126);
	close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
	if (pass >= 0 && fcntl(pass, F_SETFD, 0) != 0)
		_exit(126);
	if (notify)
		setenv("NOTIFY_SOCKET", notify, 1);
	else
		unsetenv("NOTIFY_SOCKET");
	execv(argv[0], argv);
	dprintf(STDERR_FILENO, "<3>%s can't be executed\n", argv[0]);
	_exit(127);
}

enum secpool_error spawn_find_program(enum spawn_daemon daemon, char path[PATH_MAX])
{
	ssize_t length = readlink("/proc/self/exe", path, PATH_MAX - 64);
	char *slash;

	if (length < 0)
		return os_error("/proc/self/exe");
	path[length] = '\0';
	slash = strrchr(path, '/');
	snprintf(slash ? slash + 1 : path, 64, "%s", daemons[daemon].program);
	if (access(path, X_OK) != 0)
		return os_error("%s (it must lie beside secpool)", path);
	return SECPOOL_OK;
}

static enum secpool_error open_log(const char *runtime, enum spawn_daemon daemon, int *ret_fd)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof path, "%s/log/%s.log", runtime, daemons[daemon].name) >=
		(int)sizeof path)
		return err_set(SECPOOL_E_LIMIT, "runtime folder %.100s is too long", runtime);
	*ret_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
	return *ret_fd < 0 ? os_error("%s", path) : SECPOOL_OK;
}

static enum secpool_error write_pid(const char *path, pid_t pid, struct os_process *ret_process)
{
	enum secpool_error error = os_process_find(pid, ret_process);
	char text[64];

	if (error)
		return error;
	snprintf(text, sizeof text, "%d %llu\n", ret_process->pid,
		(unsigned long long)ret_process->start_ticks);
	return os_write_file_durable(path, text, strlen(text), 0644);
}

enum secpool_error spawn_start(const char *runtime, enum spawn_daemon daemon, char **argv,
	const char *notify, int pass, struct os_process *ret_process)
{
	char program[PATH_MAX], path[PATH_MAX];
	struct os_process process;
	int go[2] = {-1, -1}, log = -1;
	enum secpool_error error;
	pid_t pid;

	error = pid_path(runtime, daemon, path);
	if (!error)
		error = spawn_find_program(daemon, program);
	if (!error)
		error = open_log(runtime, daemon, &log);
	if (!error && pipe2(go, O_CLOEXEC) != 0)
		error = os_error("pipe");
	if (error)
		goto out;
	argv[0] = program;
	pid = fork();
	if (pid < 0) {
		error = os_error("fork");
		goto out;
	}
	if (pid == 0) {
		os_close(&go[1]);
		run_child(go[0], log, argv, notify, pass);
	}
	error = write_pid(path, pid, &process);
	if (!error && write(go[1], "g", 1) != 1)
		error = os_error("start %s", program);
	if (error) {
		os_close(&go[1]); /* the child reads its end and goes */
		waitpid(pid, NULL, 0);
		unlink(path);
		goto out;
	}
	*ret_process = process;
out:
	os_close(&go[0]);
	os_close(&go[1]);
	os_close(&log);
	return error;
}

void spawn_last_line(const char *runtime, enum spawn_daemon daemon, char *text, size_t bytes)
{
	char path[PATH_MAX], tail[2048];
	ssize_t count = 0;
	char *line;
	int fd;

	text[0] = '\0';
	if (snprintf(path, sizeof path, "%s/log/%s.log", runtime, daemons[daemon].name) >=
		(int)sizeof path)
		return;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (lseek(fd, -(off_t)(sizeof tail - 1), SEEK_END) < 0)
		lseek(fd, 0, SEEK_SET);
	count = read(fd, tail, sizeof tail - 1);
	os_close(&fd);
	while (count > 0 && tail[count - 1] == '\n')
		count--;
	if (count <= 0)
		return;
	tail[count] = '\0';
	line = strrchr(tail, '\n');
	line = line ? line + 1 : tail;
	if (line[0] == '<' && line[1] && line[2] == '>') /* sd-daemon(3)'s level */
		line += 3;
	if (strncmp(line, daemons[daemon].program, strlen(daemons[daemon].program)) == 0 &&
		line[strlen(daemons[daemon].program)] == ':')
		line += strlen(daemons[daemon].program) + 2;
	snprintf(text, bytes, "%s", line);
}

/* Ends a process that the pidfd names; waits also as the parent that we may be. */
static enum secpool_error end_process(int pidfd, pid_t pid, const char *name)
{
	static const struct {
		int number, wait_ms;
	} steps[] = {{SIGTERM, TERM_MS}, {SIGKILL, KILL_MS}};

	for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
		uint64_t until =
			clock_now_ns() + (uint64_t)steps[i].wait_ms * (uint64_t)CLOCK_NS_PER_MS;

		if (pidfd_send_signal(pidfd, steps[i].number, NULL, 0) != 0) {
			enum secpool_error error = os_error("end %s (pid %d)", name, pid);
			return error == SECPOOL_E_NOT_FOUND ? SECPOOL_OK : error;
		}
		while (clock_now_ns() < until) {
			struct pollfd poller = {.fd = pidfd, .events = POLLIN};

			if (poll(&poller, 1, 100) > 0) {
				waitpid(pid, NULL, WNOHANG);
				return SECPOOL_OK;
			}
		}
	}
	return err_set(SECPOOL_E_TIMEOUT, "%s (pid %d) does not end, not even killed", name, pid);
}

enum secpool_error spawn_stop(const char *runtime, enum spawn_daemon daemon, bool *ret_ran)
{
	enum secpool_error error = SECPOOL_OK;
	struct os_process process;
	char path[PATH_MAX];
	bool ran = spawn_find(runtime, daemon, &process);
	int pidfd = -1;

	if (ran) {
		pidfd = pidfd_open(process.pid, 0);
		/* looked at again: from here on the descriptor can't become another process */
		if (pidfd >= 0 && os_process_alive(&process))
			error = end_process(pidfd, process.pid, daemons[daemon].program);
		else if (pidfd < 0 && os_process_alive(&process))
			error = os_error("pidfd of %s", daemons[daemon].program);
		os_close(&pidfd);
	}
	if (ret_ran)
		*ret_ran = ran;
	if (!error && !pid_path(runtime, daemon, path))
		unlink(path);
	return error;
}
