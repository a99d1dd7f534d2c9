/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The key manager's directory: one SQLite file (WAL, synchronous=FULL, foreign keys, secure_delete) that survives kill -9
 * at any moment. This is the only file that knows SQLite; others ask with SQL text and values.
 *
 * Every change is made between directory_begin and directory_finish, so that it happens whole or not at all. What is
 * in here is a hint for places; no key is in it. What was deleted may stay in the file and
 * its log: what must go for good (the regions' wrapped keys) is in wraps.h.
 * Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_DIRECTORY_H
#define SECPOOL_KEYMGR_DIRECTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

struct directory;
struct directory_rows;

/* A value for a ?1, ?2 ... of the SQL text. Numbers are 64 bits; SQLite shows those above 2^63 as negative. */
enum directory_kind { DIRECTORY_END = 0, DIRECTORY_NUMBER, DIRECTORY_STRING, DIRECTORY_BYTES };
struct directory_value {
	enum directory_kind kind;
	uint64_t number;
	const void *bytes; /* borrowed until the call or the rows end */
	size_t count;
};
#define DIRECTORY_N(n)    {.kind = DIRECTORY_NUMBER, .number = (uint64_t)(n)}
#define DIRECTORY_T(t)    {.kind = DIRECTORY_STRING, .bytes = (t)}
#define DIRECTORY_B(b, n) {.kind = DIRECTORY_BYTES, .bytes = (b), .count = (n)}
#define DIRECTORY_VALUES(...)                                                                      \
	((const struct directory_value[]){__VA_ARGS__ __VA_OPT__(,){.kind = DIRECTORY_END}})

/*
 * Opens the file, or makes it (mode 0600) with its tables.
 * Errors: SECPOOL_E_STORE naming the file and what to do (damaged, another version, can't be opened).
 */
enum secpool_error directory_open(const char *path, struct directory **ret_directory) MUST_USE;
void directory_close(struct directory *directory);

/* Starts a change. They don't nest. Errors: SECPOOL_E_STORE. */
enum secpool_error directory_begin(struct directory *directory) MUST_USE;

/*
 * Ends a change: keeps it when error is SECPOOL_OK, else takes all of it back. Returns error, or SECPOOL_E_STORE when
 * it could not be kept (then it was taken back).
 */
enum secpool_error directory_finish(struct directory *directory, enum secpool_error error) MUST_USE;

/*
 * The same for a change that is one of its own, or, while another one is open, a part of that: then it is kept or taken back alone, and is on the disk when the whole is. *ret_part goes to directory_end.
 * So many small changes can be made with one wait for the disk. After SECPOOL_E_STORE the whole is not to be kept.
 */
enum secpool_error directory_enter(struct directory *directory, bool *ret_part) MUST_USE;
enum secpool_error directory_end(struct directory *directory, bool part, enum secpool_error error) MUST_USE;

/* Runs one statement that gives no rows. Errors: SECPOOL_E_STORE, SECPOOL_E_EXISTS (a constraint). */
enum secpool_error directory_run(
	struct directory *directory, const char *sql, const struct directory_value *values) MUST_USE;

/* The row id of the last insertion, and how many rows the last statement changed. */
uint64_t directory_last_id(struct directory *directory);
uint64_t directory_changes(struct directory *directory);

/* One number: column 0 of the first row. Errors: SECPOOL_E_NOT_FOUND (no row), SECPOOL_E_STORE. */
enum secpool_error directory_number(struct directory *directory, const char *sql,
	const struct directory_value *values, uint64_t *ret_number) MUST_USE;

/*
 * Rows, one after the other: directory_query; while (directory_next(rows, &error)) ...; directory_done.
 * directory_next is false at the end and when *error is or becomes an error. directory_done takes NULL.
 */
enum secpool_error directory_query(struct directory *directory, const char *sql,
	const struct directory_value *values, struct directory_rows **ret_rows) MUST_USE;
bool directory_next(struct directory_rows *rows, enum secpool_error *error);
uint64_t directory_get_number(struct directory_rows *rows, int column);
/* A text, cut to capacity; the rest of the field is zero. */
void directory_get_text(struct directory_rows *rows, int column, char *field, size_t capacity);
/* Bytes; gives their count, 0 for NULL or when they are more than capacity. */
size_t directory_get_bytes(struct directory_rows *rows, int column, void *bytes, size_t capacity);
void directory_done(struct directory_rows *rows);

#endif
