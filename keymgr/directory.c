/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/directory.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "keymgr/totals.h"
#include "lib/base/os.h"
#include "lib/wire/msg.h"

/* Raised with every change of the tables; a file of another version is refused. */
#define SCHEMA_VERSION "7"

/* How long SQLite waits for a lock that a reader of the file (a backup) holds. */
enum { BUSY_MS = 2000 };

/* Statements that are kept between calls: the text is compiled once, and belongs to who asks. */
enum { STATEMENTS_KEPT = 128 };
struct kept_statement {
	const char *sql; /* where the caller's text is, to find it by */
	sqlite3_stmt *statement;
	uint64_t turn; /* of the last use */
	bool busy;
};

struct directory {
	sqlite3 *db;
	char *path;
	struct kept_statement kept[STATEMENTS_KEPT];
	uint64_t turn;
};

static const char settings_sql[] = "PRAGMA journal_mode = WAL;"
				   "PRAGMA synchronous = FULL;"
				   "PRAGMA foreign_keys = ON;"
				   "PRAGMA secure_delete = ON;"
				   "PRAGMA cache_size = -65536;" /* KiB: a million regions */
				   "PRAGMA trusted_schema = OFF;";

static const char schema_sql[] =
	"CREATE TABLE anchor (id INTEGER PRIMARY KEY CHECK (id = 1), sealed INTEGER NOT NULL);"
	"CREATE TABLE devices (slot INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,"
	"  media INTEGER NOT NULL, bytes INTEGER NOT NULL, domain TEXT NOT NULL, ek BLOB,"
	"  state INTEGER NOT NULL, boot TEXT NOT NULL, file_dev INTEGER NOT NULL,"
	"  file_ino INTEGER NOT NULL, resets INTEGER NOT NULL DEFAULT 0,"
	"  serial TEXT NOT NULL DEFAULT '', revoked_ns INTEGER NOT NULL DEFAULT 0,"
	"  revocation INTEGER NOT NULL DEFAULT 0);"
	"CREATE TABLE regions (id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL,"
	"  uid INTEGER NOT NULL, pid INTEGER NOT NULL, start_ticks INTEGER NOT NULL,"
	"  address INTEGER NOT NULL UNIQUE, bytes INTEGER NOT NULL, page_bytes INTEGER NOT NULL,"
	"  data INTEGER NOT NULL, lanes INTEGER NOT NULL, on_loss INTEGER NOT NULL, signal INTEGER "
	"NOT NULL DEFAULT 0, name TEXT NOT "
	"NULL,"
	"  state INTEGER NOT NULL, wrap INTEGER NOT NULL DEFAULT 0, epoch INTEGER NOT NULL,"
	"  released_ns INTEGER NOT NULL DEFAULT 0, destroyed_ns INTEGER NOT NULL DEFAULT 0,"
	"  generation INTEGER NOT NULL DEFAULT 0, scrubbed_bytes INTEGER NOT NULL DEFAULT 0,"
	"  held INTEGER NOT NULL DEFAULT 0,"
	"  unreachable_bytes INTEGER NOT NULL DEFAULT 0, differed INTEGER NOT NULL DEFAULT 0,"
	"  client INTEGER NOT NULL DEFAULT 0, next_epoch INTEGER NOT NULL DEFAULT 0,"
	"  next_wrap INTEGER NOT NULL DEFAULT 0, rotate INTEGER NOT NULL DEFAULT 0,"
	"  key_ns INTEGER NOT NULL DEFAULT 0, root BLOB);"
	"CREATE UNIQUE INDEX regions_sealed ON regions(tenant, name) WHERE state = 3;"
	"CREATE TABLE grants (region INTEGER NOT NULL REFERENCES regions(id), tenant TEXT NOT NULL,"
	"  wrap INTEGER NOT NULL, PRIMARY KEY (region, tenant)) WITHOUT ROWID;"
	"CREATE INDEX regions_key ON regions(key_ns);"
	"CREATE INDEX regions_rotate ON regions(id) WHERE rotate != 0;"
	"CREATE TABLE extents (id INTEGER PRIMARY KEY AUTOINCREMENT,"
	"  slot INTEGER NOT NULL REFERENCES devices(slot), offset INTEGER NOT NULL,"
	"  bytes INTEGER NOT NULL CHECK (bytes > 0), state INTEGER NOT NULL,"
	"  region INTEGER REFERENCES regions(id), lane INTEGER NOT NULL DEFAULT 0,"
	"  region_offset INTEGER NOT NULL DEFAULT 0, epoch INTEGER NOT NULL DEFAULT 0,"
	"  UNIQUE (slot, offset));"
	"CREATE INDEX extents_region ON extents(region);"
	"CREATE TABLE receipts (number INTEGER PRIMARY KEY AUTOINCREMENT, region INTEGER NOT NULL,"
	"  text TEXT NOT NULL, digest BLOB NOT NULL);"
	"CREATE TABLE events (number INTEGER PRIMARY KEY AUTOINCREMENT, time_ns INTEGER NOT NULL,"
	"  kind TEXT NOT NULL, device TEXT NOT NULL, tenant TEXT NOT NULL, region INTEGER NOT NULL,"
	"  offset INTEGER NOT NULL, bytes INTEGER NOT NULL, detail TEXT NOT NULL);"
	"CREATE INDEX events_tenant ON events(tenant, number);"
	"PRAGMA user_version = " SCHEMA_VERSION ";";

static enum secpool_error store_error(struct directory *directory, const char *what)
{
	int code = sqlite3_extended_errcode(directory->db);

	if ((code & 0xff) == SQLITE_FULL)
		return err_set(SECPOOL_E_STORE, "%s: %s: no space is left: make room on its disk",
			directory->path, what);
	if ((code & 0xff) == SQLITE_CONSTRAINT)
		return err_set(SECPOOL_E_EXISTS, "%s: %s: %s", directory->path, what,
			sqlite3_errmsg(directory->db));
	return err_set(SECPOOL_E_STORE, "%s: %s: %s", directory->path, what,
		sqlite3_errmsg(directory->db));
}

static enum secpool_error run_text(struct directory *directory, const char *sql, const char *what)
{
	if (sqlite3_exec(directory->db, sql, NULL, NULL, NULL) != SQLITE_OK)
		return store_error(directory, what);
	return SECPOOL_OK;
}

/* The file is made here, with its mode, so that SQLite never makes one that others can read. */
static enum secpool_error make_file(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0) {
		enum secpool_error error = os_error("open");

		return err_set(SECPOOL_E_STORE,
			"%.120s can't be opened (%s): check its folder and owner", path,
			error ? err_detail() : "");
	}
	os_close(&fd);
	return SECPOOL_OK;
}

static enum secpool_error prepare_tables(struct directory *directory)
{
	uint64_t version = 0;
	enum secpool_error error = run_text(directory, settings_sql, "settings");

	if (!error)
		error = directory_number(
			directory, "PRAGMA user_version", DIRECTORY_VALUES(), &version);
	if (!error && version == 0) {
		error = directory_begin(directory);
		if (error)
			return error;
		error = run_text(directory, schema_sql, "make tables");
		for (size_t i = 0; totals_sql[i] && !error; i++)
			error = run_text(directory, totals_sql[i], "make totals");
		return directory_finish(directory, error);
	}
	if (!error && version != strtoull(SCHEMA_VERSION, NULL, 10))
		return err_set(SECPOOL_E_STORE,
			"%s has version %llu, this program needs %s: use the program that wrote it",
			directory->path, (unsigned long long)version, SCHEMA_VERSION);
	return error;
}

enum secpool_error directory_open(const char *path, struct directory **ret_directory)
{
	struct directory *directory = calloc(1, sizeof *directory);
	enum secpool_error error = SECPOOL_E_INTERNAL;
	char reason[ERR_DETAIL_BYTES];

	if (!directory || !(directory->path = strdup(path))) {
		error = err_set(SECPOOL_E_NO_MEMORY, "open %s: out of memory", path);
		goto out;
	}
	error = make_file(path);
	if (error)
		goto out;
	if (sqlite3_open_v2(path, &directory->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOFOLLOW,
		    NULL) != SQLITE_OK) {
		error = store_error(directory, "open");
		goto out;
	}
	sqlite3_busy_timeout(directory->db, BUSY_MS);
	error = prepare_tables(directory);
	if (error == SECPOOL_E_STORE || error == SECPOOL_E_EXISTS) {
		snprintf(reason, sizeof reason, "%s", err_detail());
		error = err_set(SECPOOL_E_STORE,
			"%.180s: restore it, or move the state folder away", reason);
	}
	if (!error) {
		*ret_directory = directory;
		directory = NULL;
	}
out:
	directory_close(directory);
	return error;
}

void directory_close(struct directory *directory)
{
	if (!directory)
		return;
	for (size_t i = 0; i < STATEMENTS_KEPT; i++)
		sqlite3_finalize(directory->kept[i].statement);
	sqlite3_close(directory->db);
	free(directory->path);
	free(directory);
}

enum secpool_error directory_begin(struct directory *directory)
{
	return directory_run(directory, "BEGIN IMMEDIATE", DIRECTORY_VALUES());
}

enum secpool_error directory_finish(struct directory *directory, enum secpool_error error)
{
	if (!error)
		error = directory_run(directory, "COMMIT", DIRECTORY_VALUES());
	if (error && !sqlite3_get_autocommit(directory->db))
		sqlite3_exec(directory->db, "ROLLBACK", NULL, NULL, NULL);
	return error;
}

enum secpool_error directory_enter(struct directory *directory, bool *ret_part)
{
	*ret_part = !sqlite3_get_autocommit(directory->db);
	return *ret_part ? run_text(directory, "SAVEPOINT part", "savepoint")
			 : directory_begin(directory);
}

enum secpool_error directory_end(struct directory *directory, bool part, enum secpool_error error)
{
	if (!part)
		return directory_finish(directory, error);
	if (!error)
		return run_text(directory, "RELEASE part", "end of savepoint");
	/* an error that took the whole back left no savepoint either */
	if (!sqlite3_get_autocommit(directory->db))
		sqlite3_exec(directory->db, "ROLLBACK TO part; RELEASE part", NULL, NULL, NULL);
	return error;
}

static int bind_value(sqlite3_stmt *statement, int at, const struct directory_value *value)
{
	switch (value->kind) {
	case DIRECTORY_NUMBER:
		return sqlite3_bind_int64(statement, at, (sqlite3_int64)value->number);
	case DIRECTORY_STRING:
		return sqlite3_bind_text(statement, at, value->bytes, -1, SQLITE_STATIC);
	case DIRECTORY_BYTES:
		return sqlite3_bind_blob64(
			statement, at, value->bytes, value->count, SQLITE_STATIC);
	case DIRECTORY_END:
		break;
	}
	return SQLITE_MISUSE;
}

struct directory_rows {
	struct directory *directory;
	struct kept_statement *kept; /* NULL: the statement is the rows' own */
	sqlite3_stmt *statement;
};

/* The place of this text among the kept statements, or that of the one not used for longest; NULL: all that would do are in use. */
static struct kept_statement *find_kept(struct directory *directory, const char *sql)
{
	struct kept_statement *oldest = NULL;

	for (size_t i = 0; i < STATEMENTS_KEPT; i++) {
		struct kept_statement *kept = &directory->kept[i];

		if (kept->sql == sql && kept->statement)
			return kept->busy ? NULL : kept;
		if (!kept->busy && (!oldest || kept->turn < oldest->turn))
			oldest = kept;
	}
	return oldest;
}

static enum secpool_error prepare(struct directory_rows *rows, const char *sql)
{
	struct directory *directory = rows->directory;
	struct kept_statement *kept = find_kept(directory, sql);

	/* another text may lie where this one did */
	if (kept && kept->statement &&
		(kept->sql != sql || strcmp(sqlite3_sql(kept->statement), sql) != 0)) {
		sqlite3_finalize(kept->statement);
		*kept = (struct kept_statement){.sql = NULL};
	}
	if (kept && kept->statement)
		rows->statement = kept->statement;
	else if (sqlite3_prepare_v3(directory->db, sql, -1, kept ? SQLITE_PREPARE_PERSISTENT : 0,
			 &rows->statement, NULL) != SQLITE_OK)
		return store_error(directory, "prepare");
	if (kept && rows->statement) {
		*kept = (struct kept_statement){.sql = sql,
			.statement = rows->statement,
			.turn = ++directory->turn,
			.busy = true};
		rows->kept = kept;
	}
	return SECPOOL_OK;
}

enum secpool_error directory_query(struct directory *directory, const char *sql,
	const struct directory_value *values, struct directory_rows **ret_rows)
{
	struct directory_rows *rows = calloc(1, sizeof *rows);
	enum secpool_error error = SECPOOL_E_INTERNAL;

	if (!rows)
		return err_set(SECPOOL_E_NO_MEMORY, "directory: out of memory");
	rows->directory = directory;
	error = prepare(rows, sql);
	if (error)
		goto out;
	for (int i = 0; values[i].kind != DIRECTORY_END; i++)
		if (bind_value(rows->statement, i + 1, &values[i]) != SQLITE_OK) {
			error = store_error(directory, "bind");
			goto out;
		}
	*ret_rows = rows;
	rows = NULL;
	error = SECPOOL_OK;
out:
	directory_done(rows);
	return error;
}

bool directory_next(struct directory_rows *rows, enum secpool_error *error)
{
	int result;

	if (*error)
		return false;
	result = sqlite3_step(rows->statement);
	if (result != SQLITE_ROW && result != SQLITE_DONE)
		*error = store_error(rows->directory, "read");
	return result == SQLITE_ROW;
}

uint64_t directory_get_number(struct directory_rows *rows, int column)
{
	return (uint64_t)sqlite3_column_int64(rows->statement, column);
}

void directory_get_text(struct directory_rows *rows, int column, char *field, size_t capacity)
{
	const unsigned char *text = sqlite3_column_text(rows->statement, column);

	msg_set_text(field, capacity, text ? (const char *)text : "");
}

size_t directory_get_bytes(struct directory_rows *rows, int column, void *bytes, size_t capacity)
{
	const void *from = sqlite3_column_blob(rows->statement, column);
	size_t count = (size_t)sqlite3_column_bytes(rows->statement, column);

	if (!from || count > capacity)
		return 0;
	memcpy(bytes, from, count);
	return count;
}

void directory_done(struct directory_rows *rows)
{
	if (!rows)
		return;
	if (rows->kept) {
		/* the values are the caller's and end now */
		sqlite3_reset(rows->statement);
		sqlite3_clear_bindings(rows->statement);
		rows->kept->busy = false;
	} else {
		sqlite3_finalize(rows->statement);
	}
	free(rows);
}

enum secpool_error directory_run(
	struct directory *directory, const char *sql, const struct directory_value *values)
{
	struct directory_rows *rows = NULL;
	enum secpool_error error = directory_query(directory, sql, values, &rows);

	while (!error && directory_next(rows, &error))
		;
	directory_done(rows);
	return error;
}

uint64_t directory_last_id(struct directory *directory)
{
	return (uint64_t)sqlite3_last_insert_rowid(directory->db);
}

uint64_t directory_changes(struct directory *directory)
{
	return (uint64_t)sqlite3_changes64(directory->db);
}

enum secpool_error directory_number(struct directory *directory, const char *sql,
	const struct directory_value *values, uint64_t *ret_number)
{
	struct directory_rows *rows = NULL;
	enum secpool_error error = directory_query(directory, sql, values, &rows);

	if (!error && directory_next(rows, &error))
		*ret_number = directory_get_number(rows, 0);
	else if (!error)
		error = err_set(SECPOOL_E_NOT_FOUND, "%s: no such row", directory->path);
	directory_done(rows);
	return error;
}
