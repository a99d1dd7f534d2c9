/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/torture/wounds.h"

#include <errno.h>
#include <string.h>
#include <stdio.h>
#include <unistd.h>

#include "lib/base/clock.h"

const char *wounds_id(unsigned device)
{
	static char ids[BOARD_DEVICES][8];

	snprintf(ids[device], sizeof ids[device], "dev%u", device);
	return ids[device];
}

void wounds_note(struct wounds *w, unsigned device)
{
	unsigned wounded;

	w->driver->quiet_since_ns = 0;
	atomic_fetch_or(&w->board->wounded, wounds_bit(device));
	wounded = wounds_count(atomic_load(&w->board->wounded));
	for (unsigned most = 0; most < wounded; most++)
		atomic_fetch_add(&w->board->exceeded[most], 1);
}

enum { ATTEST_TRIES = 5 };

void wounds_attest(struct wounds *w, unsigned device)
{
	/* bytes that were spoilt may make it suspect in the middle: then it is asked again */
	for (unsigned i = 0; stack_run(w->driver, "device", "attest", wounds_id(device), NULL) != 0;
		i++)
		if (i == ATTEST_TRIES || !strstr(stack_said(), "became suspect")) {
			driver_trouble(w->driver, "attest %s: %s", wounds_id(device), stack_said());
			return;
		}
}

static void note_out(struct wounds *w, unsigned device)
{
	wounds_note(w, device);
	w->out |= wounds_bit(device);
	w->damaged &= ~wounds_bit(device);
	atomic_store(&w->board->out, w->out);
}

void wounds_pull(struct wounds *w, unsigned device, bool silent)
{
	int status;

	note_out(w, device);
	status =
		silent ? stack_run(w->driver, "device", "pull", wounds_id(device), "--silent", NULL)
		       : stack_run(w->driver, "device", "pull", wounds_id(device), NULL);
	if (status != 0)
		driver_trouble(w->driver, "pull %s: %s", wounds_id(device), stack_said());
}

void wounds_cut(struct wounds *w, unsigned device)
{
	note_out(w, device);
	/* hotplugd may see the one and be faster with the other */
	if (truncate(stack_media(device), 0) != 0 ||
		(unlink(stack_media(device)) != 0 && errno != ENOENT))
		driver_trouble(w->driver, "the media of %s can't be cut", wounds_id(device));
}

void wounds_plug(struct wounds *w, unsigned device)
{
	w->out &= ~wounds_bit(device);
	atomic_store(&w->board->out, w->out);
	if (stack_run(w->driver, "device", "plug", wounds_id(device), NULL) != 0)
		driver_trouble(w->driver, "plug %s: %s", wounds_id(device), stack_said());
}

void wounds_make_whole(struct wounds *w)
{
	/* a device that gave bad bytes to two tenants is under suspicion: what it is asked for now is good again */
	for (unsigned device = 0; device < BOARD_DEVICES; device++)
		if (w->damaged & wounds_present(w) & wounds_bit(device))
			wounds_attest(w, device);
	if (!driver_ask(w->driver, w->damaged ? BOARD_HEAL : BOARD_SETTLE))
		return;
	w->damaged = 0;
	atomic_store(&w->board->wounded, 0);
	w->driver->quiet_since_ns = clock_now_ns();
}
