/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/torture/driver.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/os.h"

enum { ARGS_MOST = 16, SAID_BYTES = 4096, COMMAND_S = 120, SLICE_NS = 3000000 };

static char folder[PATH_MAX], program[PATH_MAX + 16], policy[PATH_MAX];
static char said[SAID_BYTES];

const char *stack_said(void)
{
	return said;
}

const char *stack_media(unsigned device)
{
	static char path[PATH_MAX + 64];

	snprintf(path, sizeof path, "%s/run/devices/dev%u/media", folder, device);
	return path;
}

static void give_up(const char *what)
{
	fprintf(stderr, "secpool-torture: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* secpool lies beside this program; the one beside the daemons that have points is in ../tests/torture. */
static void find_program(struct driver *driver)
{
	ssize_t got = readlink("/proc/self/exe", program, PATH_MAX - 1);
	char other[sizeof program + 32], *slash;

	if (got <= 0)
		give_up("/proc/self/exe");
	program[got] = '\0';
	slash = strrchr(program, '/');
	strcpy(slash ? slash + 1 : program, "secpool");
	if (!driver->crash)
		return;
	snprintf(other, sizeof other, "%.*s/../tests/torture/secpool", (int)(slash - program),
		program);
	driver->stoppable_daemons = access(other, X_OK) == 0;
	if (!driver->stoppable_daemons)
		fprintf(stderr, "secpool-torture: %s is not there: no daemon is stopped\n", other);
	else if (!realpath(other, program))
		give_up(other);
}

static void write_policy(void)
{
	FILE *file;

	snprintf(policy, sizeof policy, "%.4000s/policy.yaml", folder);
	file = fopen(policy, "w");
	if (!file)
		give_up(policy);
	fprintf(file, "version: 1\n");
#ifdef __SANITIZE_THREAD__ /* the default window is not free there */
	fprintf(file, "window:\n  base: \"0x004000000000\"\n  bytes: 128G\n");
#endif
	fprintf(file, "tenants:\n");
	for (int i = 0; i < 2; i++)
		fprintf(file,
			"  - name: torture%d\n    users: [\"%%self\"]\n"
			"    quota: {bytes: 8G, regions: 256, sessions: 16, local_bytes: 1G}\n"
			"    protection: [xts-gmac]\n"
			"    redundancy: [none, \"mirror:2\", \"mirror:3\", ec]\n"
			"    on_loss: [sigbus, failover]\n",
			i);
	fprintf(file, "devices:\n  enrol: first-use\n  max_age_seconds: 3600\n"
		      "  firmware: [secpool-emulated-1.0]\n");
	if (fclose(file) != 0)
		give_up(policy);
}

/* Waits for a command, watching; one that does not end is ended. */
static int wait_for(struct driver *driver, pid_t pid)
{
	uint64_t until = clock_now_ns() + (uint64_t)COMMAND_S * CLOCK_NS_PER_S;
	int status = 0;

	while (waitpid(pid, &status, WNOHANG) == 0) {
		driver_watch(driver);
		clock_sleep_ns(SLICE_NS);
		if (clock_now_ns() > until) {
			driver->hangs++;
			driver->hopeless = true;
			kill(pid, SIGKILL);
			fprintf(stderr, "secpool-torture: a command did not end in %d s\n",
				COMMAND_S);
			until += 10 * CLOCK_NS_PER_S;
		}
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int output = -1; /* of the command that was begun last */

static pid_t begin(char *const *argv)
{
	posix_spawn_file_actions_t actions;
	pid_t pid;

	if (output >= 0)
		close(output);
	output = memfd_create("output", MFD_CLOEXEC);
	if (output < 0)
		give_up("memfd_create");
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
	posix_spawn_file_actions_adddup2(&actions, output, STDERR_FILENO);
	errno = posix_spawn(&pid, argv[0], &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (errno)
		give_up(argv[0]);
	return pid;
}

/* argv: ARGS_MOST places, the first is the program's. */
static void fill_argv(char **argv, const char *arg, va_list args)
{
	unsigned count = 2;

	argv[0] = program;
	argv[1] = (char *)(uintptr_t)arg;
	while (count < ARGS_MOST - 1 && (argv[count] = va_arg(args, char *)))
		count++;
	argv[count] = NULL;
}

pid_t stack_begin(struct driver *driver, const char *arg, ...)
{
	char *argv[ARGS_MOST];
	va_list args;

	(void)driver;
	va_start(args, arg);
	fill_argv(argv, arg, args);
	va_end(args);
	return begin(argv);
}

int stack_end(struct driver *driver, pid_t pid)
{
	return wait_for(driver, pid);
}

int stack_run(struct driver *driver, const char *arg, ...)
{
	char *argv[ARGS_MOST];
	va_list args;
	ssize_t got;
	int status;

	va_start(args, arg);
	fill_argv(argv, arg, args);
	va_end(args);
	status = wait_for(driver, begin(argv));
	got = pread(output, said, sizeof said - 1, 0);
	said[got > 0 ? got : 0] = '\0';
	return status;
}

void stack_run_plain(char *const *argv)
{
	posix_spawn_file_actions_t actions;
	pid_t pid;
	int status;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
	if (posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ) == 0)
		waitpid(pid, &status, 0);
	posix_spawn_file_actions_destroy(&actions);
}

static int up(struct driver *driver)
{
	char devices[16], bytes[16];

	snprintf(devices, sizeof devices, "%d", BOARD_DEVICES);
	snprintf(bytes, sizeof bytes, "%d", DRIVER_DEVICE_BYTES);
	return stack_run(driver, "up", "--devices", devices, "--device-bytes", bytes, "--policy",
		policy, NULL);
}

const char *stack_path(const char *name)
{
	static char path[PATH_MAX + 64];

	snprintf(path, sizeof path, "%s/%s", folder, name);
	return path;
}

void stack_prepare(struct driver *driver)
{
	char runtime[PATH_MAX + 8];

	find_program(driver);
	strcpy(folder, "/dev/shm/secpool-torture.XXXXXX");
	if (!mkdtemp(folder) || chmod(folder, 0755) != 0)
		give_up(folder);
	snprintf(runtime, sizeof runtime, "%s/run", folder);
	if (setenv("SECPOOL_RUNTIME_DIR", runtime, 1) != 0)
		give_up("setenv");
}

void stack_start(struct driver *driver)
{
	write_policy();
	if (up(driver) != 0) {
		fprintf(stderr, "secpool-torture: secpool up: %s", said);
		stack_stop(driver);
		exit(1);
	}
}

void stack_bring_back(struct driver *driver)
{
	if (up(driver) != 0)
		driver_trouble(driver, "secpool up after a kill: %s", said);
}

static void keep_logs(const struct driver *driver)
{
	char logs[PATH_MAX + 16];
	char *copy[] = {"cp", "-r", logs, (char *)(uintptr_t)driver->keep, NULL};

	snprintf(logs, sizeof logs, "%s/run/log", folder);
	if (mkdir(driver->keep, 0755) != 0 && errno != EEXIST)
		fprintf(stderr, "secpool-torture: %s: %s\n", driver->keep, strerror(errno));
	stack_run_plain(copy);
}

void stack_stop(struct driver *driver)
{
	if (driver->keep)
		keep_logs(driver);
	if (stack_run(driver, "down", NULL) != 0)
		driver_trouble(driver, "secpool down: %s", said);
	if (os_remove_tree(folder) != SECPOOL_OK)
		driver_trouble(driver, "%s is left: %s", folder, err_detail());
}

void stack_kill(struct driver *driver, const char *daemon)
{
	char path[PATH_MAX + 32], *text = NULL;
	struct os_process process;
	size_t bytes;

	snprintf(path, sizeof path, "%s/run/%s.pid", folder, daemon);
	if (os_read_file(path, 256, &text, &bytes) != SECPOOL_OK ||
		os_process_find((pid_t)strtol(text, NULL, 10), &process) != SECPOOL_OK) {
		driver_trouble(driver, "%s does not run: nobody killed it", daemon);
		free(text);
		return;
	}
	free(text);
	kill(process.pid, SIGKILL);
	while (os_process_alive(&process))
		driver_wait(driver, CLOCK_NS_PER_MS);
}
