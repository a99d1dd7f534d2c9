/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which parts of a region the program has pinned. A page is pinned as long as any part that covers it is; its word says so (page.h), and that keeps it
 * resident, writable and dirty. Threads: the program's; pins_free when no other thread uses the region.
 */
#ifndef SECPOOL_PIN_H
#define SECPOOL_PIN_H

#include <stdbool.h>

#include "lib/base/err.h"

struct pins;

/* Errors: SECPOOL_E_NO_MEMORY. */
enum secpool_error pins_new(struct pins **ret_pins) MUST_USE;

/* NULL is allowed. */
void pins_free(struct pins *pins);

/* Whether a pin of the region has not ended. Threads: any. */
bool pins_any(struct pins *pins);

#endif
