/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operating system's calls as secpool uses them. Each turns errno into a secpool_error right where the
 * call is made, with a sentence that names the call and its object; errno is read nowhere else.
 *
 * Descriptors are always close-on-exec. Threads: any.
 */
#ifndef SECPOOL_BASE_OS_H
#define SECPOOL_BASE_OS_H

#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include <sys/types.h>

#include "lib/base/err.h"

/*
 * The error for errno as it stands now: ENOMEM, EPERM, ENOENT, ENOSPC ... each to its code, anything else to
 * SECPOOL_E_SYSTEM. The sentence is the caller's words, then the system's own.
 */
enum secpool_error os_error(const char *format, ...) PRINTF_LIKE(1, 2) MUST_USE;

/* Whether the call that just failed would have blocked (EAGAIN) or was interrupted (EINTR). */
bool os_would_block(void);
bool os_interrupted(void);

/* Whether the call that just failed found its object there already (EEXIST), or its peer gone before it was accepted (ECONNABORTED). */
bool os_exists(void);
bool os_aborted(void);

/* A non-blocking eventfd whose number is above the standard streams'. */
enum secpool_error os_eventfd(int *ret_fd) MUST_USE;

/* Closes *fd if it is open (>= 0) and sets it to -1. Keeps errno. */
void os_close(int *fd);

/*
 * Reads a whole file into new memory, NUL-terminated beyond *ret_bytes; the caller frees it.
 * Errors: SECPOOL_E_NOT_FOUND, SECPOOL_E_LIMIT (longer than max_bytes), SECPOOL_E_SYSTEM.
 */
enum secpool_error os_read_file(const char *path, size_t max_bytes, char **ret_text, size_t *ret_bytes) MUST_USE;
enum secpool_error os_read_fd(int fd, const char *name, size_t max_bytes, char **ret_text, size_t *ret_bytes) MUST_USE;

/*
 * Replaces a file so that a reader, or a crash at any point, finds the old or the new contents: a new file of
 * the same folder is written, synced and renamed over it, then the folder is synced. On error the old file stands.
 */
enum secpool_error os_write_file_durable(const char *path, const void *bytes, size_t count, unsigned mode) MUST_USE;

/* Writes all of it; a short write goes on. */
enum secpool_error os_write_all(int fd, const void *bytes, size_t count) MUST_USE;

/* Removes a file, and syncs its folder, so that it does not come back after a crash. One that is not there is no error. Errors: SECPOOL_E_SYSTEM ...: it may be there still, or be back after a crash. */
enum secpool_error os_remove_file_durable(const char *path) MUST_USE;

/* Makes a folder if it is not there; mode as in mkdir(2). An existing one is left as it is. */
enum secpool_error os_make_dir(const char *path, unsigned mode) MUST_USE;

/*
 * Takes the lock (flock(2)) of an open file or folder, for as long as the process has it open. One that is held is waited for, 3 s: a daemon that was killed holds its own for a moment
 * more, by a child between fork and exec. name: for the sentence. Errors: SECPOOL_E_BUSY when another process holds it; SECPOOL_E_SYSTEM.
 */
enum secpool_error os_lock(int fd, const char *name) MUST_USE;

/* Removes a folder with all that it holds; one that is not there is no error. Does not follow links or leave the file system of path. */
enum secpool_error os_remove_tree(const char *path) MUST_USE;

/*
 * The runtime folder: the given one, else $SECPOOL_RUNTIME_DIR, else /run/secpool for root, else
 * $XDG_RUNTIME_DIR/secpool (DESIGN.md section 9). path has PATH_MAX bytes.
 * Errors: SECPOOL_E_NOT_FOUND when none is set; SECPOOL_E_LIMIT when too long for a socket address.
 */
enum secpool_error os_runtime_dir(const char *given, char *path, size_t path_bytes) MUST_USE;

/* A process as a name that is not used again: its id and its start time in clock ticks (proc(5), stat field 22). */
struct os_process {
	int32_t pid;
	uint64_t start_ticks;
};

/* Fills in the start time of a live process. Errors: SECPOOL_E_NOT_FOUND when there is no such process. */
enum secpool_error os_process_find(int32_t pid, struct os_process *ret_process) MUST_USE;

/* Whether that very process is still alive (a zombie is not). */
bool os_process_alive(const struct os_process *process);

/* Random bytes from the kernel; ends the process if the kernel has none. */
void os_random(void *bytes, size_t count);

#endif
