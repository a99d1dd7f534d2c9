/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Overwrites a range of a device's memory with a pseudorandom stream (enclave/prstream.h), past the caches, and in a second pass over all of it reads it back and
 * compares. Threads: any; guarded_copy_install and an unblocked SIGBUS are the caller's.
 */
#ifndef SECPOOL_KEYMGR_OVERWRITE_H
#define SECPOOL_KEYMGR_OVERWRITE_H

#include <stdint.h>

#include "enclave/prstream.h"
#include "lib/wire/msg.h"

/*
 * Both passes over a range of the media, in the calling thread; MSG_READBACK_UNREACHABLE when it is not there (or *stop became
 * nonzero); MSG_READBACK_NOT_OVERWRITTEN when the stream could not be made. stop may be NULL.
 */
enum msg_readback overwrite_range(
	int media_fd, uint64_t offset, uint64_t bytes, const _Atomic int *stop);

/* The passes alone, over what is mapped: MSG_READBACK_MATCHED when all of it was stored, or is what was stored. */
enum msg_readback overwrite_store(struct prstream *stream, uint8_t *map, uint64_t bytes, const _Atomic int *stop);
enum msg_readback overwrite_compare(struct prstream *stream, const uint8_t *map, uint64_t bytes, const _Atomic int *stop);

#endif
