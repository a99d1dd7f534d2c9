/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control area of emulated media (media.h): one page. Beside the canary it holds a word that says how the device behaves. secpool-hotplugd writes both; whoever emulates a device's accesses (the library, the scrub) obeys the word before each of them, so that an
 * emulated device misbehaves as a real one does.
 *
 * Whoever maps the device can write here, as it can spoil the data: that is denial of service by a tenant (docs/caveats.md). Nothing is believed because of what stands here; the canary can
 * only make a device count as gone.
 * Threads: any. SIGBUS as for guarded_copy.
 */
#ifndef SECPOOL_BASE_EMUMEDIA_H
#define SECPOOL_BASE_EMUMEDIA_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/base/err.h"

/* The page's size, and where in it the word is: eight bytes in a cache line of their own, as the canary (media.h). */
enum { EMUMEDIA_CONTROL_BYTES = 4096, EMUMEDIA_WORD_AT = 128 };

enum emumedia_behaviour {
	EMUMEDIA_NORMAL = 0,
	EMUMEDIA_SILENT = 1, /* loads give zeros, stores are swallowed: a pull that nobody noticed yet. It ends with the media */
	EMUMEDIA_SLOW = 2,   /* each access waits for so many ns first */
	EMUMEDIA_STUCK = 3,  /* an access does not return until the behaviour changes, the media are cut, or its maker gave the device up */
};

/* The word: behaviour in bits 0-7, ns above. 0 is EMUMEDIA_NORMAL. */
static inline uint64_t emumedia_word(enum emumedia_behaviour behaviour, uint64_t ns)
{
	return (uint64_t)behaviour | ns << 8;
}

/*
 * What comes before an access: does as the word says, and tells by *ret_silent whether the access is to be without effect. given_up: ends a wait when it becomes true (may be NULL). most_ns: ends
 * one after so long; 0: never. Errors: SECPOOL_E_DEVICE_GONE (cut, given up, or no known behaviour), SECPOOL_E_TIMEOUT (most_ns). Then nothing may be accessed.
 */
enum secpool_error emumedia_obey(const uint8_t *control, const _Atomic bool *given_up, uint64_t most_ns, bool *ret_silent) MUST_USE;

#endif
