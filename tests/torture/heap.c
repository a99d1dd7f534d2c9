/* SPDX-License-Identifier: Apache-2.0 */
/* Objects of the pool's heap: made, written, checked, freed. The heap's regions have no redundancy: an object on a page that is lost is left alone for ever. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/torture/region.h"
#include "tests/torture/touch.h"
#include "tests/torture/work.h"

enum { OBJECTS = 256, OBJECT_BLOCKS_MOST = 6 };

struct object {
	atomic_flag busy;
	uint8_t *memory;
	unsigned blocks;
	uint32_t generation;
};

struct heap_model {
	struct object objects[OBJECTS];
};

struct heap_model *heap_model_new(void)
{
	struct heap_model *model = calloc(1, sizeof *model);

	if (!model)
		abort();
	return model;
}

static struct pattern_block expected(
	const struct client *client, size_t number, const struct object *object, unsigned block)
{
	return (struct pattern_block){
		.region = (uint64_t)(client->number + 1) << 48 |
			  (uint64_t)client->incarnation << 32 | 0xf0000000u | (uint32_t)number,
		.block = block,
		.generation = object->generation,
		.line = PATTERN_NO_LINE,
	};
}

/* The heap can't say what is lost; the event can. Without redundancy no loss is too many where anything was wounded. */
static void mourn(struct client *client, struct object *object, const void *at)
{
	enum secpool_cause cause;
	bool told = region_told_lost(client, (uintptr_t)at, &cause);
	bool wounded = atomic_load(&client->board->exceeded[0]) != 0;

	atomic_fetch_add(&client->board->lost_blocks, 1);
	atomic_fetch_add(&client->board->unreported_losses, !told);
	atomic_fetch_add(&client->board->uncovered_losses, !wounded);
	if (!told || !wounded)
		fprintf(stderr,
			"secpool-torture: client %u.%u: an object of the heap at %p is lost, %s\n",
			client->number, client->incarnation, at, told ? "told" : "NOT TOLD");
	object->memory = NULL; /* not freed: the heap would give it out again */
}

static void fill(struct client *client, size_t number, struct object *object)
{
	uint64_t buffer[PATTERN_BLOCK_BYTES / sizeof(uint64_t)];
	const void *bus;

	object->generation++;
	for (unsigned i = 0; object->memory && i < object->blocks; i++) {
		struct pattern_block block = expected(client, number, object, i);
		pattern_make(&block, buffer);
		if (!touch_copy(object->memory + (size_t)i * PATTERN_BLOCK_BYTES, buffer,
			    sizeof buffer, &bus))
			mourn(client, object, bus);
	}
}

static void check(struct client *client, size_t number, struct object *object)
{
	uint64_t buffer[PATTERN_BLOCK_BYTES / sizeof(uint64_t)];
	const void *bus;

	for (unsigned i = 0; object->memory && i < object->blocks; i++) {
		struct pattern_block block = expected(client, number, object, i);
		if (touch_copy(buffer, object->memory + (size_t)i * PATTERN_BLOCK_BYTES,
			    sizeof buffer, &bus))
			region_check_bytes(client, &block, buffer, "load (heap)");
		else
			mourn(client, object, bus);
	}
}

static void make(struct client *client, size_t number, struct object *object, uint64_t dice)
{
	object->blocks = 1 + (unsigned)(dice >> 20) % OBJECT_BLOCKS_MOST;
	/* so that its blocks are not those of pages */
	object->memory = secpool_malloc(
		client->pool, (size_t)object->blocks * PATTERN_BLOCK_BYTES + (dice >> 40) % 100);
	if (object->memory)
		fill(client, number, object);
}

void heap_model_work(struct client *client, uint64_t dice)
{
	size_t number = (dice >> 8) % OBJECTS;
	struct object *object = &client->heap->objects[number];

	if (atomic_flag_test_and_set_explicit(&object->busy, memory_order_acquire))
		return;
	if (!object->memory) {
		make(client, number, object, dice);
	} else if (dice % 8 == 0) {
		check(client, number, object);
		if (object->memory)
			secpool_free(client->pool, object->memory);
		object->memory = NULL;
	} else if (dice % 8 < 4) {
		fill(client, number, object);
	} else {
		check(client, number, object);
	}
	atomic_flag_clear_explicit(&object->busy, memory_order_release);
}
