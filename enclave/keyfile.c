/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/keyfile.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/os.h"

#define ROOT_MAGIC 0x54525053u /* "SPRT" */
enum { ROOT_VERSION = 2, BLOB_MOST = 2048, LENGTHS_AT = 12, RECORDS_AT = 44, HEAD_BYTES = 52 };
/* of a record's first word: a node; the rest is its place */
#define NODE_BIT 0x80000000u

void keyfile_put_slot(uint8_t slot[KEYFILE_SLOT_BYTES], const uint8_t *wrapped, size_t bytes)
{
	struct buf_writer w = {.bytes = slot, .capacity = KEYFILE_SLOT_BYTES};

	os_random(slot, KEYFILE_SLOT_BYTES);
	buf_put_number(&w, bytes, KEYFILE_SLOT_HEAD_BYTES);
	buf_put(&w, wrapped, bytes);
}

static bool all_zero(const uint8_t *bytes, size_t count)
{
	uint8_t any = 0;

	for (size_t i = 0; i < count; i++)
		any |= bytes[i];
	return any == 0;
}

bool keyfile_get_slot(
	const uint8_t slot[KEYFILE_SLOT_BYTES], const uint8_t **ret_wrapped, size_t *ret_bytes)
{
	struct buf_reader r = {.bytes = slot, .count = KEYFILE_SLOT_BYTES};
	size_t bytes = (size_t)buf_get_number(&r, KEYFILE_SLOT_HEAD_BYTES);

	if (bytes == 0 && !all_zero(slot, KEYFILE_SLOT_BYTES))
		return false;
	if (bytes > KEYFILE_SLOT_USED_MOST)
		return false;
	*ret_wrapped = slot + KEYFILE_SLOT_HEAD_BYTES;
	*ret_bytes = bytes;
	return true;
}

void keyfile_put_node(uint8_t record[KEYFILE_NODE_BYTES], const struct keyfile_node *node)
{
	struct buf_writer w = {.bytes = record, .capacity = KEYFILE_NODE_BYTES};

	memset(record, 0, KEYFILE_NODE_BYTES);
	buf_put_number(&w, node->wrapped_bytes, 4);
	buf_put_number(&w, node->parent, 4);
	buf_put_number(&w, node->level, 4);
	buf_put(&w, node->tenant, sizeof node->tenant);
	buf_put(&w, node->wrapped, node->wrapped_bytes);
}

bool keyfile_get_node(const uint8_t record[KEYFILE_NODE_BYTES], struct keyfile_node *ret_node)
{
	struct buf_reader r = {.bytes = record, .count = KEYFILE_NODE_BYTES};
	struct keyfile_node node = {.parent = 0};

	node.wrapped_bytes = (size_t)buf_get_number(&r, 4);
	node.parent = (uint32_t)buf_get_number(&r, 4);
	node.level = (uint32_t)buf_get_number(&r, 4);
	buf_get(&r, node.tenant, sizeof node.tenant);
	if (node.wrapped_bytes == 0 || node.wrapped_bytes > sizeof node.wrapped ||
		node.tenant[sizeof node.tenant - 1] != '\0')
		return false;
	buf_get(&r, node.wrapped, node.wrapped_bytes);
	*ret_node = node;
	return true;
}

/* ---- root.sealed and root.next ---- */

static void put_head(struct buf_writer *w, const struct keyfile_root *root, uint64_t record_bytes)
{
	buf_put_number(w, ROOT_MAGIC, 4);
	buf_put_number(w, ROOT_VERSION, 4);
	buf_put_number(w, root->counter_index, 4);
	buf_put_number(w, root->blob_bytes, 4);
	buf_put_number(w, root->recovery_bytes, 4);
	buf_put_number(w, root->first, 8);
	buf_put_number(w, root->last, 8);
	buf_put_number(w, root->base, 8);
	buf_put_number(w, record_bytes, 8);
}

void keyfile_begin_root(struct buf_writer *writer, const struct keyfile_root *root)
{
	put_head(writer, root, 0);
	buf_put(writer, root->blob, root->blob_bytes);
	if (root->recovery_bytes > 0)
		buf_put(writer, root->recovery, root->recovery_bytes);
}

void keyfile_add_record(struct buf_writer *writer, const struct keyfile_record *record)
{
	buf_put_number(writer, record->place | (record->is_node ? NODE_BIT : 0), 4);
	buf_put_number(writer, record->count, 4);
	buf_put(writer, record->bytes, record->count);
}

void keyfile_end_root(struct buf_writer *writer)
{
	struct buf_reader lengths = {.bytes = writer->bytes + LENGTHS_AT, .count = 8};
	struct buf_writer field = {.bytes = writer->bytes + RECORDS_AT, .capacity = 8};
	uint64_t before;

	if (writer->failed)
		return;
	before = HEAD_BYTES + buf_get_number(&lengths, 4);
	before += buf_get_number(&lengths, 4);
	buf_put_number(&field, writer->used - before, 8);
}

static bool next_record(struct buf_reader *records, struct keyfile_record *ret_record)
{
	uint64_t word = buf_get_number(records, 4), count = buf_get_number(records, 4);
	struct keyfile_record record = {.is_node = (word & NODE_BIT) != 0,
		.place = (uint32_t)word & ~NODE_BIT,
		.count = (size_t)count};

	if (records->failed || count > records->count - records->used)
		return false;
	if (record.is_node ? record.place >= KEYFILE_NODES_MOST ||
				     (count != 0 && count != KEYFILE_NODE_BYTES)
			   : record.place >= KEYFILE_SLOTS_MOST || count > KEYFILE_SLOT_USED_MOST)
		return false;
	record.bytes = records->bytes + records->used;
	records->used += record.count;
	*ret_record = record;
	return true;
}

enum secpool_error keyfile_parse_root(
	const uint8_t *bytes, size_t count, struct keyfile_root *ret_root)
{
	struct buf_reader r = {.bytes = bytes, .count = count};
	bool good = buf_get_number(&r, 4) == ROOT_MAGIC && buf_get_number(&r, 4) == ROOT_VERSION;
	struct keyfile_root root = {.counter_index = (uint32_t)buf_get_number(&r, 4)};
	struct buf_reader records;
	struct keyfile_record record;
	uint64_t record_bytes;

	root.blob_bytes = (size_t)buf_get_number(&r, 4);
	root.recovery_bytes = (size_t)buf_get_number(&r, 4);
	root.first = buf_get_number(&r, 8);
	root.last = buf_get_number(&r, 8);
	root.base = buf_get_number(&r, 8);
	record_bytes = buf_get_number(&r, 8);
	good = good && !r.failed && count <= KEYFILE_ROOT_BYTES_MOST && root.first <= root.last &&
	       root.blob_bytes > 0 && root.blob_bytes <= BLOB_MOST &&
	       root.recovery_bytes <= KEYFILE_RECOVERY_MOST &&
	       root.blob_bytes + root.recovery_bytes <= count - HEAD_BYTES &&
	       record_bytes == count - HEAD_BYTES - root.blob_bytes - root.recovery_bytes;
	if (good) {
		root.blob = bytes + HEAD_BYTES;
		root.recovery = root.blob + root.blob_bytes;
		root.records = (struct buf_reader){.bytes = root.recovery + root.recovery_bytes,
			.count = (size_t)record_bytes};
		records = root.records;
		while (good && records.used < records.count)
			good = next_record(&records, &record);
	}
	if (!good)
		return err_set(SECPOOL_E_STORE, "not a sealed root, or damaged (%zu bytes)", count);
	*ret_root = root;
	return SECPOOL_OK;
}

bool keyfile_next_record(struct keyfile_root *root, struct keyfile_record *ret_record)
{
	return root->records.used < root->records.count && next_record(&root->records, ret_record);
}

static enum secpool_error write_at(int fd, const void *bytes, size_t count, off_t offset)
{
	ssize_t done;

	do
		done = pwrite(fd, bytes, count, offset);
	while (done < 0 && os_interrupted());
	if (done < 0) {
		enum secpool_error error = os_error("write to the key store");

		return err_set(SECPOOL_E_STORE, "%s", error ? err_detail() : "");
	}
	if ((size_t)done != count)
		return err_set(
			SECPOOL_E_STORE, "the key store: no space is left: make room on its disk");
	return SECPOOL_OK;
}

enum secpool_error keyfile_write_slot(
	int wraps_fd, uint32_t slot, const uint8_t bytes[KEYFILE_SLOT_BYTES])
{
	return write_at(wraps_fd, bytes, KEYFILE_SLOT_BYTES, (off_t)slot * KEYFILE_SLOT_BYTES);
}

enum secpool_error keyfile_write_node(
	int nodes_fd, uint32_t node, const uint8_t record[KEYFILE_NODE_BYTES])
{
	return write_at(nodes_fd, record, KEYFILE_NODE_BYTES, (off_t)node * KEYFILE_NODE_BYTES);
}

static enum secpool_error write_record(
	const struct keyfile_record *record, int nodes_fd, int wraps_fd)
{
	uint8_t bytes[KEYFILE_SLOT_BYTES] = {0};

	if (record->is_node) {
		memcpy(bytes, record->bytes, record->count);
		return keyfile_write_node(nodes_fd, record->place, bytes);
	}
	if (record->count > 0)
		keyfile_put_slot(bytes, record->bytes, record->count);
	return keyfile_write_slot(wraps_fd, record->place, bytes);
}

enum secpool_error keyfile_apply(const struct keyfile_root *root, int nodes_fd, int wraps_fd)
{
	struct keyfile_root at = *root;
	struct keyfile_record record;
	enum secpool_error error = SECPOOL_OK;

	while (!error && keyfile_next_record(&at, &record))
		error = write_record(&record, nodes_fd, wraps_fd);
	if (!error && (fdatasync(nodes_fd) != 0 || fdatasync(wraps_fd) != 0)) {
		error = os_error("fdatasync of the key store");
		error = err_set(SECPOOL_E_STORE, "%s", err_detail());
	}
	return error;
}

enum secpool_error keyfile_take_next(const struct keyfile_root *root, const char *state_dir)
{
	char next[PATH_MAX], now[PATH_MAX];
	uint8_t bytes[HEAD_BYTES + BLOB_MOST + KEYFILE_RECOVERY_MOST];
	struct buf_writer w = {.bytes = bytes, .capacity = sizeof bytes};
	enum secpool_error error;

	if (snprintf(next, sizeof next, "%s/" KEYFILE_NEXT, state_dir) >= PATH_MAX ||
		snprintf(now, sizeof now, "%s/" KEYFILE_ROOT, state_dir) >= PATH_MAX)
		return err_set(SECPOOL_E_LIMIT, "the state folder's path is too long");
	keyfile_begin_root(&w, root);
	keyfile_end_root(&w);
	error = w.failed ? SECPOOL_E_INTERNAL : os_write_file_durable(now, w.bytes, w.used, 0600);
	if (!error && unlink(next) != 0)
		error = os_error("remove %s", next);
	return error ? err_set(SECPOOL_E_STORE, "%s", err_detail()) : SECPOOL_OK;
}
