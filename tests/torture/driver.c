/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/torture/driver.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "tests/torture/client.h"
#include "tests/torture/work.h"

/*
 * How long an operation may take: while a fault is going on or was a moment ago, otherwise, and what a client's main thread does for the driver. Counted in turns of the watch, each of
 * which adds at most SLICE_MOST_NS: a machine that ran nobody for a while does not count.
 */
#ifdef __SANITIZE_ADDRESS__
enum { SLOWER = 4 };
#elif defined(__SANITIZE_THREAD__)
enum { SLOWER = 6 };
#else
enum { SLOWER = 1 };
#endif
#define TROUBLED_NS   (30 * SLOWER * CLOCK_NS_PER_S)
#define CALM_NS	      (10 * SLOWER * CLOCK_NS_PER_S)
#define MANAGER_NS    (60 * SLOWER * CLOCK_NS_PER_S)
#define SLICE_MOST_NS (250ull * 1000000)
#define SLICE_NS      (3ull * 1000000)

/* What the watch knows of a seat: which operation it saw there, and for how long. */
static struct {
	uint64_t started_ns, age_ns;
} seen[BOARD_CLIENTS][BOARD_THREADS + 1];

void driver_trouble(struct driver *driver, const char *format, ...)
{
	va_list args;

	driver->troubles++;
	fprintf(stderr, "secpool-torture: ");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\n");
}

void driver_start_client(struct driver *driver, unsigned number)
{
	struct board_client *client = &driver->board->clients[number];
	pid_t pid;

	for (unsigned i = 0; i <= BOARD_THREADS; i++)
		board_end(&client->seats[i]);
	atomic_store(&client->ready, false);
	fflush(NULL);
#ifdef __SANITIZE_THREAD__
	pid = _Fork(); /* tests/support/run.c says why */
#else
	pid = fork();
#endif
	if (pid < 0) {
		perror("secpool-torture: fork");
		exit(1);
	}
	if (pid == 0)
		_exit(client_run(
			driver->board, number, driver->incarnations[number], driver->seed));
	driver->clients[number] = pid;
}

void driver_kill_client(struct driver *driver, unsigned number)
{
	int status;

	kill(driver->clients[number], SIGKILL);
	waitpid(driver->clients[number], &status, 0);
	driver->incarnations[number]++;
	driver_start_client(driver, number);
}

/* ---- the watch ---- */

static void show_stacks(pid_t pid)
{
	char number[16];
	char *gdb[] = {"timeout", "60", "gdb", "-nx", "-batch", "-p", number, "-ex",
		"thread apply all bt 25", NULL};

	snprintf(number, sizeof number, "%d", (int)pid);
	fprintf(stderr, "secpool-torture: stacks of client %d:\n", (int)pid);
	stack_run_plain(gdb);
}

static void found_hang(
	struct driver *driver, unsigned number, unsigned seat, uint32_t operation, uint64_t ns)
{
	driver->hangs++;
	driver->hopeless = true;
	fprintf(stderr,
		"secpool-torture: client %u.%u, thread %u: %s takes longer than %llu s; wounded "
		"%#x, out %#x\n",
		number, driver->incarnations[number], seat, work_name(operation),
		(unsigned long long)(ns / CLOCK_NS_PER_S), atomic_load(&driver->board->wounded),
		atomic_load(&driver->board->out));
	show_stacks(driver->clients[number]);
}

static uint64_t bound_of(const struct driver *driver, unsigned seat, uint64_t now)
{
	if (seat == BOARD_MANAGER)
		return MANAGER_NS;
	return driver->quiet_since_ns != 0 && now - driver->quiet_since_ns > TROUBLED_NS
		       ? CALM_NS
		       : TROUBLED_NS;
}

static void watch_seats(struct driver *driver, unsigned number, uint64_t now, uint64_t slice_ns)
{
	for (unsigned i = 0; i <= BOARD_THREADS && !driver->hopeless; i++) {
		struct board_seat *seat = &driver->board->clients[number].seats[i];
		uint64_t started = atomic_load(&seat->started_ns);
		if (started == 0 || started != seen[number][i].started_ns) {
			seen[number][i].started_ns = started;
			seen[number][i].age_ns = 0;
			continue;
		}
		seen[number][i].age_ns += slice_ns;
		if (seen[number][i].age_ns > bound_of(driver, i, now))
			found_hang(driver, number, i, atomic_load(&seat->operation),
				seen[number][i].age_ns);
	}
}

/* A client that ended and should not have. */
static void found_end(struct driver *driver, unsigned number, int status)
{
	if (driver->ending && WIFEXITED(status) && WEXITSTATUS(status) == 0) {
		driver->clients[number] = 0;
		return;
	}
	driver->crashes++;
	fprintf(stderr, "secpool-torture: client %u.%u ended by itself: %s %d\n", number,
		driver->incarnations[number], WIFSIGNALED(status) ? "signal" : "status",
		WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	driver->clients[number] = 0;
	driver->incarnations[number]++;
	if (!driver->ending && driver->crashes < 10)
		driver_start_client(driver, number);
	else
		driver->hopeless = true;
}

void driver_watch(struct driver *driver)
{
	static uint64_t last_ns;
	uint64_t now = clock_now_ns(), slice = now - last_ns;

	last_ns = now;
	for (unsigned i = 0; i < BOARD_CLIENTS; i++) {
		int status;
		if (driver->clients[i] == 0)
			continue;
		if (waitpid(driver->clients[i], &status, WNOHANG) == driver->clients[i])
			found_end(driver, i, status);
		else
			watch_seats(driver, i, now, slice < SLICE_MOST_NS ? slice : SLICE_MOST_NS);
	}
}

void driver_wait(struct driver *driver, uint64_t ns)
{
	uint64_t until = clock_now_ns() + ns;

	do {
		driver_watch(driver);
		clock_sleep_ns(ns < SLICE_NS ? ns : SLICE_NS);
	} while (clock_now_ns() < until && !driver->hopeless);
}

/* ---- asking ---- */

static bool all_answered(const struct driver *driver, uint64_t number)
{
	for (unsigned i = 0; i < BOARD_CLIENTS; i++)
		if (driver->clients[i] != 0 &&
			atomic_load(&driver->board->clients[i].answered) < number)
			return false;
	return true;
}

uint64_t driver_request(struct driver *driver, enum board_request request)
{
	uint64_t number = atomic_load(&driver->board->request) / BOARD_REQUESTS + 1;

	atomic_store(&driver->board->request, number * BOARD_REQUESTS + request);
	return number;
}

bool driver_await(struct driver *driver, uint64_t number)
{
	/* what takes too long is a hang of the client's main thread: the watch ends the waiting */
	while (!all_answered(driver, number) && !driver->hopeless)
		driver_wait(driver, SLICE_NS);
	return !driver->hopeless;
}

bool driver_ask(struct driver *driver, enum board_request request)
{
	return driver_await(driver, driver_request(driver, request));
}

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
	(void)number;
	interrupted = 1;
}

void driver_catch_signals(void)
{
	struct sigaction action = {.sa_handler = on_signal};

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

bool driver_interrupted(void)
{
	return interrupted;
}

uint64_t driver_findings(const struct driver *driver)
{
	const struct board *b = driver->board;

	return atomic_load(&b->wrong_bytes) + atomic_load(&b->zero_pages) +
	       atomic_load(&b->stale_pages) + atomic_load(&b->foreign_bytes) +
	       atomic_load(&b->unreported_losses) + atomic_load(&b->uncovered_losses) +
	       atomic_load(&b->other_errors) + driver->hangs + driver->crashes + driver->troubles;
}

static bool any_client(const struct driver *driver)
{
	for (unsigned i = 0; i < BOARD_CLIENTS; i++)
		if (driver->clients[i] != 0)
			return true;
	return false;
}

void driver_end_clients(struct driver *driver)
{
	driver->ending = true;
	atomic_store(&driver->board->stop, true);
	while (any_client(driver) && !driver->hopeless)
		driver_wait(driver, SLICE_NS);
	for (unsigned i = 0; i < BOARD_CLIENTS; i++) {
		if (driver->clients[i] == 0)
			continue;
		kill(driver->clients[i], SIGKILL);
		waitpid(driver->clients[i], NULL, 0);
		driver->clients[i] = 0;
	}
}
