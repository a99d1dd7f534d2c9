/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The challenge of an attestation that goes by way of the media: the host stores it in their control area (lib/base/media.h), the device reads it there, by itself, and its TPM quotes over what it read. So evidence of a
 * device stands for the media that the host has in hand at that moment, unless somebody relays; it proves no place. Both sides are in this process, as the devices are emulated or have no TPM of their own: they share
 * nothing but the media. Threads: any; SIGBUS as for guarded_copy (lib/base/guarded_copy.h).
 */
#ifndef SECPOOL_HOTPLUG_MEDIACHALLENGE_H
#define SECPOOL_HOTPLUG_MEDIACHALLENGE_H

#include <stdint.h>

#include "lib/base/err.h"
#include "lib/base/media.h"

/*
 * The host's part. media_fd: the media, borrowed; bytes: their capacity.
 * Errors: SECPOOL_E_DEVICE_GONE, SECPOOL_E_INVALID, SECPOOL_E_SYSTEM.
 */
enum secpool_error mediachallenge_store(int media_fd, uint64_t bytes, const uint8_t challenge[MEDIA_CHALLENGE_BYTES]) MUST_USE;

/* The device's part: opens the media that it has in its folder, and reads. Errors: as above. */
enum secpool_error mediachallenge_read(const char *folder, uint64_t bytes, uint8_t ret_read[MEDIA_CHALLENGE_BYTES]) MUST_USE;

#endif
