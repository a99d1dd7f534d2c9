/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/torture/work.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "tests/torture/region.h"
#include "tests/torture/touch.h"

enum { SPAN_BLOCKS = 24, SCAN_BLOCKS = 128, PIN_BLOCKS = 8 };

/* What an operation gets: numbers that follow from the seed. */
struct task {
	struct client *client;
	struct slot *slot;
	size_t block;
	uint64_t dice;
};

static uint8_t *at(const struct task *task, size_t block)
{
	return task->slot->memory + block * PATTERN_BLOCK_BYTES;
}

static void skip(const struct task *task)
{
	atomic_fetch_add_explicit(&task->client->board->skipped, 1, memory_order_relaxed);
	clock_sleep_ns(20000);
}

/* ---- one block, by loads and stores ---- */

static void load_block(const struct task *task, size_t block, const char *how)
{
	uint64_t buffer[PATTERN_BLOCK_BYTES / sizeof(uint64_t)];
	const void *bus;

	if (touch_copy(buffer, at(task, block), sizeof buffer, &bus))
		region_check(task->client, task->slot, block, buffer, how);
	else
		region_mourn(task->client, task->slot, block, how);
}

/* A part of it may have been stored. */
static void store_failed(const struct task *task, size_t block, const char *how)
{
	struct block *model = &task->slot->blocks[block];

	region_mourn(task->client, task->slot, block, how);
	if (model->state == BLOCK_KNOWN)
		model->state = BLOCK_UNKNOWN;
}

static void new_generation(struct block *model, uint32_t generation)
{
	model->generation = generation;
	model->line = PATTERN_NO_LINE;
	model->state = BLOCK_KNOWN;
}

static uint32_t next_generation(const struct block *model)
{
	return (model->generation > model->line_generation ? model->generation
							   : model->line_generation) +
	       1;
}

/* A write that ended in SIGBUS in the middle changed nothing that can be read again: the page is lost. */
static void store_block(const struct task *task)
{
	struct block *model = &task->slot->blocks[task->block];
	struct pattern_block expected = region_expected(task->slot, task->block);
	uint64_t buffer[PATTERN_BLOCK_BYTES / sizeof(uint64_t)];
	const void *bus;

	if (model->state == BLOCK_LOST)
		return; /* it is only read from then on: it must stay lost */
	expected.generation = next_generation(model);
	expected.line = PATTERN_NO_LINE;
	pattern_make(&expected, buffer);
	if (!touch_copy(at(task, task->block), buffer, sizeof buffer, &bus)) {
		store_failed(task, task->block, "store");
		return;
	}
	new_generation(model, expected.generation);
}

static bool line_bytes(const struct task *task, struct pattern_block *expected, uint64_t *line)
{
	const struct block *model = &task->slot->blocks[task->block];

	*expected = region_expected(task->slot, task->block);
	if (model->state != BLOCK_KNOWN)
		return false;
	if (expected->line == PATTERN_NO_LINE)
		expected->line = (uint8_t)(task->dice >> 50) % PATTERN_LINES;
	expected->line_generation = next_generation(model);
	pattern_make_line(expected, expected->line, line);
	return true;
}

static void note_line(struct block *model, const struct pattern_block *expected)
{
	model->line = expected->line;
	model->line_generation = expected->line_generation;
}

static void store_line(const struct task *task)
{
	uint64_t line[PATTERN_LINE_BYTES / sizeof(uint64_t)];
	struct pattern_block expected;
	const void *bus;

	if (!line_bytes(task, &expected, line))
		return;
	if (touch_copy(at(task, task->block) + expected.line * PATTERN_LINE_BYTES, line,
		    sizeof line, &bus))
		note_line(&task->slot->blocks[task->block], &expected);
	else
		store_failed(task, task->block, "store of a line");
}

static void read_block(const struct task *task)
{
	load_block(task, task->block, "load");
}

/* Read twice: it does not change under us. */
static void read_twice(const struct task *task)
{
	load_block(task, task->block, "load");
	load_block(task, task->block, "second load");
}

/* ---- by calls ---- */

static size_t offset_of(size_t block)
{
	return block * PATTERN_BLOCK_BYTES;
}

static void call_failed(const struct task *task, size_t first, size_t count, const char *call,
	enum secpool_error error)
{
	bool writes = strcmp(call, "secpool_write") == 0;

	if (error == SECPOOL_E_NO_SPACE) {
		atomic_fetch_add(&task->client->board->barred_blocks, 1);
		for (size_t i = first; i < first + count && writes; i++)
			if (task->slot->blocks[i].state == BLOCK_KNOWN)
				task->slot->blocks[i].state = BLOCK_UNKNOWN;
		return;
	}
	if (error != SECPOOL_E_LOST) {
		region_strange(task->client, task->slot, call, error);
		return;
	}
	/* which of them it was is found by asking one by one; a write may have changed some */
	for (size_t i = first; i < first + count; i++) {
		uint8_t buffer[PATTERN_BLOCK_BYTES];
		struct block *model = &task->slot->blocks[i];
		enum secpool_error again =
			secpool_read(task->slot->region, offset_of(i), buffer, sizeof buffer);
		if (again == SECPOOL_E_LOST)
			region_mourn(task->client, task->slot, i, call);
		else if (again && again != SECPOOL_E_NO_SPACE)
			region_strange(task->client, task->slot, "secpool_read", again);
		else if (writes)
			model->state = BLOCK_UNKNOWN;
		else if (!writes && model->state == BLOCK_KNOWN)
			region_check(task->client, task->slot, i, buffer, "secpool_read alone");
	}
}

static void call_read(const struct task *task, size_t count)
{
	static _Thread_local uint8_t buffer[SPAN_BLOCKS * PATTERN_BLOCK_BYTES];
	enum secpool_error error = secpool_read(
		task->slot->region, offset_of(task->block), buffer, count * PATTERN_BLOCK_BYTES);

	if (error) {
		call_failed(task, task->block, count, "secpool_read", error);
		return;
	}
	for (size_t i = 0; i < count; i++)
		region_check(task->client, task->slot, task->block + i,
			buffer + i * PATTERN_BLOCK_BYTES, "secpool_read");
}

static void call_write(const struct task *task, size_t count)
{
	static _Thread_local uint8_t buffer[SPAN_BLOCKS * PATTERN_BLOCK_BYTES];
	enum secpool_error error;

	for (size_t i = 0; i < count; i++) {
		struct pattern_block expected = region_expected(task->slot, task->block + i);
		expected.generation = next_generation(&task->slot->blocks[task->block + i]);
		expected.line = PATTERN_NO_LINE;
		pattern_make(&expected, buffer + i * PATTERN_BLOCK_BYTES);
	}
	error = secpool_write(
		task->slot->region, offset_of(task->block), buffer, count * PATTERN_BLOCK_BYTES);
	if (error) {
		call_failed(task, task->block, count, "secpool_write", error);
		return;
	}
	/* what was lost is whole again */
	for (size_t i = 0; i < count; i++) {
		struct block *model = &task->slot->blocks[task->block + i];
		new_generation(model, next_generation(model));
	}
}

static void call_read_block(const struct task *task)
{
	call_read(task, 1);
}

static void call_write_block(const struct task *task)
{
	/* a part of a lost page can't be written */
	if (task->slot->blocks[task->block].state != BLOCK_LOST ||
		task->slot->kind->page_bytes <= PATTERN_BLOCK_BYTES)
		call_write(task, 1);
}

static void call_write_line(const struct task *task)
{
	uint64_t line[PATTERN_LINE_BYTES / sizeof(uint64_t)];
	struct pattern_block expected;
	enum secpool_error error;

	if (!line_bytes(task, &expected, line))
		return;
	error = secpool_write(task->slot->region,
		offset_of(task->block) + expected.line * (size_t)PATTERN_LINE_BYTES, line,
		sizeof line);
	if (error)
		call_failed(task, task->block, 1, "secpool_write", error);
	else
		note_line(&task->slot->blocks[task->block], &expected);
}

/* How many blocks from the task's on, at most `most`, could be taken besides; they are held afterwards. */
static size_t hold_more(const struct task *task, size_t most)
{
	size_t count = 1;

	while (count < most && task->block + count < task->slot->block_count &&
		region_hold(task->slot, task->block + count))
		count++;
	return count;
}

static void let_go_more(const struct task *task, size_t count)
{
	for (size_t i = 1; i < count; i++)
		region_let_go(task->slot, task->block + i);
}

static void call_read_span(const struct task *task)
{
	size_t count = hold_more(task, 2 + task->dice % (SPAN_BLOCKS - 1));

	call_read(task, count);
	let_go_more(task, count);
}

static void call_write_span(const struct task *task)
{
	size_t count = hold_more(task, 2 + task->dice % (SPAN_BLOCKS - 1));

	call_write(task, count);
	let_go_more(task, count);
}

/* Loads in order: read-ahead's streams. */
static void scan(const struct task *task)
{
	for (size_t i = 1; i < SCAN_BLOCKS && task->block + i < task->slot->block_count; i++) {
		if (!region_hold(task->slot, task->block + i))
			continue;
		load_block(task, task->block + i, "load of a scan");
		region_let_go(task->slot, task->block + i);
	}
}

/* The kernel writes into pinned pages and reads from them, by a file in memory. */
static void by_kernel(const struct task *task, size_t count)
{
	int file = memfd_create("torture", MFD_CLOEXEC);
	uint8_t buffer[PATTERN_BLOCK_BYTES];

	if (file < 0)
		abort();
	for (size_t i = 0; i < count; i++) {
		struct block *model = &task->slot->blocks[task->block + i];
		struct pattern_block expected = region_expected(task->slot, task->block + i);
		if (pwrite(file, at(task, task->block + i), sizeof buffer, 0) != sizeof buffer ||
			pread(file, buffer, sizeof buffer, 0) != sizeof buffer) {
			region_mourn(task->client, task->slot, task->block + i,
				"write(2) of a pinned page");
			continue;
		}
		region_check(
			task->client, task->slot, task->block + i, buffer, "write(2) of a pin");
		expected.generation = next_generation(model);
		expected.line = PATTERN_NO_LINE;
		pattern_make(&expected, buffer);
		if (pwrite(file, buffer, sizeof buffer, 0) != sizeof buffer ||
			pread(file, at(task, task->block + i), sizeof buffer, 0) != sizeof buffer)
			store_failed(task, task->block + i, "read(2) into a pinned page");
		else if (model->state != BLOCK_LOST)
			new_generation(model, expected.generation);
	}
	close(file);
}

static void pin(const struct task *task)
{
	size_t count = hold_more(task, 1 + task->dice % PIN_BLOCKS);
	size_t bytes = count * PATTERN_BLOCK_BYTES;
	enum secpool_error error = secpool_pin(task->slot->region, offset_of(task->block), bytes);

	if (!error) {
		by_kernel(task, count);
		error = secpool_unpin(task->slot->region, offset_of(task->block), bytes);
		if (error)
			region_strange(task->client, task->slot, "secpool_unpin", error);
	} else if (error == SECPOOL_E_LOST) {
		/* a page of it is lost: the loads say which */
		for (size_t i = 0; i < count; i++)
			load_block(task, task->block + i, "load after secpool_pin");
	} else if (error != SECPOOL_E_LIMIT && error != SECPOOL_E_NO_SPACE) {
		region_strange(task->client, task->slot, "secpool_pin", error);
	}
	let_go_more(task, count);
}

static void prefetch(const struct task *task)
{
	size_t count = 1 + task->dice % 256;
	enum secpool_error error;

	if (count > task->slot->block_count - task->block)
		count = task->slot->block_count - task->block;
	error = secpool_prefetch(
		task->slot->region, offset_of(task->block), count * PATTERN_BLOCK_BYTES);
	if (error && error != SECPOOL_E_NO_SPACE)
		region_strange(task->client, task->slot, "secpool_prefetch", error);
}

static void flush(const struct task *task)
{
	enum secpool_error error = secpool_flush(task->slot->region);

	if (error && error != SECPOOL_E_NO_SPACE && error != SECPOOL_E_LOST)
		region_strange(task->client, task->slot, "secpool_flush", error);
}

static void heap(const struct task *task)
{
	heap_model_work(task->client, task->dice);
}

/* ---- choosing ---- */

/* Out of 10000. A whole region is released and made anew by the last one, alone. */
static const struct {
	const char *name;
	unsigned weight;
	bool holds; /* the block first */
	void (*run)(const struct task *task);
} table[] = {
	{"load", 2600, true, read_block},
	{"load twice", 500, true, read_twice},
	{"store", 2000, true, store_block},
	{"store of a line", 1700, true, store_line},
	{"secpool_read", 900, true, call_read_block},
	{"secpool_write", 700, true, call_write_block},
	{"secpool_write of a line", 300, true, call_write_line},
	{"secpool_read of a span", 250, true, call_read_span},
	{"secpool_write of a span", 250, true, call_write_span},
	{"scan", 60, true, scan},
	{"pin", 100, true, pin},
	{"prefetch", 40, false, prefetch},
	{"flush", 15, false, flush},
	{"heap", 583, false, heap},
	{"release and create", 2, false, NULL},
};
enum { OPERATIONS = sizeof table / sizeof *table, WEIGHTS = 10000 };
_Static_assert((int)OPERATIONS <= (int)BOARD_OPERATIONS, "the board has a place for each");

const char *work_name(uint32_t operation)
{
	static const char *const names[] = {
		"open", "settle", "heal", "verify", "close", "recreate"};

	if (operation < OPERATIONS)
		return table[operation].name;
	return operation >= WORK_OPEN && operation - WORK_OPEN < sizeof names / sizeof *names
		       ? names[operation - WORK_OPEN]
		       : NULL;
}

static uint32_t choose(uint64_t dice)
{
	unsigned left = (unsigned)(dice % WEIGHTS);
	uint32_t operation = 0;

	while (operation < OPERATIONS - 1 && left >= table[operation].weight)
		left -= table[operation++].weight;
	return operation;
}

/* Takes the slot alone; nobody waits for that. */
static void release_and_create(const struct task *task)
{
	struct slot *slot = task->slot;

	if (pthread_rwlock_trywrlock(&slot->lock) != 0) {
		skip(task);
		return;
	}
	if (slot->region)
		region_release(task->client, slot);
	(void)region_make(task->client, slot);
	pthread_rwlock_unlock(&slot->lock);
}

/* With the slot's lock held: its region does not go. */
static void in_region(const struct task *task, uint32_t operation)
{
	if (!table[operation].holds) {
		table[operation].run(task);
	} else if (region_hold(task->slot, task->block)) {
		table[operation].run(task);
		region_let_go(task->slot, task->block);
	} else {
		skip(task);
	}
}

static void work_once(struct client *client, uint64_t dice, uint64_t more, uint32_t operation)
{
	struct task task = {.client = client, .dice = more};

	task.slot = &client->slots[(dice >> 32) % CLIENT_SLOTS];
	if (!table[operation].run) {
		release_and_create(&task);
		return;
	}
	if (pthread_rwlock_tryrdlock(&task.slot->lock) != 0) {
		skip(&task);
		return;
	}
	if (task.slot->region) {
		/* half of the accesses go to an eighth of the region: pages that stay and pages that come and go */
		size_t count = task.slot->block_count >> (dice >> 63 ? 3 : 0);
		task.block = (size_t)((dice >> 16) ^ more) % count;
		in_region(&task, operation);
		pthread_rwlock_unlock(&task.slot->lock);
		return;
	}
	pthread_rwlock_unlock(&task.slot->lock);
	if (pthread_rwlock_trywrlock(&task.slot->lock) == 0) {
		if (!task.slot->region)
			(void)region_make(client, task.slot);
		pthread_rwlock_unlock(&task.slot->lock);
	}
	skip(&task);
}

void *work_main(void *arg)
{
	struct worker_thread *self = arg;
	struct client *client = self->client;
	uint64_t life = client->number * 1000003ull + client->incarnation, begun;
	uint64_t seed = pattern_hash(pattern_hash(client->seed, life), self->number);

	for (uint64_t i = 0; !atomic_load_explicit(&client->board->stop, memory_order_relaxed);
		i++) {
		uint64_t dice = pattern_hash(seed, 2 * i), more = pattern_hash(seed, 2 * i + 1);
		uint32_t operation = choose(dice);

		begun = clock_now_ns();
		board_begin(self->seat, operation, begun);
		work_once(client, dice, more, operation);
		board_end(self->seat);
		board_time(client->board, operation, clock_now_ns() - begun);
		atomic_fetch_add_explicit(&client->board->operations, 1, memory_order_relaxed);
	}
	return NULL;
}

/* ---- the main thread's ---- */

/* Calls `each` for every block of every region, each held. */
static void for_all_blocks(struct client *client, void (*each)(const struct task *task))
{
	for (unsigned i = 0; i < CLIENT_SLOTS; i++) {
		struct task task = {.client = client, .slot = &client->slots[i]};
		pthread_rwlock_rdlock(&task.slot->lock);
		for (task.block = 0; task.slot->region && task.block < task.slot->block_count;
			task.block++) {
			/* its holder is at work: it lets go */
			while (!region_hold(task.slot, task.block))
				clock_sleep_ns(20000);
			each(&task);
			region_let_go(task.slot, task.block);
		}
		pthread_rwlock_unlock(&task.slot->lock);
	}
}

/*
 * One line makes the whole page dirty: it is written to all of its places again. Needed where the library's check of a region does not look: at the copies of resident pages of a mirror. A
 * stripe it checks whole; without redundancy nothing heals.
 */
static void heal_block(const struct task *task)
{
	const struct region_kind *kind = task->slot->kind;

	if (kind->redundancy != SECPOOL_REDUNDANCY_MIRROR)
		return;
	if (task->slot->blocks[task->block].state == BLOCK_UNKNOWN)
		store_block(task);
	else if (task->block % (kind->page_bytes / PATTERN_BLOCK_BYTES) == 0)
		store_line(task);
	if (task->block + 1 == task->slot->block_count)
		flush(task);
}

void work_heal(struct client *client)
{
	for_all_blocks(client, heal_block);
}

void work_verify(struct client *client)
{
	for_all_blocks(client, read_block);
}

/* A mirrored one, when nobody is at work on it. */
void work_recreate(struct client *client)
{
	struct slot *slot = &client->slots[1];

	pthread_rwlock_wrlock(&slot->lock);
	if (slot->region)
		region_release(client, slot);
	atomic_store(&slot->tried_ns, 0);
	(void)region_make(client, slot);
	pthread_rwlock_unlock(&slot->lock);
}
