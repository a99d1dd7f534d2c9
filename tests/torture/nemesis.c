/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The nemesis: a table of faults, chosen by numbers that follow from the seed. It works in phases: in each, at most so many devices are wounded at once (board.h), one, two, or as many as
 * there are. Before a fault that would wound one more than that, everything is made whole again. Between two phases all devices come back and all is made whole.
 *
 * What it does not do, because of faults of the product that are known (docs/caveats.md), is in one place: keeps_away.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/clock.h"
#include "tests/torture/driver.h"
#include "tests/torture/pattern.h"

enum { PHASE_STEPS = 16, OUT_MOST = 2, ALL = (1 << BOARD_DEVICES) - 1, NO_DEVICE = BOARD_DEVICES };
/* Devices that are neither out nor damaged, so that there is space for what must be written elsewhere. */
enum { CLEAN_LEAST = 3, DRAWS_MOST = 64 };

struct nemesis {
	struct driver *driver;
	struct board *board;
	uint64_t hash;	  /* of this step */
	unsigned most;	  /* wounded devices in this phase */
	uint32_t out;	  /* pulled */
	uint32_t damaged; /* its media were written to since all was whole */
	bool can_inject;  /* the command accepts inject and pull --silent */
};

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
	(void)number;
	interrupted = 1;
}

static uint32_t bit(unsigned device)
{
	return 1u << device;
}

static unsigned count(uint32_t devices)
{
	return (unsigned)__builtin_popcount(devices);
}

/* One of the devices of a mask, by the step's numbers. */
static unsigned pick(const struct nemesis *n, uint32_t devices, unsigned turn)
{
	unsigned left;

	if (!devices)
		return NO_DEVICE;
	left = (unsigned)(pattern_hash(n->hash, turn) % count(devices));
	for (unsigned device = 0;; device++)
		if ((devices & bit(device)) && left-- == 0)
			return device;
}

/* A number below `most`, by the step's numbers. */
static uint64_t number(const struct nemesis *n, unsigned turn, uint64_t most)
{
	return pattern_hash(n->hash, 1000 + turn) % most;
}

static uint32_t present(const struct nemesis *n)
{
	return ALL & ~n->out;
}

static const char *id_of(unsigned device)
{
	static char ids[BOARD_DEVICES][8];

	snprintf(ids[device], sizeof ids[device], "dev%u", device);
	return ids[device];
}

static void pause_ms(struct nemesis *n, unsigned turn, uint64_t most_ms)
{
	driver_wait(n->driver, number(n, turn, most_ms + 1) * CLOCK_NS_PER_MS);
}

/* ---- wounds ---- */

/* Before the fault itself. */
static void wound(struct nemesis *n, unsigned device)
{
	unsigned wounded;

	n->driver->quiet_since_ns = 0;
	atomic_fetch_or(&n->board->wounded, bit(device));
	wounded = count(atomic_load(&n->board->wounded));
	for (unsigned most = 0; most < wounded; most++)
		atomic_fetch_add(&n->board->exceeded[most], 1);
}

static void attest(struct nemesis *n, unsigned device)
{
	if (stack_run(n->driver, "device", "attest", id_of(device), NULL) != 0)
		driver_trouble(n->driver, "attest %s: %s", id_of(device), stack_said());
}

/* All regions of all clients are whole afterwards, and no device is wounded. */
static void make_whole(struct nemesis *n)
{
	/* a device that gave bad bytes to two tenants is under suspicion: what it is asked for now is good again */
	for (unsigned device = 0; device < BOARD_DEVICES; device++)
		if (n->damaged & present(n) & bit(device))
			attest(n, device);
	if (!driver_ask(n->driver, n->damaged ? BOARD_HEAL : BOARD_SETTLE))
		return;
	n->damaged = 0;
	atomic_store(&n->board->wounded, 0);
	n->driver->quiet_since_ns = clock_now_ns();
}

/* ---- the faults ---- */

static void pull_device(struct nemesis *n, unsigned device, bool silent)
{
	int status;

	wound(n, device);
	n->out |= bit(device);
	n->damaged &= ~bit(device);
	atomic_store(&n->board->out, n->out);
	status = silent ? stack_run(n->driver, "device", "pull", id_of(device), "--silent", NULL)
			: stack_run(n->driver, "device", "pull", id_of(device), NULL);
	if (status != 0)
		driver_trouble(n->driver, "pull %s: %s", id_of(device), stack_said());
}

static void plug_device(struct nemesis *n, unsigned device)
{
	n->out &= ~bit(device);
	atomic_store(&n->board->out, n->out);
	if (stack_run(n->driver, "device", "plug", id_of(device), NULL) != 0)
		driver_trouble(n->driver, "plug %s: %s", id_of(device), stack_said());
}

static void pull(struct nemesis *n)
{
	pull_device(n, pick(n, present(n), 0), false);
}

static void pull_silently(struct nemesis *n)
{
	pull_device(n, pick(n, present(n), 0), true);
}

/* The second goes while what the first had is written again. */
static void pull_in_rebuild(struct nemesis *n)
{
	pull_device(n, pick(n, present(n), 0), false);
	pause_ms(n, 0, 40);
	pull_device(n, pick(n, present(n), 1), false);
}

static void plug(struct nemesis *n)
{
	plug_device(n, pick(n, n->out, 0));
}

/* What it holds is void by then: it is being overwritten when it goes again. */
static void pull_in_scrub(struct nemesis *n)
{
	unsigned device = pick(n, n->out, 0);

	plug_device(n, device);
	pause_ms(n, 0, 60);
	pull_device(n, device, false);
}

static void damage(struct nemesis *n, enum media_damage how)
{
	unsigned device = pick(n, present(n), 0);

	wound(n, device);
	n->damaged |= bit(device);
	if (!media_spoil(device, how, n->hash))
		driver_trouble(n->driver, "the media of %s can't be written", id_of(device));
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
	unsigned one = pick(n, present(n), 0), other = pick(n, present(n) & ~bit(one), 1);

	wound(n, one);
	wound(n, other);
	n->damaged |= bit(one) | bit(other);
	if (!media_swap_between(one, other, n->hash))
		driver_trouble(n->driver, "the media of %s and %s can't be written", id_of(one),
			id_of(other));
}

static void replay(struct nemesis *n)
{
	unsigned device = pick(n, present(n), 0);
	bool done = media_remember(device, n->hash);

	driver_wait(n->driver, (300 + number(n, 0, 900)) * CLOCK_NS_PER_MS);
	wound(n, device);
	n->damaged |= bit(device);
	if (!done || !media_replay(device, n->hash))
		driver_trouble(n->driver, "the media of %s can't be written", id_of(device));
}

static void inject(struct nemesis *n, unsigned device, const char *kind)
{
	if (stack_run(n->driver, "device", "inject", id_of(device), kind, NULL) != 0)
		driver_trouble(n->driver, "inject %s %s: %s", id_of(device), kind, stack_said());
}

/* Slower than it was, and well otherwise. */
static void slow(struct nemesis *n)
{
	unsigned device = pick(n, present(n), 0);

	inject(n, device, "slow:1");
	pause_ms(n, 0, 600);
	inject(n, device, "normal");
}

/* Whoever gave it up goes without it: so it is pulled then. */
static void stuck(struct nemesis *n)
{
	unsigned device = pick(n, present(n), 0);

	wound(n, device);
	inject(n, device, "stuck");
	pause_ms(n, 0, 3000);
	pull_device(n, device, false);
}

static void kill_keymgrd(struct nemesis *n)
{
	n->driver->quiet_since_ns = 0;
	stack_kill(n->driver, "keymgrd");
	pause_ms(n, 0, 500);
	stack_bring_back(n->driver);
}

static void kill_hotplugd(struct nemesis *n)
{
	n->driver->quiet_since_ns = 0;
	stack_kill(n->driver, "hotplugd");
	pause_ms(n, 0, 500);
	stack_bring_back(n->driver);
}

static void kill_both(struct nemesis *n)
{
	n->driver->quiet_since_ns = 0;
	stack_kill(n->driver, "hotplugd");
	stack_kill(n->driver, "keymgrd");
	pause_ms(n, 0, 500);
	stack_bring_back(n->driver);
}

static void kill_client(struct nemesis *n)
{
	driver_kill_client(n->driver, (unsigned)number(n, 0, BOARD_CLIENTS));
}

static void attest_one(struct nemesis *n)
{
	attest(n, pick(n, present(n), 0));
}

static void calm(struct nemesis *n)
{
	pause_ms(n, 0, 1500);
}

/* ---- choosing ---- */

enum kind { PULLS = 1, PLUGS = 2, DAMAGES = 4, DAEMONS = 8, INJECTS = 16 };

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
	{"kill_keymgrd", 7, 0, DAEMONS, kill_keymgrd},
	{"kill_hotplugd", 7, 0, DAEMONS, kill_hotplugd},
	{"kill_both", 4, 0, DAEMONS, kill_both},
	{"kill_client", 12, 0, 0, kill_client},
	{"attest", 6, 0, 0, attest_one},
	{"calm", 6, 0, 0, calm},
};
enum { ROWS = sizeof table / sizeof *table };

const char *nemesis_fault_name(unsigned row)
{
	return row < ROWS ? table[row].name : NULL;
}

/*
 * Known faults of the product, kept away from until they are mended. Each wants all to be whole first:
 * - a device that is pulled and plugged within moments may leave a mirror degraded for ever;
 * - where there is no room for 3 s (no device to write to, or nobody to ask for another one) pages end as lost: no daemon dies while a region lacks something.
 */
static bool keeps_away(const struct nemesis *n, const struct row *row)
{
	return (row->kind & (PLUGS | DAEMONS)) && atomic_load(&n->board->wounded) != 0;
}

/* Whether there are devices for it. */
static bool is_possible(const struct nemesis *n, const struct row *row)
{
	uint32_t clean = present(n) & ~n->damaged;

	if ((row->kind & INJECTS) && !n->can_inject)
		return false;
	if ((row->kind & PLUGS) && !n->out)
		return false;
	if ((row->kind & PULLS) && !(row->kind & PLUGS) && count(n->out) + row->wounds > OUT_MOST)
		return false;
	return !(row->kind & (PULLS | DAMAGES)) || count(clean) >= CLEAN_LEAST + row->wounds;
}

static bool needs_whole(const struct nemesis *n, const struct row *row)
{
	return count(atomic_load(&n->board->wounded)) + row->wounds > n->most || keeps_away(n, row);
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
		(double)(clock_now_ns() - n->driver->begun_ns) / (double)CLOCK_NS_PER_S,
		(unsigned long long)step, n->most, atomic_load(&n->board->wounded), n->out, what);
}

static void begin_phase(struct nemesis *n)
{
	static const unsigned mosts[] = {1, 2, 1, 2, BOARD_DEVICES};

	make_whole(n);
	while (n->out && !n->driver->hopeless)
		plug_device(n, pick(n, n->out, 0));
	n->most = mosts[number(n, 200, sizeof mosts / sizeof *mosts)];
}

static void do_step(struct nemesis *n, uint64_t step)
{
	unsigned row;

	n->hash = pattern_hash(pattern_hash(n->driver->seed, 0x6e656d65), step);
	if (step % PHASE_STEPS == 0)
		begin_phase(n);
	row = choose(n);
	if (needs_whole(n, &table[row])) {
		say(n, step, "make whole");
		make_whole(n);
	}
	if (n->driver->hopeless)
		return;
	say(n, step, table[row].name);
	n->driver->faults[row]++;
	table[row].run(n);
	pause_ms(n, 300, 600);
}

void nemesis_run(struct driver *driver)
{
	struct sigaction action = {.sa_handler = on_signal};
	struct nemesis n = {.driver = driver, .board = driver->board, .most = 1};
	uint64_t until = driver->begun_ns + driver->seconds * CLOCK_NS_PER_S;

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	n.can_inject = stack_run(driver, "device", "inject", "dev0", "normal", NULL) == 0;
	for (uint64_t step = 0; clock_now_ns() < until && !interrupted && !driver->hopeless; step++)
		do_step(&n, step);
	if (!driver->hopeless)
		begin_phase(&n);
}
