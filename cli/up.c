/* SPDX-License-Identifier: Apache-2.0 */
/* `secpool up`: policy, folders, devices, daemons, and the waiting until all is ready. */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/emulated.h"
#include "cli/folders.h"
#include "cli/settle.h"
#include "cli/spawn.h"
#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "lib/base/size.h"
#include "policy/policy.h"

/* Longest argument vector of a daemon, with argv[0] and the NULL. */
enum { ARGV_MOST = 12, TEXTS = 4 };
/* Where a daemon has no descriptor of its own. */
enum { SHOWN_FD_LEAST = 10 };
/* How often what ran before is looked at again. */
enum { ATTEMPTS_MOST = 5 };

struct up {
	const struct args *args;
	char policy[PATH_MAX]; /* the file in the runtime folder */
	bool started[SPAWN_COUNT];
	struct os_process processes[SPAWN_COUNT];
};

/* Reads the policy that is asked for, NULL when the one in the runtime folder is to stay. */
static enum secpool_error read_policy(const struct up *up, char **ret_text, size_t *ret_bytes)
{
	const char *text;

	*ret_text = NULL;
	if (up->args->policy)
		return os_read_file(up->args->policy, POLICY_FILE_BYTES_MOST, ret_text, ret_bytes);
	if (access(up->policy, F_OK) == 0)
		return SECPOOL_OK;
	text = policy_default(ret_bytes);
	*ret_text = strndup(text, *ret_bytes);
	return *ret_text ? SECPOOL_OK : os_error("the default policy");
}

/* Whether the file in the runtime folder has this text. */
static bool policy_is(const char *path, const char *text, size_t bytes)
{
	char *old = NULL;
	size_t old_bytes = 0;
	bool same;

	if (os_read_file(path, POLICY_FILE_BYTES_MOST, &old, &old_bytes))
		return false;
	same = old_bytes == bytes && memcmp(old, text, bytes) == 0;
	free(old);
	return same;
}

static enum secpool_error check_policy(const char *name, const char *text, size_t bytes)
{
	struct policy *policy = NULL;
	enum secpool_error error = policy_load_text(text, bytes, name, &policy);

	policy_free(policy);
	return error;
}

/* Checked before anything is made; written only where no key manager runs under another one. */
static enum secpool_error check_asked_policy(const struct args *args)
{
	enum secpool_error error;
	char *text = NULL;
	size_t bytes = 0;

	if (!args->policy)
		return SECPOOL_OK;
	error = os_read_file(args->policy, POLICY_FILE_BYTES_MOST, &text, &bytes);
	if (!error)
		error = check_policy(args->policy, text, bytes);
	free(text);
	return error;
}

static enum secpool_error write_policy(struct up *up)
{
	struct os_process process;
	enum secpool_error error;
	char *text = NULL;
	size_t bytes = 0;

	if (snprintf(up->policy, sizeof up->policy, "%s/policy.yaml", up->args->runtime) >=
		(int)sizeof up->policy)
		return err_set(SECPOOL_E_LIMIT, "the runtime folder's path is too long");
	error = read_policy(up, &text, &bytes);
	if (error || !text)
		return error;
	if (!policy_is(up->policy, text, bytes)) {
		if (spawn_find(up->args->runtime, SPAWN_KEYMGRD, &process))
			error = err_set(SECPOOL_E_BUSY,
				"the key manager runs under another policy: 'secpool down' first");
		if (!error)
			error = check_policy(
				up->args->policy ? up->args->policy : "default", text, bytes);
		if (!error)
			error = os_write_file_durable(up->policy, text, bytes, 0644);
	}
	free(text);
	return error;
}

/* Devices that were made just now wait until an operator takes them in. */
static bool enrols_by_operator(const struct up *up)
{
	struct policy *policy = NULL;
	char *text = NULL;
	size_t bytes = 0;
	bool by_operator =
		os_read_file(up->policy, POLICY_FILE_BYTES_MOST, &text, &bytes) == SECPOOL_OK &&
		policy_load_text(text, bytes, up->policy, &policy) == SECPOOL_OK &&
		policy_settings(policy)->enrol_by_operator;

	policy_free(policy);
	free(text);
	return by_operator;
}

static bool has_entries(const char *path)
{
	DIR *folder = opendir(path);
	const struct dirent *entry;
	bool found = false;

	while (folder && !found && (entry = readdir(folder)) != NULL)
		found = entry->d_name[0] != '.';
	if (folder)
		closedir(folder);
	return found;
}

/* A daemon's arguments; texts has room for those that are made here. shown: where a recovery key is written to. */
static enum secpool_error fill_argv(const struct up *up, enum spawn_daemon daemon, int shown,
	char *argv[ARGV_MOST], char texts[TEXTS][PATH_MAX])
{
	char *runtime = (char *)up->args->runtime;
	static const char *const formats[SPAWN_COUNT][3] = {
		[SPAWN_VTPM] = {"%s/state/host-tpm", "%s/tpm.sock", "%s"},
		[SPAWN_KEYMGRD] = {"%s/state", "%s/policy.yaml", "unix:%s/tpm.sock"},
		[SPAWN_HOTPLUGD] = {"%s/devices", "%s", "%s"},
	};
	char *vtpm[] = {NULL, "--state", texts[0], "--socket", texts[1], NULL, NULL};
	char *keymgrd[] = {NULL, "--runtime-dir", runtime, "--state-dir", texts[0], "--policy",
		texts[1], "--tpm", texts[2], "--recovery-fd", texts[3], NULL};
	char *hotplugd[] = {NULL, "--runtime-dir", runtime, "--devices", texts[0], NULL};

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	for (int i = 0; i < 3; i++)
		if (snprintf(texts[i], PATH_MAX, formats[daemon][i], runtime) >= PATH_MAX)
			return err_set(SECPOOL_E_LIMIT, "the runtime folder's path is too long");
#pragma GCC diagnostic pop
	snprintf(texts[3], PATH_MAX, "%d", shown);
	if (daemon == SPAWN_HOTPLUGD) { /* it watches the folder itself, not a link to it */
		char real[PATH_MAX];

		if (!realpath(texts[0], real))
			return os_error("%s", texts[0]);
		memcpy(texts[0], real, strlen(real) + 1);
	}
	if (daemon == SPAWN_VTPM) {
		/* a new TPM only where there is no store sealed to an old one */
		char sealed[PATH_MAX + 32];

		snprintf(sealed, sizeof sealed, "%s/state/root.sealed", runtime);
		if (access(sealed, F_OK) != 0 && !has_entries(texts[0]))
			vtpm[5] = "--provision";
		memcpy(argv, vtpm, sizeof vtpm);
	} else if (daemon == SPAWN_KEYMGRD) {
		memcpy(argv, keymgrd, sizeof keymgrd);
	} else {
		memcpy(argv, hotplugd, sizeof hotplugd);
	}
	return SECPOOL_OK;
}

static enum secpool_error start_daemon(struct up *up, enum spawn_daemon daemon)
{
	char *argv[ARGV_MOST] = {NULL}, texts[TEXTS][PATH_MAX], notify[PATH_MAX] = "";
	const char *runtime = up->args->runtime;
	enum secpool_error error;
	int fd = -1, shown = -1;

	if (spawn_find(runtime, daemon, &up->processes[daemon]))
		return SECPOOL_OK;
	/* a recovery key goes to whoever runs this, and not by way of a log */
	if (daemon == SPAWN_KEYMGRD)
		shown = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, SHOWN_FD_LEAST);
	error = fill_argv(up, daemon, shown, argv, texts);
	if (!error && daemon == SPAWN_VTPM)
		error = os_make_dir(texts[0], 0700);
	if (!error && daemon != SPAWN_VTPM)
		error = spawn_listen(runtime, notify, sizeof notify, &fd);
	if (!error)
		error = spawn_start(runtime, daemon, argv, fd >= 0 ? notify : NULL, shown,
			&up->processes[daemon]);
	if (!error) {
		up->started[daemon] = true;
		error = spawn_wait(runtime, daemon, &up->processes[daemon], fd, texts[1]);
	}
	spawn_unlisten(notify, &fd);
	os_close(&shown);
	return error;
}

/* Ends what this command started; what ran before goes on. */
static void give_up(struct up *up)
{
	bool any = false;

	for (int daemon = SPAWN_COUNT - 1; daemon >= 0; daemon--) {
		any |= up->started[daemon];
		if (up->started[daemon] &&
			spawn_stop(up->args->runtime, (enum spawn_daemon)daemon, NULL))
			command_failed(SECPOOL_E_SYSTEM);
	}
	if (any)
		fprintf(stderr,
			"secpool: what was started has been ended; logs are in %s/log, 'secpool "
			"down' removes what is left\n",
			up->args->runtime);
}

static void print_account(const struct up *up, const struct settle_result *result)
{
	char free_text[SIZE_TEXT_BYTES];
	const char *runtime = up->args->runtime;

	printf("secpool is up in %s\n", runtime);
	for (int daemon = 0; daemon < SPAWN_COUNT; daemon++)
		printf("  %-17s pid %d, %s, log/%s.log\n", spawn_program((enum spawn_daemon)daemon),
			up->processes[daemon].pid, up->started[daemon] ? "started" : "was running",
			spawn_name((enum spawn_daemon)daemon));
	printf("  %-17s %zu online, %s free", "devices", result->online,
		size_format(result->free_bytes, free_text));
	if (result->away)
		printf(", %zu not online (see 'secpool device list')", result->away);
	printf("\n  %-17s %s\n", "policy", up->policy);
	printf("  %-17s software (secpool-vtpm): for trying out, not for secrets\n", "host TPM");
	if (getenv("SECPOOL_RUNTIME_DIR") == NULL && geteuid() == 0 &&
		strcmp(runtime, "/run/secpool") != 0)
		printf("  %-17s export SECPOOL_RUNTIME_DIR=%s\n", "to find it", runtime);
	printf("next: secpool status, secpool device list, secpool down\n");
}

/*
 * A daemon that was just killed can still look alive when it is looked for: when one that this
 * command did not start is gone, all is looked at again.
 */
static enum secpool_error start_and_settle(
	struct up *up, const bool *is_new, struct settle_result *ret_result)
{
	enum secpool_error error = SECPOOL_OK;

	for (int attempt = 0; attempt < ATTEMPTS_MOST; attempt++) {
		bool all_ours = true;

		for (int daemon = 0; daemon < SPAWN_COUNT && !error; daemon++)
			error = start_daemon(up, (enum spawn_daemon)daemon);
		if (!error)
			error = settle_devices(up->args->runtime, up->processes, up->args->devices,
				is_new, ret_result);
		for (int daemon = 0; daemon < SPAWN_COUNT; daemon++)
			all_ours &= up->started[daemon];
		if (error != SECPOOL_E_DAEMON_GONE || all_ours || attempt + 1 == ATTEMPTS_MOST)
			break;
		error = SECPOOL_OK;
		clock_sleep_ns(200ull * CLOCK_NS_PER_MS);
	}
	return error;
}

static enum secpool_error bring_up(struct up *up, struct settle_result *ret_result)
{
	const struct args *args = up->args;
	bool *is_new = calloc(args->devices + 1, sizeof *is_new);
	enum secpool_error error;

	if (!is_new)
		return os_error("devices");
	error = write_policy(up);
	if (!error)
		error = emulated_make(args->runtime, args->devices, args->device_bytes, is_new);
	if (!error && enrols_by_operator(up))
		memset(is_new, 0, args->devices * sizeof *is_new);
	if (!error)
		error = start_and_settle(up, is_new, ret_result);
	free(is_new);
	return error;
}

int command_up(const struct args *args)
{
	struct settle_result result = {0};
	struct up up = {.args = args};
	enum secpool_error error;
	int status = STATUS_DONE, lock = -1;

	umask(022);
	spawn_catch_signals();
	error = check_asked_policy(args);
	if (!error)
		error = folders_open(args->runtime, &lock);
	if (error)
		return command_failed(error);
	error = bring_up(&up, &result);
	if (error) {
		status = command_failed(error);
		give_up(&up);
	} else {
		print_account(&up, &result);
	}
	os_close(&lock);
	return status;
}
