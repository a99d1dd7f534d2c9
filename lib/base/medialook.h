/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks at media that may never answer, for a loop that must go on: a load from a real device can't be abandoned, but who waits for it can. Each look is made by a thread of its own; one that is not back in time is left behind,
 * ends whenever the device lets it, and until then no other look at the same media is begun: it would not be back either. So there is never more than one such thread for a device.
 * Threads: any; two that look at the same media at the same time are told that one is under way.
 */
#ifndef SECPOOL_BASE_MEDIALOOK_H
#define SECPOOL_BASE_MEDIALOOK_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/err.h"

/* How long a daemon's loop waits for a look; a device that is later is as good as gone (as SCRUB_ANSWER_NS in keymgr/scrub.h). */
#define MEDIALOOK_NS (2000000000ull)

/*
 * Reads the canary of the media behind fd (borrowed; a duplicate is kept while the look is under way). capacity: as for media_open. Errors: SECPOOL_E_TIMEOUT (no answer in most_ns, or one that was begun before is not back: at once), SECPOOL_E_DEVICE_GONE,
 * SECPOOL_E_INVALID, SECPOOL_E_NO_MEMORY, SECPOOL_E_SYSTEM.
 */
enum secpool_error medialook(int fd, uint64_t capacity, uint64_t most_ns, uint64_t *ret_canary) MUST_USE;

/* media_there, within MEDIALOOK_NS. */
bool medialook_there(int fd, uint64_t capacity);

#endif
