/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The devices as the key manager knows them: what hotplugd says, checked against the enclave's verdict, the media itself and
 * the directory. A device is used for placement only while it is online and the enclave finds its evidence fresh.
 *
 * A row lives as long as the daemon; its slot is the number clients and the directory know it by. Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_DEVICES_H
#define SECPOOL_KEYMGR_DEVICES_H

#include "keymgr/daemon.h"
#include "keymgr/extents.h"
#include "lib/base/log.h"
#include "lib/wire/msg.h"

enum { DEVICES_MOST = 1024, DEVICES_EK_BYTES = 34 };

struct server_connection;

/* Which file the media are. Numbers are the system's for one boot: without a boot, or of another one, they say nothing. */
enum { DEVICES_BOOT_BYTES = 40 };
struct devices_file {
	char boot[DEVICES_BOOT_BYTES]; /* empty: not known */
	uint64_t dev, ino;
};

/* Tenants that met bad bytes on a device since it came online. More make no difference. */
enum { DEVICES_VOTES_MOST = 4 };
struct devices_votes {
	uint64_t since_ns; /* of the row when they were counted */
	uint32_t count;
	char tenants[DEVICES_VOTES_MOST][MSG_NAME_BYTES];
};

/* devwork.h's; bytes. */
struct devices_work {
	uint64_t drain_bytes, scrub_bytes; /* the most that was left, since nothing was */
	uint64_t run_ns;		   /* clock_calendar_ns when a scrub by command began; 0: none did */
	bool run_over;
	uint64_t matched_bytes, differed_bytes, failed_bytes; /* what that came to */
};

struct devices_row {
	uint64_t slot, bytes, media;
	uint64_t attested_bytes; /* of the last good verdict in this run, 0: none */
	uint64_t latency_ns;	 /* hotplugd's word; 0: not known */
	uint64_t fresh_until_ns; /* clock_now_ns until which the enclave's last word holds that its evidence is fresh; 0: ask */
	struct devices_file file;
	uint64_t since_ns; /* clock_now_ns of the last change of state */
	uint32_t state;    /* enum msg_state */
	int media_fd;      /* -1 when its media can't be reached */
	bool seen;         /* hotplugd spoke of it since the daemon's start */
	bool spoken;       /* this hotplugd did (missing.h) */
	bool told_lost;    /* since it was online last */
	bool ek_known;
	uint64_t resets; /* the highest of its TPM's counters, as ATTEST_VERDICT gives them */
	uint8_t ek[DEVICES_EK_BYTES];
	char id[MSG_NAME_BYTES], domain[MSG_NAME_BYTES];
	char serial[MSG_NAME_BYTES]; /* with ek, "": not known */
	/* revocation.h: since when (clock_calendar_ns; 0: not) and for what (enum revocation_cause) it may not be used, as the directory has it */
	uint64_t revoked_ns;
	uint32_t revocation;
	bool foreign;	  /* its media are not those that the directory knows */
	bool drain_asked; /* hotplugd was asked to drain it */
	bool by_operator; /* an operator drains it: then all may move */
	bool cut_off;	  /* what was left there was given up: it is lost to clients, whatever its state is */
	struct devices_work work;
	struct log_limit checks;
	struct devices_votes votes;
};

/* What a device said of its size when its attestation began. */
struct devices_claim {
	char id[MSG_NAME_BYTES]; /* empty in a free place */
	uint64_t bytes;
};
/* As many as the enclave has challenges: one more drops the oldest. */
enum { DEVICES_CLAIMS_MOST = 32 };

struct devices {
	char boot[DEVICES_BOOT_BYTES];
	struct devices_claim claims[DEVICES_CLAIMS_MOST];
	unsigned next_claim;
	struct devices_row *rows[DEVICES_MOST];
	size_t count;
	struct server_connection *hotplug; /* hotplugd's connection, NULL when there is none */
	sd_event_source *missing;          /* missing.c's timer */
	sd_event_source *revocations;      /* revocation.c's */
};

/* Reads the directory's devices and tells the enclave the EKs they were first accepted with. */
enum secpool_error devices_new(struct daemon *daemon, struct devices **ret_devices) MUST_USE;
void devices_free(struct devices *devices);

/* NULL when there is none; borrowed. */
struct devices_row *devices_find(struct devices *devices, const char *id);
struct devices_row *devices_at(struct devices *devices, uint64_t slot);

/* Whether an id or a domain from outside is a word of letters, digits, '_', '.', '-'. */
bool devices_word(const char *text);

/*
 * The device is online with this media (media_fd is moved, closed on error). The same media (mark, size and file) as the directory knows keep their
 * extents, whatever its domain is now; with others all places on it are lost (devstore_change) and scrubbed before use.
 * Errors: SECPOOL_E_NOT_ATTESTED (the enclave has no fresh verdict, or one for another size), SECPOOL_E_PROTOCOL (no media, shorter than said), SECPOOL_E_STORE,
 * SECPOOL_E_LIMIT. The device then is not online.
 */
enum secpool_error devices_online(
	struct daemon *daemon, const struct msg_device_state *state, int *media_fd) MUST_USE;

/* The device is in another state than online: clients are told first, then its verdict is void and the rest follows. */
void devices_leave(struct daemon *daemon, struct devices_row *device, uint32_t state, const char *cause);

/* Looks at the media: a truncated one is lost at once. True when the device is gone. */
bool devices_look(struct daemon *daemon, struct devices_row *device);

/* A row, in memory only, for a device that was attested and will come online. Errors: SECPOOL_E_LIMIT, SECPOOL_E_NO_MEMORY. */
enum secpool_error devices_expect(
	struct devices *devices, const char *id, struct devices_row **ret_row) MUST_USE;

/* Asks the enclave whether a device's evidence is fresh. Errors: SECPOOL_E_NOT_ATTESTED with the reason. */
enum secpool_error devices_fresh(struct daemon *daemon, const char *id) MUST_USE;

/* The enclave heard something that may end a verdict: it is asked about each device before the next placement. */
void devices_doubt(struct devices *devices);

/*
 * Devices on which space may be taken now: online, and the enclave says fresh. It is asked once for each verdict, not at each call: what it said holds until the evidence's end, unless devices_doubt
 * comes before. The enclave looks at the evidence itself when it makes the key. *ret_count of at most DEVICES_MOST. */
enum secpool_error devices_usable(
	struct daemon *daemon, struct extents_device *list, size_t *ret_count) MUST_USE;

/* One DEVICE message for each device that is online or draining, or that is suspect, refused or lost since the daemon's start. */
void devices_tell(struct daemon *daemon, struct server_connection *connection);

#endif
