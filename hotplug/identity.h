/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a device says it is: identity.json in its folder,
 *   {"id": "dev0", "serial": "...", "bytes": 536870912, "firmware": "secpool-emulated-1.0",
 * "domain": "domain0", "kind": "emulated", "tpm": "swtpm"}; "kind" may be "cxl", whose file hotplugd makes (cxl.h) and the operator may edit;
 * if it is to count as farther away than it is, "latency_ns": 3000. None of it is believed: firmware, id, bytes and serial are
 * measured into the device's TPM and judged by keymgrd's enclave.
 *
 * The parser takes bytes from outside: any bytes give an identity that holds all rules below, or an
 * error. Threads: any; no state.
 */
#ifndef SECPOOL_HOTPLUG_IDENTITY_H
#define SECPOOL_HOTPLUG_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

/* With their NULs. An id is short because it is part of a socket's path. */
enum { IDENTITY_ID_BYTES = 32, IDENTITY_TEXT_BYTES = 64 };

/* The longest identity.json; what a device's capacity must be a multiple of; the largest capacity.
 * Bytes. */
enum { IDENTITY_FILE_BYTES_MOST = 4096, IDENTITY_UNIT_BYTES = 2 << 20 };
#define IDENTITY_CAPACITY_BYTES_MOST (1ull << 40)
enum { IDENTITY_LATENCY_NS_MOST = 1000000000 };

/* Which program is the device's TPM: "tpm" in identity.json, secpool-vtpm unless it says otherwise. */
enum identity_tpm { IDENTITY_TPM_SECPOOL = 0, IDENTITY_TPM_SWTPM = 1 };

struct identity {
	char id[IDENTITY_ID_BYTES];	  /* [A-Za-z0-9_.-], not starting with '.' or '-' */
	char serial[IDENTITY_TEXT_BYTES]; /* the texts: printable ASCII without blanks, not empty */
	char firmware[IDENTITY_TEXT_BYTES];
	char domain[IDENTITY_TEXT_BYTES]; /* [A-Za-z0-9_.-] */
	uint64_t bytes;
	uint32_t kind; /* enum msg_device_kind */
	enum identity_tpm tpm;
	uint64_t latency_ns; /* of an access, for placement; 0: it is to be measured */
};

/* What the device's TPM measures of it, as it is extended: the firmware into PCR 0, id, capacity and serial into PCR 2 (enclave/eventlog.h). */
struct identity_measured {
	char firmware[IDENTITY_TEXT_BYTES + 16], device[IDENTITY_ID_BYTES + IDENTITY_TEXT_BYTES + 48];
};
void identity_measure(const struct identity *identity, struct identity_measured *ret_measured);

/* Whether a text may be a device's id. */
bool identity_id_allowed(const char *id);

/*
 * Reads an identity from count bytes of JSON. Members that are not known are passed over.
 * name: of the file, for the error. id: what the id must be (the folder's name).
 * Errors: SECPOOL_E_INVALID naming the file, the member and what was expected;
 * SECPOOL_E_UNSUPPORTED for another kind; SECPOOL_E_NO_MEMORY. *ret_identity is
 * then untouched.
 */
enum secpool_error identity_parse(const char *text, size_t count, const char *name, const char *id,
	struct identity *ret_identity) MUST_USE;

/*
 * The same from FOLDER/identity.json, which must be a regular file and no link.
 * Errors: as above; SECPOOL_E_NOT_FOUND, SECPOOL_E_LIMIT (too long), SECPOOL_E_SYSTEM.
 */
enum secpool_error identity_load(
	const char *folder, const char *id, struct identity *ret_identity) MUST_USE;

/* Writes FOLDER/identity.json, whole or not at all. Errors: SECPOOL_E_LIMIT, SECPOOL_E_NO_MEMORY, SECPOOL_E_NO_SPACE, SECPOOL_E_SYSTEM. */
enum secpool_error identity_save(const char *folder, const struct identity *identity) MUST_USE;

#endif
