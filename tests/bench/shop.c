/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/shop.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"

enum { CUSTOMERS = 50000, ITEMS = 5000, ORDERS_A_DAY = 500, RANGE_DAYS = 3, JOIN_CUSTOMERS = 20 };
enum { NOTE_BYTES = 160, TEXT_BYTES = 1 << 18, KINDS = 12 };

struct shop {
	sqlite3 *db;
	sqlite3_stmt *queries[SHOP_QUERIES];
	int64_t orders;
};

/* What SQLite is asked. ?1, ?2: numbers of the kind that bind_numbers gives. */
static const struct {
	const char *name;
	unsigned count;
	const char *sql;
} table[SHOP_QUERIES] = {
	[SHOP_POINT] = {"point", 4000, "SELECT cents, quantity, note FROM orders WHERE id = ?1"},
	[SHOP_RANGE] = {"range", 40,
		"SELECT count(*), sum(cents * quantity), max(length(note)) FROM orders "
		"WHERE day BETWEEN ?1 AND ?2"},
	[SHOP_JOIN] = {"join", 20,
		"SELECT c.city, count(*), sum(o.cents * o.quantity) FROM customers c "
		"CROSS JOIN orders o ON o.customer = c.id CROSS JOIN items i ON i.id = o.item "
		"WHERE c.id BETWEEN ?1 AND ?2 AND i.kind < 6 GROUP BY c.city ORDER BY c.city"},
	[SHOP_UPDATE] = {"update", 1000, "UPDATE orders SET quantity = ?2 WHERE id = ?1"},
	[SHOP_AGGREGATE] = {"aggregate", 1,
		"SELECT count(*), sum(cents * quantity), max(cents), sum(length(note)) FROM "
		"orders"},
};

static const char schema[] =
	"PRAGMA page_size = 4096; PRAGMA journal_mode = OFF; PRAGMA temp_store = MEMORY;"
	"CREATE TABLE customers(id INTEGER PRIMARY KEY, name TEXT, city TEXT);"
	"CREATE TABLE items(id INTEGER PRIMARY KEY, name TEXT, kind INTEGER);"
	"CREATE TABLE orders(id INTEGER PRIMARY KEY, customer INTEGER, item INTEGER,"
	" quantity INTEGER, cents INTEGER, day INTEGER, note TEXT);";

#define RESTORE "UPDATE orders SET quantity = id * 7 % 9 + 1"

static const char *const words[] = {"leave", "at", "the", "door", "please", "call", "before",
	"gift", "wrapped", "fragile", "second", "floor", "left", "ring", "neighbour", "express",
	"invoice", "separate", "return", "label", "inside", "blue", "large", "again", "thanks",
	"soon"};
enum { WORDS = sizeof words / sizeof *words };

unsigned shop_count(enum shop_query query)
{
	return table[query].count;
}

const char *shop_name(enum shop_query query)
{
	return table[query].name;
}

static enum secpool_error failed(const struct shop *shop, const char *what)
{
	return err_set(SECPOOL_E_SYSTEM, "SQLite: %s: %s", what, sqlite3_errmsg(shop->db));
}

static enum secpool_error run_sql(struct shop *shop, const char *sql)
{
	if (sqlite3_exec(shop->db, sql, NULL, NULL, NULL) != SQLITE_OK)
		return failed(shop, sql);
	return SECPOOL_OK;
}

/* The one number that a query gives; 0 when it fails. */
static int64_t ask_number(struct shop *shop, const char *sql)
{
	sqlite3_stmt *query = NULL;
	int64_t number = 0;

	if (sqlite3_prepare_v2(shop->db, sql, -1, &query, NULL) == SQLITE_OK &&
		sqlite3_step(query) == SQLITE_ROW)
		number = sqlite3_column_int64(query, 0);
	sqlite3_finalize(query);
	return number;
}

uint64_t shop_pages(struct shop *shop)
{
	return (uint64_t)ask_number(shop, "PRAGMA page_count");
}

enum secpool_error shop_restore(struct shop *shop)
{
	return run_sql(shop, RESTORE);
}

static enum secpool_error prepare(struct shop *shop)
{
	for (int i = 0; i < SHOP_QUERIES; i++)
		if (sqlite3_prepare_v3(shop->db, table[i].sql, -1, SQLITE_PREPARE_PERSISTENT,
			    &shop->queries[i], NULL) != SQLITE_OK)
			return failed(shop, table[i].name);
	shop->orders = ask_number(shop, "SELECT max(id) FROM orders");
	return SECPOOL_OK;
}

void shop_close(struct shop *shop)
{
	if (!shop)
		return;
	for (int i = 0; i < SHOP_QUERIES; i++)
		sqlite3_finalize(shop->queries[i]);
	sqlite3_close(shop->db);
	free(shop);
}

static uint64_t next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* A part of a text that is long enough not to come again soon: words one by one would take most of the time of building. */
static void make_note(char *note, size_t bytes, uint64_t random)
{
	static char text[TEXT_BYTES + 32];
	uint64_t state = 0x452821e638d01377ul;

	for (size_t at = 0; text[0] == '\0' || (at > 0 && at < TEXT_BYTES);)
		at += (size_t)snprintf(
			text + at, sizeof text - at, "%s ", words[next(&state) % WORDS]);
	snprintf(note, bytes, "%.*s", NOTE_BYTES, text + random % (TEXT_BYTES - NOTE_BYTES));
}

/* Binds all columns as numbers, the last as text, and inserts. */
static int insert(sqlite3_stmt *insert, const int64_t *numbers, int count, const char *text)
{
	for (int i = 0; i < count; i++)
		sqlite3_bind_int64(insert, i + 1, numbers[i]);
	sqlite3_bind_text(insert, count + 1, text, -1, SQLITE_STATIC);
	return sqlite3_step(insert) == SQLITE_DONE ? sqlite3_reset(insert) : SQLITE_ERROR;
}

static int fill(struct shop *shop, const char *sql, int columns, unsigned rows,
	void (*make)(unsigned row, uint64_t *random, int64_t *numbers, char *text, size_t bytes))
{
	uint64_t random = 0x243f6a8885a308d3ull;
	sqlite3_stmt *statement = NULL;
	int64_t numbers[8];
	char text[512];
	int status = sqlite3_prepare_v2(shop->db, sql, -1, &statement, NULL);

	for (unsigned row = 1; row <= rows && status == SQLITE_OK; row++) {
		make(row, &random, numbers, text, sizeof text);
		status = insert(statement, numbers, columns - 1, text);
	}
	sqlite3_finalize(statement);
	return status;
}

static void make_customer(
	unsigned row, uint64_t *random, int64_t *numbers, char *text, size_t bytes)
{
	numbers[0] = row;
	snprintf(text, bytes, "customer %u %s", row, words[next(random) % WORDS]);
}

static void make_item(unsigned row, uint64_t *random, int64_t *numbers, char *text, size_t bytes)
{
	numbers[0] = row;
	numbers[1] = (int64_t)(next(random) % KINDS);
	snprintf(text, bytes, "item %u %s", row, words[next(random) % WORDS]);
}

static void make_order(unsigned row, uint64_t *random, int64_t *numbers, char *text, size_t bytes)
{
	numbers[0] = row;
	numbers[1] = (int64_t)(next(random) % CUSTOMERS) + 1;
	numbers[2] = (int64_t)(next(random) % ITEMS) + 1;
	numbers[3] = row * 7 % 9 + 1; /* as RESTORE */
	numbers[4] = (int64_t)(next(random) % 20000) + 99;
	numbers[5] = row / ORDERS_A_DAY;
	make_note(text, bytes, next(random));
}

static enum secpool_error build(struct shop *shop, unsigned orders)
{
	enum secpool_error error = run_sql(shop, schema);

	if (!error)
		error = run_sql(shop, "BEGIN");
	if (error)
		return error;
	if (fill(shop, "INSERT INTO customers(id, name) VALUES(?,?)", 2, CUSTOMERS,
		    make_customer) != SQLITE_OK ||
		fill(shop, "INSERT INTO items(id, kind, name) VALUES(?,?,?)", 3, ITEMS,
			make_item) != SQLITE_OK ||
		fill(shop, "INSERT INTO orders VALUES(?,?,?,?,?,?,?)", 7, orders, make_order) !=
			SQLITE_OK)
		return failed(shop, "insert");
	return run_sql(shop, "UPDATE customers SET city = 'city ' || (id * 7919 % 400);"
			     "CREATE INDEX orders_customer ON orders(customer);"
			     "CREATE INDEX orders_day ON orders(day); ANALYZE; COMMIT;");
}

enum secpool_error shop_open(unsigned orders, struct shop **ret_shop)
{
	struct shop *shop = calloc(1, sizeof *shop);
	enum secpool_error error;

	if (!shop)
		return err_set(SECPOOL_E_NO_MEMORY, "no memory for a database");
	if (sqlite3_open(":memory:", &shop->db) != SQLITE_OK)
		error = failed(shop, "open");
	else
		error = build(shop, orders);
	if (!error)
		error = prepare(shop);
	if (error)
		shop_close(shop);
	else
		*ret_shop = shop;
	return error;
}

static void bind_numbers(
	const struct shop *shop, sqlite3_stmt *query, enum shop_query kind, uint64_t *random)
{
	uint64_t number = next(random), orders = (uint64_t)shop->orders;
	/* four of five at the latest fifth */
	uint64_t id = number % 5 ? orders - number / 5 % (orders / 5) : number / 5 % orders + 1;
	int64_t first = (int64_t)id, second = (int64_t)(number >> 40) % 9 + 1;

	if (kind == SHOP_AGGREGATE)
		return;
	if (kind == SHOP_RANGE) {
		first = (int64_t)id / ORDERS_A_DAY;
		second = first + RANGE_DAYS - 1;
	} else if (kind == SHOP_JOIN) {
		first = (int64_t)(number % (CUSTOMERS - JOIN_CUSTOMERS));
		second = first + JOIN_CUSTOMERS - 1;
	}
	sqlite3_bind_int64(query, 1, first);
	if (kind != SHOP_POINT)
		sqlite3_bind_int64(query, 2, second);
}

/* Adds what a row says: numbers, and texts by their length and first bytes. */
static void add_row(sqlite3_stmt *query, uint64_t *sum)
{
	for (int i = 0; i < sqlite3_column_count(query); i++) {
		const unsigned char *text;

		if (sqlite3_column_type(query, i) != SQLITE_TEXT) {
			*sum = *sum * 31 + (uint64_t)sqlite3_column_int64(query, i);
			continue;
		}
		for (text = sqlite3_column_text(query, i); text && *text; text++)
			*sum = *sum * 31 + *text;
	}
}

static enum secpool_error ask(
	struct shop *shop, enum shop_query kind, uint64_t *random, uint64_t *sum)
{
	sqlite3_stmt *query = shop->queries[kind];
	int step;

	for (unsigned i = 0; i < table[kind].count; i++) {
		bind_numbers(shop, query, kind, random);
		while ((step = sqlite3_step(query)) == SQLITE_ROW)
			add_row(query, sum);
		if (step != SQLITE_DONE || sqlite3_reset(query) != SQLITE_OK)
			return failed(shop, table[kind].name);
	}
	return SECPOOL_OK;
}

enum secpool_error shop_run(struct shop *shop, uint64_t seed, struct shop_pass *ret_pass)
{
	struct shop_pass pass = {.sum = 0};
	uint64_t random = seed | 1;
	enum secpool_error error = SECPOOL_OK;

	if (shop->orders < 5)
		return err_set(SECPOOL_E_INVALID, "the shop has no orders");
	for (int kind = 0; kind < SHOP_QUERIES && !error; kind++) {
		uint64_t start = clock_now_ns();

		error = run_sql(shop, "BEGIN");
		if (!error)
			error = ask(shop, (enum shop_query)kind, &random, &pass.sum);
		if (!error)
			error = run_sql(shop, "COMMIT");
		pass.seconds[kind] = (double)(clock_now_ns() - start) / (double)CLOCK_NS_PER_S;
	}
	if (!error)
		*ret_pass = pass;
	return error;
}
