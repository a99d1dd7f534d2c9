/* SPDX-License-Identifier: Apache-2.0 */
/* The handler threads: they read faults and serve them. Started and ended by the service thread, whose descriptors they share. */
#ifndef SECPOOL_FAULT_H
#define SECPOOL_FAULT_H

#include "lib/pool.h"

/* Makes the workers' memory and starts the threads. On error nothing is left. */
enum secpool_error fault_start(struct secpool *pool) MUST_USE;
void fault_stop(struct secpool *pool);

/* Serves one fault. Threads: workers. */
void fault_serve(struct worker *worker, const struct uffd_fault *fault);

#endif
