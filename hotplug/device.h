/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The devices, their states and what follows from each change. device_step is the only writer of a
 * state. The other parts report events here (watch.c: media and folders, attest.c: verdicts,
 * notify.c: the connection, control.c: commands) and are told of what happened. Threads: the
 * loop's.
 */
#ifndef SECPOOL_HOTPLUG_DEVICE_H
#define SECPOOL_HOTPLUG_DEVICE_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "hotplug/devstate.h"
#include "hotplug/health.h"
#include "hotplug/identity.h"
#include "hotplug/work.h"
#include "lib/base/err.h"

struct attest;
struct control;
struct hotplug;
struct notify;
struct vtpm;
struct watch;

/* The most devices below one folder, and the length of a reason with its NUL. */
enum { DEVICE_MOST = 256, DEVICE_REASON_BYTES = 192 };

struct device {
	struct hotplug *hotplug;
	struct device *next;
	struct identity identity;
	char folder[PATH_MAX];
	enum msg_state state;
	/* why it is in this state, for people; "" when there is nothing to say */
	char reason[DEVICE_REASON_BYTES];
	int media_fd;  /* -1: no media */
	uint64_t mark; /* of the media; kept after they went, to say which are gone */
	struct vtpm *vtpm;
	/* the exchange that runs, or one that was dropped and still has a thread */
	struct attest *attest;
	bool attest_again;	/* start another when that one's thread is done */
	uint64_t attested_ns;	/* of the last good verdict: since 1970; 0: none */
	uint64_t expires_ns;	/* of that verdict: clock_now_ns */
	sd_event_source *timer; /* renewal or retry */
	unsigned retries;
	struct health health;
	struct work_item save; /* a pull's copy */
	bool pulling;	       /* save is under way */
	int save_fd;	       /* what it reads */
	enum secpool_error save_error;
	char save_detail[ERR_DETAIL_BYTES];
};

/* The daemon: everything that one loop serves. */
struct hotplug {
	sd_event *loop;
	char runtime_dir[PATH_MAX];
	char devices_dir[PATH_MAX];
	char vtpm_program[PATH_MAX];
	struct work *tpm_work;	/* talks to TPMs */
	struct work *copy_work; /* copies media */
	struct watch *watch;
	struct notify *notify;
	struct control *control;
	struct device *devices; /* by id */
	unsigned device_count;
};

/* NULL when there is none of this id. */
struct device *device_find(const struct hotplug *hotplug, const char *id);

/*
 * Looks into a folder below the devices folder: one with an identity.json that holds becomes a
 * device. Does nothing for a device that has its media, and for one that was pulled (that takes
 * device_plug). What is wrong with the folder is logged.
 */
void device_discover(struct hotplug *hotplug, const char *id);

/* Steps a device's state and carries out what the table says; reason: why, copied. An event that
 * the table does not have is logged and changes nothing. */
void device_step(struct device *device, enum devstate_event event, const char *reason);

/* Whether the media are still there; when not, the device is removed (event). True when this
 * changed the state. */
bool device_look(struct device *device, const char *reason);

/*
 * Starts a pull; control_pulled is called when the media are truncated and the state is stepped, or
 * when that failed. Errors: SECPOOL_E_BUSY naming the state (it has no media, or is being pulled).
 */
enum secpool_error device_pull(struct device *device) MUST_USE;

/*
 * Gives the media back and steps the state; attestation follows (control_attested). identity.json
 * is read again. Errors: SECPOOL_E_BUSY naming the state; those of identity_load and
 * emulator_restore. The device is then as it was.
 */
enum secpool_error device_plug(struct device *device) MUST_USE;

/*
 * Asks for new evidence (control_attested follows); joins an exchange that runs.
 * Errors: SECPOOL_E_BUSY naming the state; SECPOOL_E_DAEMON_GONE when there is no connection to
 * keymgrd.
 */
enum secpool_error device_attest(struct device *device) MUST_USE;

/*
 * How an exchange of evidence ended (attest.c): SECPOOL_OK with expires_ns of the verdict,
 * SECPOOL_E_ATTESTATION (refused), anything else: it could not be carried out. reason: what to tell
 * people.
 */
void device_attested(
	struct device *device, enum secpool_error result, const char *reason, uint64_t expires_ns);

/* There was trouble (DEVICE_CHECK); cause: enum msg_cause; tenants: as for health_report. */
void device_check(struct device *device, uint32_t cause, uint32_t tenants);

/* The daemon's end, first part: drops all exchanges and tells all TPMs to end. The states stay;
 * nobody is told. */
void device_stop_all(struct hotplug *hotplug);

/* The second part, when hotplug's work was freed: waits for the TPMs and frees all devices. */
void device_free_all(struct hotplug *hotplug);

#endif
