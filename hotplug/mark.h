/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mark of a device's media: a number that is new whenever the contents may be, in the file `mark` of the device's folder. Threads: one at a time for each folder.
 */
#ifndef SECPOOL_HOTPLUG_MARK_H
#define SECPOOL_HOTPLUG_MARK_H

#include <stdint.h>

#include "lib/base/err.h"

/* The mark as it was kept; 0 when there is none that can be believed. folder: the device's, borrowed. */
uint64_t mark_read(const char *folder);

/* Another one than ever before, kept durably. Not 0, nor all ones: it can be a canary (lib/base/media.h). Errors: SECPOOL_E_NO_SPACE, SECPOOL_E_LIMIT, SECPOOL_E_SYSTEM. */
enum secpool_error mark_renew(const char *folder, uint64_t *ret_mark) MUST_USE;

/* There is none any more: nothing of before is on the media. Errors: SECPOOL_E_LIMIT, SECPOOL_E_SYSTEM. */
enum secpool_error mark_forget(const char *folder) MUST_USE;

#endif
