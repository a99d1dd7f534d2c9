/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/emumedia.h"

#include "lib/base/clock.h"
#include "lib/base/guarded_copy.h"

/* How often a waiting access looks at the word again. */
#define SLICE_NS (200ull * 1000)

enum secpool_error emumedia_obey(
	const uint8_t *control, const _Atomic bool *given_up, uint64_t most_ns, bool *ret_silent)
{
	uint64_t began = 0;

	for (;;) {
		uint64_t word, now, waited;
		if (guarded_load(control + EMUMEDIA_WORD_AT, &word) != SECPOOL_OK)
			return SECPOOL_E_DEVICE_GONE;
		if (word == EMUMEDIA_NORMAL || word == EMUMEDIA_SILENT) {
			*ret_silent = word == EMUMEDIA_SILENT;
			return SECPOOL_OK;
		}
		if ((word & 0xff) != EMUMEDIA_SLOW && word != EMUMEDIA_STUCK)
			return SECPOOL_E_DEVICE_GONE;
		now = clock_now_ns();
		began = began ? began : now;
		waited = now - began;
		if ((word & 0xff) == EMUMEDIA_SLOW && waited >= word >> 8) {
			*ret_silent = false;
			return SECPOOL_OK;
		}
		if (given_up && atomic_load(given_up))
			return SECPOOL_E_DEVICE_GONE;
		if (most_ns > 0 && waited >= most_ns)
			return SECPOOL_E_TIMEOUT;
		clock_sleep_ns((word & 0xff) == EMUMEDIA_SLOW && (word >> 8) - waited < SLICE_NS
				       ? (word >> 8) - waited
				       : SLICE_NS);
	}
}
