/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The TPM of an emulated device: a secpool-vtpm process, or swtpm where its identity says so, that lives while the device has power, and
 * is started again, with a back-off, when it dies. Its PCRs are extended at each start with what
 * the device says it is, as a boot would measure it: by secpool-vtpm itself, for swtpm by attest.c. A TPM for swtpm is made by swtpm_setup(8), in the device's folder `tpm`, and never here. It dies with this process. Threads: the
 * loop's; the thread that starts it must live as long as the process (PR_SET_PDEATHSIG follows the
 * thread).
 */
#ifndef SECPOOL_HOTPLUG_VTPM_H
#define SECPOOL_HOTPLUG_VTPM_H

#include <stdint.h>
#include <systemd/sd-event.h>

#include "hotplug/identity.h"
#include "lib/base/err.h"

struct vtpm;

/* Called from the loop whenever a new process was started; it may need some ms until its socket
 * accepts. */
typedef void vtpm_started(void *arg);

/*
 * Makes one that is off. program: path of secpool-vtpm; folder: the device's; both borrowed, must
 * outlive it. Errors: SECPOOL_E_NO_MEMORY.
 */
enum secpool_error vtpm_new(sd_event *loop, const char *program, const char *folder,
	vtpm_started *started, void *arg, struct vtpm **ret_vtpm) MUST_USE;

/* Powers it, measuring this identity (copied). If a process of before is still ending, the new one
 * starts right after it. */
void vtpm_start(struct vtpm *vtpm, const struct identity *identity);

/* Takes its power away: SIGTERM, and SIGKILL if that does not end it in time. Does not wait. */
void vtpm_stop(struct vtpm *vtpm);

/* The end: waits until the process is gone, at most until deadline_ns (clock_now_ns) in good order,
 * then kills. Frees. NULL is allowed. */
void vtpm_free(struct vtpm *vtpm, uint64_t deadline_ns);

/* The process's id; 0 when there is none. */
int32_t vtpm_pid(const struct vtpm *vtpm);

#endif
