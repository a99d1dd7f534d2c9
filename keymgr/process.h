/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which process a connection's peer is. SO_PEERCRED gives its number as of connect; by the time it is looked at that number may be
 * another process's. Threads: any.
 */
#ifndef SECPOOL_KEYMGR_PROCESS_H
#define SECPOOL_KEYMGR_PROCESS_H

#include "lib/base/os.h"
#include "lib/wire/sock.h"

/*
 * Names the very process that connected. Linux 6.5 gives a pidfd of it (SO_PEERPIDFD): the number was its own for as long as that says it
 * lives. Before 6.5 the process that has the number must be of the peer's user and not younger than the connection's acceptance.
 * fd: the connection. peer: what SO_PEERCRED said. accepted_ns: CLOCK_BOOTTIME when it was accepted, used before 6.5 only.
 * Errors: SECPOOL_E_NOT_FOUND (it has ended, or the number is another process's), SECPOOL_E_SYSTEM.
 */
enum secpool_error process_of_peer(int fd, const struct sock_peer *peer, uint64_t accepted_ns,
	struct os_process *ret_process) MUST_USE;

/* The part for kernels before 6.5 by itself. Errors: as above. */
enum secpool_error process_of_number(const struct sock_peer *peer, uint64_t accepted_ns,
	struct os_process *ret_process) MUST_USE;

/* CLOCK_BOOTTIME, which a process's start time is counted in. */
uint64_t process_boot_ns(void);

/*
 * How much of its memory the process may lock, in bytes (RLIM_INFINITY: all), by /proc/PID/limits: that may be read of every process, where prlimit(2) wants CAP_SYS_RESOURCE for another user's.
 * 0 where it can't be read.
 */
uint64_t process_memlock(const struct os_process *process);

#endif
