/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/die.h"

/* Longest name of a socket below the runtime folder, with its slash: "/devices/<id>/tpm.sock" of a 32-byte id. */
enum { RUNTIME_NAME_BYTES = 52 };

/* How long a lock is waited for, and between two tries (os.h). */
#define LOCK_WAIT_NS (3 * CLOCK_NS_PER_S)
#define LOCK_POLL_NS (20 * CLOCK_NS_PER_MS)

static enum secpool_error code_of_errno(int number)
{
	switch (number) {
	case ENOMEM:
		return SECPOOL_E_NO_MEMORY;
	case EPERM:
	case EACCES:
		return SECPOOL_E_DENIED;
	case ENOENT:
	case ESRCH:
		return SECPOOL_E_NOT_FOUND;
	case EEXIST:
		return SECPOOL_E_EXISTS;
	case EBUSY:
		return SECPOOL_E_BUSY;
	case ENOSPC:
	case EDQUOT:
		return SECPOOL_E_NO_SPACE;
	case ETIMEDOUT:
		return SECPOOL_E_TIMEOUT;
	case ECONNREFUSED:
	case ECONNRESET:
	case EPIPE:
		return SECPOOL_E_DAEMON_GONE;
	default:
		return SECPOOL_E_SYSTEM;
	}
}

enum secpool_error os_error(const char *format, ...)
{
	int number = errno;
	char what[ERR_DETAIL_BYTES];
	va_list args;

	va_start(args, format);
	vsnprintf(what, sizeof what, format, args);
	va_end(args);
	return err_set(code_of_errno(number), "%s: %s", what, strerror(number));
}

bool os_would_block(void)
{
	return errno == EAGAIN || errno == EWOULDBLOCK;
}

bool os_interrupted(void)
{
	return errno == EINTR;
}

bool os_exists(void)
{
	return errno == EEXIST;
}

bool os_aborted(void)
{
	return errno == ECONNABORTED;
}

enum secpool_error os_eventfd(int *ret_fd)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	if (fd >= 0 && fd <= STDERR_FILENO) {
		int higher = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
		os_close(&fd);
		fd = higher;
	}
	if (fd < 0)
		return os_error("eventfd");
	*ret_fd = fd;
	return SECPOOL_OK;
}

void os_close(int *fd)
{
	int kept = errno;

	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	errno = kept;
}

enum secpool_error os_read_fd(
	int fd, const char *name, size_t max_bytes, char **ret_text, size_t *ret_bytes)
{
	size_t capacity = 4096, used = 0;
	char *text = malloc(capacity + 1);
	enum secpool_error error = SECPOOL_E_INTERNAL;

	if (!text)
		return os_error("read %s", name);
	for (;;) {
		ssize_t got = read(fd, text + used, capacity - used);
		if (got < 0 && os_interrupted())
			continue;
		if (got < 0) {
			error = os_error("read %s", name);
			goto out;
		}
		if (got == 0)
			break;
		used += (size_t)got;
		if (used > max_bytes) {
			error = err_set(
				SECPOOL_E_LIMIT, "%s is longer than %zu bytes", name, max_bytes);
			goto out;
		}
		if (used == capacity) {
			char *more = realloc(text, 2 * capacity + 1);
			if (!more) {
				error = os_error("read %s", name);
				goto out;
			}
			text = more;
			capacity *= 2;
		}
	}
	text[used] = '\0';
	*ret_text = text;
	*ret_bytes = used;
	text = NULL;
	error = SECPOOL_OK;
out:
	free(text);
	return error;
}

enum secpool_error os_read_file(
	const char *path, size_t max_bytes, char **ret_text, size_t *ret_bytes)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	enum secpool_error error;

	if (fd < 0)
		return os_error("open %s", path);
	error = os_read_fd(fd, path, max_bytes, ret_text, ret_bytes);
	os_close(&fd);
	return error;
}

enum secpool_error os_write_all(int fd, const void *bytes, size_t count)
{
	const char *at = bytes;

	while (count > 0) {
		ssize_t done = write(fd, at, count);
		if (done < 0 && os_interrupted())
			continue;
		if (done < 0)
			return os_error("write");
		at += done;
		count -= (size_t)done;
	}
	return SECPOOL_OK;
}

static enum secpool_error sync_folder_of(const char *path)
{
	char folder[PATH_MAX];
	enum secpool_error error = SECPOOL_OK;
	char *slash;
	int fd;

	snprintf(folder, sizeof folder, "%s", path);
	slash = strrchr(folder, '/');
	if (!slash)
		snprintf(folder, sizeof folder, ".");
	else if (slash == folder)
		slash[1] = '\0';
	else
		*slash = '\0';
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return os_error("open %s", folder);
	if (fsync(fd) != 0)
		error = os_error("fsync %s", folder);
	os_close(&fd);
	return error;
}

enum secpool_error os_write_file_durable(
	const char *path, const void *bytes, size_t count, unsigned mode)
{
	char next[PATH_MAX];
	enum secpool_error error = SECPOOL_E_INTERNAL;
	int fd;

	if (snprintf(next, sizeof next, "%s.next", path) >= (int)sizeof next)
		return err_set(SECPOOL_E_LIMIT, "path too long: %s", path);
	fd = open(next, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, mode);
	if (fd < 0)
		return os_error("create %s", next);
	error = os_write_all(fd, bytes, count);
	if (!error && fsync(fd) != 0)
		error = os_error("fsync %s", next);
	os_close(&fd);
	if (!error && rename(next, path) != 0)
		error = os_error("rename %s to %s", next, path);
	if (error)
		unlink(next);
	else
		error = sync_folder_of(path);
	return error;
}

enum secpool_error os_remove_file_durable(const char *path)
{
	if (unlink(path) != 0 && errno != ENOENT)
		return os_error("remove %s", path);
	return sync_folder_of(path);
}

enum secpool_error os_make_dir(const char *path, unsigned mode)
{
	if (mkdir(path, mode) == 0 || errno == EEXIST)
		return SECPOOL_OK;
	return os_error("make folder %s", path);
}

enum secpool_error os_lock(int fd, const char *name)
{
	uint64_t deadline_ns = clock_now_ns() + LOCK_WAIT_NS;

	while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
		if (!os_would_block() && !os_interrupted())
			return os_error("lock %s", name);
		if (clock_now_ns() > deadline_ns)
			return err_set(
				SECPOOL_E_BUSY, "another process holds the lock of %s", name);
		clock_sleep_ns(LOCK_POLL_NS);
	}
	return SECPOOL_OK;
}

enum secpool_error os_remove_tree(const char *path)
{
	char *roots[] = {(char *)path, NULL};
	enum secpool_error error = SECPOOL_OK;
	struct stat found;
	FTSENT *entry;
	FTS *walk;

	if (lstat(path, &found) != 0 && errno == ENOENT) /* a link to nothing is there */
		return SECPOOL_OK;
	walk = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV, NULL);
	if (!walk)
		return os_error("remove %s", path);
	while ((entry = fts_read(walk)) != NULL) {
		if (entry->fts_info == FTS_D)
			continue;
		if (remove(entry->fts_accpath) != 0 && errno != ENOENT)
			error = os_error("remove %s", entry->fts_path);
	}
	fts_close(walk);
	return error;
}

enum secpool_error os_runtime_dir(const char *given, char *path, size_t path_bytes)
{
	const char *from = given ? given : getenv("SECPOOL_RUNTIME_DIR");
	const char *tail = "";
	int length;

	if (!from && geteuid() == 0)
		from = "/run/secpool";
	if (!from) {
		from = getenv("XDG_RUNTIME_DIR");
		tail = "/secpool";
	}
	if (!from || !*from)
		return err_set(SECPOOL_E_NOT_FOUND,
			"no runtime folder: set SECPOOL_RUNTIME_DIR or XDG_RUNTIME_DIR");
	length = snprintf(path, path_bytes, "%s%s", from, tail);
	if (length < 0 || (size_t)length >= path_bytes ||
		(size_t)length + RUNTIME_NAME_BYTES > sizeof(((struct sockaddr_un *)0)->sun_path))
		return err_set(SECPOOL_E_LIMIT,
			"runtime folder %s is too long for a socket address, choose a shorter one",
			from);
	return SECPOOL_OK;
}

enum secpool_error os_process_find(int32_t pid, struct os_process *ret_process)
{
	char path[64], *text = NULL, *field;
	size_t bytes;
	enum secpool_error error;

	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	error = os_read_file(path, 65536, &text, &bytes);
	if (error)
		return error;
	/* the command in brackets may hold anything: count the fields from its last bracket */
	field = strrchr(text, ')');
	for (int i = 2; field && i < 22; i++)
		field = strchr(field + 1, ' ');
	if (!field || field[1] == '\0') {
		error = err_set(SECPOOL_E_SYSTEM, "%s can't be understood", path);
		goto out;
	}
	if (strchr("ZX", *(strrchr(text, ')') + 2))) {
		error = err_set(SECPOOL_E_NOT_FOUND, "process %d has ended", pid);
		goto out;
	}
	ret_process->pid = pid;
	ret_process->start_ticks = strtoull(field + 1, NULL, 10);
out:
	free(text);
	return error;
}

bool os_process_alive(const struct os_process *process)
{
	struct os_process now;

	return os_process_find(process->pid, &now) == SECPOOL_OK &&
	       now.start_ticks == process->start_ticks;
}

void os_random(void *bytes, size_t count)
{
	char *at = bytes;

	while (count > 0) {
		ssize_t got = getrandom(at, count, 0);
		if (got < 0 && os_interrupted())
			continue;
		if (got < 0)
			die("no-random", "getrandom failed");
		at += got;
		count -= (size_t)got;
	}
}
