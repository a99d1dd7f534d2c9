/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/keytree.h"

#include <string.h>

#include "enclave/secmem.h"
#include "lib/base/os.h"

static enum secpool_error no_memory(void)
{
	return err_set(SECPOOL_E_NO_LOCKED_MEMORY,
		"the enclave's secret memory is used up: raise RLIMIT_MEMLOCK (LimitMEMLOCK=)");
}

/* ---- nodes ---- */

static void label_node(const struct keytree *tree, uint32_t node, struct wrap_label *label)
{
	const struct keytree_node *at = &tree->nodes[node];

	/* KEYTREE_ROOT and 1 is 0 */
	*label = (struct wrap_label){.purpose = WRAP_NODE_KEY,
		.region = (uint64_t)node + 1,
		.epoch = (uint32_t)(at->parent + 1),
		.page_bytes = at->level};
	memcpy(label->tenant, at->tenant, sizeof label->tenant);
}

enum secpool_error keytree_record(
	const struct keytree *tree, uint32_t node, uint8_t ret_record[KEYFILE_NODE_BYTES])
{
	const struct keytree_node *at = &tree->nodes[node];
	const struct keytree_node *parent =
		at->parent == KEYTREE_ROOT ? NULL : &tree->nodes[at->parent];
	const uint8_t *root = tree->next_root ? tree->next_root : tree->root;
	const uint8_t *above = !parent ? root : parent->next ? parent->next : parent->key;
	struct keyfile_node record = {.parent = at->parent, .level = at->level};
	uint8_t blob[WRAP_BLOB_BYTES_MOST];
	struct wrap_label label;
	enum secpool_error error;

	label_node(tree, node, &label);
	memcpy(record.tenant, at->tenant, sizeof record.tenant);
	error = wrap_seal(above, &label, at->next ? at->next : at->key, WRAP_KEY_BYTES, blob,
		&record.wrapped_bytes);
	if (!error && record.wrapped_bytes > sizeof record.wrapped)
		error = err_set(SECPOOL_E_INTERNAL, "a node's wrapped key is too long");
	if (error)
		return error;
	memcpy(record.wrapped, blob, record.wrapped_bytes);
	keyfile_put_node(ret_record, &record);
	return SECPOOL_OK;
}

/* An unused node of the blocks (or, not block, of the others) becomes one of this kind, with a new key. */
static enum secpool_error make_node(struct keytree *tree, enum keytree_level level, uint32_t parent,
	const char *tenant, uint32_t *ret_node)
{
	bool block = level == KEYTREE_BLOCK;
	uint32_t end = block ? KEYTREE_BLOCKS : KEYTREE_NODES;
	uint32_t *lowest = block ? &tree->lowest_block : &tree->lowest_upper;
	uint32_t node = *lowest;
	struct keytree_node *at;
	uint8_t *key;

	while (node < end && tree->nodes[node].level != KEYTREE_UNUSED)
		node++;
	*lowest = node;
	if (node == end)
		return err_set(SECPOOL_E_LIMIT,
			"the key tree is full: the keys of %d regions, or too many tenants",
			(int)KEYFILE_SLOTS_MOST);
	key = secmem_new(WRAP_KEY_BYTES);
	if (!key)
		return no_memory();
	os_random(key, WRAP_KEY_BYTES);
	at = &tree->nodes[node];
	*at = (struct keytree_node){
		.key = key, .parent = parent, .level = (uint8_t)level, .room = KEYTREE_ROOT};
	memcpy(at->tenant, tenant, strnlen(tenant, sizeof at->tenant - 1));
	if (parent != KEYTREE_ROOT)
		tree->nodes[parent].children++;
	*ret_node = node;
	return SECPOOL_OK;
}

static void unmake_node(struct keytree *tree, uint32_t node)
{
	struct keytree_node *at = &tree->nodes[node];
	uint32_t *lowest = node < KEYTREE_BLOCKS ? &tree->lowest_block : &tree->lowest_upper;

	secmem_free(at->key);
	if (at->parent != KEYTREE_ROOT)
		tree->nodes[at->parent].children--;
	*at = (struct keytree_node){.level = KEYTREE_UNUSED};
	if (node < *lowest)
		*lowest = node;
}

/* A node of this level with this parent (KEYTREE_ROOT for groups) and tenant that has room, or a new one, which is noted. */
static enum secpool_error find_or_make(struct keytree *tree, enum keytree_level level,
	uint32_t parent, const char *tenant, struct keytree_added *added, uint32_t *ret_node)
{
	unsigned most = level == KEYTREE_GROUP ? KEYTREE_GROUPS : KEYTREE_FAN, count = 0;
	enum secpool_error error;

	for (uint32_t i = KEYTREE_BLOCKS; i < KEYTREE_NODES; i++) {
		const struct keytree_node *at = &tree->nodes[i];

		if (at->level != level || at->parent != parent)
			continue;
		if (at->children < KEYTREE_FAN) {
			*ret_node = i;
			return SECPOOL_OK;
		}
		count++;
	}
	if (count >= most)
		return err_set(SECPOOL_E_LIMIT, "the key tree has no room for more keys of %s",
			level == KEYTREE_GROUP ? "tenants" : tenant);
	error = make_node(tree, level, parent, tenant, ret_node);
	if (!error)
		added->nodes[added->node_count++] = *ret_node;
	return error;
}

static uint32_t find_tenant(const struct keytree *tree, const char *name)
{
	for (size_t i = 0; i < tree->tenant_count; i++)
		if (strcmp(tree->nodes[tree->tenants[i]].tenant, name) == 0)
			return tree->tenants[i];
	return KEYTREE_ROOT;
}

/* The tenant's node, made with its group where it is not there. */
static enum secpool_error get_tenant(
	struct keytree *tree, const char *name, struct keytree_added *added, uint32_t *ret_node)
{
	uint32_t node = find_tenant(tree, name), group = 0;
	enum secpool_error error;

	if (node != KEYTREE_ROOT) {
		*ret_node = node;
		return SECPOOL_OK;
	}
	error = find_or_make(tree, KEYTREE_GROUP, KEYTREE_ROOT, "", added, &group);
	if (!error)
		error = make_node(tree, KEYTREE_TENANT, group, name, ret_node);
	if (error)
		return error;
	added->nodes[added->node_count++] = *ret_node;
	tree->tenants[tree->tenant_count++] = *ret_node;
	return SECPOOL_OK;
}

/* ---- slots ---- */

static uint32_t *bucket_of(struct keytree *tree, uint64_t region)
{
	/* numbers are given out one after the other */
	return &tree->buckets[region & (KEYTREE_BUCKETS - 1)];
}

void keytree_enter(struct keytree *tree, uint32_t slot, const struct wrap_label *label,
	enum keytree_state state)
{
	uint32_t *bucket = bucket_of(tree, label->region);

	tree->slots[slot] = (struct keytree_slot){.region = label->region,
		.epoch = label->epoch,
		.next = *bucket,
		.state = (uint8_t)state,
		.purpose = (uint8_t)label->purpose};
	*bucket = slot + 1;
	tree->nodes[slot / KEYTREE_FAN].children++;
	tree->leaves++;
}

static bool has_leaf(const struct keytree_slot *slot)
{
	return slot->state == KEYTREE_LIVE || slot->state == KEYTREE_UNCLAIMED;
}

bool keytree_has(struct keytree *tree, uint64_t region)
{
	for (uint32_t at = *bucket_of(tree, region); at != 0; at = tree->slots[at - 1].next)
		if (tree->slots[at - 1].region == region && has_leaf(&tree->slots[at - 1]))
			return true;
	return false;
}

bool keytree_may_follow(struct keytree *tree, const struct wrap_label *label)
{
	for (uint32_t at = *bucket_of(tree, label->region); at != 0;
		at = tree->slots[at - 1].next) {
		const struct keytree_slot *slot = &tree->slots[at - 1];

		if (slot->region == label->region && has_leaf(slot) &&
			(slot->purpose != label->purpose || slot->epoch >= label->epoch ||
				strcmp(keytree_tenant(tree, at - 1), label->tenant) != 0))
			return false;
	}
	return true;
}

bool keytree_find(struct keytree *tree, uint64_t region, uint64_t epoch, enum wrap_purpose purpose,
	const char *tenant, uint32_t *ret_slot)
{
	for (uint32_t at = *bucket_of(tree, region); at != 0; at = tree->slots[at - 1].next) {
		const struct keytree_slot *slot = &tree->slots[at - 1];

		if (slot->region != region || slot->epoch != epoch || slot->purpose != purpose ||
			slot->state != KEYTREE_LIVE ||
			(tenant && strcmp(keytree_tenant(tree, at - 1), tenant) != 0))
			continue;
		*ret_slot = at - 1;
		return true;
	}
	return false;
}

const char *keytree_tenant(const struct keytree *tree, uint32_t slot)
{
	return tree->nodes[slot / KEYTREE_FAN].tenant;
}

enum secpool_error keytree_open(struct keytree *tree, uint32_t slot, uint64_t page_bytes,
	void *ret_secret, size_t secret_bytes)
{
	const struct keytree_slot *at = &tree->slots[slot];
	struct wrap_label label = {.purpose = (enum wrap_purpose)at->purpose,
		.region = at->region,
		.epoch = at->epoch,
		.page_bytes = page_bytes};
	uint8_t bytes[KEYFILE_SLOT_BYTES];
	const uint8_t *blob = NULL;
	size_t count = 0;

	memcpy(label.tenant, keytree_tenant(tree, slot), sizeof label.tenant);
	if (!tree->read(tree->read_arg, slot, bytes) || !keyfile_get_slot(bytes, &blob, &count) ||
		count == 0)
		return err_set(SECPOOL_E_KEY_GONE, "the stored key of region %llu is gone",
			(unsigned long long)at->region);
	return wrap_open(
		tree->nodes[slot / KEYTREE_FAN].key, &label, blob, count, ret_secret, secret_bytes);
}

/* The slot has no leaf any more. */
static void leave(struct keytree *tree, uint32_t slot, enum keytree_state state)
{
	struct keytree_slot *at = &tree->slots[slot];
	uint32_t *link = bucket_of(tree, at->region);

	while (*link != slot + 1)
		link = &tree->slots[*link - 1].next;
	*link = at->next;
	*at = (struct keytree_slot){.state = (uint8_t)state};
	tree->nodes[slot / KEYTREE_FAN].children--;
	tree->leaves--;
}

static void drop(struct keytree *tree, uint32_t slot)
{
	leave(tree, slot, KEYTREE_DROPPED);
	tree->nodes[slot / KEYTREE_FAN].dirty = true;
	tree->dropped++;
}

static uint32_t free_slot(const struct keytree *tree, uint32_t block)
{
	for (uint32_t i = 0; i < KEYTREE_FAN; i++)
		if (tree->slots[block * KEYTREE_FAN + i].state == KEYTREE_FREE)
			return block * KEYTREE_FAN + i;
	return KEYTREE_ROOT;
}

/* A tenant's node begins the list of its blocks that may have a free slot; full ones leave it here. */
static enum secpool_error get_slot(
	struct keytree *tree, uint32_t tenant, struct keytree_added *added, uint32_t *ret_slot)
{
	struct keytree_node *head = &tree->nodes[tenant];
	uint32_t middle = 0, block = 0;
	enum secpool_error error;

	while (head->room != KEYTREE_ROOT) {
		*ret_slot = free_slot(tree, head->room);
		if (*ret_slot != KEYTREE_ROOT)
			return SECPOOL_OK;
		head->room = tree->nodes[head->room].room;
	}
	error = find_or_make(tree, KEYTREE_MIDDLE, tenant, head->tenant, added, &middle);
	if (!error)
		error = make_node(tree, KEYTREE_BLOCK, middle, head->tenant, &block);
	if (error)
		return error;
	added->nodes[added->node_count++] = block;
	head->room = block;
	*ret_slot = block * KEYTREE_FAN;
	return SECPOOL_OK;
}

/* Takes back the nodes that were made for a leaf. */
static void unmake_nodes(struct keytree *tree, const struct keytree_added *added)
{
	for (uint32_t i = added->node_count; i-- > 0;) {
		const struct keytree_node *node = &tree->nodes[added->nodes[i]];

		if (node->level == KEYTREE_BLOCK)
			tree->nodes[find_tenant(tree, node->tenant)].room = node->room;
		if (node->level == KEYTREE_TENANT)
			tree->tenant_count--;
		unmake_node(tree, added->nodes[i]);
	}
}

enum secpool_error keytree_add(struct keytree *tree, const struct wrap_label *label,
	const void *secret, size_t secret_bytes, struct keytree_added *ret_added)
{
	struct keytree_added added = {.node_count = 0};
	enum secpool_error error;
	uint32_t tenant = 0;

	if (label->tenant[0] == '\0' || label->region == 0)
		return err_set(SECPOOL_E_INVALID, "a leaf without a tenant, or a region");
	error = get_tenant(tree, label->tenant, &added, &tenant);
	if (!error)
		error = get_slot(tree, tenant, &added, &added.slot);
	for (uint32_t i = 0; i < added.node_count && !error; i++)
		error = keytree_record(tree, added.nodes[i], added.records[i]);
	if (!error)
		error = wrap_seal(tree->nodes[added.slot / KEYTREE_FAN].key, label, secret,
			secret_bytes, added.blob, &added.blob_bytes);
	if (error) {
		unmake_nodes(tree, &added);
		return error;
	}
	keytree_enter(tree, added.slot, label, KEYTREE_LIVE);
	*ret_added = added;
	return SECPOOL_OK;
}

void keytree_take_back(struct keytree *tree, const struct keytree_added *added)
{
	leave(tree, added->slot, KEYTREE_FREE);
	unmake_nodes(tree, added);
}

unsigned keytree_drop(struct keytree *tree, uint64_t region, uint64_t epoch)
{
	uint32_t at = *bucket_of(tree, region), next;
	unsigned count = 0;

	for (; at != 0; at = next) {
		const struct keytree_slot *slot = &tree->slots[at - 1];

		next = slot->next;
		if (slot->region != region || (epoch != 0 && slot->epoch != epoch))
			continue;
		drop(tree, at - 1);
		count++;
	}
	return count;
}

static void tell_and_drop(struct keytree *tree, uint32_t slot, keytree_told *told, void *arg)
{
	told(arg, tree->nodes[slot / KEYTREE_FAN].tenant, tree->slots[slot].region,
		tree->slots[slot].epoch);
	drop(tree, slot);
}

enum secpool_error keytree_drop_slot(
	struct keytree *tree, uint64_t slot, keytree_told *told, void *arg)
{
	if (slot >= KEYFILE_SLOTS_MOST)
		return err_set(
			SECPOOL_E_INVALID, "there is no slot %llu", (unsigned long long)slot);
	if (has_leaf(&tree->slots[slot]))
		tell_and_drop(tree, (uint32_t)slot, told, arg);
	return SECPOOL_OK;
}

/* ---- after a start ---- */

enum secpool_error keytree_claim(
	struct keytree *tree, uint64_t slot, uint64_t region, uint64_t epoch)
{
	struct keytree_slot *at = slot < KEYFILE_SLOTS_MOST ? &tree->slots[slot] : NULL;

	if (!at || !has_leaf(at) || at->region != region || at->epoch != epoch)
		return err_set(SECPOOL_E_STORE,
			"the key store has no key of region %llu, epoch %llu in its place: a part "
			"of it was rolled back, put back the newest state folder as a whole",
			(unsigned long long)region, (unsigned long long)epoch);
	at->state = KEYTREE_LIVE;
	return SECPOOL_OK;
}

uint64_t keytree_claimed(struct keytree *tree, keytree_told *told, void *arg)
{
	uint64_t count = 0;

	for (uint32_t i = 0; i < KEYFILE_SLOTS_MOST; i++)
		if (tree->slots[i].state == KEYTREE_UNCLAIMED) {
			tell_and_drop(tree, i, told, arg);
			count++;
		}
	return count;
}

/* ---- whole trees ---- */

void keytree_relist(struct keytree *tree)
{
	tree->tenant_count = 0;
	tree->lowest_block = 0;
	tree->lowest_upper = KEYTREE_BLOCKS;
	for (uint32_t i = KEYTREE_BLOCKS; i < KEYTREE_NODES; i++) {
		if (tree->nodes[i].level != KEYTREE_TENANT)
			continue;
		tree->nodes[i].room = KEYTREE_ROOT;
		tree->tenants[tree->tenant_count++] = i;
	}
	for (uint32_t i = KEYTREE_BLOCKS; i-- > 0;) {
		struct keytree_node *block = &tree->nodes[i];

		if (block->level != KEYTREE_BLOCK || free_slot(tree, i) == KEYTREE_ROOT)
			continue;
		struct keytree_node *tenant = &tree->nodes[tree->nodes[block->parent].parent];
		block->room = tenant->room;
		tenant->room = i;
	}
}

enum secpool_error keytree_new(struct keytree *tree, uint8_t **root, keytree_reader *read,
	void *read_arg, uint8_t ret_record[KEYFILE_NODE_BYTES])
{
	uint32_t node = 0;
	enum secpool_error error;

	tree->root = *root;
	*root = NULL;
	tree->read = read;
	tree->read_arg = read_arg;
	tree->lowest_upper = KEYTREE_SERVICE;
	error = make_node(tree, KEYTREE_SERVICE_NODE, KEYTREE_ROOT, "", &node);
	return error ? error : keytree_record(tree, node, ret_record);
}

void keytree_done(struct keytree *tree)
{
	for (size_t i = 0; i < KEYTREE_NODES; i++) {
		secmem_free(tree->nodes[i].key);
		secmem_free(tree->nodes[i].next);
	}
	secmem_free(tree->root);
	secmem_free(tree->next_root);
	memset(tree, 0, sizeof *tree);
}

const uint8_t *keytree_service_key(const struct keytree *tree)
{
	return tree->nodes[KEYTREE_SERVICE].key;
}

bool keytree_dirty(const struct keytree *tree)
{
	for (uint32_t i = 0; i < KEYTREE_BLOCKS; i++)
		if (tree->nodes[i].dirty)
			return true;
	return false;
}
