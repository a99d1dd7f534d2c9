/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemons of `secpool up`: starting one in the background with its log and pid file, finding it again, ending it. A process is named by
 * its id and start time, so that an id that the system gave to somebody else is never signalled.
 * Threads: none.
 */
#ifndef SECPOOL_CLI_SPAWN_H
#define SECPOOL_CLI_SPAWN_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/os.h"

/* In the order of starting; they are ended in the other order. */
enum spawn_daemon { SPAWN_VTPM, SPAWN_KEYMGRD, SPAWN_HOTPLUGD, SPAWN_COUNT };

/* "vtpm": the stem of its pid file and log. "secpool-vtpm": its program. */
const char *spawn_name(enum spawn_daemon daemon);
const char *spawn_program(enum spawn_daemon daemon);

/* The daemon's process, from its pid file. False: not running. */
bool spawn_find(const char *runtime, enum spawn_daemon daemon, struct os_process *ret_process);

/* The daemon's program, beside the running one. Errors: SECPOOL_E_NOT_FOUND, with its path. */
enum secpool_error spawn_find_program(enum spawn_daemon daemon, char path[PATH_MAX]) MUST_USE;

/*
 * Starts a daemon: the program of that name beside the running one, in a session of its own, stdin from /dev/null, output appended to
 * log/NAME.log, pid file written before it runs. argv: as for execv, argv[0] is set here. notify: the NOTIFY_SOCKET it gets, or NULL. pass: a descriptor that it
 * keeps beside these, by its number; -1: none.
 * Errors: SECPOOL_E_NOT_FOUND (no such program, with its path), SECPOOL_E_SYSTEM. Nothing runs then.
 */
enum secpool_error spawn_start(const char *runtime, enum spawn_daemon daemon, char **argv,
	const char *notify, int pass, struct os_process *ret_process) MUST_USE;

/* A socket in the runtime folder where a daemon says READY=1 (sd_notify(3)). spawn_unlisten closes and removes it. */
enum secpool_error spawn_listen(const char *runtime, char *path, size_t path_bytes, int *ret_fd) MUST_USE;
void spawn_unlisten(const char *path, int *fd);

/*
 * Waits until the daemon is ready: said so on the socket (fd >= 0), or accepts connections at ready_path.
 * Errors: SECPOOL_E_DAEMON_GONE when it ended, with the last line of its log; SECPOOL_E_TIMEOUT; SECPOOL_E_CLOSED when
 * this command was interrupted.
 */
enum secpool_error spawn_wait(const char *runtime, enum spawn_daemon daemon,
	const struct os_process *process, int fd, const char *ready_path) MUST_USE;

/*
 * Ends a daemon: SIGTERM, 10 s, SIGKILL; removes its pid file. One that does not run is no error. ret_ran may be NULL.
 * Errors: SECPOOL_E_DENIED (another user's), SECPOOL_E_TIMEOUT (not even killed).
 */
enum secpool_error spawn_stop(const char *runtime, enum spawn_daemon daemon, bool *ret_ran) MUST_USE;

/* The last line of a daemon's log without its level; "" when there is none. Bytes for a terminal only. */
void spawn_last_line(const char *runtime, enum spawn_daemon daemon, char *text, size_t bytes);

/* From now on SIGINT, SIGTERM and SIGHUP only make spawn_interrupted true. */
void spawn_catch_signals(void);
bool spawn_interrupted(void);

#endif
