/* SPDX-License-Identifier: Apache-2.0 */
/*
 * --crash-points: every point of points.def with every action. A client or a daemon is stopped there; a device is pulled, or somebody killed; it goes on (if it lives); what was killed is started
 * again, the device comes back, all is made whole, and every byte is checked. A line for each.
 */
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "tests/torture/client.h"
#include "tests/torture/points.h"
#include "tests/torture/wounds.h"

/* How long it may take until a process is at the point. */
#define REACH_NS (20 * CLOCK_NS_PER_S)

enum action { PULL, KILL_CLIENT, KILL_KEYMGRD, KILL_HOTPLUGD, ACTIONS };

static const char *const action_names[ACTIONS] = {
	"pull a device", "kill the client", "kill keymgrd", "kill hotplugd"};

static const struct {
	const char *name, *step, *place;
	enum point_process process;
	enum point_by by;
} points[POINTS] = {
#define POINT(name, step, place, process, by)                                                      \
	[POINT_##name] = {#name, step, place, POINT_##process, POINT_BY_##by},
#include "tests/torture/points.def"
#undef POINT
};

/* One point with one action. */
struct attempt {
	struct wounds *w;
	enum point point;
	enum action action;
	uint64_t request; /* of the clients, that brings it about; 0: none */
	unsigned pulled;  /* to bring it about; BOARD_DEVICES: none */
	unsigned drained; /* by the command; BOARD_DEVICES: none */
	pid_t command;	  /* that brings it about; 0: none */
};

static bool can_make_file(struct driver *driver)
{
	const char *path = stack_path("points");
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	void *map;

	if (fd < 0 || ftruncate(fd, sizeof *points_file) != 0 ||
		setenv(POINTS_VARIABLE, path, 1) != 0) {
		driver_trouble(driver, "%s can't be made", path);
		return false;
	}
	map = mmap(NULL, sizeof *points_file, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	points_file = map == MAP_FAILED ? NULL : map;
	return points_file != NULL;
}

/* ---- one attempt ---- */

/* For each action another: the one before emptied its own, and a pull's action the next. */
static unsigned device_for(const struct attempt *a)
{
	static const unsigned further[ACTIONS] = {0, 2, 4, 3};

	return ((unsigned)a->point + further[a->action]) % BOARD_DEVICES;
}

static void provoke(struct attempt *a)
{
	switch (points[a->point].by) {
	case POINT_BY_WORK:
		break;
	case POINT_BY_CREATE:
		a->request = driver_request(a->w->driver, BOARD_RECREATE);
		break;
	case POINT_BY_PULL:
		a->pulled = device_for(a);
		wounds_pull(a->w, a->pulled, false);
		break;
	case POINT_BY_CUT: /* hotplugd finds it, and is not asked */
		a->pulled = device_for(a);
		wounds_cut(a->w, a->pulled);
		break;
	case POINT_BY_DRAIN: /* it ends with the device in use again: recover */
		a->drained = device_for(a);
		a->command = stack_begin(
			a->w->driver, "device", "drain", wounds_id(a->drained), "--no-wait", NULL);
		break;
	case POINT_BY_SCRUB:
		a->command =
			stack_begin(a->w->driver, "device", "scrub", "dev0", "--no-wait", NULL);
		break;
	case POINT_BY_ROTATE:
		a->command = stack_begin(
			a->w->driver, "tenant", "rotate", client_tenant(0), "--no-wait", NULL);
		break;
	case POINT_BY_ANCHOR:
		a->command = stack_begin(a->w->driver, "keystore", "anchor", NULL);
		break;
	case POINT_BY_ATTEST:
		a->command = stack_begin(a->w->driver, "device", "attest", "dev0", NULL);
		break;
	}
}

static bool wait_reached(struct driver *driver)
{
	uint64_t until = clock_now_ns() + REACH_NS;

	while (!atomic_load(&points_file->reached) && clock_now_ns() < until && !driver->hopeless)
		driver_wait(driver, CLOCK_NS_PER_MS);
	/* whoever gets there later passes */
	atomic_store(&points_file->armed, POINT_NONE);
	return atomic_load(&points_file->reached) != 0;
}

static unsigned device_to_pull(const struct attempt *a)
{
	unsigned device = atomic_load(&points_file->device);

	if (device >= BOARD_DEVICES)
		device = ((unsigned)a->point + 1) % BOARD_DEVICES;
	return device == a->pulled ? (device + 1) % BOARD_DEVICES : device;
}

static void kill_a_client(struct driver *driver)
{
	pid_t pid = (pid_t)atomic_load(&points_file->reached);
	unsigned number = 0;

	for (unsigned i = 0; i < BOARD_CLIENTS; i++)
		if (driver->clients[i] == pid)
			number = i;
	driver_kill_client(driver, number);
}

static void act(struct attempt *a)
{
	struct driver *driver = a->w->driver;

	driver->quiet_since_ns = 0;
	switch (a->action) {
	case PULL:
		/* hotplugd can't be asked while it is stopped */
		if (points[a->point].process == POINT_HOTPLUGD)
			wounds_cut(a->w, device_to_pull(a));
		else
			wounds_pull(a->w, device_to_pull(a), false);
		break;
	case KILL_CLIENT:
		kill_a_client(driver);
		break;
	case KILL_KEYMGRD:
		stack_kill(driver, "keymgrd");
		break;
	case KILL_HOTPLUGD:
		stack_kill(driver, "hotplugd");
		break;
	case ACTIONS:
		break;
	}
}

/* Everything is as it should be again, and every byte is looked at. */
static void recover(struct attempt *a)
{
	struct driver *driver = a->w->driver;

	if (a->action == KILL_KEYMGRD || a->action == KILL_HOTPLUGD)
		stack_bring_back(driver);
	if (a->command)
		stack_end(driver,
			a->command); /* its end says nothing: who was to answer may be dead */
	if (a->request)
		driver_await(driver, a->request);
	if (a->drained < BOARD_DEVICES && !(a->w->out & wounds_bit(a->drained)) &&
		!driver->hopeless)
		wounds_attest(a->w, a->drained);
	if (!driver->hopeless)
		wounds_make_whole(a->w);
	for (unsigned device = 0; device < BOARD_DEVICES && !driver->hopeless; device++)
		if (a->w->out & wounds_bit(device))
			wounds_plug(a->w, device);
	if (!driver->hopeless)
		driver_ask(driver, BOARD_VERIFY);
}

static bool attempt(struct wounds *w, enum point point, enum action action)
{
	struct attempt a = {.w = w,
		.point = point,
		.action = action,
		.pulled = BOARD_DEVICES,
		.drained = BOARD_DEVICES};
	struct driver *driver = w->driver;
	uint64_t before = driver_findings(driver), begun = clock_now_ns();
	const char *result = "ok";
	bool reached;

	atomic_store(&points_file->go_on, 0);
	atomic_store(&points_file->reached, 0);
	atomic_store(&points_file->armed, point);
	provoke(&a);
	reached = wait_reached(driver);
	if (reached)
		act(&a);
	atomic_store(&points_file->go_on, 1);
	recover(&a);
	if (driver_findings(driver) != before)
		result = "FAILED";
	else if (!reached)
		result = "not reached";
	fprintf(stderr, "%-15s %-44s %-16s %s (%.1f s)\n", points[point].step, points[point].place,
		action_names[action], result,
		(double)(clock_now_ns() - begun) / (double)CLOCK_NS_PER_S);
	driver->crash_points++;
	return reached;
}

/* The daemons that stop are in a folder of their own, beside the tests: not where the torture was installed. */
static bool is_wanted(const struct driver *driver, enum point point)
{
	return points[point].process == POINT_CLIENT || driver->stoppable_daemons;
}

bool crash_prepare(struct driver *driver)
{
	return can_make_file(driver);
}

void crash_run(struct driver *driver)
{
	struct wounds w = {.driver = driver, .board = driver->board};

	driver_ask(driver,
		BOARD_RECREATE); /* each client has a region for what is brought about first */
	for (enum point point = POINT_NONE + 1; point < POINTS; point++) {
		unsigned reached = 0;
		if (!is_wanted(driver, point) ||
			(driver->only && !strstr(points[point].name, driver->only)))
			continue;
		for (enum action action = 0;
			action < ACTIONS && !driver->hopeless && !driver_interrupted(); action++)
			reached += attempt(&w, point, action);
		if (driver->hopeless || driver_interrupted())
			return;
		/* a point that nobody comes to shows nothing */
		if (reached < ACTIONS)
			driver_trouble(driver, "%s: reached in %u of %u attempts",
				points[point].name, reached, (unsigned)ACTIONS);
	}
}
