/* SPDX-License-Identifier: Apache-2.0 */
/* How far away a device is. Threads: any. */
#ifndef SECPOOL_HOTPLUG_LATENCY_H
#define SECPOOL_HOTPLUG_LATENCY_H

#include <stdint.h>

/*
 * How long a load from the media takes, in ns: the shortest of several that find nothing in a cache, since whatever comes between makes one longer. 0: it does not
 * answer within 100 ms. guarded_copy_install was called.
 */
uint64_t latency_measure(int media_fd, uint64_t bytes);

#endif
