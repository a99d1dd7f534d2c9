/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/table.h"

#include <json-c/json.h>
#include <libsmartcols/libsmartcols.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "lib/base/clock.h"
#include "lib/base/size.h"

struct table {
	const struct table_column *columns;
	size_t column_count, column, row_count;
	size_t shown; /* column of the text table that is next */
	struct json_object *array, *object;
	struct libscols_table *text;
	struct libscols_line *line;
};

static void *must(void *made)
{
	if (!made) {
		fputs("secpool: out of memory\n", stderr);
		exit(1);
	}
	return made;
}

struct table *table_new(bool json, const struct table_column *columns, size_t count)
{
	struct table *table = must(calloc(1, sizeof *table));

	table->columns = columns;
	table->column_count = count;
	if (json) {
		table->array = must(json_object_new_array());
		return table;
	}
	table->text = must(scols_new_table());
	for (size_t i = 0; i < count; i++)
		if (columns[i].head)
			must(scols_table_new_column(table->text, columns[i].head, 0,
				columns[i].right ? SCOLS_FL_RIGHT : 0));
	return table;
}

void table_free(struct table *table)
{
	if (!table)
		return;
	if (table->array)
		json_object_put(table->array);
	scols_unref_table(table->text);
	free(table);
}

void table_row(struct table *table)
{
	table->column = table->shown = 0;
	table->row_count++;
	if (table->array) {
		table->object = must(json_object_new_object());
		json_object_array_add(table->array, table->object);
	} else {
		table->line = must(scols_table_new_line(table->text, NULL));
	}
}

static void add_cell(struct table *table, const char *text, struct json_object *value)
{
	const struct table_column *column = &table->columns[table->column++];

	if (table->array)
		json_object_object_add(table->object, column->key, value);
	else if (column->head && scols_line_set_data(table->line, table->shown++, text) != 0)
		must(NULL);
}

void table_text(struct table *table, const char *text)
{
	add_cell(table, text[0] ? text : "-",
		table->array ? must(json_object_new_string(text)) : NULL);
}

void table_number(struct table *table, uint64_t number)
{
	char text[24];

	snprintf(text, sizeof text, "%llu", (unsigned long long)number);
	add_cell(table, text, table->array ? must(json_object_new_uint64(number)) : NULL);
}

void table_real(struct table *table, double number)
{
	char text[32];

	snprintf(text, sizeof text, "%.2f", number);
	add_cell(table, text, table->array ? must(json_object_new_double(number)) : NULL);
}

void table_size(struct table *table, uint64_t bytes)
{
	char text[SIZE_TEXT_BYTES];

	add_cell(table, size_format(bytes, text),
		table->array ? must(json_object_new_uint64(bytes)) : NULL);
}

const char *table_format_time(uint64_t ns, char *text)
{
	time_t seconds = (time_t)(ns / CLOCK_NS_PER_S);
	struct tm parts;
	char day[24];

	localtime_r(&seconds, &parts);
	strftime(day, sizeof day, "%Y-%m-%d %H:%M:%S", &parts);
	snprintf(text, 32, "%s.%03u", day, (unsigned)(ns % CLOCK_NS_PER_S / CLOCK_NS_PER_MS));
	return text;
}

void table_time(struct table *table, uint64_t ns)
{
	char text[32];

	add_cell(table, table_format_time(ns, text),
		table->array ? must(json_object_new_uint64(ns)) : NULL);
}

void table_address(struct table *table, uint64_t address)
{
	char text[24];

	snprintf(text, sizeof text, "0x%llx", (unsigned long long)address);
	add_cell(table, text, table->array ? must(json_object_new_string(text)) : NULL);
}

void table_none(struct table *table)
{
	add_cell(table, "-", NULL);
}

void table_print(struct table *table, const char *none)
{
	if (table->array)
		table_print_json(table_take_json(table));
	else if (table->row_count == 0)
		puts(none);
	else if (scols_print_table(table->text) != 0)
		must(NULL);
}

struct json_object *table_take_json(struct table *table)
{
	struct json_object *array = table->array;

	table->array = NULL;
	return array;
}

void table_print_json(struct json_object *value)
{
	puts(json_object_to_json_string_ext(
		value, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(value);
}
