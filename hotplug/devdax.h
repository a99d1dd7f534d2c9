/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The media of a CXL device: a devdax device, to which `media` in the device's folder is a link (cxl.c makes it), and `mark` beside it. The canary in the control area (lib/base/media.h) is the
 * mark itself: media that show another one were elsewhere meanwhile.
 *
 * Nobody can take such media away but who pulls the card; that they are gone is seen by devdax_look alone. Threads: as emulator.h.
 */
#ifndef SECPOOL_HOTPLUG_DEVDAX_H
#define SECPOOL_HOTPLUG_DEVDAX_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/err.h"

/*
 * Opens a device's media for reading and writing. folder: path, borrowed. bytes: the device's capacity. back: it was gone since it was opened last, so that its contents
 * count as new. Errors: SECPOOL_E_DEVICE_GONE (no devdax device behind the link, or it does not keep the canary), SECPOOL_E_INVALID (the link leads elsewhere), SECPOOL_E_NO_SPACE, SECPOOL_E_DENIED, SECPOOL_E_SYSTEM.
 */
enum secpool_error devdax_open(const char *folder, uint64_t bytes, bool back, int *ret_media_fd, uint64_t *ret_mark) MUST_USE;

/* Whether the device is there and answers. */
bool devdax_look(int media_fd, uint64_t bytes);

/* Reads the canary, which must be `mark`. Errors, each with a sentence that begins with "it" or "its": SECPOOL_E_INTEGRITY, SECPOOL_E_DEVICE_GONE. */
enum secpool_error devdax_probe(int media_fd, uint64_t bytes, uint64_t mark) MUST_USE;

#endif
