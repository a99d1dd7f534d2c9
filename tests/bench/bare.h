/* SPDX-License-Identifier: Apache-2.0 */
/* A bare userfaultfd range: a page of zeros is mapped for each fault, by one handler thread unless faults are signals. What secpool's faults are compared with. Threads: one user. */
#ifndef SECPOOL_TESTS_BARE_H
#define SECPOOL_TESTS_BARE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/uffd.h"

enum { BARE_PAGES = 8192, BARE_PAGE_BYTES = 4096 };

struct bare {
	struct uffd uffd;
	volatile uint8_t *memory;
	uint8_t *zeros;
	pthread_t thread;
};

/* is_inline: faults are signals, which the caller serves; there is no thread then. Errors: SECPOOL_E_NO_FAULTFD, SECPOOL_E_NO_MEMORY. */
enum secpool_error bare_open(struct bare *bare, bool is_inline) MUST_USE;

/* All pages are missing again. */
void bare_drop(struct bare *bare);

#endif
