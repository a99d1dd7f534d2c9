/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/torture/region.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/err.h"

/* How long a report may come after the loss was met; how often it is tried to make a region that could not be made. */
#define TOLD_NS	 (5 * CLOCK_NS_PER_S)
#define RETRY_NS (200ull * 1000000)

static const struct region_kind kinds[] = {
	{"none, 4K", SECPOOL_REDUNDANCY_NONE, 0, 0, 0, 0, 4 << 10, 4 << 20},
	{"mirror:2, 4K", SECPOOL_REDUNDANCY_MIRROR, 2, 0, 0, 1, 4 << 10, 6 << 20},
	{"mirror:3, 16K", SECPOOL_REDUNDANCY_MIRROR, 3, 0, 0, 2, 16 << 10, 4 << 20},
	{"ec:2+1, 4K", SECPOOL_REDUNDANCY_EC, 0, 2, 1, 1, 4 << 10, 6 << 20},
	{"ec:2+2, 8K", SECPOOL_REDUNDANCY_EC, 0, 2, 2, 2, 8 << 10, 4 << 20},
	{"mirror:2, 2M", SECPOOL_REDUNDANCY_MIRROR, 2, 0, 0, 1, 2 << 20, 24 << 20},
	{"ec:3+1, 128K", SECPOOL_REDUNDANCY_EC, 0, 3, 1, 1, 128 << 10, 6 << 20},
	{"none, 64K", SECPOOL_REDUNDANCY_NONE, 0, 0, 0, 0, 64 << 10, 4 << 20},
	{"mirror:2, 64K", SECPOOL_REDUNDANCY_MIRROR, 2, 0, 0, 1, 64 << 10, 4 << 20},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

/* The first five are in every client; the last place takes turns through the others. */
const struct region_kind *region_kind_of(uint64_t seed, unsigned client, unsigned slot)
{
	if (slot < CLIENT_SLOTS - 1)
		return &kinds[slot];
	return &kinds[CLIENT_SLOTS - 1 + (seed + client) % (KINDS - (CLIENT_SLOTS - 1))];
}

/* ---- making and releasing ---- */

static bool expected_while_troubled(enum secpool_error error)
{
	return error == SECPOOL_E_NO_SPACE || error == SECPOOL_E_NOT_ATTESTED ||
	       error == SECPOOL_E_DAEMON_GONE || error == SECPOOL_E_DEVICE_GONE;
}

static bool make_blocks(struct slot *slot, const struct region_kind *kind)
{
	slot->block_count = kind->bytes / PATTERN_BLOCK_BYTES;
	slot->blocks = calloc(slot->block_count, sizeof *slot->blocks);
	for (size_t i = 0; slot->blocks && i < slot->block_count; i++)
		slot->blocks[i].line = PATTERN_NO_LINE;
	return slot->blocks != NULL;
}

bool region_make(struct client *client, struct slot *slot)
{
	const struct region_kind *kind = slot->kind;
	struct secpool_region_options options = {.size = sizeof options,
		.bytes = kind->bytes,
		.page_bytes = kind->page_bytes,
		.redundancy = kind->redundancy,
		.copies = kind->copies,
		.data = kind->data,
		.parity = kind->parity,
		.name = kind->name};
	enum secpool_error error;

	if (clock_now_ns() - atomic_load(&slot->tried_ns) < RETRY_NS)
		return false;
	atomic_store(&slot->tried_ns, clock_now_ns());
	/* before it is made: a wound during that counts */
	slot->exceeded_before = atomic_load(&client->board->exceeded[kind->tolerance]);
	slot->born_exceeded = (unsigned)__builtin_popcount(atomic_load(&client->board->wounded)) >
			      kind->tolerance;
	error = secpool_region_create(client->pool, &options, &slot->region);
	if (error) {
		slot->region = NULL;
		if (!expected_while_troubled(error))
			region_strange(client, slot, "secpool_region_create", error);
		return false;
	}
	slot->memory = secpool_region_address(slot->region);
	slot->uid = (uint64_t)(client->number + 1) << 48 | (uint64_t)client->incarnation << 32 |
		    atomic_fetch_add(&client->serial, 1);
	if (!make_blocks(slot, kind))
		abort();
	atomic_fetch_add(&client->board->regions, 1);
	return true;
}

static void set_ending(struct client *client, struct slot *slot, struct secpool_region *region)
{
	pthread_mutex_lock(&client->events_lock);
	slot->ending = region;
	pthread_mutex_unlock(&client->events_lock);
}

void region_release(struct client *client, struct slot *slot)
{
	enum secpool_error error;

	set_ending(client, slot, slot->region);
	error = secpool_region_release(slot->region, NULL);
	set_ending(client, slot, NULL);

	/* the process's end releases it then */
	if (error && error != SECPOOL_E_DAEMON_GONE)
		region_strange(client, slot, "secpool_region_release", error);
	free(slot->blocks);
	slot->blocks = NULL;
	slot->region = NULL;
	slot->memory = NULL;
}

/* ---- blocks ---- */

bool region_hold(struct slot *slot, size_t block)
{
	return !atomic_flag_test_and_set_explicit(&slot->blocks[block].busy, memory_order_acquire);
}

void region_let_go(struct slot *slot, size_t block)
{
	atomic_flag_clear_explicit(&slot->blocks[block].busy, memory_order_release);
}

struct pattern_block region_expected(const struct slot *slot, size_t at)
{
	const struct block *block = &slot->blocks[at];

	return (struct pattern_block){.region = slot->uid,
		.block = at,
		.generation = block->generation,
		.line_generation = block->line_generation,
		.line = block->line};
}

void region_check_bytes(struct client *client, const struct pattern_block *expected,
	const void *bytes, const char *how)
{
	struct pattern_findings findings = {.wrong_bytes = 0};
	struct board *board = client->board;

	atomic_fetch_add_explicit(&board->bytes_checked, PATTERN_BLOCK_BYTES, memory_order_relaxed);
	if (pattern_check(expected, bytes, &findings))
		return;
	atomic_fetch_add(&board->wrong_bytes, findings.wrong_bytes);
	atomic_fetch_add(&board->foreign_bytes, findings.foreign_bytes);
	atomic_fetch_add(&board->zero_pages, findings.zeros);
	atomic_fetch_add(&board->stale_pages, findings.stale);
	fprintf(stderr,
		"secpool-torture: client %u.%u: region %" PRIx64 " block %" PRIu64
		" generation %u, by %s: %" PRIu64 " wrong bytes, %" PRIu64
		" foreign%s%s, from line %u on; a line of region %" PRIx64 " block %" PRIu64
		" generation %" PRIu64 "\n",
		client->number, client->incarnation, expected->region, expected->block,
		expected->generation, how, findings.wrong_bytes, findings.foreign_bytes,
		findings.zeros ? ", zeros" : "", findings.stale ? ", stale" : "",
		findings.first_line, findings.from_region, findings.from_block,
		findings.from_generation);
}

void region_check(
	struct client *client, struct slot *slot, size_t block, const void *bytes, const char *how)
{
	struct pattern_block expected = region_expected(slot, block);
	char text[96];

	if (slot->blocks[block].state == BLOCK_UNKNOWN)
		return;
	snprintf(text, sizeof text, "%s (%s)", how, slot->kind->name);
	region_check_bytes(client, &expected, bytes, text);
}

/* ---- losses ---- */

static bool event_told(const struct client *client, uintptr_t address, enum secpool_cause *cause)
{
	unsigned count = atomic_load_explicit(&client->loss_count, memory_order_acquire);

	for (unsigned i = count; i-- > 0;) {
		if (address < client->losses[i].start || address >= client->losses[i].end)
			continue;
		*cause = client->losses[i].cause;
		return true;
	}
	return false;
}

bool region_told_lost(struct client *client, uintptr_t address, enum secpool_cause *ret_cause)
{
	uint64_t until = clock_now_ns() + TOLD_NS;

	*ret_cause = SECPOOL_CAUSE_NONE;
	while (!event_told(client, address, ret_cause)) {
		if (atomic_load(&client->overflow))
			return true;
		if (clock_now_ns() > until)
			return false;
		clock_sleep_ns(CLOCK_NS_PER_MS);
	}
	return true;
}

/* Whether secpool_region_lost names the address. */
static bool listed(struct slot *slot, size_t offset)
{
	size_t count = 0, most = slot->kind->bytes / slot->kind->page_bytes;
	struct secpool_range *ranges = calloc(most, sizeof *ranges);
	bool found = false;

	if (!ranges)
		abort();
	if (secpool_region_lost(slot->region, ranges, most, &count) == SECPOOL_OK)
		for (size_t i = 0; i < count && i < most; i++)
			found = found || (offset >= ranges[i].offset &&
						 offset - ranges[i].offset < ranges[i].bytes);
	free(ranges);
	return found;
}

static bool is_covered(const struct client *client, const struct slot *slot)
{
	return !slot->born_exceeded &&
	       atomic_load(&client->board->exceeded[slot->kind->tolerance]) ==
		       slot->exceeded_before;
}

void region_mourn(struct client *client, struct slot *slot, size_t block, const char *how)
{
	struct block *model = &slot->blocks[block];
	size_t offset = block * PATTERN_BLOCK_BYTES;
	struct board *board = client->board;
	enum secpool_cause cause;
	bool told;

	if (model->state == BLOCK_LOST)
		return; /* known already */
	told = region_told_lost(client, (uintptr_t)slot->memory + offset, &cause);
	if (told && cause == SECPOOL_CAUSE_NO_SPACE && !listed(slot, offset)) {
		atomic_fetch_add(&board->barred_blocks, 1);
		return; /* there is no room for it now: it may be touched again, and is checked then */
	}
	told = told && listed(slot, offset);
	atomic_fetch_add(&board->lost_blocks, 1);
	atomic_fetch_add(&board->unreported_losses, !told);
	atomic_fetch_add(&board->uncovered_losses, is_covered(client, slot));
	if (!told || is_covered(client, slot))
		fprintf(stderr,
			"secpool-torture: client %u.%u: region %" PRIx64
			" (%s) block %zu (page %zu) is lost, by %s, %s, cause %d; wounded %#x, out "
			"%#x%s\n",
			client->number, client->incarnation, slot->uid, slot->kind->name, block,
			offset / slot->kind->page_bytes, how, told ? "told" : "NOT TOLD",
			(int)cause, atomic_load(&board->wounded), atomic_load(&board->out),
			is_covered(client, slot) ? ": MORE THAN THE FAULTS EXPLAIN" : "");
	model->state = told ? BLOCK_LOST : BLOCK_UNKNOWN;
}

void region_strange(
	struct client *client, const struct slot *slot, const char *call, enum secpool_error error)
{
	atomic_fetch_add(&client->board->other_errors, 1);
	fprintf(stderr, "secpool-torture: client %u.%u: region %" PRIx64 " (%s): %s gave %s: %s\n",
		client->number, client->incarnation, slot ? slot->uid : 0,
		slot ? slot->kind->name : "-", call, err_name(error), secpool_error_detail());
}
