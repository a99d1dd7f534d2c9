/* SPDX-License-Identifier: Apache-2.0 */
/* A new generation of the tree: new keys above what was dropped, and what stays wrapped under them. */
#include "enclave/keytree.h"

#include <string.h>

#include "enclave/secmem.h"
#include "lib/base/os.h"

/* A block without a leaf is not renewed but ends. */
static bool ends(const struct keytree_node *node)
{
	return node->level == KEYTREE_BLOCK && node->dirty && node->children == 0;
}

/* Whoever holds an old node key can open what is below it; so all above a dirty block is dirty. */
static void spread_dirt(struct keytree *tree)
{
	for (uint32_t i = 0; i < KEYTREE_BLOCKS; i++) {
		uint32_t at = i;

		if (tree->nodes[i].level != KEYTREE_BLOCK || !tree->nodes[i].dirty)
			continue;
		for (at = tree->nodes[i].parent; at != KEYTREE_ROOT && !tree->nodes[at].dirty;
			at = tree->nodes[at].parent)
			tree->nodes[at].dirty = true;
	}
}

void keytree_soil(struct keytree *tree)
{
	for (uint32_t i = 0; i < KEYTREE_NODES; i++)
		if (tree->nodes[i].level != KEYTREE_UNUSED && i != KEYTREE_SERVICE)
			tree->nodes[i].dirty = true;
}

static enum secpool_error draw_keys(struct keytree *tree)
{
	for (uint32_t i = 0; i < KEYTREE_NODES; i++) {
		struct keytree_node *node = &tree->nodes[i];

		if (!node->dirty || ends(node))
			continue;
		node->next = secmem_new(WRAP_KEY_BYTES);
		if (!node->next)
			return err_set(SECPOOL_E_NO_LOCKED_MEMORY,
				"no secret memory for new keys of the key tree");
		os_random(node->next, WRAP_KEY_BYTES);
	}
	return SECPOOL_OK;
}

static enum secpool_error write_nodes(struct keytree *tree, struct buf_writer *writer)
{
	enum secpool_error error = SECPOOL_OK;

	for (uint32_t i = 0; i < KEYTREE_NODES && !error; i++) {
		const struct keytree_node *node = &tree->nodes[i];
		uint8_t bytes[KEYFILE_NODE_BYTES];
		struct keyfile_record record = {
			.is_node = true, .place = i, .bytes = bytes, .count = sizeof bytes};

		if (node->level == KEYTREE_UNUSED ||
			(node->parent != KEYTREE_ROOT && !tree->nodes[node->parent].dirty))
			continue;
		if (ends(node))
			record.count = 0;
		else
			error = keytree_record(tree, i, bytes);
		if (!error)
			keyfile_add_record(writer, &record);
	}
	return error;
}

static enum secpool_error write_slot(struct keytree *tree, uint32_t slot, struct buf_writer *writer)
{
	const struct keytree_node *block = &tree->nodes[slot / KEYTREE_FAN];
	uint8_t bytes[KEYFILE_SLOT_BYTES], moved[WRAP_BLOB_BYTES_MOST];
	struct keyfile_record record = {.place = slot, .bytes = moved};
	const uint8_t *blob = NULL;
	enum secpool_error error = SECPOOL_E_KEY_GONE;

	if (tree->slots[slot].state == KEYTREE_FREE)
		return SECPOOL_OK;
	if (tree->slots[slot].state != KEYTREE_DROPPED) {
		if (tree->read(tree->read_arg, slot, bytes) &&
			keyfile_get_slot(bytes, &blob, &record.count) && record.count > 0)
			error = wrap_move(block->key, block->next, blob, record.count, moved);
		if (error == SECPOOL_E_KEY_GONE)
			error = err_set(SECPOOL_E_STORE,
				"slot %u of the key store holds another key than it should: it was "
				"changed from outside",
				slot + 1);
		if (error)
			return error;
	}
	keyfile_add_record(writer, &record);
	return SECPOOL_OK;
}

enum secpool_error keytree_renew(
	struct keytree *tree, uint8_t **new_root, struct buf_writer *writer)
{
	enum secpool_error error;

	tree->next_root = *new_root;
	*new_root = NULL;
	spread_dirt(tree);
	error = draw_keys(tree);
	if (!error)
		error = write_nodes(tree, writer);
	for (uint32_t i = 0; i < KEYFILE_SLOTS_MOST && !error; i++)
		if (tree->nodes[i / KEYTREE_FAN].dirty)
			error = write_slot(tree, i, writer);
	if (!error && writer->failed)
		error = err_set(SECPOOL_E_LIMIT, "a new generation of the key tree is too long");
	if (error)
		keytree_not_renewed(tree);
	return error;
}

void keytree_not_renewed(struct keytree *tree)
{
	for (uint32_t i = 0; i < KEYTREE_NODES; i++) {
		secmem_free(tree->nodes[i].next);
		tree->nodes[i].next = NULL;
	}
	secmem_free(tree->next_root);
	tree->next_root = NULL;
}

static void end_block(struct keytree *tree, uint32_t block)
{
	tree->nodes[tree->nodes[block].parent].children--;
	secmem_free(tree->nodes[block].key);
	tree->nodes[block] = (struct keytree_node){.level = KEYTREE_UNUSED};
}

void keytree_renewed(struct keytree *tree)
{
	for (uint32_t i = 0; i < KEYTREE_BLOCKS * KEYTREE_FAN; i++)
		if (tree->nodes[i / KEYTREE_FAN].dirty && tree->slots[i].state == KEYTREE_DROPPED)
			tree->slots[i].state = KEYTREE_FREE;
	for (uint32_t i = 0; i < KEYTREE_NODES; i++) {
		struct keytree_node *node = &tree->nodes[i];

		if (ends(node)) {
			end_block(tree, i);
		} else if (node->next) {
			secmem_free(node->key);
			node->key = node->next;
			node->next = NULL;
			node->dirty = false;
		}
	}
	secmem_free(tree->root);
	tree->root = tree->next_root;
	tree->next_root = NULL;
	tree->dropped = 0;
	keytree_relist(tree);
}
