/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A page is written anew under the region's new key (keyring.h): what the devices hold of it is read, opened, sealed under the new key, and written to all its places, those of its stripe with the parity.
 * Where the page is otherwise, absent, resident, pinned or lost, it stays.
 * Threads: the service, which does not have the page.
 */
#ifndef SECPOOL_RENEW_H
#define SECPOOL_RENEW_H

#include "lib/pool.h"

enum renewal {
	RENEWAL_NONE = 0,  /* it was not under the old key */
	RENEWAL_DONE = 1,
	RENEWAL_LATER = 2, /* somebody has it: soon again */
	RENEWAL_STUCK = 3, /* nothing can be written where it lies now, or the new key may seal no more */
};

/* A page that can't be read is lost, as by any other reading; resident ones are dirty then. */
enum renewal renew_page(struct worker *worker, struct secpool_region *region, uint64_t pgno);

#endif
