/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of the torture: a process with a pool, regions of all kinds, and threads that work on them and check every byte against the model. Made by fork before any
 * pool is open; it does what the board asks for until the board says stop, then checks everything and ends with status 0.
 */
#ifndef SECPOOL_TESTS_TORTURE_CLIENT_H
#define SECPOOL_TESTS_TORTURE_CLIENT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "lib/secpool.h"
#include "tests/torture/board.h"
#include "tests/torture/pattern.h"

enum {
	CLIENT_SLOTS = 6,
	/* the plaintext that a client may have; with pages of 2 MiB the library wants the second (secpool_region_create) */
	CLIENT_LOCAL_BYTES = 8 << 20, CLIENT_LOCAL_BYTES_MOST = 28 << 20,
	CLIENT_EXIT_CRASH = 70,
	CLIENT_LOSSES_MOST = 65536,
};

/* A kind of region, and how many lanes it may lose. */
struct region_kind {
	const char *name;
	enum secpool_redundancy redundancy;
	unsigned copies, data, parity, tolerance;
	size_t page_bytes, bytes;
};

enum block_state { BLOCK_KNOWN = 0, BLOCK_LOST = 1, BLOCK_UNKNOWN = 2 };

/* A block and who works on it. Protects: the rest, and the block's bytes. */
struct block {
	atomic_flag busy;
	uint8_t state; /* enum block_state */
	uint8_t line;
	uint32_t generation, line_generation;
};

/* A region under test. lock is held by who works on it, and alone by who makes or releases it. */
struct slot {
	pthread_rwlock_t lock;
	const struct region_kind *kind;
	struct secpool_region *region; /* NULL: none now */
	struct secpool_region *ending; /* it is being released: client.events_lock */
	uint8_t *memory;
	uint64_t uid; /* pattern_block.region */
	size_t block_count;
	struct block *blocks;
	uint64_t exceeded_before; /* of the board, when it was made */
	bool born_exceeded;
	_Atomic uint64_t tried_ns; /* when it was last tried to make it */
};

/* A range of addresses that an event told to be lost. */
struct client_loss {
	uintptr_t start, end;
	enum secpool_cause cause;
};

struct client {
	struct board *board;
	unsigned number, incarnation;
	uint64_t seed;
	struct secpool *pool;
	struct slot slots[CLIENT_SLOTS];
	_Atomic uint32_t serial; /* of the next region's uid */
	pthread_mutex_t events_lock; /* Protects: that an event's region lives while it is looked at; slots[].ending */
	_Atomic unsigned loss_count; /* written by the main thread alone */
	struct client_loss losses[CLIENT_LOSSES_MOST];
	_Atomic bool overflow; /* events were dropped */
	struct heap_model *heap;
};

struct worker_thread {
	struct client *client;
	unsigned number;
	pthread_t thread;
	struct board_seat *seat;
};

/* The life of a client: never returns to the caller's loop but with the exit status. */
int client_run(struct board *board, unsigned number, unsigned incarnation, uint64_t seed);

/* Fault mode and kinds follow from the seed. */
enum secpool_fault_mode client_fault_mode(uint64_t seed, unsigned number, unsigned incarnation);

/* "torture0" and so on: two clients are tenants of their own, the third shares the first's. */
const char *client_tenant(unsigned number);

#endif
