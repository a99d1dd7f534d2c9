/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The messages between secpool's processes: fixed size for each type, little endian, one packet each on a unix
 * seqpacket socket. msg.def lists them; the structs, the encoder and the decoder are all made from that list.
 *
 * The decoder takes bytes from outside: any bytes give a message or SECPOOL_E_PROTOCOL, never anything else. A
 * text without its NUL, a count beyond its array (fields named *_bytes or *_count are the receiver's to check)
 * or a wrong length is refused.
 * Threads: any; no state.
 */
#ifndef SECPOOL_WIRE_MSG_H
#define SECPOOL_WIRE_MSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

/* Raised with every change of msg.def; both ends must have the same. */
enum { MSG_VERSION = 12 };

/* Longest encoded message with its header, in bytes, and the most descriptors beside one. */
enum { MSG_BYTES_MAX = 8192, MSG_FDS_MAX = 4 };

/* Capacities of the arrays in msg.def. */
enum { MSG_NAME_BYTES = 64, MSG_EXTENTS_MAX = 32, MSG_RENEW_MAX = 32, MSG_RECEIPT_BYTES = 4096, MSG_LEAVES_MAX = 128, MSG_KEYS_MAX = 64 };

/* A region's lanes: copies of a mirror; data and parity of an erasure code (DESIGN.md section 4, issue 4). */
enum { MSG_COPIES_MAX = 4, MSG_LANES_MAX = 16, MSG_PARITY_MAX = 4 };

/* In a row of EXTENTS: not a place yet, but where one that is on a draining device is copied to. */
#define MSG_LANE_TARGET (1ull << 32)

/* Pages of an erasure-coded region have at most so many bytes: a stripe of 16 is worked on in private memory. */
enum { MSG_CODED_PAGE_BYTES_MAX = 128 << 10 };

enum msg_role { MSG_ROLE_CLIENT = 1, MSG_ROLE_ADMIN = 2, MSG_ROLE_HOTPLUG = 3 };
/* SIGNAL and KILL: as SIGBUS, and keymgrd signals the process of the region */
enum msg_on_loss { MSG_ON_LOSS_SIGBUS = 1, MSG_ON_LOSS_FAILOVER = 2, MSG_ON_LOSS_SIGNAL = 3, MSG_ON_LOSS_KILL = 4, MSG_ON_LOSS_REFILL = 5 };
enum msg_list_kind {
	MSG_LIST_STATUS = 1,
	MSG_LIST_REGIONS = 2,
	MSG_LIST_TENANTS = 3,
	MSG_LIST_EVENTS = 4, /* then new events follow, until the asker closes, when `after` has MSG_FOLLOW */
	MSG_LIST_USE = 5,
	MSG_LIST_DEVICES = 6, /* of hotplugd */
};
#define MSG_FOLLOW (1ull << 63) /* set in msg_list.after */
enum msg_cause {
	MSG_CAUSE_FAULT = 1,  /* a load or store took a SIGBUS */
	MSG_CAUSE_TAG = 2,    /* bytes failed their integrity check */
	MSG_CAUSE_REMOVED = 3, /* told so by keymgrd */
	MSG_CAUSE_NO_SPACE = 4,
	MSG_CAUSE_STUCK = 5,  /* it did not answer within the policy's bound */
	MSG_CAUSE_SILENT = 6, /* it answers, but not with what is on it: its canary was another */
};
enum msg_verb {
	MSG_VERB_PULL = 1,
	MSG_VERB_PLUG = 2,
	MSG_VERB_ATTEST = 3,
	MSG_VERB_DRAIN = 4,
	MSG_VERB_SCRUB = 5,
	MSG_VERB_INJECT = 6,
	MSG_VERB_EVIDENCE = 7, /* answered by DEVICE_EVIDENCE */
	MSG_VERB_RETIRE = 8,   /* answered when it has begun */
};
/* hotplugd's device states (DESIGN.md section 6); hotplug/devstate.h holds the table over them */
enum msg_state {
	MSG_DEVICE_ABSENT = 0,
	MSG_DEVICE_DISCOVERED = 1,
	MSG_DEVICE_ATTESTING = 2,
	MSG_DEVICE_ONLINE = 3,
	MSG_DEVICE_DRAINING = 4,
	MSG_DEVICE_OFFLINE = 5,
	MSG_DEVICE_QUARANTINED = 6,
	MSG_DEVICE_SUSPECT = 7,
	MSG_DEVICE_LOST = 8,
	MSG_DEVICE_STATES = 9,
};
/* What kept a device out: by hotplugd's table, the event that led to its state */
enum msg_why {
	MSG_WHY_OTHER = 0,
	MSG_WHY_REFUSED = 1,     /* its evidence was refused */
	MSG_WHY_UNREACHABLE = 2, /* there was none; it is asked for again */
	MSG_WHY_EXPIRED = 3,     /* it is too old, and could not be renewed */
	MSG_WHY_ERRORS = 4,      /* it does not keep what is written, or does not answer as it should */
	MSG_WHY_COMMAND = 5,     /* an operator drains it */
};
enum msg_device_kind { MSG_KIND_EMULATED = 1, MSG_KIND_CXL = 2 };
/* What a device says of its health, flags: CXL 3.0 section 8.2.9.8.3.1 */
enum msg_health { MSG_HEALTH_MAINTENANCE = 1, MSG_HEALTH_DEGRADED = 2, MSG_HEALTH_REPLACE = 4, MSG_HEALTH_MEDIA = 8 };
/* A card's sanitising of itself. NONE: it, or the kernel, has no such command; DONE and FAILED: since hotplugd's start */
enum msg_sanitise { MSG_SANITISE_NONE = 0, MSG_SANITISE_POSSIBLE = 1, MSG_SANITISE_RUNNING = 2, MSG_SANITISE_DONE = 3, MSG_SANITISE_FAILED = 4 };
/* SEALED: immutable, and no process's any more */
enum msg_region_state { MSG_REGION_LIVE = 1, MSG_REGION_RELEASING = 2, MSG_REGION_SEALED = 3 };
/* of a region's keys: its client is to ask for a new one; it has one, and moves its pages to it */
enum msg_rotation { MSG_ROTATION_NONE = 0, MSG_ROTATION_WANTED = 1, MSG_ROTATION_RUNNING = 2 };
/* REBUILD: also a move off a draining device */
enum msg_progress { MSG_PROGRESS_REBUILD = 0, MSG_PROGRESS_ROTATION = 1, MSG_PROGRESSES = 2 };
enum msg_protection { MSG_PROTECTION_XTS_GMAC = 1 };
enum msg_readback {
	MSG_READBACK_MATCHED = 1,
	MSG_READBACK_DIFFERED = 2,
	MSG_READBACK_UNREACHABLE = 3,
	MSG_READBACK_NOT_OVERWRITTEN = 4, /* there, but the scrub failed: never in a receipt, which counts it as unreachable */
};
/* READERS: of a sealed region: its owner ended it, programs that had attached it may have its key until they end */
enum msg_client_end { MSG_CLIENT_ACKNOWLEDGED = 1, MSG_CLIENT_DEAD = 2, MSG_CLIENT_READERS = 3 };

/* What the front has recorded in the audit by its own word. */
enum msg_note {
	MSG_NOTE_REFUSED = 1,
	MSG_NOTE_ROTATION_ASKED = 2,
	MSG_NOTE_POLICY_LOADED = 3,
	MSG_NOTE_POLICY_REFUSED = 4,
	MSG_NOTE_REVOKED = 5,
	MSG_NOTE_STOPPING = 6,
	MSG_NOTES = 7,
};

/* The structs: struct msg_hello { uint32_t version; uint32_t role; } and so on. */
#define U32(f)      uint32_t f;
#define U64(f)      uint64_t f;
#define TEXT(f, n)  char f[n];
#define BYTES(f, n) uint8_t f[n];
#define U64S(f, n)  uint64_t f[n];
#define MESSAGE(number, NAME, name, fields)                                                        \
	struct msg_##name {                                                                        \
		fields                                                                             \
	};
#include "lib/wire/msg.def"
#undef MESSAGE
#undef U32
#undef U64
#undef TEXT
#undef BYTES
#undef U64S

enum msg_type {
#define MESSAGE(number, NAME, name, fields) MSG_##NAME = number,
#include "lib/wire/msg.def"
#undef MESSAGE
};

/* One message. number: chosen by the asker, given back in each answer; 0 in what comes unasked. */
struct msg {
	uint32_t type; /* enum msg_type */
	uint32_t number;
	union {
#define MESSAGE(number, NAME, name, fields) struct msg_##name name;
#include "lib/wire/msg.def"
#undef MESSAGE
	} u;
};

/* The name of a type, "REGION_CREATE"; "?" for one that is not in the list. */
const char *msg_name(uint32_t type);

/*
 * Writes the message's bytes. capacity must be MSG_BYTES_MAX. A text that is not terminated is our own bug (assert).
 * Errors: SECPOOL_E_INVALID for a type that is not in the list.
 */
enum secpool_error msg_encode(const struct msg *msg, uint8_t *bytes, size_t capacity, size_t *ret_count) MUST_USE;

/*
 * Reads one message from exactly count bytes. Errors: SECPOOL_E_PROTOCOL (unknown type, other version of the header, too short,
 * too long, text not terminated); *ret_msg is then untouched.
 */
enum secpool_error msg_decode(const uint8_t *bytes, size_t count, struct msg *ret_msg) MUST_USE;

/* Copies a text into a message's field, cutting it if it must; the rest of the field is zero. */
void msg_set_text(char *field, size_t capacity, const char *text);
#define MSG_SET(field, text) msg_set_text((field), sizeof(field), (text))

/* "none", "mirror:2", "ec:4+2". */
enum { MSG_REDUNDANCY_BYTES = 16 };
const char *msg_redundancy_name(uint32_t data, uint32_t lanes, char text[MSG_REDUNDANCY_BYTES]);
/* The shape of that name, exactly as written there; false, and nothing, for any other text. */
bool msg_redundancy_read(const char *text, uint32_t *ret_data, uint32_t *ret_lanes);

/* Whether a region can have this shape: one lane; a mirror of up to MSG_COPIES_MAX; 2 or more data lanes, 1 to MSG_PARITY_MAX of parity, MSG_LANES_MAX in all. */
bool msg_redundancy_valid(uint32_t data, uint32_t lanes);

/* A sealed region's manifest (docs/sealed.md): its head, and for each page. */
enum { MSG_MANIFEST_HEAD_BYTES = 256, MSG_MANIFEST_PAGE_BYTES = 56 };
/* Bytes of the manifest of a region, which fits for all that there can be. */
uint64_t msg_manifest_bytes(uint64_t bytes, uint64_t page_bytes);

/* Bytes of one lane of a region, in whole pages. */
uint64_t msg_lane_bytes(uint64_t bytes, uint64_t page_bytes, uint32_t data);

/* Whether a region can ask for this signal when it loses something: not for those that are its end (on_loss kill), and not for SIGBUS, which is the library's. */
bool msg_signal_valid(uint32_t number);

/* Names of the enums above, as shown to people and in JSON ("online", "mirror" ...); "?" when unknown. */
const char *msg_device_state_name(uint32_t state);
/* "emulated" or "cxl" of an enum msg_device_kind, "?" for anything else; and back: false for another word. */
const char *msg_device_kind_name(uint32_t kind);
bool msg_device_kind_read(const char *text, uint32_t *ret_kind);
const char *msg_cause_name(uint32_t cause);
const char *msg_on_loss_name(uint32_t on_loss);
/* The enum msg_on_loss of that name; 0: there is none. */
uint32_t msg_on_loss_read(const char *text);

#endif
