/* SPDX-License-Identifier: Apache-2.0 */
/* The tree as the files have it: from the root down, and each leaf that opens. */
#include "enclave/keytree.h"

#include <string.h>

#include "enclave/secmem.h"

/* The level that a node's parent has; a group and the service node are under the root. */
static bool parent_fits(
	const struct keytree *tree, uint32_t node, const struct keyfile_node *record)
{
	enum keytree_level level = (enum keytree_level)record->level;
	const struct keytree_node *parent;

	if ((node < KEYTREE_BLOCKS) != (level == KEYTREE_BLOCK) ||
		(node == KEYTREE_SERVICE) != (level == KEYTREE_SERVICE_NODE))
		return false;
	if (level == KEYTREE_GROUP || level == KEYTREE_SERVICE_NODE)
		return record->parent == KEYTREE_ROOT;
	if (record->parent < KEYTREE_BLOCKS || record->parent >= KEYTREE_NODES)
		return false;
	parent = &tree->nodes[record->parent];
	return parent->level == level + 1 && parent->children < KEYTREE_FAN &&
	       (level == KEYTREE_TENANT || strcmp(parent->tenant, record->tenant) == 0);
}

/* One that does not open is left out: it was never used (a crash while it was made), or the leaves below it will be missed. */
static enum secpool_error load_node(
	struct keytree *tree, uint32_t node, const struct keyfile_node *record)
{
	struct keytree_node *at = &tree->nodes[node];
	struct wrap_label label = {.purpose = WRAP_NODE_KEY,
		.region = (uint64_t)node + 1,
		.epoch = (uint32_t)(record->parent + 1),
		.page_bytes = record->level};
	const uint8_t *above =
		record->parent == KEYTREE_ROOT ? tree->root : tree->nodes[record->parent].key;
	uint8_t *key = secmem_new(WRAP_KEY_BYTES);
	enum secpool_error error;

	if (!key)
		return err_set(SECPOOL_E_NO_LOCKED_MEMORY, "no secret memory for the key tree");
	memcpy(label.tenant, record->tenant, sizeof label.tenant);
	error = wrap_open(
		above, &label, record->wrapped, record->wrapped_bytes, key, WRAP_KEY_BYTES);
	if (error) {
		secmem_free(key);
		return error == SECPOOL_E_KEY_GONE ? SECPOOL_OK : error;
	}
	*at = (struct keytree_node){.key = key,
		.parent = record->parent,
		.level = (uint8_t)record->level,
		.room = KEYTREE_ROOT};
	memcpy(at->tenant, record->tenant, sizeof at->tenant);
	if (record->parent != KEYTREE_ROOT)
		tree->nodes[record->parent].children++;
	return SECPOOL_OK;
}

static enum secpool_error load_level(
	struct keytree *tree, enum keytree_level level, const uint8_t *nodes, size_t bytes)
{
	enum secpool_error error = SECPOOL_OK;
	struct keyfile_node record;

	for (uint32_t i = 0; i < KEYTREE_NODES && !error; i++) {
		size_t at = (size_t)i * KEYFILE_NODE_BYTES;

		if (at + KEYFILE_NODE_BYTES > bytes)
			break;
		if (keyfile_get_node(nodes + at, &record) && record.level == level &&
			parent_fits(tree, i, &record))
			error = load_node(tree, i, &record);
	}
	return error;
}

static bool is_leaf(enum wrap_purpose purpose)
{
	return purpose == WRAP_REGION_KEYS || purpose == WRAP_SEALED_KEYS ||
	       purpose == WRAP_GRANTED_KEYS;
}

static enum secpool_error load_slot(struct keytree *tree, uint32_t slot)
{
	struct keytree_node *block = &tree->nodes[slot / KEYTREE_FAN];
	uint8_t bytes[KEYFILE_SLOT_BYTES];
	const uint8_t *blob = NULL;
	enum secpool_error error = SECPOOL_E_KEY_GONE;
	struct wrap_label label;
	size_t count = 1;

	if (!tree->read(tree->read_arg, slot, bytes))
		return SECPOOL_OK;
	if (keyfile_get_slot(bytes, &blob, &count) && count > 0)
		error = wrap_read_label(block->key, blob, count, &label);
	if (count == 0)
		return SECPOOL_OK;
	if (!error && is_leaf(label.purpose) && strcmp(label.tenant, block->tenant) == 0) {
		keytree_enter(tree, slot, &label, KEYTREE_UNCLAIMED);
	} else if (!error || error == SECPOOL_E_KEY_GONE) {
		tree->slots[slot].state = KEYTREE_DROPPED;
		block->dirty = true;
		error = SECPOOL_OK;
	}
	return error;
}

enum secpool_error keytree_load(struct keytree *tree, uint8_t **root, keytree_reader *read,
	void *read_arg, const uint8_t *nodes, size_t nodes_bytes)
{
	static const enum keytree_level order[] = {
		KEYTREE_SERVICE_NODE, KEYTREE_GROUP, KEYTREE_TENANT, KEYTREE_MIDDLE, KEYTREE_BLOCK};
	enum secpool_error error = SECPOOL_OK;

	tree->root = *root;
	*root = NULL;
	tree->read = read;
	tree->read_arg = read_arg;
	for (size_t i = 0; i < sizeof order / sizeof *order && !error; i++)
		error = load_level(tree, order[i], nodes, nodes_bytes);
	if (!error && tree->nodes[KEYTREE_SERVICE].level == KEYTREE_UNUSED)
		error = err_set(SECPOOL_E_STORE,
			"the key tree does not open under this root: a part of it was rolled back, "
			"put back the newest state folder as a whole");
	for (uint32_t i = 0; i < KEYFILE_SLOTS_MOST && !error; i++)
		if (tree->nodes[i / KEYTREE_FAN].level == KEYTREE_BLOCK)
			error = load_slot(tree, i);
	if (!error)
		keytree_relist(tree);
	return error;
}
