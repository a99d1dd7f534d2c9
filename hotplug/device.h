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
#include "hotplug/holdoff.h"
#include "hotplug/identity.h"
#include "hotplug/work.h"
#include "lib/base/err.h"

struct attest;
struct msg_device_evidence;
struct control;
struct hotplug;
struct notify;
struct topology_device;
struct vtpm;
struct watch;
struct cxl;
struct device;
struct device_probe;

/* What is done with media by their kind: the emulator's and devdax.c's. */
struct device_kind {
	/* Opens them; back: they were gone since they were opened last. Errors: those of emulator_open and devdax_open. */
	enum secpool_error (*open)(const struct device *device, bool back, int *ret_media_fd, uint64_t *ret_mark);
	bool (*look)(const struct device *device);
	/* after a look that did not find them: so that they are gone for clients too */
	void (*cut)(const struct device *device);
	/* on a thread: whether they answer as they should. Errors: those of emulator_probe and devdax_probe. */
	enum secpool_error (*probe)(const struct device_probe *probe);
};
const struct device_kind *device_kind_of(const struct device *device);

/* The most devices below one folder, the length of a reason with its NUL, the longest silence. */
enum { DEVICE_MOST = 256, DEVICE_REASON_BYTES = 192, DEVICE_SILENT_MS_MOST = 30000 };

/* A look at whether a device answers; all but running is the work's while it runs. */
struct device_probe {
	struct work_item work;
	bool running;
	int fd;
	const struct device_kind *kind;
	uint64_t bytes, mark, most_ns;
	enum secpool_error error;
	char detail[ERR_DETAIL_BYTES];
};

/* device_retire.c's; all but state and text is the work's while it begins. */
struct device_retire {
	struct work_item work;
	enum msg_sanitise state; /* RUNNING, DONE, FAILED; NONE: it was not asked for */
	char text[DEVICE_REASON_BYTES]; /* how it is, for people */
	uint64_t serial;
	char memdev[16]; /* whose command it is */
	enum secpool_error error;
	char detail[ERR_DETAIL_BYTES];
	sd_event_source *look;
};

struct device {
	struct hotplug *hotplug;
	struct device *next;
	struct identity identity;
	struct topology_device *topology; /* of a cxl device: as it was read last; NULL: not there */
	char folder[PATH_MAX];
	enum msg_state state;
	/* why it is in this state, for people; "" when there is nothing to say. why: for keymgrd */
	char reason[DEVICE_REASON_BYTES];
	enum msg_why why;
	int media_fd;  /* -1: no media */
	uint64_t mark; /* of the media; kept after they went, to say which are gone */
	uint64_t latency_ns; /* of an access, since the media came; 0: not known */
	struct vtpm *vtpm;
	/* the exchange that runs, or one that was dropped and still has a thread */
	struct attest *attest;
	bool attest_again;	/* start another when that one's thread is done */
	uint64_t attested_ns;	/* of the last good verdict: since 1970; 0: none */
	uint64_t expires_ns;	/* of that verdict: clock_now_ns */
	struct msg_device_evidence *evidence; /* what it was given on; NULL: none */
	sd_event_source *timer; /* renewal or retry */
	unsigned retries;
	struct health health;
	struct holdoff holdoff;
	struct work_item save; /* a pull's copy */
	bool pulling;	       /* its silence, or save, is under way */
	sd_event_source *silence; /* when a silent pull's save begins */
	unsigned flaps_left;	  /* device_inject.c's, with the wait before the next change */
	uint64_t flap_wait_ms;
	sd_event_source *flap;
	struct device_probe probe;
	struct device_retire retire;
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
	struct work *probe_work; /* looks at devices that may not answer */
	struct watch *watch;
	bool use_cxl;	 /* else CXL memory is left alone */
	struct cxl *cxl; /* NULL: not there */
	struct notify *notify;
	struct control *control;
	struct health_limits limits; /* as keymgrd said last */
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

/* Commands that only an emulated device can carry out. Errors: SECPOOL_E_UNSUPPORTED. */
enum secpool_error device_must_be_emulated(const struct device *device, const char *what) MUST_USE;

/* Whether the media are still there; when not, the device is removed (event). True when this
 * changed the state. */
bool device_look(struct device *device, const char *reason);

/*
 * Starts a pull; control_pulled is called when the media are truncated and the state is stepped, or
 * when that failed. silent_ms: for so long before it the device answers zeros and swallows stores,
 * and its state stays; 0: not. Errors: SECPOOL_E_BUSY naming the state (it has no media, or is being
 * pulled), SECPOOL_E_UNSUPPORTED, SECPOOL_E_INVALID (silent_ms above DEVICE_SILENT_MS_MOST), SECPOOL_E_SYSTEM.
 */
enum secpool_error device_pull(struct device *device, uint32_t silent_ms) MUST_USE;

/*
 * Makes the device misbehave; text: as for inject_parse. It is carried out at once, but for a
 * flapping, which goes on and ends with the device plugged. Errors: SECPOOL_E_BUSY naming the state;
 * those of inject_parse and of the inject_ functions.
 */
enum secpool_error device_inject(struct device *device, const char *text) MUST_USE;

/* Looks whether a device that has its media answers within most_ms, as it should; when not it is
 * suspect (event), after a while. */
void device_probe(struct device *device, uint32_t most_ms);

/*
 * Gives the media back and steps the state; attestation follows (control_attested). identity.json
 * is read again. by_itself: nobody asked for it, as a device that flaps (holdoff.h). Errors: SECPOOL_E_BUSY naming the state; those of identity_load and
 * emulator_restore. The device is then as it was.
 */
enum secpool_error device_plug(struct device *device, bool by_itself) MUST_USE;

/*
 * Asks for new evidence (control_attested follows); joins an exchange that runs.
 * Errors: SECPOOL_E_BUSY naming the state; SECPOOL_E_DAEMON_GONE when there is no connection to
 * keymgrd.
 */
enum secpool_error device_attest(struct device *device) MUST_USE;

/*
 * Starts a drain: the programs move what they have there, and the device goes offline when nothing is left. It survives a restart of the daemon.
 * Errors: SECPOOL_E_BUSY naming the state, SECPOOL_E_DAEMON_GONE (no connection to keymgrd), SECPOOL_E_SYSTEM (it can't be noted).
 */
enum secpool_error device_drain(struct device *device) MUST_USE;

/*
 * Has a card that holds nothing of anybody any more overwrite itself by its own command, after its region was taken away. Begins only: how it goes on is in retire.state, and the device's reason.
 * Errors: SECPOOL_E_UNSUPPORTED (it is emulated; the kernel or the card has no such command), SECPOOL_E_BUSY (it is in use, and has to be drained first; it is being done), SECPOOL_E_DEVICE_GONE (no card is there).
 */
enum secpool_error device_retire(struct device *device) MUST_USE;

/* What came of it is of no interest any more: the device is used again, or the daemon ends. */
void device_retire_done(struct device *device);

/*
 * keymgrd wants a device that it may not use any more drained, or gave up what is left there (msg_device_drain). A drain for that is not noted: after a restart of the daemon it is keymgrd's to ask for
 * again, if the device is refused again. In a state in which it means nothing: nothing.
 */
void device_revoked(struct device *device, bool cut_off, const char *cause);

/* Whether one is under way or done, by the note in the device's folder; and its end. */
bool device_drain_wanted(const struct device *device);
void device_drain_forget(const struct device *device);

/* After a verdict, whatever it was: a drain that was wanted before the daemon was started again goes on, also of a device that was refused or could not be asked. In a state in which it means nothing: nothing. */
void device_drain_go_on(struct device *device);

/*
 * Whether it was found suspect for what it did (DEVSTATE_ERRORS): good evidence does not change that, so it is noted in the device's folder and survives a restart of the daemon. It ends when the
 * device is removed, or an operator asks to attest it.
 */
bool device_is_bad(const struct device *device);
void device_bad_note(const struct device *device);
void device_bad_forget(const struct device *device);

/*
 * How an exchange of evidence ended (attest.c): SECPOOL_OK with expires_ns of the verdict,
 * SECPOOL_E_ATTESTATION (refused), anything else: it could not be carried out. reason: what to tell
 * people.
 */
void device_attested(
	struct device *device, enum secpool_error result, const char *reason, uint64_t expires_ns);

/* There was trouble (DEVICE_CHECK): looks at the device, and counts it (health.h). */
void device_check(struct device *device, const struct msg_device_check *check);

/*
 * How often it came back by itself is counted in holdoff, and in a file of the device's folder: device_returned counts one more, and returns how long it has to wait, in ns; device_returns_load is for a
 * device that the daemon did not know yet, and takes what lies there and is not too old. What can't be read or written is logged.
 */
uint64_t device_returned(struct device *device);
void device_returns_load(struct device *device);
void device_returns_forget(struct device *device);

/* Whether it is held off still (holdoff.h): then it is attested when that is over, or when an
 * operator asks. */
bool device_held(const struct device *device);

/* The daemon's end, first part: drops all exchanges and tells all TPMs to end. The states stay;
 * nobody is told. */
void device_stop_all(struct hotplug *hotplug);

/* The second part, when hotplug's work was freed: waits for the TPMs and frees all devices. */
void device_free_all(struct hotplug *hotplug);

#endif
