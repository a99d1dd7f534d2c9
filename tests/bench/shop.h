/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A shop's database in SQLite, all of it in the memory that SQLite was given (sqlite3_config), and the questions that are asked of it: what bench `program` times.
 * Orders came in by day; four of five single looks are at the latest fifth. Everything follows from seeds, so that all sides must come to the same sums.
 * Threads: one.
 */
#ifndef SECPOOL_TESTS_SHOP_H
#define SECPOOL_TESTS_SHOP_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

enum shop_query {
	SHOP_POINT,     /* one order by its number */
	SHOP_RANGE,     /* the orders of three days, through an index */
	SHOP_JOIN,      /* orders of some customers with customers and items, by city */
	SHOP_UPDATE,    /* a new quantity for one order; all of a pass in one transaction */
	SHOP_AGGREGATE, /* sums over all orders */
	SHOP_QUERIES,
};

struct shop;

/* Makes the database with that many orders, of about 250 bytes each with their indexes. Errors: SECPOOL_E_SYSTEM with SQLite's words, SECPOOL_E_NO_MEMORY. */
enum secpool_error shop_open(unsigned orders, struct shop **ret_shop) MUST_USE;
void shop_close(struct shop *shop);

/* Takes back all that passes changed. Errors: SECPOOL_E_SYSTEM. */
enum secpool_error shop_restore(struct shop *shop) MUST_USE;

/* How many pages of 4 KiB it has. */
uint64_t shop_pages(struct shop *shop);

struct shop_pass {
	double seconds[SHOP_QUERIES]; /* of all queries of the kind */
	uint64_t sum;                 /* of what came out */
};

/* How many queries of the kind a pass has, and what one is called. */
unsigned shop_count(enum shop_query query);
const char *shop_name(enum shop_query query);

/* Asks everything once. Errors: SECPOOL_E_SYSTEM. */
enum secpool_error shop_run(struct shop *shop, uint64_t seed, struct shop_pass *ret_pass) MUST_USE;

#endif
