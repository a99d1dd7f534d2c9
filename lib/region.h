/* SPDX-License-Identifier: Apache-2.0 */
/* What the library's other files need of regions. Threads: the service. */
#ifndef SECPOOL_REGION_H
#define SECPOOL_REGION_H

#include "lib/pool.h"
#include "lib/wire/msg.h"

struct service_call;

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
