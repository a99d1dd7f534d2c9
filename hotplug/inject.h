/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Misbehaviour of emulated devices on purpose (`secpool device inject`): what the words mean, and
 * what is done to the media at once. How accesses behave is emulator_behave's. Threads: the loop's.
 */
#ifndef SECPOOL_HOTPLUG_INJECT_H
#define SECPOOL_HOTPLUG_INJECT_H

#include <stdint.h>

#include "lib/base/err.h"

/* The most places spoilt by one command, rounds of a flapping, and ms that an access may take. */
enum { INJECT_PLACES_MOST = 65536, INJECT_FLAPS_MOST = 16, INJECT_SLOW_MS_MOST = 60000 };

enum inject_kind {
	INJECT_NORMAL, /* accesses behave again */
	INJECT_CORRUPT, /* number: places where a byte is flipped */
	INJECT_SLOW,	/* number: ms that each access takes */
	INJECT_STUCK,
	INJECT_FLAP, /* number: how often it is pulled and plugged */
	INJECT_SHORT,
	INJECT_POISON,
};

struct inject {
	enum inject_kind kind;
	uint64_t number;
};

/*
 * Reads "corrupt[:N]", "slow:MS", "stuck", "flap[:N]", "short", "poison" or "normal"; N is 1 unless
 * given. Errors: SECPOOL_E_INVALID, saying what is expected.
 */
enum secpool_error inject_parse(const char *text, struct inject *ret_inject) MUST_USE;

/* Flips a byte at so many random places of the media's capacity. Errors: SECPOOL_E_SYSTEM. */
enum secpool_error inject_corrupt(int media_fd, uint64_t bytes, uint64_t places) MUST_USE;

/* Cuts the media to half of their capacity. Errors: SECPOOL_E_SYSTEM. */
enum secpool_error inject_short(int media_fd, uint64_t bytes) MUST_USE;

/*
 * Makes a random page of the media unreadable for everybody, as the kernel does with memory that
 * went bad; that page of the machine's memory is not used again until it starts anew.
 * Errors: SECPOOL_E_UNSUPPORTED (the kernel or our rights do not allow it), SECPOOL_E_SYSTEM.
 */
enum secpool_error inject_poison(int media_fd, uint64_t bytes) MUST_USE;

#endif
