/* SPDX-License-Identifier: Apache-2.0 */
#include "hotplug/latency.h"

#include "lib/base/clock.h"
#include "lib/base/emumedia.h"
#include "lib/base/guarded_copy.h"
#include "lib/base/media.h"

/* How often an access is timed, for how long in all, and how long one is waited for. */
enum { LATENCY_LOOKS = 32 };
#define LATENCY_LOOKS_NS  (5 * CLOCK_NS_PER_MS)
#define LATENCY_ANSWER_NS (100 * CLOCK_NS_PER_MS)

uint64_t latency_measure(int media_fd, uint64_t bytes)
{
	struct media media = {.control = NULL};
	uint64_t least = 0, canary, clock_ns = UINT64_MAX;
	uint64_t end_ns = clock_now_ns() + LATENCY_LOOKS_NS;

	if (media_open(media_fd, bytes, &media) != SECPOOL_OK)
		return 0;
	/* at least one: on a busy machine the thread may not be run for a while */
	for (int i = 0; i < LATENCY_LOOKS && (least == 0 || clock_now_ns() < end_ns); i++) {
		uint64_t before_ns, start_ns, took_ns;

		if (guarded_flush(media.control, EMUMEDIA_CONTROL_BYTES) != SECPOOL_OK)
			break;
		before_ns = clock_now_ns();
		start_ns = clock_now_ns();
		if (media_canary(&media, NULL, LATENCY_ANSWER_NS, &canary) != SECPOOL_OK)
			break;
		took_ns = clock_now_ns() - start_ns;
		if (least == 0 || took_ns < least)
			least = took_ns;
		if (start_ns - before_ns < clock_ns)
			clock_ns = start_ns - before_ns;
	}
	media_close(&media);
	/* without what the clock itself takes */
	return least > clock_ns ? least - clock_ns : least;
}
