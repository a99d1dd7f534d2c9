/* SPDX-License-Identifier: Apache-2.0 */
/* Folders, programs and the embedded default. */
#include "tests/support/support.h"

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

enum { PATHS = 8, ARGS_MOST = 32, RUN_WAIT_MS = 10000 };

static char made_dir[PATH_MAX]; /* when nobody gave a runtime folder: what holds ours */
static pid_t owner;		/* who brought it up: only that process takes it down */

/* After a down: the next up makes it anew. */
static void remove_made_dir(void)
{
	if (*made_dir && os_remove_tree(made_dir) != SECPOOL_OK)
		fprintf(stderr, "%s is left: %s\n", made_dir, err_detail());
}

static void end_with(int status, const char *word, const char *format, va_list args)
{
	fflush(stdout);
	fprintf(stderr, "%s: ", word);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	if (owner == getpid()) {
		owner = 0;
		char text[2048] = "";
		if (support_cli(text, sizeof text, "down", NULL) != 0)
			fprintf(stderr, "secpool down failed too: %s\n", text);
		remove_made_dir();
	}
	_exit(status);
}

void support_fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	end_with(1, "failed", format, args);
	va_end(args);
	abort();
}

void support_skip(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	end_with(77, "skipped", format, args);
	va_end(args);
	abort();
}

void support_check_ok(enum secpool_error error, const char *call, const char *file, int line)
{
	if (error == SECPOOL_OK)
		return;
	/* the library and the rest of the tree keep their sentences apart when the library is the shared one */
	const char *detail = *secpool_error_detail() ? secpool_error_detail() : err_detail();
	support_fail("%s:%d: %s: %s: %s", file, line, call, err_name(error), detail);
}

const char *support_path(const char *format, ...)
{
	static char paths[PATHS][PATH_MAX];
	static unsigned turn;
	char *path = paths[turn++ % PATHS];
	int at = snprintf(path, PATH_MAX, "%s/", support_runtime_dir());
	va_list args;

	va_start(args, format);
	vsnprintf(path + at, (size_t)(PATH_MAX - at), format, args);
	va_end(args);
	return path;
}

const char *support_bin_dir(void)
{
	static char dir[PATH_MAX];

	if (*dir)
		return dir;
	ssize_t got = readlink("/proc/self/exe", dir, sizeof dir - 8);
	SUPPORT_CHECK(got > 0);
	dir[got] = '\0';
	/* <B>/tests/<kind>/test_x -> <B>/bin; a program that is there already (secpool-bench) -> its own folder */
	for (int up = 0; up < 3; up++) {
		char *slash = strrchr(dir, '/');
		SUPPORT_CHECK(slash != NULL);
		*slash = '\0';
		slash = strrchr(dir, '/');
		if (up == 0 && slash && strcmp(slash, "/bin") == 0)
			return dir;
	}
	strcat(dir, "/bin");
	return dir;
}

const char *support_runtime_dir(void)
{
	static char dir[PATH_MAX];

	if (*dir)
		return dir;
	const char *given = getenv("SECPOOL_RUNTIME_DIR");
	if (given && strlen(given) < sizeof dir) {
		strcpy(dir, given);
		return dir;
	}
	strcpy(made_dir, "/dev/shm/spt.XXXXXX");
	SUPPORT_CHECK(mkdtemp(made_dir) != NULL);
	SUPPORT_CHECK(chmod(made_dir, 0755) == 0);
	snprintf(dir, sizeof dir, "%.64s/run", made_dir);
	SUPPORT_CHECK(setenv("SECPOOL_RUNTIME_DIR", dir, 1) == 0);
	SUPPORT_CHECK(setenv("TMPDIR", made_dir, 1) == 0);
	return dir;
}

int support_run(char *text, size_t text_bytes, char *const *argv)
{
	posix_spawn_file_actions_t actions;
	int error, status, output = memfd_create("output", MFD_CLOEXEC);
	pid_t pid;

	SUPPORT_CHECK(output >= 0);
	/* spawn, not fork: no handlers of fork run in a program that may have a pool open */
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, output, 1);
	posix_spawn_file_actions_adddup2(&actions, output, 2);
	error = posix_spawn(&pid, argv[0], &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (error)
		support_fail("can't run %s: %s", argv[0], strerror(error));
	while (waitpid(pid, &status, 0) < 0)
		SUPPORT_CHECK(errno == EINTR);
	if (text) {
		ssize_t got = pread(output, text, text_bytes - 1, 0);
		text[got > 0 ? got : 0] = '\0';
	}
	close(output);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int support_cli(char *text, size_t text_bytes, const char *arg, ...)
{
	char program[PATH_MAX + 16];
	char *argv[ARGS_MOST] = {program, (char *)(uintptr_t)arg};
	unsigned count = 2;
	va_list args;

	snprintf(program, sizeof program, "%s/secpool", support_bin_dir());
	support_runtime_dir();
	va_start(args, arg);
	while (count < ARGS_MOST - 1 && (argv[count] = va_arg(args, char *)))
		count++;
	va_end(args);
	argv[count] = NULL;
	return support_run(text, text_bytes, argv);
}

const char *support_policy_lines;

const char *support_policy(unsigned session_seconds)
{
	static char path[PATH_MAX];
	static const char *const tenants[][3] = {
		{"alpha", "%self", "bytes: 8G, regions: 64, sessions: 16, local_bytes: 1G"},
		{"alpha2", "%self", "bytes: 8G, regions: 64, sessions: 16, local_bytes: 1G"},
		{"beta", "nobody", "bytes: 1G, regions: 8, sessions: 4, local_bytes: 64M"},
		{"small", "%self", "bytes: 8M, regions: 1, sessions: 1, local_bytes: 16M"},
		{"brief", "%self", "bytes: 1G, regions: 8, sessions: 8, local_bytes: 64M"},
	};
	const char *folder;
	FILE *file;

	support_runtime_dir();
	if (*made_dir)
		SUPPORT_OK(os_make_dir(made_dir, 0755));
	folder = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
	snprintf(path, sizeof path, "%s/policy-%d-%u.yaml", folder, getpid(), session_seconds);
	file = fopen(path, "w");
	SUPPORT_CHECK(file != NULL);
	fprintf(file, "version: 1\n");
#ifdef __SANITIZE_THREAD__ /* the default window is not free there; this one is not free under ASan */
	fprintf(file, "window:\n  base: \"0x004000000000\"\n  bytes: 128G\n");
#endif
	if (support_policy_lines)
		fprintf(file, "%s", support_policy_lines);
	if (session_seconds)
		fprintf(file, "session_seconds: %u\n", session_seconds);
	fprintf(file, "tenants:\n");
	for (size_t i = 0; i < sizeof tenants / sizeof *tenants; i++)
		fprintf(file,
			"  - name: %s\n    users: [\"%s\"]\n    quota: {%s}\n"
			"    protection: [xts-gmac]\n    redundancy: [none, \"mirror:2\", ec]\n"
			"    on_loss: [sigbus, failover, refill, signal, kill]\n%s",
			tenants[i][0], tenants[i][1], tenants[i][2],
			i == 0 ? "    share_with: [alpha2]\n" : "");
	fprintf(file, "devices:\n  enrol: first-use\n  max_age_seconds: 3600\n"
		      "  firmware: [secpool-emulated-1.0]\n");
	SUPPORT_CHECK(fclose(file) == 0);
	SUPPORT_CHECK(chmod(path, 0644) == 0);
	return path;
}

void support_up(unsigned devices, const char *bytes, const char *policy)
{
	char text[4096], count[16];

	snprintf(count, sizeof count, "%u", devices);
	owner = getpid();
	support_runtime_dir();
	if (*made_dir)
		SUPPORT_OK(os_make_dir(made_dir, 0755));
	if (support_cli(text, sizeof text, "up", "--devices", count, "--device-bytes", bytes,
		    "--policy", policy ? policy : support_policy(0), NULL) != 0)
		support_fail("secpool up: %s", text);
}

void support_down(void)
{
	char text[4096];

	owner = 0;
	if (support_cli(text, sizeof text, "down", NULL) != 0)
		support_fail("secpool down: %s", text);
	if (access(support_path("keymgr.sock"), F_OK) == 0)
		support_fail("secpool down left %s", support_path("keymgr.sock"));
	remove_made_dir();
}

pid_t support_daemon(const char *name)
{
	const char *file = strcmp(name, "vtpm") == 0	  ? "vtpm.pid"
			   : strcmp(name, "keymgrd") == 0 ? "keymgrd.pid"
							  : "hotplugd.pid";
	char *text;
	size_t bytes;
	pid_t pid;

	if (os_read_file(support_path("%s", file), 256, &text, &bytes) != SECPOOL_OK)
		return 0;
	pid = (pid_t)strtol(text, NULL, 10);
	free(text);
	return pid > 0 && kill(pid, 0) == 0 ? pid : 0;
}

void support_kill_daemon(const char *name)
{
	struct os_process process;
	pid_t pid = support_daemon(name);

	if (!pid)
		support_fail("no %s is running", name);
	SUPPORT_OK(os_process_find(pid, &process));
	SUPPORT_CHECK(kill(pid, SIGKILL) == 0);
	for (unsigned ms = 0; os_process_alive(&process); ms++) {
		SUPPORT_CHECK(ms < RUN_WAIT_MS);
		clock_sleep_ns(CLOCK_NS_PER_MS);
	}
}

bool support_wait(bool (*is_true)(void *arg), void *arg, unsigned ms)
{
	uint64_t end = clock_now_ns() + (uint64_t)ms * CLOCK_NS_PER_MS;

	for (;;) {
		if (is_true(arg))
			return true;
		if (clock_now_ns() >= end)
			return false;
		clock_sleep_ns(20ull * CLOCK_NS_PER_MS);
	}
}

pid_t support_fork(int (*work)(void *arg), void *arg)
{
	pid_t pid;

	fflush(NULL);
#ifdef __SANITIZE_THREAD__
	/* without jemalloc's handlers of fork: they take more locks than TSan can count, and it does not see them made anew */
	pid = _Fork();
#else
	pid = fork();
#endif
	SUPPORT_CHECK(pid >= 0);
	if (pid == 0) {
		int status = work(arg);
		fflush(NULL);
		_exit(status);
	}
	return pid;
}

int support_join(pid_t pid, unsigned ms)
{
	uint64_t end = clock_now_ns() + (uint64_t)ms * CLOCK_NS_PER_MS;
	int status;

	for (;;) {
		pid_t got = waitpid(pid, &status, WNOHANG);
		if (got == pid)
			return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
		SUPPORT_CHECK(got == 0 || errno == EINTR);
		if (clock_now_ns() >= end) {
			kill(pid, SIGKILL);
			support_fail("a child did not end within %u ms", ms);
		}
		clock_sleep_ns(5ull * CLOCK_NS_PER_MS);
	}
}
