/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The torture's first process: it starts a stack of its own, forks the clients, is the nemesis, watches, and says the result. One thread; whatever it waits for, it watches meanwhile.
 */
#ifndef SECPOOL_TESTS_TORTURE_DRIVER_H
#define SECPOOL_TESTS_TORTURE_DRIVER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/torture/board.h"

enum { DRIVER_DEVICE_BYTES = 96 << 20, DRIVER_FAULTS_MOST = 32 };

struct driver {
	struct board *board;
	uint64_t seed, begun_ns;
	unsigned seconds;
	bool json;
	bool crash;	       /* --crash-points */
	bool stoppable_daemons; /* those of the tests are used: they have points */
	const char *only;      /* points with this in their name; NULL: all */
	uint64_t crash_points; /* attempts */
	const char *keep; /* a folder for logs; NULL: none */
	pid_t clients[BOARD_CLIENTS];
	unsigned incarnations[BOARD_CLIENTS];
	bool ending;       /* clients end by themselves */
	bool hopeless;     /* something hangs: the run ends */
	uint64_t hangs, crashes, troubles;
	uint64_t faults[DRIVER_FAULTS_MOST]; /* as nemesis.c's table has them */
	uint64_t quiet_since_ns;	     /* no fault is going on since; 0: one is */
};

/* ---- clients (driver.c) ---- */
void driver_start_client(struct driver *driver, unsigned number);
/* kill -9, and a new one in its place. */
void driver_kill_client(struct driver *driver, unsigned number);
/* Looks after clients that ended and operations that take too long; to be called often. */
void driver_watch(struct driver *driver);
/* Sleeps, and watches. */
void driver_wait(struct driver *driver, uint64_t ns);
/* Asks all clients and waits until they have done it. False: they did not within the bound, and the run is hopeless. */
bool driver_ask(struct driver *driver, enum board_request request);
/* The same in two steps. */
uint64_t driver_request(struct driver *driver, enum board_request request);
bool driver_await(struct driver *driver, uint64_t number);
/* SIGINT and SIGTERM end a run in good order: from the first on, driver_interrupted says that one came. */
void driver_catch_signals(void);
bool driver_interrupted(void);
/* How much was found so far that should not be. */
uint64_t driver_findings(const struct driver *driver);
/* Clients end: they check everything first. */
void driver_end_clients(struct driver *driver);
/* Something did not work that has to: said, and counted. */
void driver_trouble(struct driver *driver, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- the stack (stack.c) ---- */
/* The torture's own folder. Ends the process with a sentence when it can't be had. */
void stack_prepare(struct driver *driver);
/* Policy, daemons, devices. Ends the process with a sentence when they can't be had. */
void stack_start(struct driver *driver);
/* Starts what was killed. */
void stack_bring_back(struct driver *driver);
void stack_stop(struct driver *driver);
/* Runs `secpool ARGS...` (ends with NULL); returns its exit status. What it said is in stack_said(). */
int stack_run(struct driver *driver, const char *arg, ...) __attribute__((sentinel));
const char *stack_said(void);
/* Ends a daemon by kill -9: "keymgrd" or "hotplugd". */
void stack_kill(struct driver *driver, const char *daemon);
/* The same without waiting; stack_end waits for it. */
pid_t stack_begin(struct driver *driver, const char *arg, ...) __attribute__((sentinel));
int stack_end(struct driver *driver, pid_t pid);
/* A path in the torture's own folder. Valid until the next call. */
const char *stack_path(const char *name);
/* The path of a device's media. Valid until the next call. */
const char *stack_media(unsigned device);
/* Runs a program with these arguments, its output to stderr. */
void stack_run_plain(char *const *argv);

/* ---- damage to media (media.c); numbers follow from the hash. False: the media could not be written ---- */
enum media_damage { MEDIA_NOISE, MEDIA_ZEROS, MEDIA_ONES, MEDIA_SWAP };
bool media_spoil(unsigned device, enum media_damage damage, uint64_t hash);
bool media_swap_between(unsigned one, unsigned other, uint64_t hash);
/* Old contents: remembered, and, later, written back. */
bool media_remember(unsigned device, uint64_t hash);
bool media_replay(unsigned device, uint64_t hash);

/* ---- the nemesis (nemesis.c) ---- */
/* Does faults until the time is over; then everything is put right again. */
void nemesis_run(struct driver *driver);
/* Does every action at every point (crash.c); crash_prepare: before the stack is started. False: a sentence was said. */
bool crash_prepare(struct driver *driver);
void crash_run(struct driver *driver);
/* The name of a row of faults; NULL behind the last. */
const char *nemesis_fault_name(unsigned row);

#endif
