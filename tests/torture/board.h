/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the torture's processes share: memory that the driver maps before it forks its clients. Counts of what was done and found, what each thread is at, what the nemesis has done to the
 * devices, and what the driver asks of the clients. It outlives a client that is killed.
 *
 * Covered. A device is wounded from the moment before the nemesis touches it (pull, silence, damage to its media) until every live client has said that its regions are whole again: of a
 * device that went, by the library's own account (nothing to rebuild, no place lacking); of damaged media, after every page of a mirror was written anew and every region checked from end to end. A
 * region stands `n` wounds at once: mirror:N stands N - 1, ec:K+M stands M, none stands 0. As long as there never were more than that many wounded devices at once while the
 * region lived, it may lose nothing: a loss is then one too many (uncovered_losses). Every device is a fault domain of its own.
 *
 * Threads and processes: any; all is atomic.
 */
#ifndef SECPOOL_TESTS_TORTURE_BOARD_H
#define SECPOOL_TESTS_TORTURE_BOARD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum {
	BOARD_CLIENTS = 3,
	BOARD_THREADS = 3,
	BOARD_MANAGER = BOARD_THREADS, /* the seat of a client's main thread */
	BOARD_DEVICES = 6,
	BOARD_WOUNDS_MOST = BOARD_DEVICES,
	BOARD_OPERATIONS = 32,
};

/* What a thread is at, for the watchdog. */
struct board_seat {
	_Atomic uint64_t started_ns; /* 0: nothing */
	_Atomic uint32_t operation;  /* enum operation */
};

enum board_request {
	BOARD_NOTHING = 0,
	BOARD_SETTLE = 1, /* wait until the library has dealt with the devices that are out */
	BOARD_HEAL = 2,   /* the same, after writing mirrored pages anew, and with a check of all regions */
	BOARD_VERIFY = 3, /* read every block */
	BOARD_RECREATE = 4, /* release a region and make it anew */
	BOARD_REQUESTS = 8,
};

struct board_client {
	struct board_seat seats[BOARD_THREADS + 1];
	_Atomic uint64_t answered; /* the number of the last request that was done */
	_Atomic bool ready;
};

struct board {
	_Atomic uint64_t operations, skipped, bytes_checked;
	_Atomic uint64_t wrong_bytes, zero_pages, stale_pages, foreign_bytes, unreported_losses, uncovered_losses, other_errors;
	_Atomic uint64_t lost_blocks, regions;
	_Atomic uint64_t barred_blocks; /* accesses that found no room: SIGBUS or SECPOOL_E_NO_SPACE, and no loss */
	_Atomic uint64_t slowest_ns[BOARD_OPERATIONS];    /* the longest that each operation took */
	_Atomic uint32_t wounded;                         /* a bit for each device */
	_Atomic uint64_t exceeded[BOARD_WOUNDS_MOST + 1]; /* [n]: how often more than n were wounded at once */
	_Atomic uint32_t out;                             /* devices that are pulled */
	_Atomic bool stop;
	_Atomic uint64_t request; /* its number, times BOARD_REQUESTS, with enum board_request */
	struct board_client clients[BOARD_CLIENTS];
};

static inline void board_begin(struct board_seat *seat, uint32_t operation, uint64_t now_ns)
{
	atomic_store(&seat->operation, operation);
	atomic_store(&seat->started_ns, now_ns);
}

static inline void board_end(struct board_seat *seat)
{
	atomic_store(&seat->started_ns, 0);
}

/* How long an operation took that began then. */
static inline void board_time(struct board *board, uint32_t operation, uint64_t ns)
{
	uint64_t slowest = atomic_load_explicit(&board->slowest_ns[operation], memory_order_relaxed);

	while (ns > slowest && !atomic_compare_exchange_weak(&board->slowest_ns[operation], &slowest, ns))
		;
}

#endif
