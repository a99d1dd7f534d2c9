/* SPDX-License-Identifier: Apache-2.0 */
/* What the library's other files need of regions. Threads: the service. */
#ifndef SECPOOL_REGION_H
#define SECPOOL_REGION_H

#include "lib/manifest.h"
#include "lib/pool.h"
#include "lib/wire/msg.h"

struct service_call;

/* A region as keymgrd made it, or as it was sealed. */
struct region_plan {
	struct msg_region_created created;
	uint64_t page_bytes;
	uint32_t data, lanes;
	const struct secpool_region_options *options; /* NULL: of an attached one */
	const uint8_t *manifest;   /* of an attached one, as it came: it is checked; else NULL */
	struct manifest_head head; /* what the manifest must say */
};

/*
 * Maps a region whose key the enclave has sent, and makes it known. Nothing is left on error.
 * Errors: SECPOOL_E_PROTOCOL, SECPOOL_E_EXISTS (its address is in use in this program), SECPOOL_E_INTEGRITY (the manifest is not the one that was sealed), SECPOOL_E_DEVICE_GONE, SECPOOL_E_LIMIT, SECPOOL_E_NO_MEMORY, SECPOOL_E_NO_LOCKED_MEMORY, SECPOOL_E_DAEMON_GONE.
 */
enum secpool_error region_set_up(struct secpool *pool, const struct region_plan *plan, struct secpool_region **ret_region) MUST_USE;

/* At the end of the pool: as secpool_region_release, but a sealed region, or one that may be, goes on without this process. Threads: the program's. */
enum secpool_error region_close(struct secpool_region *region) MUST_USE;

/* Reads the region's places from keymgrd and publishes them. On error the old ones stay. */
enum secpool_error region_read_places(struct secpool *pool, struct secpool_region *region) MUST_USE;

/* A key of the region that the enclave sent, as a cipher for the pool's workers. Errors: those of keyclient_take_key and pagecipher_new. */
enum secpool_error region_take_key(struct secpool *pool, const struct secpool_region *region, uint64_t epoch, struct pagecipher **ret_cipher) MUST_USE;

/* The answer to a release came: fills in the receipt and frees the region. */
enum secpool_error region_released(struct service_call *call, const struct msg *answer);

/* secpool_region_create for the pool's own heap. */
enum secpool_error region_create_heap(struct secpool *pool, size_t bytes, struct secpool_region **ret_region) MUST_USE;

/*
 * Takes the poison from a page that the calling worker is filling: it is missing again. Errors: SECPOOL_E_SYSTEM, SECPOOL_E_NO_LOCKED_MEMORY: it is as it was. Threads: workers.
 */
enum secpool_error region_heal(struct worker *worker, struct secpool_region *region, uint64_t pgno) MUST_USE;

#endif
