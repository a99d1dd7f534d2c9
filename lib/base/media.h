/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The media of a pool device, behind a descriptor: `capacity` bytes of data, and behind them a control area that is no part of the data. In it is a canary, a number that is new for each
 * incarnation of the media: who reads it back knows that the device answers, and that what it answered before was its own. secpool-hotplugd writes it.
 *
 * Two kinds, told apart by what the descriptor is:
 *   a regular file: emulated. The control area is one page, and has a word that says how the device behaves (emumedia.h).
 *   a character device: devdax, that is CXL memory. The control area is one unit of MEDIA_UNIT_BYTES, since a devdax device maps whole units of its alignment only (daxctl-create-device(1), --align: 2 MiB
 *   is its default), and system calls can't read or write it.
 *
 * Whoever maps the device can write the control area, as it can spoil the data: denial of service, nothing more (docs/caveats.md). Threads: any. SIGBUS as for guarded_copy.
 */
#ifndef SECPOOL_BASE_MEDIA_H
#define SECPOOL_BASE_MEDIA_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

/* What a device's capacity and each mapping's offset are a multiple of; where the canary is in the control area: eight bytes in a cache line of their own. */
enum { MEDIA_UNIT_BYTES = 2 << 20, MEDIA_CANARY_AT = 64 };

/* Where a challenge of attestation is written in the control area, and its length (hotplug/mediachallenge.h): a cache line of its own. */
enum { MEDIA_CHALLENGE_AT = 192, MEDIA_CHALLENGE_BYTES = 32 };

/* The control area, mapped to be read. */
struct media {
	const uint8_t *control;
	bool emulated;
};

/* Whether the media behind fd are emulated. Errors: SECPOOL_E_INVALID (neither kind), SECPOOL_E_SYSTEM. */
enum secpool_error media_is_emulated(int fd, bool *ret_emulated) MUST_USE;

/* What media of that capacity have together with their control area, in bytes: what is mapped, and what an emulated device's file is long. */
uint64_t media_bytes(bool emulated, uint64_t capacity);

/*
 * Maps the control area of the media behind fd (borrowed). Errors: SECPOOL_E_DEVICE_GONE (a file that is shorter, a devdax device that was removed), SECPOOL_E_INVALID, SECPOOL_E_SYSTEM; *ret_media is untouched.
 */
enum secpool_error media_open(int fd, uint64_t capacity, struct media *ret_media) MUST_USE;
/* One that is all zeros is allowed. */
void media_close(struct media *media);

/*
 * Reads the canary as an access, from the device itself and not from a cache. An emulated device that is silent gives 0, which is none. given_up (may be NULL) and most_ns (0: for ever) end the wait for an emulated device that
 * is slow or stuck; a load from a real one can't be abandoned. Errors: SECPOOL_E_DEVICE_GONE, SECPOOL_E_TIMEOUT.
 */
enum secpool_error media_canary(const struct media *media, const _Atomic bool *given_up, uint64_t most_ns, uint64_t *ret_canary) MUST_USE;

/*
 * Stores into the control area of the media behind fd (borrowed, open for writing), until it is on the device and not in a cache. `at` and bytes within the area's first page. Errors: those of media_open; then part of it may be stored.
 */
enum secpool_error media_store(int fd, uint64_t capacity, size_t at, const void *from, size_t bytes) MUST_USE;

/* Reads there, from the device and not from a cache, whatever an emulated device's behaviour is. Errors: SECPOOL_E_DEVICE_GONE; part of `to` may be written then. */
enum secpool_error media_load(const struct media *media, size_t at, void *to, size_t bytes) MUST_USE;

/* Whether a number can be a canary: not what loads give from a device that is not there (zeros, or all ones). */
bool media_canary_allowed(uint64_t canary);

/*
 * Whether the media are there with all of their capacity: a file by its size, as a device is emulated that may be stuck; a devdax device by a look at its canary.
 */
bool media_there(int fd, uint64_t capacity);

#endif
