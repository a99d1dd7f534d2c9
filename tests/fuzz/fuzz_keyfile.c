/* SPDX-License-Identifier: Apache-2.0 */
/* The key store's files as an attacker with the disk may have made them: a root with its records, nodes, slots, what is encrypted to the recovery key; and a recovery key as somebody types it. The first byte says which; a tree of any nodes and slots may be small, never wrong. */
#include <stdlib.h>
#include <string.h>

#include "enclave/keytree.h"
#include "enclave/recovery.h"
#include "enclave/secmem.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

static void require(bool holds)
{
	if (!holds)
		abort();
}

/* What is read is what would be written: no byte of a root has another meaning. */
static void read_root(const uint8_t *bytes, size_t count)
{
	struct keyfile_root root;
	struct keyfile_record record;
	struct buf_writer again = {.bytes = malloc(count + 1), .capacity = count};

	if (keyfile_parse_root(bytes, count, &root) == SECPOOL_OK) {
		keyfile_begin_root(&again, &root);
		while (keyfile_next_record(&root, &record)) {
			require(record.place < (record.is_node ? (uint32_t)KEYFILE_NODES_MOST
							       : (uint32_t)KEYFILE_SLOTS_MOST));
			keyfile_add_record(&again, &record);
		}
		keyfile_end_root(&again);
		require(!again.failed && again.used == count &&
			memcmp(again.bytes, bytes, count) == 0);
	}
	free(again.bytes);
}

static void read_slot(const uint8_t *bytes, size_t count)
{
	uint8_t slot[KEYFILE_SLOT_BYTES] = {0};
	const uint8_t *wrapped = NULL;
	size_t wrapped_bytes = 0;

	memcpy(slot, bytes, count < sizeof slot ? count : sizeof slot);
	if (keyfile_get_slot(slot, &wrapped, &wrapped_bytes))
		require(wrapped >= slot && wrapped_bytes <= KEYFILE_SLOT_USED_MOST &&
			wrapped + wrapped_bytes <= slot + sizeof slot);
}

struct slots {
	const uint8_t *bytes;
	size_t count;
};

static bool slot_of(void *arg, uint32_t slot, uint8_t bytes[KEYFILE_SLOT_BYTES])
{
	const struct slots *slots = arg;
	size_t at = (size_t)slot * KEYFILE_SLOT_BYTES;

	if (at + KEYFILE_SLOT_BYTES > slots->count)
		return false;
	memcpy(bytes, slots->bytes + at, KEYFILE_SLOT_BYTES);
	return true;
}

/* A good service node, so that the rest is looked at; nothing else opens. */
static void read_nodes(const uint8_t *bytes, size_t count)
{
	static struct keytree tree;
	static uint8_t nodes[(KEYTREE_SERVICE + 16) * KEYFILE_NODE_BYTES];
	struct slots slots = {bytes, count};
	uint8_t *root = secmem_new(WRAP_KEY_BYTES), copy[WRAP_KEY_BYTES] = {7};
	struct keyfile_node node;

	require(root != NULL);
	memcpy(root, copy, sizeof copy);
	memset(nodes, 0, sizeof nodes);
	require(keytree_new(&tree, &root, slot_of, &slots,
			nodes + KEYTREE_SERVICE * KEYFILE_NODE_BYTES) == SECPOOL_OK);
	keytree_done(&tree);
	for (size_t i = 0; i + KEYFILE_NODE_BYTES <= count && i < 15 * KEYFILE_NODE_BYTES;
		i += KEYFILE_NODE_BYTES) {
		(void)keyfile_get_node(bytes + i, &node);
		memcpy(nodes + i, bytes + i, KEYFILE_NODE_BYTES);
		memcpy(nodes + (KEYTREE_SERVICE + 1) * KEYFILE_NODE_BYTES + i, bytes + i,
			KEYFILE_NODE_BYTES);
	}
	root = secmem_new(WRAP_KEY_BYTES);
	require(root != NULL);
	memcpy(root, copy, sizeof copy);
	require(keytree_load(&tree, &root, slot_of, &slots, nodes, sizeof nodes) == SECPOOL_OK);
	require(tree.leaves == 0 && tree.tenant_count == 0);
	keytree_done(&tree);
}

/* A key that is taken is one text, but for what people put between the letters. */
static void read_typed(const char *text, size_t bytes)
{
	uint8_t *key = secmem_new(RECOVERY_KEY_BYTES), *again = secmem_new(RECOVERY_KEY_BYTES);
	char *printed = secmem_new(RECOVERY_TEXT_BYTES);

	require(key && again && printed);
	if (recovery_read(text, bytes, key) == SECPOOL_OK) {
		require(recovery_print(key, printed) == SECPOOL_OK);
		require(recovery_read(printed, strlen(printed), again) == SECPOOL_OK);
		require(memcmp(key, again, RECOVERY_KEY_BYTES) == 0);
	}
	secmem_free(key);
	secmem_free(again);
	secmem_free(printed);
}

/* Nothing opens by a key that it was not encrypted to. */
static void read_recovery(const uint8_t *bytes, size_t count)
{
	uint8_t *key = secmem_new(RECOVERY_KEY_BYTES), *opened = secmem_new(32);

	require(key && opened);
	memset(key, 7, RECOVERY_KEY_BYTES);
	require(recovery_open(key, bytes, count, opened, 32) == SECPOOL_E_KEY_GONE);
	secmem_free(key);
	secmem_free(opened);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
	static bool started;

	if (!started)
		require(secmem_init(SECMEM_ALLOW_LOCKED) == SECPOOL_OK);
	started = true;
	if (count == 0)
		return 0;
	switch (bytes[0] % 5) {
	case 0:
		read_root(bytes + 1, count - 1);
		break;
	case 1:
		read_slot(bytes + 1, count - 1);
		break;
	case 2:
		read_nodes(bytes + 1, count - 1);
		break;
	case 3:
		read_typed((const char *)bytes + 1, count - 1);
		break;
	default:
		read_recovery(bytes + 1, count - 1);
		break;
	}
	return 0;
}
