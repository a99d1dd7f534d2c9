/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The media of an emulated device: the file `media` in its folder, which clients map: its capacity
 * and a control page (lib/base/emumedia.h). Beside it lie
 * `mark` (a number that is new whenever the contents may be) and, while the device is pulled,
 * `media.pulled` (what it keeps without power).
 *
 * A pull is emulator_save and then emulator_cut: the truncation makes the kernel raise SIGBUS in
 * whoever touches the mapping, as a removed device does. Whether the media are there is seen by
 * emulator_look alone, whoever removed them. Threads: one at a time for each folder; emulator_save
 * may run beside emulator_look and emulator_cut.
 */
#ifndef SECPOOL_HOTPLUG_EMULATOR_H
#define SECPOOL_HOTPLUG_EMULATOR_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/emumedia.h"
#include "lib/base/err.h"

/*
 * Opens a device's media for reading and writing. A device that never had any (no media, no
 * media.pulled, no mark) gets new ones: a sparse file of `bytes`. Media without a mark get a new
 * one, media without a canary too (and others made them: the mark that lies there is not theirs). Media in a silent pull that a daemon's end interrupted are pulled
 * now. folder: path, borrowed. bytes: the device's capacity. Errors: SECPOOL_E_DEVICE_GONE (pulled,
 * vanished, or not of that size), SECPOOL_E_NO_SPACE, SECPOOL_E_DENIED, SECPOOL_E_SYSTEM.
 */
enum secpool_error emulator_open(
	const char *folder, uint64_t bytes, int *ret_media_fd, uint64_t *ret_mark) MUST_USE;

/* Whether the media are there: linked, and of their size. */
bool emulator_look(int media_fd, uint64_t bytes);

/*
 * From now on accesses to the media behave so; ns: for EMUMEDIA_SLOW, else 0. emulator_look must
 * have seen the media. Errors: SECPOOL_E_SYSTEM.
 */
enum secpool_error emulator_behave(int media_fd, uint64_t bytes,
	enum emumedia_behaviour behaviour, uint64_t ns) MUST_USE;

/*
 * Reads the canary as a client would, waiting at most most_ns. Errors, each with a sentence that
 * begins with "it" or "its": SECPOOL_E_TIMEOUT (stuck or slow), SECPOOL_E_INTEGRITY (silent),
 * SECPOOL_E_DEVICE_GONE. guarded_copy_install was called. Threads: any, beside all else.
 */
enum secpool_error emulator_probe(int media_fd, uint64_t bytes, uint64_t most_ns) MUST_USE;

/*
 * How long a load from the media takes, in ns: the shortest of several that find nothing in a cache, since whatever comes between makes one longer. Returns within some ms. 0: it does not
 * answer in that time. guarded_copy_install was called.
 */
uint64_t emulator_latency(int media_fd, uint64_t bytes);

/*
 * Copies the media's data (holes stay holes) to media.pulled. The copy appears whole or not at all.
 * Errors: SECPOOL_E_NO_SPACE, SECPOOL_E_SYSTEM. Nothing changed then.
 */
enum secpool_error emulator_save(const char *folder, int media_fd) MUST_USE;

/* Takes the media away, for every process at once: truncates and unlinks. */
void emulator_cut(const char *folder, int media_fd);

/*
 * Gives the device its media back, from media.pulled or else empty, under a new mark: what comes
 * back may have changed behind our back. Errors: SECPOOL_E_BUSY (media are there),
 * SECPOOL_E_NO_SPACE, SECPOOL_E_SYSTEM. The device is then still without media.
 */
enum secpool_error emulator_restore(
	const char *folder, uint64_t bytes, int *ret_media_fd, uint64_t *ret_mark) MUST_USE;

#endif
