/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was done to the devices and is not whole again (board.h: wounded), and the doing of it. Threads: the driver's.
 */
#ifndef SECPOOL_TESTS_TORTURE_WOUNDS_H
#define SECPOOL_TESTS_TORTURE_WOUNDS_H

#include "tests/torture/driver.h"

struct wounds {
	struct driver *driver;
	struct board *board;
	uint32_t out;     /* pulled */
	uint32_t damaged; /* its media were written to since all was whole */
};

static inline uint32_t wounds_bit(unsigned device)
{
	return 1u << device;
}

static inline unsigned wounds_count(uint32_t devices)
{
	return (unsigned)__builtin_popcount(devices);
}

/* The devices that are in. */
static inline uint32_t wounds_present(const struct wounds *w)
{
	return ((1u << BOARD_DEVICES) - 1) & ~w->out;
}

/* "dev0" and so on. */
const char *wounds_id(unsigned device);

/* The device is wounded from now on: before anything is done to it. */
void wounds_note(struct wounds *w, unsigned device);

/* By command. */
void wounds_pull(struct wounds *w, unsigned device, bool silent);
void wounds_plug(struct wounds *w, unsigned device);
void wounds_attest(struct wounds *w, unsigned device);

/* By hand, while hotplugd can't be asked: the media are cut and gone. */
void wounds_cut(struct wounds *w, unsigned device);

/* Waits until all regions of all clients are whole; no device is wounded then. */
void wounds_make_whole(struct wounds *w);

#endif
