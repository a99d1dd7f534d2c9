/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The key tree against a model, in files that are memory: what is live opens after each load, what was dropped opens under no later root, whatever copy of the files it is looked for in. The last test measures and prints. timeout: 300
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "enclave/keytree.h"
#include "enclave/secmem.h"
#include "lib/base/clock.h"
#include "lib/base/os.h"

enum { SECRET_BYTES = 96, NODES_BYTES = KEYFILE_NODES_MOST * KEYFILE_NODE_BYTES };
enum { MODEL_LEAVES = 600, MODEL_STEPS = 1500, GENERATIONS_KEPT = 4 };

/* The three files; the root is what only the TPM would open. */
struct files {
	uint8_t root[WRAP_KEY_BYTES];
	uint8_t *nodes, *slots;
	size_t slot_count;
};

static struct keytree tree;
static struct files files;

static bool read_slot(void *arg, uint32_t slot, uint8_t bytes[KEYFILE_SLOT_BYTES])
{
	const struct files *from = arg;

	if (slot >= from->slot_count)
		return false;
	memcpy(bytes, from->slots + (size_t)slot * KEYFILE_SLOT_BYTES, KEYFILE_SLOT_BYTES);
	return true;
}

static uint8_t *slot_at(struct files *to, uint32_t slot)
{
	if (slot >= to->slot_count) {
		size_t count = ((size_t)slot / KEYTREE_FAN + 1) * KEYTREE_FAN;

		to->slots = realloc(to->slots, count * KEYFILE_SLOT_BYTES);
		assert_non_null(to->slots);
		memset(to->slots + to->slot_count * KEYFILE_SLOT_BYTES, 0,
			(count - to->slot_count) * KEYFILE_SLOT_BYTES);
		to->slot_count = count;
	}
	return to->slots + (size_t)slot * KEYFILE_SLOT_BYTES;
}

static int set_up(void **state)
{
	uint8_t *root = secmem_new(WRAP_KEY_BYTES);

	(void)state;
	files = (struct files){.nodes = calloc(1, NODES_BYTES)};
	os_random(files.root, sizeof files.root);
	memcpy(root, files.root, WRAP_KEY_BYTES);
	assert_int_equal(keytree_new(&tree, &root, read_slot, &files,
				 files.nodes + KEYTREE_SERVICE * KEYFILE_NODE_BYTES),
		SECPOOL_OK);
	assert_null(root);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	keytree_done(&tree);
	free(files.nodes);
	free(files.slots);
	return 0;
}

static struct files copy_of(const struct files *from)
{
	struct files copy = *from;

	copy.nodes = malloc(NODES_BYTES);
	copy.slots = malloc(from->slot_count * KEYFILE_SLOT_BYTES + 1);
	memcpy(copy.nodes, from->nodes, NODES_BYTES);
	memcpy(copy.slots, from->slots, from->slot_count * KEYFILE_SLOT_BYTES);
	return copy;
}

static void free_copy(struct files *copy)
{
	free(copy->nodes);
	free(copy->slots);
	copy->nodes = copy->slots = NULL;
}

/* Loads into the one tree. */
static enum secpool_error load(struct files *from, const uint8_t with_root[WRAP_KEY_BYTES])
{
	uint8_t *root = secmem_new(WRAP_KEY_BYTES);
	enum secpool_error error;

	keytree_done(&tree);
	memcpy(root, with_root, WRAP_KEY_BYTES);
	error = keytree_load(&tree, &root, read_slot, from, from->nodes, NODES_BYTES);
	assert_null(root);
	return error;
}

static void store(const struct keytree_added *added)
{
	for (uint32_t i = 0; i < added->node_count; i++)
		memcpy(files.nodes + (size_t)added->nodes[i] * KEYFILE_NODE_BYTES,
			added->records[i], KEYFILE_NODE_BYTES);
	keyfile_put_slot(slot_at(&files, added->slot), added->blob, added->blob_bytes);
}

static uint32_t add(const char *tenant, uint64_t region, uint64_t epoch)
{
	static const uint8_t secret[SECRET_BYTES] = {1};
	struct wrap_label label = {
		.purpose = WRAP_REGION_KEYS, .region = region, .epoch = epoch, .page_bytes = 4096};
	struct keytree_added added;
	enum secpool_error error;

	snprintf(label.tenant, sizeof label.tenant, "%s", tenant);
	error = keytree_add(&tree, &label, secret, sizeof secret, &added);
	if (error)
		fail_msg("%s", err_detail());
	store(&added);
	return added.slot;
}

/* One generation, into the files. */
static size_t renew(void)
{
	static uint8_t bytes[64 << 20];
	struct buf_writer w = {.bytes = bytes, .capacity = sizeof bytes};
	const struct keyfile_root head = {.last = 1, .blob = bytes, .blob_bytes = 1};
	uint8_t *root = secmem_new(WRAP_KEY_BYTES);
	struct keyfile_root parsed;
	struct keyfile_record record;

	os_random(files.root, sizeof files.root);
	memcpy(root, files.root, WRAP_KEY_BYTES);
	keyfile_begin_root(&w, &head);
	assert_int_equal(keytree_renew(&tree, &root, &w), SECPOOL_OK);
	assert_null(root);
	keyfile_end_root(&w);
	assert_int_equal(keyfile_parse_root(w.bytes, w.used, &parsed), SECPOOL_OK);
	while (keyfile_next_record(&parsed, &record)) {
		if (record.is_node) {
			uint8_t *at = files.nodes + (size_t)record.place * KEYFILE_NODE_BYTES;
			memset(at, 0, KEYFILE_NODE_BYTES);
			memcpy(at, record.bytes, record.count);
		} else if (record.count > 0) {
			keyfile_put_slot(slot_at(&files, record.place), record.bytes, record.count);
		} else {
			memset(slot_at(&files, record.place), 0, KEYFILE_SLOT_BYTES);
		}
	}
	keytree_renewed(&tree);
	return w.used;
}

/* ---- the tree ---- */

static void grows_with_a_fan_of_64(void **state)
{
	char name[16];

	(void)state;
	for (unsigned i = 0; i < 3 * KEYTREE_FAN * KEYTREE_FAN / 2; i++)
		add("one", i + 1, 1);
	for (unsigned i = 1; i < KEYTREE_TENANTS; i++) {
		snprintf(name, sizeof name, "t%u", i);
		add(name, 100000 + i, 1);
	}
	assert_int_equal(tree.tenant_count, KEYTREE_TENANTS);
	for (uint32_t i = 0; i < KEYTREE_NODES; i++) {
		const struct keytree_node *node = &tree.nodes[i];

		if (node->level == KEYTREE_UNUSED)
			continue;
		assert_true(node->children <= KEYTREE_FAN);
		if (node->level == KEYTREE_BLOCK || node->level == KEYTREE_MIDDLE)
			assert_string_equal(node->tenant, tree.nodes[node->parent].tenant);
	}
	struct wrap_label label = {
		.purpose = WRAP_REGION_KEYS, .tenant = "one more", .region = 7, .epoch = 1};
	struct keytree_added added = {.slot = 4711};
	assert_int_equal(keytree_add(&tree, &label, "x", 1, &added), SECPOOL_E_LIMIT);
	assert_int_equal(added.slot, 4711);
	assert_int_equal(tree.tenant_count, KEYTREE_TENANTS);
	label.tenant[0] = '\0';
	assert_int_equal(keytree_add(&tree, &label, "x", 1, &added), SECPOOL_E_INVALID);
	assert_int_equal(load(&files, files.root), SECPOOL_OK);
	assert_int_equal(tree.leaves, 3 * KEYTREE_FAN * KEYTREE_FAN / 2 + KEYTREE_TENANTS - 1);
	assert_int_equal(tree.tenant_count, KEYTREE_TENANTS);
}

/* Only the paths of what was dropped are wrapped anew: depth times fan-out for one leaf, shared by those beside it. */
static void renews_paths_alone(void **state)
{
	enum {
		LEAVES = 40 * KEYTREE_FAN,
		SLOT_RECORD = 8 + 208,
		NODE_RECORD = 8 + KEYFILE_NODE_BYTES
	};
	size_t head = renew(), one, many;

	(void)state;
	for (unsigned i = 0; i < LEAVES; i++)
		add("one", i + 1, 1);
	add("two", LEAVES + 1, 1);
	assert_int_equal(renew(), head + NODE_RECORD); /* the group: a child of the root */
	assert_int_equal(keytree_drop(&tree, 5, 0), 1);
	one = renew();
	/* its block's slots, then the children of the middle node, tenant, group and root */
	assert_true(one <= head + KEYTREE_FAN * SLOT_RECORD + (40 + 1 + 2 + 1) * NODE_RECORD);
	for (unsigned i = 65; i < 65 + KEYTREE_FAN; i++)
		assert_int_equal(keytree_drop(&tree, i, 0), 1);
	many = renew();
	assert_true(many <= one);
	assert_false(keytree_dirty(&tree));
}

static void an_old_copy_opens_nothing_that_was_dropped(void **state)
{
	struct files before;
	uint64_t leaves;

	(void)state;
	for (unsigned i = 0; i < 200; i++)
		add(i % 3 ? "one" : "two", i + 1, 1);
	before = copy_of(&files);
	assert_int_equal(keytree_drop(&tree, 100, 1), 1);
	assert_int_equal(keytree_drop(&tree, 100, 1), 0);
	renew();
	/* the newest root in the old files: its nodes are of another generation */
	assert_int_equal(load(&before, files.root), SECPOOL_E_STORE);
	assert_non_null(strstr(err_detail(), "rolled back"));
	/* old slots under the newest nodes: nothing of the dropped leaf's block opens, the other blocks are as they were */
	free(before.nodes);
	before.nodes = malloc(NODES_BYTES);
	memcpy(before.nodes, files.nodes, NODES_BYTES);
	assert_int_equal(load(&before, files.root), SECPOOL_OK);
	leaves = tree.leaves;
	assert_true(leaves < 200 && leaves >= 200 - KEYTREE_FAN);
	assert_int_equal(keytree_claim(&tree, 0, 100, 1), SECPOOL_E_STORE);
	assert_int_equal(keytree_drop(&tree, 100, 0), 0);
	free_copy(&before);
	/* and the newest files have all but that one */
	assert_int_equal(load(&files, files.root), SECPOOL_OK);
	assert_int_equal(tree.leaves, 199);
}

static unsigned told_count;
static uint64_t told_region, told_epoch;
static char told_tenant[WRAP_TENANT_BYTES];

static void note_told(void *arg, const char *tenant, uint64_t region, uint64_t epoch)
{
	(void)arg;
	told_count++;
	told_region = region;
	told_epoch = epoch;
	snprintf(told_tenant, sizeof told_tenant, "%s", tenant);
}

static void claims(void **state)
{
	uint32_t a, b, c;

	(void)state;
	a = add("one", 1, 1);
	b = add("one", 2, 1);
	c = add("one", 2, 2);
	os_random(
		slot_at(&files, b), KEYFILE_SLOT_BYTES); /* overwritten, and the enclave not told */
	assert_int_equal(load(&files, files.root), SECPOOL_OK);
	assert_int_equal(tree.leaves, 2);
	assert_true(keytree_dirty(&tree));
	assert_int_equal(keytree_claim(&tree, a, 1, 1), SECPOOL_OK);
	assert_int_equal(keytree_claim(&tree, a, 1, 2), SECPOOL_E_STORE);
	assert_int_equal(keytree_claim(&tree, a, 2, 1), SECPOOL_E_STORE);
	assert_int_equal(keytree_claim(&tree, b, 2, 1), SECPOOL_E_STORE);
	assert_int_equal(keytree_claim(&tree, KEYFILE_SLOTS_MOST, 1, 1), SECPOOL_E_STORE);
	assert_int_equal(keytree_claim(&tree, UINT64_MAX, 1, 1), SECPOOL_E_STORE);
	assert_int_equal(keytree_claimed(&tree, note_told, NULL), 1);
	assert_true(told_count == 1 && told_region == 2 && told_epoch == 2);
	assert_string_equal(told_tenant, "one");
	assert_int_equal(keytree_claimed(&tree, note_told, NULL), 0);
	assert_int_equal(tree.leaves, 1);
	/* neither is used again before its block has a new key */
	assert_int_equal(add("one", 9, 1), c + 1);
	assert_int_equal(keytree_drop_slot(&tree, c, note_told, NULL), SECPOOL_OK);
	assert_int_equal(told_count, 1); /* it had none any more */
	assert_int_equal(
		keytree_drop_slot(&tree, KEYFILE_SLOTS_MOST, note_told, NULL), SECPOOL_E_INVALID);
	renew();
	assert_int_equal(add("one", 10, 1), b);
	assert_int_equal(load(&files, files.root), SECPOOL_OK);
	assert_int_equal(tree.leaves, 3);
	assert_false(keytree_dirty(&tree));
}

/* What was given to nobody leaves nothing that a later leaf could lie below without its being stored. */
static void taken_back(void **state)
{
	static const uint8_t secret[SECRET_BYTES] = {1};
	const struct wrap_label label = {
		.purpose = WRAP_REGION_KEYS, .tenant = "one", .region = 1, .epoch = 1};
	struct keytree_added first, again;

	(void)state;
	for (unsigned i = 0; i < 2; i++) { /* the second time its nodes are there */
		assert_int_equal(
			keytree_add(&tree, &label, secret, sizeof secret, &first), SECPOOL_OK);
		assert_int_equal(first.node_count, i == 0 ? 4 : 0);
		keytree_take_back(&tree, &first);
		assert_int_equal(tree.leaves, i);
		assert_int_equal(tree.tenant_count, i);
		assert_false(keytree_dirty(&tree));
		assert_int_equal(
			keytree_add(&tree, &label, secret, sizeof secret, &again), SECPOOL_OK);
		assert_int_equal(again.node_count, first.node_count);
		assert_int_equal(again.slot, first.slot);
		store(&again);
	}
	assert_int_equal(load(&files, files.root), SECPOOL_OK);
	assert_int_equal(tree.leaves, 2);
}

static void empty_blocks_are_anybodys(void **state)
{
	uint32_t first = add("one", 1, 1);

	(void)state;
	for (unsigned i = 1; i < KEYTREE_FAN; i++)
		add("one", i + 1, 1);
	for (unsigned i = 0; i < KEYTREE_FAN; i++)
		assert_int_equal(keytree_drop(&tree, i + 1, 0), 1);
	renew();
	assert_int_equal(add("two", 999, 1), first);
	assert_int_equal(load(&files, files.root), SECPOOL_OK);
	assert_int_equal(tree.leaves, 1);
	assert_int_equal(keytree_claim(&tree, first, 999, 1), SECPOOL_OK);
}

/* What is given up leaves the old generation as it was, also when it fails in the middle. */
static void a_renewal_that_fails_changes_nothing(void **state)
{
	uint8_t few[300], kept[KEYFILE_SLOT_BYTES];
	struct buf_writer w = {.bytes = few, .capacity = sizeof few};
	uint8_t *root = secmem_new(WRAP_KEY_BYTES);
	uint32_t slot;

	(void)state;
	slot = add("one", 1, 1);
	add("one", 2, 1);
	assert_int_equal(keytree_drop(&tree, 2, 0), 1);
	assert_int_equal(keytree_renew(&tree, &root, &w), SECPOOL_E_LIMIT);
	assert_null(root);
	/* a slot that was changed from outside */
	memcpy(kept, slot_at(&files, slot), sizeof kept);
	slot_at(&files, slot)[20] ^= 1;
	w = (struct buf_writer){.bytes = malloc(1 << 20), .capacity = 1 << 20};
	root = secmem_new(WRAP_KEY_BYTES);
	assert_int_equal(keytree_renew(&tree, &root, &w), SECPOOL_E_STORE);
	memcpy(slot_at(&files, slot), kept, sizeof kept);
	assert_int_equal(load(&files, files.root), SECPOOL_OK);
	assert_int_equal(tree.leaves, 2); /* the dropped one was not overwritten */
	free(w.bytes);
}

/* Random work; at random moments the process ends and loads anew. Copies of the files are kept, and searched with the root of the end. */
static void a_model(void **state)
{
	static uint64_t slot_of[MODEL_LEAVES]; /* slot + 1, 0: not live */
	static const char *const tenants[] = {"a", "b", "c"};
	struct files kept[GENERATIONS_KEPT];
	unsigned live = 0, kept_count = 0;

	(void)state;
	srand(4711);
	memset(slot_of, 0, sizeof slot_of);
	for (unsigned step = 0; step < MODEL_STEPS; step++) {
		unsigned i = (unsigned)rand() % MODEL_LEAVES, what = (unsigned)rand() % 100;

		if (slot_of[i] == 0 && what < 90) {
			slot_of[i] = add(tenants[i % 3], i + 1, 1) + 1ull;
			live++;
		} else if (slot_of[i] != 0 && what < 60) {
			assert_int_equal(keytree_drop(&tree, i + 1, 0), 1);
			os_random(slot_at(&files, (uint32_t)slot_of[i] - 1), KEYFILE_SLOT_BYTES);
			slot_of[i] = 0;
			live--;
		} else if (what > 97) {
			if (kept_count < GENERATIONS_KEPT)
				kept[kept_count++] = copy_of(&files);
			renew();
		} else if (what > 95) {
			assert_int_equal(load(&files, files.root), SECPOOL_OK);
			assert_int_equal(tree.leaves, live);
			for (unsigned j = 0; j < MODEL_LEAVES; j++)
				if (slot_of[j] != 0)
					assert_int_equal(
						keytree_claim(&tree, slot_of[j] - 1, j + 1, 1),
						SECPOOL_OK);
			assert_int_equal(keytree_claimed(&tree, note_told, NULL), 0);
		}
		assert_int_equal(tree.leaves, live);
	}
	renew();
	assert_true(kept_count > 0);
	for (unsigned k = 0; k < kept_count; k++) {
		assert_int_equal(load(&kept[k], files.root), SECPOOL_E_STORE);
		free_copy(&kept[k]);
	}
	assert_int_equal(load(&files, files.root), SECPOOL_OK);
	assert_int_equal(tree.leaves, live);
}

/* Time of the processor: a busy machine does not lengthen it. */
static uint64_t cpu_ns(void)
{
	struct timespec now;

	assert_int_equal(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now), 0);
	return (uint64_t)now.tv_sec * CLOCK_NS_PER_S + (uint64_t)now.tv_nsec;
}

/* A drop takes at most 5 ms whatever there is, and a generation erases at least 1,000 for each second: of the processor's time. Printed for docs/keys.md. */
static void measured(void **state)
{
	static const unsigned sizes[] = {1000, 5000, 20000};

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		unsigned leaves = sizes[i], dropped = leaves / 10;
		uint64_t began, took, longest = 0, batch;

		assert_int_equal(tear_down(NULL) + set_up(NULL), 0);
		for (unsigned j = 0; j < leaves; j++)
			add("one", j + 1, 1);
		/* a tenth, beside each other: regions that were made together end together */
		for (unsigned j = 0; j < dropped; j++) {
			began = cpu_ns();
			assert_int_equal(keytree_drop(&tree, j + 1, 0), 1);
			took = cpu_ns() - began;
			longest = took > longest ? took : longest;
		}
		began = cpu_ns();
		renew();
		batch = cpu_ns() - began;
		/* and one of each ten of the others: the worst, since every block is renewed */
		for (unsigned j = dropped; j < leaves; j += 10)
			assert_int_equal(keytree_drop(&tree, j + 1, 0), 1);
		began = cpu_ns();
		renew();
		printf("leaves=%u longest-drop-us=%llu generation-of-%u-together-ms=%.1f "
		       "generation-of-%u-spread-ms=%.1f\n",
			leaves, (unsigned long long)(longest / 1000), dropped,
			(double)batch / CLOCK_NS_PER_MS, (leaves - dropped + 9) / 10,
			(double)(cpu_ns() - began) / CLOCK_NS_PER_MS);
		assert_true(longest <= 5 * CLOCK_NS_PER_MS);
		assert_true(batch <= (leaves > 1000 ? leaves : 1000) * CLOCK_NS_PER_MS / 10 +
					     CLOCK_NS_PER_S);
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(grows_with_a_fan_of_64),
		TEST(renews_paths_alone),
		TEST(an_old_copy_opens_nothing_that_was_dropped),
		TEST(claims),
		TEST(taken_back),
		TEST(empty_blocks_are_anybodys),
		TEST(a_renewal_that_fails_changes_nothing),
		TEST(a_model),
		TEST(measured),
	};

	if (secmem_init(SECMEM_ALLOW_LOCKED)) {
		fprintf(stderr, "test_keytree: %s\n", err_detail());
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
