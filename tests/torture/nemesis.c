/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The nemesis: a table of faults, chosen by numbers that follow from the seed. It works in phases: in each, at most so many devices are wounded at once (board.h), one, two, or as many as
 * there are. Before a fault that would wound one more than that, everything is made whole again. Between two phases all devices come back and all is made whole.
 */
#include <stdio.h>
#include <string.h>

#include "lib/base/clock.h"
#include "tests/torture/client.h"
#include "tests/torture/driver.h"
#include "tests/torture/pattern.h"
#include "tests/torture/wounds.h"

enum { PHASE_STEPS = 16, OUT_MOST = 2, NO_DEVICE = BOARD_DEVICES };
/* Devices that are neither out nor damaged, so that there is space for what must be written elsewhere. */
enum { CLEAN_LEAST = 3, DRAWS_MOST = 64 };
/* How long a device that flaps may be out. */
#define FLAP_NS (20 * CLOCK_NS_PER_S)

struct nemesis {
	struct wounds w;
	uint64_t hash;	 /* of this step */
	unsigned most;	 /* wounded devices in this phase */
	bool can_inject; /* the command accepts inject and pull --silent */
};

/* One of the devices of a mask, by the step's numbers. */
static unsigned pick(const struct nemesis *n, uint32_t devices, unsigned turn)
{
	unsigned left;

	if (!devices)
		return NO_DEVICE;
	left = (unsigned)(pattern_hash(n->hash, turn) % wounds_count(devices));
	for (unsigned device = 0;; device++)
		if ((devices & wounds_bit(device)) && left-- == 0)
			return device;
}

/* A number below `most`, by the step's numbers. */
static uint64_t number(const struct nemesis *n, unsigned turn, uint64_t most)
{
	return pattern_hash(n->hash, 1000 + turn) % most;
}

static void pause_ms(struct nemesis *n, unsigned turn, uint64_t most_ms)
{
	driver_wait(n->w.driver, number(n, turn, most_ms + 1) * CLOCK_NS_PER_MS);
}

/* ---- the faults ---- */

static void pull(struct nemesis *n)
{
	wounds_pull(&n->w, pick(n, wounds_present(&n->w), 0), false);
}

static void pull_silently(struct nemesis *n)
{
	wounds_pull(&n->w, pick(n, wounds_present(&n->w), 0), true);
}

/* The second goes while what the first had is written again. */
static void pull_in_rebuild(struct nemesis *n)
{
	wounds_pull(&n->w, pick(n, wounds_present(&n->w), 0), false);
	pause_ms(n, 0, 40);
	wounds_pull(&n->w, pick(n, wounds_present(&n->w), 1), false);
}

static void plug(struct nemesis *n)
{
	wounds_plug(&n->w, pick(n, n->w.out, 0));
}

/* What it holds is void by then: it is being overwritten when it goes again. */
static void pull_in_scrub(struct nemesis *n)
{
	unsigned device = pick(n, n->w.out, 0);

	wounds_plug(&n->w, device);
	pause_ms(n, 0, 60);
	wounds_pull(&n->w, device, false);
}

static void damage(struct nemesis *n, enum media_damage how)
{
	unsigned device = pick(n, wounds_present(&n->w), 0);

	wounds_note(&n->w, device);
	n->w.damaged |= wounds_bit(device);
	if (!media_spoil(device, how, n->hash))
		driver_trouble(n->w.driver, "the media of %s can't be written", wounds_id(device));
}

static void corrupt(struct nemesis *n)
{
	damage(n, MEDIA_NOISE);
}

static void zeros(struct nemesis *n)
{
	damage(n, MEDIA_ZEROS);
}

static void ones(struct nemesis *n)
{
	damage(n, MEDIA_ONES);
}

static void swap_pages(struct nemesis *n)
{
	damage(n, MEDIA_SWAP);
}

static void swap_between(struct nemesis *n)
{
	unsigned one = pick(n, wounds_present(&n->w), 0),
		 other = pick(n, wounds_present(&n->w) & ~wounds_bit(one), 1);

	wounds_note(&n->w, one);
	wounds_note(&n->w, other);
	n->w.damaged |= wounds_bit(one) | wounds_bit(other);
	if (!media_swap_between(one, other, n->hash))
		driver_trouble(n->w.driver, "the media of %s and %s can't be written",
			wounds_id(one), wounds_id(other));
}

static void replay(struct nemesis *n)
{
	unsigned device = pick(n, wounds_present(&n->w), 0);
	bool done = media_remember(device, n->hash);

	driver_wait(n->w.driver, (300 + number(n, 0, 900)) * CLOCK_NS_PER_MS);
	wounds_note(&n->w, device);
	n->w.damaged |= wounds_bit(device);
	if (!done || !media_replay(device, n->hash))
		driver_trouble(n->w.driver, "the media of %s can't be written", wounds_id(device));
}

static void inject(struct nemesis *n, unsigned device, const char *kind)
{
	if (stack_run(n->w.driver, "device", "inject", wounds_id(device), kind, NULL) != 0)
		driver_trouble(
			n->w.driver, "inject %s %s: %s", wounds_id(device), kind, stack_said());
}

/* Slower than it was, and well otherwise. */
static void slow(struct nemesis *n)
{
	unsigned device = pick(n, wounds_present(&n->w), 0);

	inject(n, device, "slow:1");
	pause_ms(n, 0, 600);
	inject(n, device, "normal");
}

/* Whoever gave it up goes without it: so it is pulled then. */
static void stuck(struct nemesis *n)
{
	unsigned device = pick(n, wounds_present(&n->w), 0);

	wounds_note(&n->w, device);
	inject(n, device, "stuck");
	pause_ms(n, 0, 3000);
	wounds_pull(&n->w, device, false);
}

/* It goes and comes by itself, until it is told to stop, which it hears while it is in. */
static void flap(struct nemesis *n)
{
	unsigned device = pick(n, wounds_present(&n->w), 0);
	uint64_t until;

	wounds_note(&n->w, device);
	inject(n, device, "flap:2");
	pause_ms(n, 0, 1500);
	until = clock_now_ns() + FLAP_NS;
	while (stack_run(n->w.driver, "device", "inject", wounds_id(device), "normal", NULL) != 0) {
		if (clock_now_ns() > until) {
			driver_trouble(n->w.driver, "%s does not come back: %s", wounds_id(device),
				stack_said());
			return;
		}
		driver_wait(n->w.driver, 50 * CLOCK_NS_PER_MS);
	}
	/* also when it is held off */
	wounds_attest(&n->w, device);
}

static void kill_keymgrd(struct nemesis *n)
{
	n->w.driver->quiet_since_ns = 0;
	stack_kill(n->w.driver, "keymgrd");
	pause_ms(n, 0, 500);
	stack_bring_back(n->w.driver);
}

static void kill_hotplugd(struct nemesis *n)
{
	n->w.driver->quiet_since_ns = 0;
	stack_kill(n->w.driver, "hotplugd");
	pause_ms(n, 0, 500);
	stack_bring_back(n->w.driver);
}

static void kill_both(struct nemesis *n)
{
	n->w.driver->quiet_since_ns = 0;
	stack_kill(n->w.driver, "hotplugd");
	stack_kill(n->w.driver, "keymgrd");
	pause_ms(n, 0, 500);
	stack_bring_back(n->w.driver);
}

static void kill_client(struct nemesis *n)
{
	driver_kill_client(n->w.driver, (unsigned)number(n, 0, BOARD_CLIENTS));
}

static void attest_one(struct nemesis *n)
{
	wounds_attest(&n->w, pick(n, wounds_present(&n->w), 0));
}

/* For a while: it may end before all is moved, or after, and then the device is taken into use again. */
static void drain(struct nemesis *n)
{
	unsigned device = pick(n, wounds_present(&n->w), 0);

	if (stack_run(n->w.driver, "device", "drain", wounds_id(device), "--no-wait", NULL) != 0)
		driver_trouble(n->w.driver, "drain %s: %s", wounds_id(device), stack_said());
	pause_ms(n, 0, 1500);
	wounds_attest(&n->w, device);
}

/* New keys for all regions of a tenant; what was asked for before may be going on still. */
static void rotate(struct nemesis *n)
{
	const char *tenant = client_tenant((unsigned)number(n, 0, 2));

	if (stack_run(n->w.driver, "tenant", "rotate", tenant, "--no-wait", NULL) != 0)
		driver_trouble(n->w.driver, "rotate %s: %s", tenant, stack_said());
	pause_ms(n, 1, 400);
}

static void calm(struct nemesis *n)
{
	pause_ms(n, 0, 1500);
}

/* ---- choosing ---- */

enum kind { PULLS = 1, PLUGS = 2, DAMAGES = 4, INJECTS = 8 };

static const struct row {
	const char *name;
	unsigned weight, wounds;
	unsigned kind; /* enum kind, several */
	void (*run)(struct nemesis *n);
} table[] = {
	{"pull", 20, 1, PULLS, pull},
	{"pull_silently", 10, 1, PULLS | INJECTS, pull_silently},
	{"pull_in_rebuild", 8, 2, PULLS, pull_in_rebuild},
	{"plug", 22, 0, PLUGS, plug},
	{"pull_in_scrub", 8, 1, PULLS | PLUGS, pull_in_scrub},
	{"corrupt", 8, 1, DAMAGES, corrupt},
	{"zeros", 5, 1, DAMAGES, zeros},
	{"ones", 5, 1, DAMAGES, ones},
	{"swap_pages", 6, 1, DAMAGES, swap_pages},
	{"swap_between_devices", 5, 2, DAMAGES, swap_between},
	{"replay", 8, 1, DAMAGES, replay},
	{"slow", 6, 0, INJECTS, slow},
	{"stuck", 6, 1, PULLS | INJECTS, stuck},
	{"flap", 5, 1, PULLS | INJECTS, flap},
	{"kill_keymgrd", 7, 0, 0, kill_keymgrd},
	{"kill_hotplugd", 7, 0, 0, kill_hotplugd},
	{"kill_both", 4, 0, 0, kill_both},
	{"kill_client", 12, 0, 0, kill_client},
	{"attest", 6, 0, 0, attest_one},
	{"drain", 10, 0, 0, drain},
	{"rotate", 10, 0, 0, rotate},
	{"calm", 6, 0, 0, calm},
};
enum { ROWS = sizeof table / sizeof *table };

const char *nemesis_fault_name(unsigned row)
{
	return row < ROWS ? table[row].name : NULL;
}

/* Whether there are devices for it. */
static bool is_possible(const struct nemesis *n, const struct row *row)
{
	uint32_t clean = wounds_present(&n->w) & ~n->w.damaged;

	if ((row->kind & INJECTS) && !n->can_inject)
		return false;
	if ((row->kind & PLUGS) && !n->w.out)
		return false;
	if ((row->kind & PULLS) && !(row->kind & PLUGS) &&
		wounds_count(n->w.out) + row->wounds > OUT_MOST)
		return false;
	return !(row->kind & (PULLS | DAMAGES)) || wounds_count(clean) >= CLEAN_LEAST + row->wounds;
}

static bool needs_whole(const struct nemesis *n, const struct row *row)
{
	return wounds_count(atomic_load(&n->w.board->wounded)) + row->wounds > n->most;
}

/* Drawn again when there are no devices for it. */
static unsigned choose(const struct nemesis *n)
{
	unsigned sum = 0;

	for (unsigned i = 0; i < ROWS; i++)
		sum += table[i].weight;
	for (unsigned turn = 0; turn < DRAWS_MOST; turn++) {
		unsigned left = (unsigned)number(n, 1000 + turn, sum), row = 0;
		while (left >= table[row].weight)
			left -= table[row++].weight;
		if (table[row].wounds <= n->most && is_possible(n, &table[row]))
			return row;
	}
	return ROWS - 1; /* calm is always possible */
}

static void say(const struct nemesis *n, uint64_t step, const char *what)
{
	fprintf(stderr, "%8.3f step %llu (at most %u wounded; wounded %#x, out %#x): %s\n",
		(double)(clock_now_ns() - n->w.driver->begun_ns) / (double)CLOCK_NS_PER_S,
		(unsigned long long)step, n->most, atomic_load(&n->w.board->wounded), n->w.out,
		what);
}

static void begin_phase(struct nemesis *n)
{
	static const unsigned mosts[] = {1, 2, 1, 2, BOARD_DEVICES};

	wounds_make_whole(&n->w);
	while (n->w.out && !n->w.driver->hopeless)
		wounds_plug(&n->w, pick(n, n->w.out, 0));
	n->most = mosts[number(n, 200, sizeof mosts / sizeof *mosts)];
}

static void do_step(struct nemesis *n, uint64_t step)
{
	unsigned row;

	n->hash = pattern_hash(pattern_hash(n->w.driver->seed, 0x6e656d65), step);
	if (step % PHASE_STEPS == 0)
		begin_phase(n);
	row = choose(n);
	if (needs_whole(n, &table[row])) {
		say(n, step, "make whole");
		wounds_make_whole(&n->w);
	}
	if (n->w.driver->hopeless)
		return;
	say(n, step, table[row].name);
	n->w.driver->faults[row]++;
	table[row].run(n);
	pause_ms(n, 300, 600);
}

void nemesis_run(struct driver *driver)
{
	struct nemesis n = {.w = {.driver = driver, .board = driver->board}, .most = 1};
	uint64_t until = driver->begun_ns + driver->seconds * CLOCK_NS_PER_S;

	n.can_inject = stack_run(driver, "device", "inject", "dev0", "normal", NULL) == 0;
	for (uint64_t step = 0;
		clock_now_ns() < until && !driver_interrupted() && !driver->hopeless; step++)
		do_step(&n, step);
	if (!driver->hopeless)
		begin_phase(&n);
}
