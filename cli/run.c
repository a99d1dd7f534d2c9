/* SPDX-License-Identifier: Apache-2.0 */
/* `secpool run`: looks whether the program can be run in the pool, then becomes it, with libsecpool-preload.so before all other libraries. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/program.h"
#include "lib/base/os.h"

/* How many interpreters the kernel follows: execve(2). */
enum { INTERPRETERS_MOST = 4 };

/* Where execvp(3) would find it. */
static enum secpool_error find_program(const char *name, char path[PATH_MAX])
{
	const char *folders = getenv("PATH"), *at;

	if (strchr(name, '/')) {
		if (snprintf(path, PATH_MAX, "%s", name) >= PATH_MAX)
			return err_set(SECPOOL_E_LIMIT, "%.100s: the path is too long", name);
		return access(path, X_OK) == 0 ? SECPOOL_OK : os_error("%s", name);
	}
	for (at = folders ? folders : "/usr/bin:/bin"; *at; at += *at == ':') {
		size_t length = strcspn(at, ":");
		struct stat found;
		int printed = snprintf(
			path, PATH_MAX, "%.*s%s%s", (int)length, at, length > 0 ? "/" : "", name);
		at += length;
		if (printed < PATH_MAX && stat(path, &found) == 0 && S_ISREG(found.st_mode) &&
			access(path, X_OK) == 0)
			return SECPOOL_OK;
	}
	return err_set(SECPOOL_E_NOT_FOUND, "%.100s: not found", name);
}

static enum secpool_error read_head(const char *path, uint8_t head[PROGRAM_HEAD_BYTES],
	size_t *ret_bytes, struct stat *ret_stat)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	enum secpool_error error = SECPOOL_OK;
	ssize_t got;

	if (fd < 0)
		return os_error("%s", path);
	got = fstat(fd, ret_stat) == 0 ? read(fd, head, PROGRAM_HEAD_BYTES) : -1;
	if (got < 0)
		error = os_error("%s", path);
	else
		*ret_bytes = (size_t)got;
	os_close(&fd);
	return error;
}

/* Where a program gains rights by being executed, the loader leaves out what LD_PRELOAD says (ld.so(8), "Secure-execution mode"). */
static bool gains_rights(const char *path, const struct stat *file)
{
	return ((file->st_mode & S_ISUID) && file->st_uid != getuid()) ||
	       ((file->st_mode & S_ISGID) && file->st_gid != getgid()) ||
	       getxattr(path, "security.capability", NULL, 0) > 0;
}

/* Whether the preload library would be loaded, and serve. */
static enum secpool_error check_program(const char *program)
{
	char path[PATH_MAX];

	snprintf(path, sizeof path, "%s", program);
	for (unsigned i = 0; i <= INTERPRETERS_MOST; i++) {
		uint8_t head[PROGRAM_HEAD_BYTES];
		struct stat file;
		size_t bytes = 0;
		enum secpool_error error = read_head(path, head, &bytes, &file);
		if (error)
			return error;
		if (gains_rights(path, &file))
			return err_set(SECPOOL_E_UNSUPPORTED,
				"%s is setuid or has capabilities: the loader preloads nothing "
				"there, and its memory would not be in the pool",
				path);
		switch (program_look(head, bytes, path)) {
		case PROGRAM_DYNAMIC:
			return SECPOOL_OK;
		case PROGRAM_STATIC:
			return err_set(SECPOOL_E_UNSUPPORTED,
				"%s is linked statically: nothing can be preloaded, and its memory "
				"would not be in the pool",
				program);
		case PROGRAM_OTHER:
			return err_set(SECPOOL_E_UNSUPPORTED,
				"%s is neither a 64-bit program of this machine nor a script",
				path);
		case PROGRAM_SCRIPT:
			break;
		}
	}
	return err_set(SECPOOL_E_UNSUPPORTED, "%s has too many interpreters", program);
}

/* Beside this program: ../lib of the folder that it is in. */
static enum secpool_error find_library(char path[PATH_MAX])
{
	static const char library[] = "/../lib/libsecpool-preload.so";
	ssize_t length = readlink("/proc/self/exe", path, PATH_MAX - sizeof library);
	char *slash;

	if (length < 0)
		return os_error("/proc/self/exe");
	path[length] = '\0';
	slash = strrchr(path, '/');
	memcpy(slash ? slash : path, library, sizeof library);
	if (strpbrk(path, " :"))
		return err_set(SECPOOL_E_UNSUPPORTED,
			"%s: the loader takes no path with a blank or a colon", path);
	return access(path, R_OK) == 0 ? SECPOOL_OK : os_error("%s", path);
}

static enum secpool_error set_variable(const char *name, const char *value)
{
	return setenv(name, value, 1) == 0 ? SECPOOL_OK : os_error("variable %s", name);
}

/* What was there stays, behind ours. */
static enum secpool_error set_preload(const char *library)
{
	const char *before = getenv("LD_PRELOAD");
	char *value;
	enum secpool_error error;

	if (!before || !*before)
		return set_variable("LD_PRELOAD", library);
	if (asprintf(&value, "%s:%s", library, before) < 0)
		return os_error("variable LD_PRELOAD");
	error = set_variable("LD_PRELOAD", value);
	free(value);
	return error;
}

static enum secpool_error set_options(const struct args *args)
{
	enum secpool_error error = set_variable("SECPOOL_RUNTIME_DIR", args->runtime);

	for (unsigned i = 0; i < RUNOPTS_OPTIONS && !error; i++) {
		const char *variable = runopts_variable((enum runopts_option)i);
		if (args->run[i])
			error = set_variable(variable, args->run[i]);
		else
			unsetenv(variable);
	}
	return error;
}

/* The texts as the library will read them: a wrong one is the caller's, and said before anything runs. */
static int check_options(const struct args *args)
{
	struct runopts options;

	runopts_init(&options);
	for (unsigned i = 0; i < RUNOPTS_OPTIONS; i++) {
		if (!args->run[i] || !runopts_read(&options, (enum runopts_option)i, args->run[i]))
			continue;
		fprintf(stderr, "secpool: --%s: %s\n", runopts_name((enum runopts_option)i),
			err_detail());
		return STATUS_USAGE;
	}
	if (!args->fault_mode || strcmp(args->fault_mode, "thread") == 0)
		return STATUS_DONE;
	if (strcmp(args->fault_mode, "inline") == 0)
		fputs("secpool: --fault-mode inline is for programs that pin what they hand to "
		      "system calls: in others stdio's and futex's own calls would fail with "
		      "EFAULT\n",
			stderr);
	else
		fprintf(stderr, "secpool: --fault-mode %s: expected thread\n", args->fault_mode);
	return STATUS_USAGE;
}

int command_run(const struct args *args)
{
	char path[PATH_MAX], library[PATH_MAX];
	int status = check_options(args);
	enum secpool_error error;

	if (status != STATUS_DONE)
		return status;
	error = find_program(args->words[0], path);
	if (!error)
		error = check_program(path);
	if (!error)
		error = find_library(library);
	if (!error)
		error = set_options(args);
	if (!error)
		error = set_preload(library);
	if (!error) {
		execv(path, args->words);
		error = os_error("%s", path);
	}
	return command_failed(error);
}
