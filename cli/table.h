/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A listing, once for people (libsmartcols) and once for programs (json-c, an array of objects). Cells are given row by row, in the
 * columns' order. Runs out of memory: ends the process. Threads: one at a time for each table.
 */
#ifndef SECPOOL_CLI_TABLE_H
#define SECPOOL_CLI_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_object;
struct table;

struct table_column {
	const char *head; /* over the column; NULL: only in JSON */
	const char *key;  /* in JSON */
	bool right;       /* aligned to the right */
};

struct table *table_new(bool json, const struct table_column *columns, size_t count);
void table_free(struct table *table);

/* Starts a row; then one call for each column. */
void table_row(struct table *table);
void table_text(struct table *table, const char *text);
void table_number(struct table *table, uint64_t number);
/* "1.5 GiB" for people, bytes for programs. */
void table_size(struct table *table, uint64_t bytes);
/* Two digits behind the point for people. */
void table_real(struct table *table, double number);
/* Nanoseconds since 1970: local time for people, the number for programs. */
void table_time(struct table *table, uint64_t ns);
/* "0x110000000000" in both. */
void table_address(struct table *table, uint64_t address);
/* "-", null. */
void table_none(struct table *table);

/* Prints all rows on stdout; `none` is what people read when there are no rows. */
void table_print(struct table *table, const char *none);

/* Moves the rows out as a JSON array, for a larger object. Only of a JSON table. */
struct json_object *table_take_json(struct table *table);

/* Prints a JSON value with a newline and frees it. */
void table_print_json(struct json_object *value);

/* "2026-01-31 13:45:00.123" into text (32 bytes), which is returned. */
const char *table_format_time(uint64_t ns, char *text);

#endif
